"""What every cluster has besides its processes: DNS and one shared volume."""

from __future__ import annotations

import os
from pathlib import Path

from .settings import COREDNS_IMAGE, DNS_IP, NODE_NAME, WORKLOAD_UID, Settings
from .shell import run

_MANIFESTS = Path(__file__).parent / "manifests"


def apply(settings: Settings) -> None:
    """DNS and the volume `flywheel-data`; applying them again changes nothing."""
    kubectl(settings, "apply", "--server-side", "-f", "-", stdin=_manifest("coredns", dnsIP=DNS_IP, image=COREDNS_IMAGE))
    volume(settings, "flywheel-data")


def volume(settings: Settings, name: str) -> Path:
    """A PersistentVolume over a directory of this machine; one whose claim is gone can be claimed again, with its files."""
    directory = settings.volumes / name
    directory.mkdir(parents=True, exist_ok=True)
    os.chown(directory, WORKLOAD_UID, WORKLOAD_UID)
    phase = kubectl(settings, "get", "pv", name, "--ignore-not-found", "-o", "jsonpath={.status.phase}")
    if phase in ("Released", "Failed"):
        kubectl(settings, "delete", "pv", name)
    manifest = _manifest("volume", name=name, directory=str(directory), node=NODE_NAME)
    kubectl(settings, "apply", "--server-side", "-f", "-", stdin=manifest)
    return directory


def _manifest(file: str, **values: str) -> str:
    text = (_MANIFESTS / f"{file}.yaml").read_text()
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def kubectl(settings: Settings, *arguments: str, stdin: str | None = None) -> str:
    return run([settings.bin / "kubectl", "--kubeconfig", settings.kubeconfig, *arguments], stdin=stdin)
