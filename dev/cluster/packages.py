"""The Debian packages the cluster stands on."""

from __future__ import annotations

from .shell import find, run

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
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], env=quiet, timeout=1800)
