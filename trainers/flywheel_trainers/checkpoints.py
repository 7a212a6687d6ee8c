"""Where an interrupted run goes on: complete checkpoints only, the newest first, at most `keep` of them.

A checkpoint counts once the marker is in it; the marker is written after everything else has reached the disk (or, in an
object store, after everything else has been uploaded).
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import artifacts, distributed
from .job import Job

MARKER = "COMPLETE"
OWNER = "owner.json"  # beside the checkpoints: the run they belong to


class Checkpoints:
    def __init__(self, uri: str | None, scratch: Path, every_steps: int, keep: int, run: Mapping[str, object] | None = None) -> None:
        local = artifacts.local_path(uri) if uri else None
        self.directory = local or scratch / "checkpoints"
        self.every_steps = every_steps
        self.keep = keep
        self.kept = uri is not None
        self._remote = uri if uri and local is None else None
        self._run = dict(run or {})

    @classmethod
    def of(cls, job: Job) -> "Checkpoints":
        plan = job.config.checkpoint
        if plan is None:
            return cls(None, job.scratch, every_steps=10**9, keep=1)
        return cls(plan.uri, job.scratch, plan.every_steps, plan.keep, job.config.run)

    def newest(self) -> tuple[int, Path] | None:
        """Step and directory of the newest complete checkpoint, the same in every process of the run."""
        found = self._newest() if distributed.leads() else None
        step = distributed.agree(found[0] if found else None)
        if not distributed.leads():
            self._pull()  # from a store that is no shared directory each process fetches its own
        return None if step is None else (step, self.directory / f"checkpoint-{step}")

    def _newest(self) -> tuple[int, Path] | None:
        """Torn checkpoints are removed, so that nobody takes them for whole."""
        self._pull()
        complete: dict[int, Path] = {}
        for step, path in self._named("checkpoint"):
            if (path / MARKER).exists():
                complete[step] = path
            else:
                shutil.rmtree(path, ignore_errors=True)
        return max(complete.items()) if complete else None

    def complete(self, name: str) -> None:
        """Seal the directory `name` (such as checkpoint-40): from now on it counts."""
        path = self.directory / name
        with artifacts.storage_errors(self._remote or str(self.directory)):
            owner = self.directory / OWNER
            if not owner.exists():  # garbage collection leaves alone what it does not know the owner of
                owner.write_text(json.dumps(self._run))
            for file in path.rglob("*"):
                artifacts.sync(file)
            (path / MARKER).touch()
            artifacts.sync(path / MARKER)
            artifacts.sync(path)
            if self._remote:
                artifacts.upload(path, f"{self._remote}/{name}", last=MARKER)
                for _, old in self._named("checkpoint")[: -self.keep]:
                    artifacts.remove(f"{self._remote}/{old.name}")

    def candidates(self) -> dict[int, Path]:
        """Models kept for checkpoint selection, by step."""
        return {step: path for step, path in self._named("candidate") if (path / MARKER).exists()}

    def clear(self) -> None:
        """The artifact is published: nothing here is needed again."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._remote:
            artifacts.remove(self._remote)

    def _named(self, prefix: str) -> list[tuple[int, Path]]:
        found = [(re.fullmatch(rf"{prefix}-(\d+)", path.name), path) for path in self.directory.glob(f"{prefix}-*")]
        return sorted((int(match.group(1)), path) for match, path in found if match)

    def _pull(self) -> None:
        if not self._remote:
            return
        with artifacts.storage_errors(self._remote):
            for name in artifacts.complete_directories(self._remote, MARKER):
                if not (self.directory / name).exists():
                    artifacts.download(f"{self._remote}/{name}", self.directory / name)


def callback(job: Job, checkpoints: Checkpoints) -> Any:
    """Connects a Hugging Face trainer with the run: progress out, SIGTERM in, checkpoints sealed."""
    from transformers import TrainerCallback

    class RunCallback(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            job.progress.begin("Training", state.max_steps, state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            job.progress.step(state.global_step)
            # Whichever process was told to stop: all save the same step, and all stop.
            if distributed.anyone(job.stop.is_set()):
                job.stop.set()
                control.should_save = control.should_training_stop = True

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            numbers = {key: float(value) for key, value in (logs or {}).items() if isinstance(value, int | float)}
            tokens = numbers.get("num_tokens")
            job.progress.step(state.global_step, tokens=int(tokens) if tokens else None, metrics=numbers)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            distributed.wait()  # each process adds its random state
            if distributed.leads():
                checkpoints.complete(f"checkpoint-{state.global_step}")

    return RunCallback()
