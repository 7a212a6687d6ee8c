"""containerd's side: loading images, and ending every container with its mounts and cgroups."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from . import oci, tools
from .settings import COREDNS_IMAGE, PAUSE_IMAGE, Settings
from .shell import ClusterError, run, succeeds, wait_for

_CGROUPS = Path("/sys/fs/cgroup")
# The hierarchies of version 1 that kubelet wants to find its root in.
_HIERARCHIES = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd")


def ctr(settings: Settings, *arguments: str, timeout: float = 600) -> str:
    """Containerd's own client, on the cluster's containerd and in kubelet's namespace."""
    return run([*_client(settings), *arguments], timeout=timeout)


def ready(settings: Settings) -> bool:
    return settings.containerd_socket.exists() and succeeds([*_client(settings), "version"], timeout=5)


def load_node_images(settings: Settings) -> None:
    """The two images the node itself needs; both are one static program."""
    present = images(settings)
    for reference, program in ((PAUSE_IMAGE, "pause"), (COREDNS_IMAGE, "coredns")):
        if reference in present:
            continue
        with tempfile.TemporaryDirectory() as directory:
            archive = Path(directory) / "image.tar"
            oci.write_static_image(archive, reference, settings.bin / program)
            ctr(settings, "images", "import", str(archive))


def images(settings: Settings) -> dict[str, str]:
    """The digest of every image that containerd has, by name."""
    listing = ctr(settings, "images", "ls")
    return dict(re.findall(r"^(\S+)\s+application/\S+\s+(sha256:[0-9a-f]{64})\s", listing, re.M))


def forget_replaced(settings: Settings) -> None:
    """Remove the images that a newer one of the same name replaced, so that their layers are freed.

    containerd keeps them under the digest they were used by, and kubelet, which would collect them, is told not to.
    """
    present = images(settings)
    current = {digest for name, digest in present.items() if not name.startswith("sha256:")}
    if replaced := [name for name, digest in present.items() if digest not in current]:
        ctr(settings, "images", "rm", "--sync", *replaced)


def blobs(settings: Settings) -> frozenset[str]:
    return frozenset(ctr(settings, "content", "ls", "-q").split())


def require_cgroups() -> None:
    """Before anything is built: the hierarchies must be there."""
    if missing := [name for name in _HIERARCHIES if not (_CGROUPS / name).is_dir()]:
        mend = "boot with systemd.unified_cgroup_hierarchy=0, or point KUBECONFIG at another cluster"
        raise ClusterError(f"{_CGROUPS / missing[0]} is not mounted: this cluster needs cgroups of version 1 (or hybrid); {mend}")


def prepare_cgroups(settings: Settings) -> None:
    """The cluster's own cgroup, in every hierarchy as it is mounted."""
    for hierarchy in _HIERARCHIES:
        (_CGROUPS / hierarchy / settings.cgroup).mkdir(exist_ok=True)
    # A new cpuset is empty, and nothing can run in an empty one.
    for name in ("cpuset.mems", "cpuset.cpus"):
        parent = _CGROUPS / "cpuset"
        (parent / settings.cgroup / name).write_text((parent / name).read_text())


def remove_containers(settings: Settings) -> None:
    """Kill every pod's processes and forget their containers; images stay."""
    _kill_pods(settings)
    if not ready(settings):
        return
    for task in ctr(settings, "tasks", "ls", "-q").split():
        with contextlib.suppress(ClusterError):  # it may end by itself in between
            ctr(settings, "tasks", "delete", "--force", task)
    for container in ctr(settings, "containers", "ls", "-q").split():
        with contextlib.suppress(ClusterError):
            ctr(settings, "containers", "delete", container)


def remove_remains(settings: Settings) -> None:
    """After containerd has ended: shims, mounts, network namespaces and cgroups of this cluster."""
    _kill_pods(settings)
    for pid in shims(settings):
        _kill(pid)
    wait_for("shims are still there", lambda: not shims(settings), 10, "see `ps`; a container's process does not die")
    for mount in reversed(mounts(settings)):
        run(["umount", "--lazy", mount])
    for root in _CGROUPS.glob(f"*/{settings.cgroup}"):
        for directory, _, _ in os.walk(root, topdown=False):
            Path(directory).rmdir()


def leftovers(settings: Settings) -> list[str]:
    """What should be gone after `remove_remains`."""
    found = [f"shim {pid}" for pid in shims(settings)] + [f"mount {mount}" for mount in mounts(settings)]
    return found + [f"cgroup {directory}" for directory in _CGROUPS.glob(f"*/{settings.cgroup}")]


def shims(settings: Settings) -> list[int]:
    """Shims outlive containerd on purpose; ours carry our socket in their command line."""
    address = str(settings.containerd_socket).encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"containerd-shim" in words[0] and address in words:
                found.append(int(entry.name))
    return found


def mounts(settings: Settings) -> list[str]:
    """Mount points under the state directory, outer ones first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    points = [line.split()[1].encode().decode("unicode_escape") for line in lines]
    return sorted(point for point in points if point.startswith(f"{settings.state}/"))


def load(settings: Settings, layout: Path, reference: str) -> int:
    """Bring an image of a layout directory into the cluster, sending only what containerd lacks; returns the bytes sent."""
    present = blobs(settings)
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen([*_client(settings), "images", "import", "-"], stdin=subprocess.PIPE, stdout=messages, stderr=messages)
        with process.stdin or io.BytesIO() as pipe, tarfile.open(fileobj=pipe, mode="w|") as stream:
            sent = oci.write_missing(stream, layout, reference, present)
        if process.wait() != 0:
            messages.seek(0)
            raise ClusterError(f"containerd refused {reference}:\n{messages.read().decode(errors='replace')}")
    return sent


def _client(settings: Settings) -> list[str]:
    return [str(tools.system("ctr")), "--address", str(settings.containerd_socket), "--namespace", "k8s.io"]


def _kill_pods(settings: Settings) -> None:
    """Again until none is left: a process may fork while the list is read, and takes a moment to die."""
    deadline = time.monotonic() + 15
    while (pids := list(_pod_processes(settings))) and time.monotonic() < deadline:
        for pid in pids:
            _kill(pid)
        time.sleep(0.05)


def _pod_processes(settings: Settings) -> Iterator[int]:
    for directory, _, _ in os.walk(_CGROUPS / "pids" / settings.cgroup):
        with contextlib.suppress(OSError):  # it may be removed in between
            yield from map(int, Path(directory, "cgroup.procs").read_text().split())


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
