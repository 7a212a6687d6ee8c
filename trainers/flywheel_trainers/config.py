"""run.json: read, checked, and turned into plain frozen dataclasses. Its author may be anybody: every value is suspect."""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote

from .errors import RunError

API_VERSION = "trainers.modelflywheel.dev/v1alpha1"
BUILTIN = "builtin:"
_MAX_BYTES = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_URI = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\x00-\x1f]+|builtin:[a-z0-9-]+")


@dataclass(frozen=True)
class ModelRef:
    uri: str
    digest: str | None


@dataclass(frozen=True)
class DatasetRef:
    name: str
    uri: str
    digest: str | None
    subset: str | None
    weight: float


@dataclass(frozen=True)
class RewardRef:
    name: str
    role: str
    uri: str
    digest: str | None
    weight: float


@dataclass(frozen=True)
class Adapter:
    rank: int
    alpha: int


@dataclass(frozen=True)
class CheckpointPlan:
    uri: str
    every_steps: int
    keep: int


@dataclass(frozen=True)
class RunConfig:
    run: Mapping[str, Any]
    method: str
    seed: int
    output_uri: str
    model: ModelRef | None = None
    opponent: ModelRef | None = None
    pool: tuple[ModelRef, ...] = ()
    datasets: tuple[DatasetRef, ...] = ()
    rewards: tuple[RewardRef, ...] = ()
    adapter: Adapter | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: CheckpointPlan | None = None
    progress_port: int | None = None


def load(path: Path) -> RunConfig:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RunError("InvalidConfig", f"{path} cannot be read: {error}") from error
    if len(raw) > _MAX_BYTES:
        raise RunError("InvalidConfig", f"{path} has {len(raw)} bytes; at most {_MAX_BYTES} are allowed")
    try:
        document = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RunError("InvalidConfig", f"{path} is not JSON: {error}") from error
    return parse(document)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def parse(document: Any) -> RunConfig:
    root = _Object(document, "run.json")
    if root.text("apiVersion") != API_VERSION:
        raise RunError("InvalidConfig", f"run.json.apiVersion must be {API_VERSION}; the operator and the trainer image differ in version")
    run = root.object("run")
    run.name("name")
    config = RunConfig(
        run=run.values,  # passed through to the manifest: whoever made this artifact is written on it
        method=root.name("method"),
        seed=root.integer("seed", 0, 2**32 - 1, default=0),
        output_uri=_output(root.object("output")),
        model=_model(root.optional("model")),
        opponent=_model(root.optional("opponent")),
        pool=tuple(_required_model(item) for item in root.objects("pool")),
        datasets=tuple(_dataset(item) for item in root.objects("datasets")),
        rewards=tuple(_reward(item) for item in root.objects("rewards")),
        adapter=_adapter(root.optional("adapter")),
        parameters=parameters.values if (parameters := root.optional("parameters")) else {},
        checkpoint=_checkpoint(root.optional("checkpoint")),
        progress_port=progress.integer("port", 0, 65535) if (progress := root.optional("progress")) else None,
    )
    root.nothing_else()
    return config


def _output(item: "_Object") -> str:
    uri = item.uri("uri")
    item.nothing_else()
    return uri


def _model(item: "_Object | None") -> ModelRef | None:
    return _required_model(item) if item else None


def _required_model(item: "_Object") -> ModelRef:
    model = ModelRef(item.uri("uri"), item.digest("digest"))
    item.nothing_else()
    return model


def _dataset(item: "_Object") -> DatasetRef:
    dataset = DatasetRef(
        item.name("name"), item.uri("uri", builtin=True), item.digest("digest"), item.name("subset", required=False) or None, item.weight()
    )
    item.nothing_else()
    return dataset


def _reward(item: "_Object") -> RewardRef:
    role = item.name("role", required=False) or "Reward"
    if role not in ("Reward", "Judge"):
        raise item.wrong("role", "Reward or Judge", role)
    reward = RewardRef(item.name("name"), role, item.uri("uri", builtin=True), item.digest("digest"), item.weight())
    item.nothing_else()
    return reward


def _adapter(item: "_Object | None") -> Adapter | None:
    if item is None:
        return None
    rank = item.integer("rank", 1, 1024, default=16)
    adapter = Adapter(rank, item.integer("alpha", 1, 4096, default=2 * rank))
    item.nothing_else()
    return adapter


def _checkpoint(item: "_Object | None") -> CheckpointPlan | None:
    if item is None:
        return None
    plan = CheckpointPlan(item.uri("uri"), item.integer("everySteps", 1, 10**9, default=100), item.integer("keep", 1, 1000, default=2))
    item.nothing_else()
    return plan


class _Object:
    """A JSON object that knows its own path, hands out checked values and reports what nobody asked for."""

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, dict):
            raise RunError("InvalidConfig", f"{where} must be an object, not {_show(values)}")
        self.values: dict[str, Any] = values
        self.where = where
        self._asked: set[str] = set()

    def wrong(self, key: str, wanted: str, value: object) -> RunError:
        return RunError("InvalidConfig", f"{self.where}.{key} must be {wanted}, not {_show(value)}")

    def _get(self, key: str) -> Any:
        self._asked.add(key)
        return self.values.get(key)

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str) or not value or len(value) > 4096:
            raise self.wrong(key, "a text of at most 4096 characters", value)
        return value

    def name(self, key: str, *, required: bool = True) -> str:
        value = self._get(key)
        if value is None and not required:
            return ""
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise self.wrong(key, "a name of letters, digits, '.', '_' and '-'", value)
        return value

    def uri(self, key: str, *, builtin: bool = False) -> str:
        value = self.text(key)
        if not _URI.fullmatch(value) or (value.startswith(BUILTIN) and not builtin):
            raise self.wrong(key, "a URI such as file:///flywheel/artifacts", value)
        if value.startswith("file:") and (not value.startswith("file:///") or ".." in unquote(value).split("/")):
            raise self.wrong(key, "an absolute file:/// URI without '..'", value)
        return value

    def digest(self, key: str) -> str | None:
        value = self._get(key)
        if value is not None and not (isinstance(value, str) and _DIGEST.fullmatch(value)):
            raise self.wrong(key, "sha256: and 64 hexadecimal digits", value)
        return value

    def integer(self, key: str, low: int, high: int, *, default: int | None = None) -> int:
        value = self._get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(key, f"a whole number from {low} to {high}", value)
        return value

    def weight(self) -> float:
        value = self._get("weight")
        if value is None:
            return 1.0
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1000:
            raise self.wrong("weight", "a number above 0 and at most 1000", value)
        return float(value)

    def object(self, key: str) -> "_Object":
        return _Object(self._get(key), f"{self.where}.{key}")

    def optional(self, key: str) -> "_Object | None":
        return None if self._get(key) is None else self.object(key)

    def objects(self, key: str) -> "list[_Object]":
        value = self._get(key)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > 100:
            raise self.wrong(key, "a list of at most 100", value)
        return [_Object(item, f"{self.where}.{key}[{i}]") for i, item in enumerate(value)]

    def nothing_else(self) -> None:
        for key in sorted(set(self.values) - self._asked):
            near = difflib.get_close_matches(key, self._asked, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(self._asked))}"
            raise RunError("InvalidConfig", f"{self.where}.{key} is not known; {hint}")


def _show(value: object) -> str:
    return json.dumps(value, default=str)[:80]
