"""SIGTERM: checkpoint, exit 75; the next attempt goes on where the last one stopped."""

import contextlib
import json
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from flywheel_trainers import checkpoints, tables

pytest.importorskip("torch")
pytestmark = pytest.mark.ml


def test_sigterm_in_training_checkpoints_and_the_next_attempt_resumes_at_that_step(
    runs: Any, tiny_model: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    rows = [{"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": f"yes {i}"}]} for i in range(20)]
    tables.write(tmp_path / "data", "sft", rows)
    saved = tmp_path / "checkpoints"
    fields = {
        "model": tiny_model,
        "datasets": [{"name": "train", "uri": (tmp_path / "data").as_uri()}],
        "parameters": {"maxSteps": 100_000, "batchSize": 2, "maxLength": 32, "schedule": "constant"},
        "checkpoint": {"uri": saved.as_uri(), "everySteps": 10, "keep": 2},
        "progress": {"port": 0},
    }
    process = runs.start("SFT", **fields)
    lines = wait_for_training(process)
    process.send_signal(signal.SIGTERM)
    lines.append(process.communicate(timeout=60)[0])
    result = runs.result(process.returncode)
    assert (result.code, result.reason) == (75, "Interrupted"), lines
    kept = sorted(saved.glob("checkpoint-*"))
    assert 1 <= len(kept) <= 2
    assert all((path / checkpoints.MARKER).exists() for path in kept)
    stopped = max(int(path.name.split("-")[1]) for path in kept)
    assert stopped >= 10

    torn = saved / f"checkpoint-{stopped + 5}"  # a later one that a kill cut short: it must not be resumed from
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    fields["parameters"] = {**fields["parameters"], "maxSteps": stopped + 3}  # type: ignore[dict-item]
    process = runs.start("SFT", **fields)
    output, _ = process.communicate(timeout=120)
    result = runs.result(process.returncode)
    assert result.code == 0, output
    assert f"resuming at step {stopped} " in output
    assert result.termination["artifact"]["kind"] == "model"
    assert result.ref["digest"].startswith("sha256:")
    assert not saved.exists()


def wait_for_training(process: Any) -> list[str]:
    """Read the log until the progress server says that a checkpoint must have been written."""
    lines: list[str] = []
    port = 0
    while not port:
        line = process.stdout.readline()
        assert line, lines
        lines.append(line)
        if line.startswith("progress on port "):
            port = int(line.rsplit(" ", 1)[1])
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, [*lines, process.stdout.read()]
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/progress", timeout=5) as answer:
            progress = json.load(answer)
            if progress["phase"] == "Training" and progress["step"] > 12:
                return lines
        time.sleep(0.1)
    raise AssertionError(f"no training within two minutes: {lines}")


def test_a_stop_between_batches_of_replies_interrupts_too(tmp_path: Path) -> None:
    import threading

    from flywheel_trainers.errors import RunError
    from flywheel_trainers.job import Job
    from flywheel_trainers.progress import Progress

    stop = threading.Event()
    job = Job(None, None, Progress(), stop, tmp_path)  # type: ignore[arg-type]
    job.check()
    stop.set()
    with pytest.raises(RunError) as caught:
        job.check()
    assert (caught.value.reason, caught.value.exit_code) == ("Interrupted", 75)


def test_checkpoints_of_other_storage_survive_the_pod(tmp_path: Path) -> None:
    uri = f"memory://checkpoints-{time.monotonic_ns()}"

    def on_a_new_pod(name: str) -> checkpoints.Checkpoints:
        return checkpoints.Checkpoints(uri, tmp_path / name, every_steps=1, keep=2)

    first = on_a_new_pod("first")
    for step in (1, 2, 3):
        directory = first.directory / f"checkpoint-{step}"
        directory.mkdir(parents=True)
        (directory / "weights").write_text(str(step))
        first.complete(directory.name)
    second = on_a_new_pod("second")
    newest = second.newest()
    assert newest is not None
    assert newest[0] == 3
    assert (newest[1] / "weights").read_text() == "3"
    second.clear()
    assert on_a_new_pod("third").newest() is None
