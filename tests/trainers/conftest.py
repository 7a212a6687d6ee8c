"""Runs as the operator starts them, a model too small to be good, and a handful of conversations."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flywheel_trainers import artifacts, environment, tables
from flywheel_trainers.run import run_file

environment.prepare()
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Result:
    code: int
    termination: dict[str, Any]

    @property
    def reason(self) -> str:
        return str(self.termination["error"]["reason"])

    @property
    def message(self) -> str:
        return str(self.termination["error"]["message"])

    @property
    def metrics(self) -> dict[str, float]:
        assert self.code == 0, self.termination
        return dict(self.termination["metrics"])

    @property
    def ref(self) -> dict[str, str]:
        assert self.code == 0, self.termination
        return {key: self.termination["artifact"][key] for key in ("uri", "digest")}

    @property
    def path(self) -> Path:
        return Path(self.ref["uri"].removeprefix("file://"))


class Runs:
    """Starts runs in one storage directory: in this process, or as a real one where signals matter."""

    def __init__(self, storage: Path) -> None:
        self.storage = storage
        self.termination = storage / "termination"

    def config(self, method: str, **fields: Any) -> dict[str, Any]:
        return {
            "apiVersion": "trainers.modelflywheel.dev/v1alpha1",
            "run": {"namespace": "test", "name": "a-run", "uid": "11111111-2222", "attempt": 1},
            "method": method,
            "seed": 1,
            "output": {"uri": (self.storage / "artifacts").as_uri()},
            **fields,
        }

    def write(self, document: object) -> Path:
        path = self.storage / "run.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    def __call__(self, method: str, **fields: Any) -> Result:
        return self.document(self.config(method, **fields))

    def document(self, document: object) -> Result:
        os.environ["FLYWHEEL_TERMINATION_LOG"] = str(self.termination)
        code = run_file(self.write(document))
        return self.result(code)

    def result(self, code: int) -> Result:
        text = self.termination.read_text()
        assert len(text.encode()) <= 4096
        return Result(code, json.loads(text))

    def start(self, method: str, **fields: Any) -> "subprocess.Popen[str]":
        path = self.write(self.config(method, **fields))
        environment = {**os.environ, "FLYWHEEL_TERMINATION_LOG": str(self.termination), "PYTHONPATH": str(ROOT / "trainers")}
        command = [sys.executable, "-u", "-m", "flywheel_trainers", "run", "--config", str(path)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


@pytest.fixture
def make_turn() -> Callable[..., dict[str, Any]]:
    """A row of the conversation table (ARCHITECTURE.md, section 4)."""

    def turn(number: int = 0, question: str = "do you like tea?", reply: str = "I love tea! And you?", **fields: Any) -> dict[str, Any]:
        return {
            "conversation_id": f"c{number}",
            "message_id": f"m{number}",
            "turn": 0,
            "user_hash": f"u{number}",
            "time": datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=number),
            "flywheel": "companion",
            "generation": "initial",
            "experiment": None,
            "slice": "none",
            "messages": [{"role": "user", "content": question}],
            "response": reply,
            "continued": True,
            "thumbs": 0,
            "regenerated": False,
            "sampling": "{}",
            **fields,
        }

    return turn


@pytest.fixture
def conversations(tmp_path: Path, make_turn: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, str]]:
    """Writes turns where the collector would, and returns the dataset entry of a Curate run."""

    def write(turns: list[dict[str, Any]] | None = None) -> dict[str, str]:
        if turns is None:
            turns = []
            for number in range(240):
                topic = ("tea", "music", "winter", "painting")[number % 4]
                good = number % 3 == 0
                question = f"question {number // 4} about {topic}, friend?"
                reply = f"I love {topic}! What do you like about it?" if good else f"{topic} is a common topic, number {number}."
                turns.append(make_turn(number, question, reply, continued=good))
        directory = tmp_path / "conversations" / "date=2026-11-01" / "generation=initial"
        directory.mkdir(parents=True, exist_ok=True)
        tables.write(directory, "part", turns)
        return {"name": "conversations", "uri": (tmp_path / "conversations").as_uri()}

    return write


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An untrained model with a real tokenizer and template: enough to run every method, useless otherwise."""
    pytest.importorskip("torch")
    from flywheel_trainers import corpus, tiny

    directory = tmp_path_factory.mktemp("model")
    texts = [str(row["prompt"]) for row in corpus.internal_prompts()]
    tokenizer = tiny.make_tokenizer(texts, vocabulary=320)
    model = tiny.make_model(tokenizer, seed=0, hidden=32, layers=1)
    content = directory / "content"
    model.save_pretrained(content)
    tokenizer.save_pretrained(content)
    artifact = artifacts.write_to(content, directory / "model", kind="model", card="", metrics={}, created_by={})
    return {"uri": artifact.uri, "digest": artifact.digest}
