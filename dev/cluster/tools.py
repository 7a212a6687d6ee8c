"""Kubernetes, Helm and CoreDNS, built from the Go module proxy and kept by the hash of what they were built from."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .progress import Progress
from .settings import REPOSITORY, Settings
from .shell import ClusterError, find, run

MODULES = REPOSITORY / "dev" / "tools"
GO_VERSION = (1, 24)


@dataclass(frozen=True)
class Tool:
    """One program: the module that pins it, its package, how it tells its version and what that must say."""

    name: str
    module: str
    package: str
    version_arguments: tuple[str, ...]
    version_pattern: str


def _kubernetes(name: str, *arguments: str) -> Tool:
    return Tool(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", arguments or ("--version",), r"\bv1\.34\.")


TOOLS = (
    _kubernetes("kube-apiserver"),
    _kubernetes("kubelet"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kube-proxy"),
    _kubernetes("kubectl", "version", "--client"),
    Tool("helm", "helm", "helm.sh/helm/v3/cmd/helm", ("version", "--short"), r"^v3\."),
    Tool("coredns", "coredns", "github.com/coredns/coredns", ("-version",), r"CoreDNS-1\."),
)


def prepare(settings: Settings, progress: Progress) -> None:
    """Every tool in `settings.bin`, from the machine if it has the right version, else from the cache, else built."""
    settings.bin.mkdir(parents=True, exist_ok=True)
    for tool in TOOLS:
        with progress.step(f"{tool.name} {pinned_version(tool.module)}"):
            _link(settings.bin / tool.name, _on_machine(settings, tool) or _built(settings, tool))
    with progress.step("pause"):
        _link(settings.bin / "pause", _pause(settings))


def pinned_version(module: str) -> str:
    """The version of the tool's main module, as its go.mod requires it."""
    found = re.search(
        r"(?:k8s\.io/kubernetes|helm\.sh/helm/v3|github\.com/coredns/coredns) (v\S+)",
        (MODULES / module / "go.mod").read_text(),
    )
    if found is None:
        raise ClusterError(f"dev/tools/{module}/go.mod requires none of the known tools")
    return found.group(1)


def _on_machine(settings: Settings, tool: Tool) -> Path | None:
    for directory in _search_path():
        candidate = Path(directory) / tool.name
        if candidate.parent == settings.bin or not candidate.is_file() or not os.access(candidate, os.X_OK):
            continue
        with contextlib.suppress(ClusterError):  # something else of this name
            if re.search(tool.version_pattern, run([candidate, *tool.version_arguments], timeout=30)):
                return candidate
    return None


def _search_path() -> Iterator[str]:
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        yield assets
    yield from filter(None, os.environ.get("PATH", "").split(":"))


def _built(settings: Settings, tool: Tool) -> Path:
    target = settings.cache / "tools" / f"{tool.module}-{_key(tool.module)}" / tool.name
    if not target.exists():
        unfinished = target.with_suffix(".part")
        run(
            ["go", "build", "-trimpath", "-ldflags", _ldflags(tool.module), "-o", unfinished, tool.package],
            env=_go_environment(settings),
            cwd=MODULES / tool.module,
            timeout=3600,
        )
        unfinished.rename(target)
    return target


def _key(module: str) -> str:
    digest = hashlib.sha256(_ldflags(module).encode())
    for name in ("go.mod", "go.sum"):
        digest.update((MODULES / module / name).read_bytes())
    return digest.hexdigest()[:12]


def _ldflags(module: str) -> str:
    """Stamped versions: without them Helm's kubeVersion checks and `kubectl version` see v0.0.0."""
    version = pinned_version(module)
    stamps: list[str] = []
    if module == "kubernetes":
        major, minor, _ = version[1:].split(".")
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
            stamps += [f"{package}.gitVersion={version}", f"{package}.gitMajor={major}"]
            stamps += [f"{package}.gitMinor={minor}", f"{package}.gitTreeState=clean"]
    if module == "helm":
        stamps.append(f"helm.sh/helm/v3/internal/version.version={version}")
        for package in ("helm.sh/helm/v3/pkg/lint/rules", "helm.sh/helm/v3/pkg/chartutil"):
            stamps += [f"{package}.k8sVersionMajor=1", f"{package}.k8sVersionMinor=34"]
    return " ".join(["-s -w", *(f"-X {stamp}" for stamp in stamps)])


def _go_environment(settings: Settings) -> dict[str, str]:
    found = re.search(r"go(\d+)\.(\d+)", run(["go", "version"])) if shutil.which("go") else None
    if found is None or (int(found[1]), int(found[2])) < GO_VERSION:
        version = ".".join(map(str, GO_VERSION))
        raise ClusterError(f"Go {version} or newer is not on PATH; install it, or put Kubernetes 1.34, Helm 3 and CoreDNS 1 on PATH")
    # One build cache for all three modules: they share most of k8s.io/*.
    return {"CGO_ENABLED": "0", "GOCACHE": str(settings.cache / "go-build"), "GOWORK": "off"}


def _pause(settings: Settings) -> Path:
    """Kubernetes' own pause program: its C source comes inside the module."""
    target = settings.cache / "tools" / f"kubernetes-{_key('kubernetes')}" / "pause"
    if not target.exists():
        source = run(
            ["go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"],
            env=_go_environment(settings),
            cwd=MODULES / "kubernetes",
        ).strip()
        target.parent.mkdir(parents=True, exist_ok=True)
        version = f"-DVERSION={pinned_version('kubernetes')}"
        unfinished = target.with_suffix(".part")
        run(["gcc", "-Os", "-static", version, "-o", unfinished, Path(source) / "build/pause/linux/pause.c"])
        unfinished.rename(target)
    return target


def _link(link: Path, target: Path) -> None:
    """Point the link elsewhere in one step: others may be about to run it."""
    if not link.is_symlink() or link.readlink() != target:
        new = link.with_suffix(".new")
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        new.replace(link)


def system(program: str) -> Path:
    """A program of the operating system that must be there by now."""
    found = find(program)
    if found is None:
        raise ClusterError(f"{program} is missing after installing packages; run `make cluster-up` as root")
    return found
