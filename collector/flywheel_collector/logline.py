"""One line of the router's access log (ARCHITECTURE §4)."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from flywheel_collector.clock import parse_time

GENERATION = re.compile(r"[a-z0-9.-]{1,63}")
EXPERIMENT = re.compile(r"[A-Za-z0-9._:-]{1,128}")
SLICES = ("none", "control", "candidate", "rest")
NONE, CONTROL, CANDIDATE, REST = range(4)
_SLICE = {name: number for number, name in enumerate(SLICES)}


class Malformed(ValueError):
    """The line cannot be used. It is counted, never fatal."""


class Request(NamedTuple):
    ms: int
    request: str
    status: int
    duration_ms: int | None
    user: str | None
    conversation: str | None
    message: str | None
    purpose: str | None
    experiment: str
    slice: int
    generation: str
    """Who answered, or who should have when nobody did; "" when neither is known."""
    failed: bool
    fallback: bool
    """Another arm answered than the assigned one."""

    @property
    def answered(self) -> bool:
        return 200 <= self.status < 300

    @property
    def exposes(self) -> bool:
        return self.user is not None and self.purpose is None and self.experiment != "" and self.slice in (CONTROL, CANDIDATE)


def _text(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is None or value == "-" or value == "":
        return None
    if not isinstance(value, str):
        raise Malformed(f"{name} is not a string")
    return value


def _whole(fields: dict[str, Any], name: str, limit: int) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
        raise Malformed(f"{name} is not a whole number from 0 to {limit - 1}")
    return value


def parse(line: bytes) -> Request:
    try:
        fields = json.loads(line)
        if not isinstance(fields, dict):
            raise Malformed("not an object")
        ms = parse_time(fields["time"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Malformed(str(error)) from error
    status = _whole(fields, "status", 600)
    duration_ms = None if fields.get("durationMs") in (None, "-") else _whole(fields, "durationMs", 1 << 40)
    assigned, answered = _text(fields, "assignedArm"), _text(fields, "answeredArm")
    generation = _text(fields, "answeredGeneration") or _text(fields, "assignedGeneration") or ""
    experiment = _text(fields, "experiment") or ""
    return Request(
        ms=ms,
        request=_text(fields, "requestId") or line.decode("utf-8", "replace"),
        status=status,
        duration_ms=duration_ms,
        user=_text(fields, "user"),
        conversation=_text(fields, "conversation"),
        message=_text(fields, "message"),
        purpose=_text(fields, "purpose"),
        experiment=experiment if EXPERIMENT.fullmatch(experiment) else "",
        slice=_SLICE.get(_text(fields, "slice") or "none", NONE),
        generation=generation if GENERATION.fullmatch(generation) else "",
        failed=status == 0 or status >= 500,
        fallback=assigned is not None and answered is not None and assigned != answered,
    )
