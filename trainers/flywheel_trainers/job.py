"""What a method gets to work with, and what it hands back."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import artifacts, corpus, models, tables
from .config import BUILTIN, DatasetRef, ModelRef, RewardRef, RunConfig
from .errors import RunError
from .progress import Progress


@dataclass
class Job:
    config: RunConfig
    parameters: Any
    progress: Progress
    stop: threading.Event
    scratch: Path

    def check(self) -> None:
        """Called wherever a method can leave without losing more than a moment's work."""
        if self.stop.is_set():
            raise RunError("Interrupted", "SIGTERM: the run stopped and can be repeated; it goes on from its newest checkpoint")

    # ------------------------------------------------------------------------------------------------------------ models

    def model(self) -> Path:
        return self._model(self.config.model, "model")

    def opponent(self) -> Path:
        return self._model(self.config.opponent, "opponent")

    def pool(self) -> list[Path]:
        return [self._model(ref, f"pool[{i}]") for i, ref in enumerate(self.config.pool)]

    def _model(self, ref: ModelRef | None, what: str) -> Path:
        if ref is None:
            raise RunError("InvalidConfig", f"{self.config.method} needs a '{what}'; add it to the run's inputs")
        path = artifacts.fetch(ref.uri, ref.digest, what=f"the {what}", missing="ModelMissing", cache=self.scratch)
        models.check(path, what)
        return path

    def rewards(self, role: str) -> list[tuple[RewardRef, Path | None]]:
        """Rewards of a role with their model directories; None for a built-in rule."""
        chosen = [ref for ref in self.config.rewards if ref.role == role]
        if not chosen:
            raise RunError("InvalidConfig", f"{self.config.method} needs a reward with role {role}; add one to the run's rewards")
        return [(ref, None if ref.uri.startswith(BUILTIN) else self._reward(ref)) for ref in chosen]

    def _reward(self, ref: RewardRef) -> Path:
        path = artifacts.fetch(ref.uri, ref.digest, what=f"reward '{ref.name}'", missing="ModelMissing", cache=self.scratch)
        models.check(path, f"reward '{ref.name}'")
        return path

    # ---------------------------------------------------------------------------------------------------------- datasets

    def has_dataset(self, name: str) -> bool:
        return any(ref.name == name for ref in self.config.datasets)

    def directory(self, ref: DatasetRef) -> Path:
        return artifacts.fetch(ref.uri, ref.digest, what=f"dataset '{ref.name}'", missing="DatasetMissing", cache=self.scratch)

    def rows(self, name: str, *, subset: str, columns: tuple[str, ...]) -> list[tables.Row]:
        """All rows of the datasets called `name`, mixed by weight. `subset` is read unless the run names another."""
        refs = [ref for ref in self.config.datasets if ref.name == name]
        if not refs:
            raise RunError("InvalidConfig", f"{self.config.method} needs a dataset '{name}'; add it to the run's inputs")
        return self._mixed(refs, subset, columns)

    def all_rows(self, *, subset: str, columns: tuple[str, ...], but: tuple[str, ...] = ()) -> list[tables.Row]:
        """Rows of every dataset whose name is not in `but`, mixed by weight."""
        refs = [ref for ref in self.config.datasets if ref.name not in but]
        if not refs:
            raise RunError("InvalidConfig", f"{self.config.method} needs a dataset; add one to the run's inputs")
        return self._mixed(refs, subset, columns)

    def _mixed(self, refs: list[DatasetRef], subset: str, columns: tuple[str, ...]) -> list[tables.Row]:
        parts: list[tuple[list[tables.Row], float]] = []
        for ref in refs:
            if ref.uri in corpus.BUILTIN_DATASETS:
                parts.append((corpus.BUILTIN_DATASETS[ref.uri](), ref.weight))
            elif ref.uri.startswith(BUILTIN):
                raise RunError(
                    "InvalidConfig", f"dataset '{ref.name}': {ref.uri} is not known; known: {', '.join(corpus.BUILTIN_DATASETS)}"
                )
            else:
                what = f"dataset '{ref.name}' ({ref.uri})"
                parts.append((tables.read_subset(self.directory(ref), ref.subset or subset, what, columns), ref.weight))
        return tables.mix(parts, self.config.seed)


@dataclass(frozen=True)
class Outcome:
    """A directory that is ready to become an artifact. `metrics` are ordered: the most important first."""

    kind: str
    content: Path
    summary: str
    metrics: Mapping[str, float]
    details: Mapping[str, object] = field(default_factory=dict)
    card: str | None = None  # README.md of the artifact, where the one of every run does not do
