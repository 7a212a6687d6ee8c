"""Objects of a real demo run (demo.json: three laps, promoted, rejected and rolled back), and ways to put them back in time."""

from __future__ import annotations

import copy
import datetime as dt
import json
from pathlib import Path
from typing import Any

from flywheel.cli.advice import advice
from flywheel.cli.explain import explain

Object = dict[str, Any]
NOW = dt.datetime(2026, 11, 24, 23, 25, tzinfo=dt.UTC)
LATER = "2026-11-24T23:26:00Z"


def everything() -> list[Object]:
    """All objects of the namespace."""
    found: list[Object] = json.loads(Path(__file__).with_name("demo.json").read_text())
    return found


def recorded(kind: str, name: str) -> Object:
    """One of them, to be changed at will."""
    return copy.deepcopy(next(body for body in everything() if body["kind"] == kind and body["metadata"]["name"].startswith(name)))


def condition(type_: str, status: str, reason: str, message: str = "") -> Object:
    return {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-11-24T23:20:00Z"}


def asking_rollout(**status: Any) -> Object:
    """The rollout of lap 1 as it was 60 s into its window of 150 s and 15 s, at the first of two steps."""
    body = recorded("Rollout", "companion-1-rollout")
    body["spec"]["traffic"]["steps"] = [{"weightPercent": 5, "duration": "90s"}, {"weightPercent": 50}]
    for field in ("decision", "cutoverTime", "watchEndTime"):
        body["status"].pop(field, None)
    body["status"] |= {
        "phase": "Progressing",
        "step": 0,
        "stepStartTime": "2026-11-24T23:24:00Z",
        "windowStartTime": "2026-11-24T23:24:00Z",
        "windowEndTime": "2026-11-24T23:26:45Z",
        "lastAnalysisTime": "2026-11-24T23:24:59Z",
        "weights": {"intended": 5, "acknowledged": 5, "revision": 3},
        "conditions": [condition("Progressing", "True", "Enrolling", "5 % of users meet companion-1, 5 % are its control")],
        **status,
    }
    return body


def running_lap(**status: Any) -> Object:
    """Lap 2 as it was in its stage rl, with evaluate to come."""
    body = recorded("Generation", "companion-2")
    for field in ("decision", "completionTime"):
        body["status"].pop(field, None)
    rl, evaluate = body["status"]["stages"][3:5]
    rl |= {"phase": "Running", "percent": 40, "etaSeconds": 130, "message": "Running: step 18 of 44"}
    evaluate.clear()
    evaluate |= {"name": "evaluate", "phase": "Waiting", "kind": "TrainingRun"}
    body["status"] |= {
        "phase": "Training",
        "percent": 68,
        "currentStage": "rl",
        "conditions": [condition("Progressing", "True", "Running", "rl: Running: step 18 of 44")],
        **status,
    }
    return body


def run(phase: str, **status: Any) -> Object:
    """The rl run of lap 2 in another phase."""
    body = recorded("TrainingRun", "companion-2-rl")
    for field in ("artifact", "completionTime"):
        body["status"].pop(field, None)
    body["status"] |= {"phase": phase, **status}
    return body


def told(body: Object, *related: Object) -> str:
    """The explanation of an object as one text."""
    return "\n".join(explain(body, related, advice(), NOW))
