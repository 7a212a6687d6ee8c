"""The Debian packages the cluster stands on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .shell import find, run

_POLICY = Path("/usr/sbin/policy-rc.d")

# Program to look for, package that brings it.
NEEDED = {
    "containerd": "containerd",
    "runc": "runc",
    "etcd": "etcd-server",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "socat": "socat",
    "openssl": "openssl",
    "gcc": "build-essential",
    "ip": "iproute2",
    "mount": "mount",
    "sysctl": "procps",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
IMAGE_BUILDING = {"buildah": "buildah", "debootstrap": "debootstrap", "skopeo": "skopeo"}


def install(programs: dict[str, str]) -> None:
    """Install what is missing. No service is started: the cluster runs its own containerd and etcd."""
    missing = [package for program, package in programs.items() if find(program) is None]
    if missing:
        quiet = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        run(["apt-get", "update", "-qq"], env=quiet)
        with _no_service_starts():
            run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], env=quiet, timeout=1800)


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Debian asks this file before it starts a package's service; one that is there already is its owner's."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
