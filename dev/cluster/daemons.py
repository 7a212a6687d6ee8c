"""Long-running processes that outlive the shell, and are ended by pid and start time, never by name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .settings import Settings
from .shell import ClusterError

# Only what a daemon needs: nothing is inherited from whoever starts the cluster.
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}


@dataclass(frozen=True)
class Daemon:
    """A process of the cluster: its command, and the configuration files it reads at its start."""

    name: str
    command: tuple[str, ...]
    files: tuple[Path, ...] = ()

    @property
    def fingerprint(self) -> str:
        """What a running process was started from: another binary, argument or file means a restart."""
        parts = [str(Path(self.command[0]).resolve()), *self.command[1:], *(file.read_text() for file in self.files)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def start(settings: Settings, daemon: Daemon) -> None:
    """Start it, unless it runs already and would be started the same way."""
    record = _record(settings, daemon.name)
    started_as = record.with_suffix(".started-as")
    if running(settings, daemon.name):
        if started_as.exists() and started_as.read_text() == daemon.fingerprint:
            return
        stop(settings, [daemon.name])
    settings.logs.mkdir(parents=True, exist_ok=True)
    record.parent.mkdir(parents=True, exist_ok=True)
    with (settings.logs / f"{daemon.name}.log").open("ab") as log:
        process = subprocess.Popen(
            daemon.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a session of its own: the shell's end and its Ctrl-C don't reach it
            cwd="/",
            env=_ENVIRONMENT,
        )
    started_as.write_text(daemon.fingerprint)
    record.write_text(f"{process.pid} {_start_time(process.pid)}")


def running(settings: Settings, name: str) -> bool:
    return _pid(settings, name) is not None


def require_running(settings: Settings, name: str) -> None:
    """Fail early, with the end of its log, when a daemon has died."""
    if not running(settings, name):
        log = settings.logs / f"{name}.log"
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:]) if log.exists() else ""
        raise ClusterError(f"{name} has ended; its log is {log}:\n{tail}")


def stop(settings: Settings, names: Iterable[str], grace: float = 10) -> None:
    """SIGTERM, then SIGKILL after the grace."""
    pids = {name: pid for name in names if (pid := _pid(settings, name)) is not None}
    for pid in pids.values():
        _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and any(running(settings, name) for name in pids):
        time.sleep(0.05)
    for name, pid in pids.items():
        if running(settings, name):
            _signal(pid, signal.SIGKILL)
    for name in names:
        _record(settings, name).unlink(missing_ok=True)


def _record(settings: Settings, name: str) -> Path:
    return settings.run / f"{name}.pid"


def _pid(settings: Settings, name: str) -> int | None:
    """The pid on record, if that process still is the one that was started."""
    try:
        pid, started = _record(settings, name).read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    now = _start_time(int(pid))
    return int(pid) if now is not None and now == started else None


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat: with it a reused pid is told from ours. None for a process that is gone, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
