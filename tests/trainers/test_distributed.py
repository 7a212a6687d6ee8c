"""One run in several processes: one artifact, one checkpoint for all, and one process that is to blame. Gloo on CPU stands for NCCL."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flywheel_trainers import checkpoints, tables
from tests.processes import free_ports

pytest.importorskip("torch")
pytestmark = pytest.mark.ml
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240  # seconds; two trainers on a busy machine


class Pods:
    """The pods of one run, as processes: each with a termination log of its own, all with one store."""

    def __init__(self, storage: Path) -> None:
        self.storage = storage
        self.running: list[subprocess.Popen[str]] = []

    def start(self, method: str, *, pods: int = 2, **fields: Any) -> None:
        document = {
            "apiVersion": "trainers.modelflywheel.dev/v1alpha1",
            "run": {"namespace": "test", "name": "a-run", "uid": "11111111-2222", "attempt": 1},
            "method": method,
            "seed": 1,
            "output": {"uri": (self.storage / "artifacts").as_uri()},
            "checkpoint": {"uri": (self.storage / "checkpoints").as_uri(), "everySteps": 3, "keep": 2},
            **fields,
        }
        config = self.storage / "run.json"
        config.write_text(json.dumps(document))
        (port,) = free_ports(1)
        for index in range(pods):
            log = self.said(index)
            log.write_text("")
            environment = {
                **os.environ,
                "PYTHONPATH": str(ROOT / "trainers"),
                "FLYWHEEL_TERMINATION_LOG": str(log),
                "JOB_COMPLETION_INDEX": str(index),
            }
            command = [sys.executable, "-u", "-m", "flywheel_trainers", "launch", "--config", str(config), "--nodes", str(pods)]
            output = (self.storage / f"output-{index}").open("w")
            self.running.append(
                subprocess.Popen([*command, "--port", str(port)], env=environment, stdout=output, stderr=subprocess.STDOUT, text=True)
            )

    def said(self, index: int) -> Path:
        return self.storage / f"termination-{index}"

    def output(self) -> str:
        return "\n".join(f"--- pod {path.name[-1]}\n{path.read_text()}" for path in sorted(self.storage.glob("output-*")))

    def ended(self) -> list[int]:
        """Exit codes of all pods."""
        codes = [pod.wait(timeout=PATIENCE) for pod in self.running]
        self.running.clear()
        return codes

    def trained(self, step: int) -> None:
        """Wait until that checkpoint is there."""
        deadline = time.monotonic() + PATIENCE
        while not list((self.storage / "checkpoints").glob(f"checkpoint-{step}/{checkpoints.MARKER}")):
            assert all(pod.poll() is None for pod in self.running), self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.05)

    def worker(self, index: int) -> int:
        """The process id of the trainer in a pod."""
        children = Path(f"/proc/{self.running[index].pid}/task/{self.running[index].pid}/children").read_text().split()
        return next(int(pid) for pid in children if b"\0run\0" in Path(f"/proc/{pid}/cmdline").read_bytes())


@pytest.fixture
def pods(tmp_path: Path) -> Any:
    made = Pods(tmp_path)
    yield made
    for pod in made.running:
        pod.kill()
        pod.wait()


def chats(directory: Path, rows: int = 24) -> list[dict[str, str]]:
    directory.mkdir()
    talk = [{"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": f"yes {i}"}]} for i in range(rows)]
    tables.write(directory, "sft", talk)
    return [{"name": "train", "uri": directory.as_uri()}]


def sft(model: dict[str, str], tmp_path: Path, steps: int) -> dict[str, Any]:
    parameters = {"maxSteps": steps, "batchSize": 4, "maxLength": 32, "learningRate": 1e-3, "schedule": "constant"}
    return {"model": model, "datasets": chats(tmp_path / "data"), "parameters": parameters}


def test_two_processes_make_one_artifact_and_only_the_leader_tells_it(pods: Pods, tiny_model: dict[str, str], tmp_path: Path) -> None:
    pods.start("SFT", **sft(tiny_model, tmp_path, 6))
    assert pods.ended() == [0, 0], pods.output()
    result = json.loads(pods.said(0).read_text())
    assert result["artifact"]["kind"] == "model"
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == [result["artifact"]["digest"].replace(":", "-")]
    assert pods.said(1).read_text() == ""
    assert not (tmp_path / "checkpoints").exists()


def test_a_process_that_is_told_to_stop_stops_all_and_the_next_attempt_goes_on_from_their_checkpoint(
    pods: Pods, tiny_model: dict[str, str], tmp_path: Path
) -> None:
    fields = sft(tiny_model, tmp_path, 100_000)
    pods.start("SFT", **fields)
    pods.trained(3)
    pods.running[1].send_signal(signal.SIGTERM)  # the pod of a follower, as a node's drain would
    assert pods.ended() == [75, 75], pods.output()
    assert [json.loads(pods.said(index).read_text())["error"]["reason"] for index in (0, 1)] == ["Interrupted", "Interrupted"]
    kept = sorted((tmp_path / "checkpoints").glob("checkpoint-*"))
    stopped = max(int(path.name.split("-")[1]) for path in kept)
    assert all((path / checkpoints.MARKER).exists() for path in kept)
    assert {path.name for path in (tmp_path / "checkpoints" / f"checkpoint-{stopped}").glob("rng_state*")} == {
        "rng_state_0.pth",
        "rng_state_1.pth",
    }
    fields["parameters"] = {**fields["parameters"], "maxSteps": stopped + 2}
    pods.start("SFT", **fields)
    assert pods.ended() == [0, 0], pods.output()
    assert f"resuming at step {stopped} " in pods.output()


def test_a_lost_process_is_not_blamed_on_those_that_waited_for_it(pods: Pods, tiny_model: dict[str, str], tmp_path: Path) -> None:
    pods.start("SFT", **sft(tiny_model, tmp_path, 100_000))
    pods.trained(3)
    os.kill(pods.worker(1), signal.SIGKILL)  # as the kernel does to one that has no memory left
    codes = pods.ended()
    assert codes == [75, 137], pods.output()
    assert json.loads(pods.said(0).read_text())["error"]["reason"] == "PeerLost"


def test_a_batch_that_cannot_be_shared_is_refused(pods: Pods, tiny_model: dict[str, str], tmp_path: Path) -> None:
    fields = sft(tiny_model, tmp_path, 2)
    fields["parameters"] |= {"batchSize": 5}
    pods.start("SFT", **fields)
    assert pods.ended() == [64, 64], pods.output()
    error = json.loads(pods.said(0).read_text())["error"]
    assert error["reason"] == "InvalidParameter"
    assert "parameters.batchSize is 5 a step, which 2 processes can't share; choose a multiple of 2" in error["message"]


@pytest.mark.parametrize("method", ["DPO", "GRPO"])
def test_other_trainers_run_in_two_processes_too(pods: Pods, tiny_model: dict[str, str], tmp_path: Path, method: str) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    ask = [[{"role": "user", "content": f"what about {i}?"}] for i in range(12)]
    good, bad = [{"role": "assistant", "content": "I like it! And you?"}], [{"role": "assistant", "content": "no."}]
    tables.write(directory, "preferences-reward", [{"prompt": prompt, "chosen": good, "rejected": bad} for prompt in ask])
    tables.write(directory, "prompts-train", [{"messages": prompt} for prompt in ask])
    fields: dict[str, Any] = {"model": tiny_model, "datasets": [{"name": "train", "uri": directory.as_uri()}]}
    if method == "DPO":
        fields["parameters"] = {"maxSteps": 3, "batchSize": 4, "maxLength": 64}
    else:
        fields["rewards"] = [{"name": "questions", "role": "Reward", "uri": "builtin:question-mark"}]
        fields["parameters"] = {"maxSteps": 3, "promptsPerStep": 2, "generations": 4, "maxNewTokens": 8, "pick": "hard", "pickSamples": 2}
    pods.start(method, **fields)
    assert pods.ended() == [0, 0], pods.output()
    assert json.loads(pods.said(0).read_text())["artifact"]["kind"] == "model"
