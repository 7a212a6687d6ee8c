"""Run commands, and end with a message that says what failed and what mends it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

Words = Sequence[str | Path]


class ClusterError(Exception):
    """Something a person can mend; the text says how."""


def run(
    command: Words,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float = 600,
) -> str:
    """Standard output of a command that must succeed."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise ClusterError(f"{words[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"`{' '.join(words)}` took longer than {timeout:.0f} s") from None
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise ClusterError(f"`{' '.join(words)}` ended with exit code {done.returncode}:\n{tail}")
    return done.stdout


def succeeds(command: Words, timeout: float = 60) -> bool:
    """Whether a command ends with 0; its output is of no interest."""
    try:
        run(command, timeout=timeout)
    except ClusterError:
        return False
    return True


def wait_for(what: str, ready: Callable[[], bool], seconds: float, mend: str) -> None:
    """Poll until `ready`, or fail with the mend."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {seconds:.0f} s in vain: {what}; {mend}")
        time.sleep(0.2)


def find(program: str) -> Path | None:
    """A program on PATH or in the directories of system programs, which a user's PATH may lack."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    return Path(found) if found else None


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Wait until no other process holds this lock, then hold it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
