"""Up and down: the order in which the parts start, and the order in which every trace of them goes."""

from __future__ import annotations

import os
import shutil

from . import addons, build, controlplane, daemons, hostfiles, network, node, packages, pki, runtime, tools
from .progress import Progress
from .settings import DEFAULT_STATE, NODE_NAME, Settings
from .shell import ClusterError, succeeds, wait_for

_STOP_ORDER = (
    "kube-proxy",
    "kubelet",
    "kube-scheduler",
    "kube-controller-manager",
    "kube-apiserver",
    "etcd",
)


def up(settings: Settings) -> None:
    """Start what does not run yet; a second call takes seconds and restarts nothing."""
    if os.geteuid() != 0:
        raise ClusterError("the cluster needs root (network namespaces, cgroups, mounts)")
    _require_own(settings)
    runtime.require_cgroups()
    progress = Progress(total=len(tools.TOOLS) + 7)
    with progress.step("Debian packages"):
        packages.install(packages.NEEDED)
    tools.prepare(settings, progress)
    settings.state.mkdir(parents=True, exist_ok=True)
    settings.marker.touch()
    with progress.step("certificates, configuration, network"):
        pki.prepare(settings)
        node.configure(settings)
        runtime.prepare_cgroups(settings)
        network.prepare(settings)
    with progress.step("control plane"):
        _start_control_plane(settings)
    with progress.step("containerd and the node's images"):
        daemons.start(settings, node.containerd(settings))
        wait_for("containerd does not answer", lambda: _alive_and(settings, "containerd", runtime.ready(settings)), 30, _logs(settings))
        runtime.load_node_images(settings)
    with progress.step("kubelet, kube-proxy, node ready"):
        daemons.start(settings, node.kubelet(settings))
        daemons.start(settings, node.kube_proxy(settings))
        wait_for("the node does not become Ready", lambda: _node_ready(settings), 90, _logs(settings))
    with progress.step("DNS and the shared volume"):
        addons.apply(settings)
        addons.kubectl(settings, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")
    progress.close()


def down(settings: Settings, purge: bool) -> None:
    """Stop everything and remove every trace; images stay for the next `up` unless purged."""
    _require_own(settings)
    daemons.stop(settings, _STOP_ORDER)
    runtime.remove_containers(settings)
    daemons.stop(settings, ["containerd"])
    runtime.remove_remains(settings)
    network.remove(settings)
    hostfiles.remove(settings)
    build.forget_builds()
    if settings.state.exists():
        for entry in settings.state.iterdir():
            if entry not in (settings.containerd_root, settings.marker) or purge:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    found = leftovers(settings)
    if found:
        raise ClusterError("these are left behind:\n" + "\n".join(found))


def _require_own(settings: Settings) -> None:
    """Refuse a directory that somebody else has put something into: `down` would remove it."""
    state = settings.state
    if state != DEFAULT_STATE and state.exists() and any(state.iterdir()) and not settings.marker.exists():
        raise ClusterError(f"{state} holds files that are not this cluster's; point FLYWHEEL_CLUSTER_DIR at an empty or new directory")


def leftovers(settings: Settings) -> list[str]:
    """What a stopped cluster may not have: processes, mounts, cgroups, links, chains."""
    names = [*_STOP_ORDER, "containerd"]
    found = [f"process {name}" for name in names if daemons.running(settings, name)]
    return found + runtime.leftovers(settings) + network.leftovers()


def status(settings: Settings) -> dict[str, bool]:
    """Which of the processes run."""
    return {name: daemons.running(settings, name) for name in (*reversed(_STOP_ORDER), "containerd")}


def _start_control_plane(settings: Settings) -> None:
    etcd, apiserver, *others = controlplane.daemons(settings)
    daemons.start(settings, etcd)
    daemons.start(settings, apiserver)
    wait_for(
        "the API server does not become ready",
        lambda: _alive_and(settings, "etcd", True) and _alive_and(settings, "kube-apiserver", _api_ready(settings)),
        90,
        _logs(settings),
    )
    for daemon in others:
        daemons.start(settings, daemon)


def _alive_and(settings: Settings, name: str, condition: bool) -> bool:
    daemons.require_running(settings, name)
    return condition


def _api_ready(settings: Settings) -> bool:
    return succeeds([settings.bin / "kubectl", "--kubeconfig", settings.kubeconfig, "get", "--raw=/readyz"], timeout=5)


def _node_ready(settings: Settings) -> bool:
    for name in ("kubelet", "kube-proxy"):
        daemons.require_running(settings, name)
    query = ["wait", "--for=condition=Ready", f"node/{NODE_NAME}", "--timeout=1s"]
    return succeeds([settings.bin / "kubectl", "--kubeconfig", settings.kubeconfig, *query])


def _logs(settings: Settings) -> str:
    return f"the logs are in {settings.logs}"
