"""What tests need for the processes they start: ports that are free, and that nothing is left behind."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import socket
import subprocess

_LIBC = ctypes.CDLL(None)  # loaded here: little is safe between fork and exec
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def end_with_parent() -> None:
    """A `preexec_fn`: the process is killed once the thread that started it has ended, even when nobody could tidy up."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def end(*processes: subprocess.Popen[bytes], seconds: float = 10) -> None:
    """SIGTERM to all, and SIGKILL to those that take longer than that."""
    for process in processes:
        process.terminate()
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=seconds)
        if process.poll() is None:
            process.kill()
            process.wait()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in sockets]
