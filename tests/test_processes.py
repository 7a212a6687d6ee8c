"""No process of the tests outlives them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.processes import end, end_with_parent

ROOT = Path(__file__).resolve().parents[1]
IGNORES_SIGTERM = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
PARENT = f"""
import subprocess, sys
from tests.processes import end_with_parent
subprocess.Popen([sys.executable, "-c", {IGNORES_SIGTERM!r}], preexec_fn=end_with_parent).wait()
"""


def test_a_process_ends_with_the_one_that_started_it_even_if_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        parent.send_signal(signal.SIGKILL)
        parent.communicate(timeout=60)  # returns when the child, which has the other end of the pipe, is gone too


def test_a_process_that_does_not_want_to_end_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", IGNORES_SIGTERM], stdout=subprocess.PIPE, preexec_fn=end_with_parent) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        end(process, seconds=0.1)
        assert process.returncode == -signal.SIGKILL
