"""The few files that kubelet, the network plugins and shims write at fixed places outside the state directory."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from .settings import POD_NETWORK, Settings

_POD_LOG_LINKS = Path("/var/log/containers")
_NETWORK_RESULTS = Path("/var/lib/cni/results")
_DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
_SHIM_SOCKETS = Path("/run/containerd/s")


def remove(settings: Settings) -> None:
    """Remove what is ours, then each directory that is empty without it."""
    for link in _POD_LOG_LINKS.glob("*"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{settings.state}/"):
            link.unlink()
    for result in _NETWORK_RESULTS.glob(f"{POD_NETWORK}-*"):
        sandbox = result.name.split("-")[1]
        (_NETWORK_RESULTS / f"cni-loopback-{sandbox}-lo").unlink(missing_ok=True)
        result.unlink()
    # kubelet's root is elsewhere; only this socket has a fixed place.
    if {entry.name for entry in _DEVICE_PLUGINS.parent.glob("*")} == {_DEVICE_PLUGINS.name}:
        (_DEVICE_PLUGINS / "kubelet.sock").unlink(missing_ok=True)
    for address in _SHIM_SOCKETS.glob("*"):
        if _is_abandoned(address):
            address.unlink()
    for directory in (_POD_LOG_LINKS, _NETWORK_RESULTS, _DEVICE_PLUGINS, _SHIM_SOCKETS):
        for empty in (directory, directory.parent):
            if empty not in (Path("/var/log"), Path("/var/lib")):
                with contextlib.suppress(OSError):
                    empty.rmdir()


def _is_abandoned(address: Path) -> bool:
    """Whether nobody listens on a Unix socket any more: a shim that was killed leaves its socket."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(address))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
