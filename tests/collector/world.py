"""A collector over a temporary directory, with a clock that the test moves."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from flywheel_collector.events import MAX_BATCH
from flywheel_collector.experiments import parse_definition
from flywheel_collector.exposition import expose
from flywheel_collector.service import Collector, Options, Taken

T0 = 1_700_000_000_000
EXPERIMENT = "demo.g1-rollout.3f2a9c1e"
OURS = {"flywheel": "demo", "flywheel_namespace": "lab"}
TRAFFIC = ("flywheel_requests", "flywheel_request_duration", "flywheel_conversations")  # series of names that other namespaces have too


def at(seconds: float) -> str:
    return datetime.fromtimestamp(T0 / 1000 + seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class World:
    """Writes what Envoy and the app would write, and reads what Prometheus would read."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root, self.now, self.lines = root, 0.0, 0
        self.settings = Options("demo", root / "logs", root / "data", str(root / "state.sqlite"), durable=False, namespace="lab")
        self.settings = self.settings._replace(**options)
        self.settings.logs.mkdir(exist_ok=True)
        self.collector = Collector(self.settings)

    def restart(self) -> None:
        """As after SIGKILL: nothing but the state file is kept."""
        self.collector.store.close()
        self.collector = Collector(self.settings)

    def line(self, user: str | None = "u1", message: str | None = "m1", time: float | None = None, **fields: Any) -> dict[str, Any]:
        self.lines += 1
        slice_ = fields.get("slice", "control")
        arm = "new" if slice_ == "candidate" else "old"
        return {
            "time": at(self.now if time is None else time), "requestId": f"r{self.lines}", "method": "POST", "path": "/v1/chat/completions",
            "status": 200, "flags": "-", "durationMs": 12, "user": user or "-", "conversation": f"c-{user}", "message": message or "-",
            "purpose": "-", "experiment": EXPERIMENT, "slice": slice_, "assignedArm": arm, "answeredArm": arm,
            "assignedGeneration": f"g-{arm}", "answeredGeneration": f"g-{arm}", "revision": 1, **fields,
        }  # fmt: skip

    def log(self, *lines: dict[str, Any] | str, pod: str = "router-a", name: str = "access.jsonl") -> Path:
        path = self.settings.logs / pod / name
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.writelines(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
        return path

    def tells(
        self, requests: dict[str, dict[str, int]] | None = None, routes: dict[int, tuple[str, str, float]] | None = None,
        pod: str = "router-a", time: float | None = None, alive: float | None = None,
    ) -> None:  # fmt: skip
        """What a router's agent writes: Envoy's counts by experiment and slice, and the routes. `alive`: its last sign of life."""
        path = self.settings.logs / pod / "router.json"
        path.parent.mkdir(exist_ok=True)
        moment = T0 + round((self.now if time is None else time) * 1000)
        known = {str(r): {"experiment": e, "salt": s, "weightPercent": w} for r, (e, s, w) in (routes or {}).items()}
        path.write_text(json.dumps({"time_ms": moment, "requests": requests or {}, "routes": known}))
        seen = T0 / 1000 + (self.now if alive is None else alive)
        os.utime(path, (seen, seen))

    def turn(self, user: str | None = "u1", message: str | None = "m1", time: float | None = None, **fields: Any) -> None:
        self.log(self.line(user, message, time, **fields))

    def event(
        self, kind: str = "thumbs_up", user: str = "u1", message: str = "m1", time: float | None = None, **fields: Any
    ) -> dict[str, Any]:
        self.lines += 1
        return {"id": f"e{self.lines}", "type": kind, "time": at(self.now if time is None else time), "user": user,
                "conversation": f"c-{user}", "message": message, **fields}  # fmt: skip

    def said(self, text: str, response: str = "Fine.", **fields: Any) -> dict[str, Any]:
        return self.event("turn", messages=[{"role": "user", "content": text}], response=response, sampling={"temperature": 0.8}, **fields)

    def post(self, *events: Any) -> Taken:
        return self.collector.post_events(json.dumps({"events": events[:MAX_BATCH]}).encode(), self.ms)

    @property
    def ms(self) -> int:
        return T0 + round(self.now * 1000)

    def register(
        self, horizon: float = 10, cap: int | None = 6, started: float = 0, until: float | None = None, name: str = EXPERIMENT
    ) -> None:
        body = {"horizonSeconds": horizon, "winsorCap": cap, "startedAt": at(started), "enrolUntil": None if until is None else at(until)}
        self.collector.put_experiment(name, parse_definition(body))

    def run(self, now: float | None = None) -> None:
        """Passes until there is nothing left to do."""
        self.now = self.now if now is None else now
        while self.collector.tick(self.ms):
            pass

    def series(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        families = text_string_to_metric_families(expose(self.collector).decode())
        return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in families for sample in family.samples}

    def value(self, name: str, **labels: str) -> float:
        labels |= OURS if name.startswith(TRAFFIC) else {}
        return self.series().get((name, tuple(sorted(labels.items()))), 0.0)

    def moment(self, metric: str, slice_: str = "control") -> tuple[int, int, int]:
        labels = {"experiment": EXPERIMENT, "slice": slice_, "metric": metric}
        names = ("flywheel_experiment_users", "flywheel_experiment_sum", "flywheel_experiment_sum_squares")
        return tuple(int(self.value(name, **labels)) for name in names)  # type: ignore[return-value]

    def assigned(self, slice_: str = "control") -> int:
        return int(self.value("flywheel_experiment_assigned_users", experiment=EXPERIMENT, slice=slice_))
