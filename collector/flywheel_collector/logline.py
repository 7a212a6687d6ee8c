"""One line of the router's access log (ARCHITECTURE §4)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from flywheel_collector.clock import parse_time

GENERATION = re.compile(r"[a-z0-9.-]{1,63}")
EXPERIMENT = re.compile(r"[A-Za-z0-9._:-]{1,128}")
SEGMENT = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SLICES = ("none", "control", "candidate", "rest")
NONE, CONTROL, CANDIDATE, REST = range(4)
_SLICE = {name: number for number, name in enumerate(SLICES)}
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|\+00:00)")


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
    revision: int = 0
    """Of the routes; 0 when it is not known."""
    segment: str = ""
    """What the app says of the user, if that is a name."""

    @property
    def answered(self) -> bool:
        return 200 <= self.status < 300

    @property
    def exposes(self) -> bool:
        return self.user is not None and self.purpose is None and self.experiment != "" and self.slice in (CONTROL, CANDIDATE)


def _whole(fields: dict[str, Any], name: str, limit: int) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
        raise Malformed(f"{name} is not a whole number from 0 to {limit - 1}")
    return value


class Names:
    """Which names are well-formed, remembered: there are few of them, and every line has some."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern, self._known = pattern, dict[str | None, str]({None: ""})

    def __call__(self, text: str | None) -> str:
        known = self._known.get(text)
        if known is None:
            assert text is not None
            known = text if self._pattern.fullmatch(text) else ""
            if len(self._known) < 10_000:
                self._known[text] = known
        return known


_experiment, _generation, _segment = Names(EXPERIMENT), Names(GENERATION), Names(SEGMENT)
_seconds: dict[str, int] = {}


def time_ms(text: Any) -> int:
    """As `parse_time`; lines of one second share the work. Raises ValueError and TypeError."""
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        return parse_time(text)
    second = _seconds.get(text[:19])
    if second is None:
        if len(_seconds) > 1000:
            _seconds.clear()
        second = _seconds[text[:19]] = parse_time(text[:19] + "Z")
    return second + int(text[20:23])


def _object(line: bytes) -> dict[str, Any]:
    text = line.decode()
    try:
        value, end = _scan(text, 0)
    except StopIteration as error:
        raise Malformed("not JSON") from error
    if end != len(text):
        value = json.loads(text)
    if not isinstance(value, dict):
        raise Malformed("not an object")
    return value


_TEXTS = ("requestId", "user", "conversation", "message", "purpose", "experiment", "slice", "assignedArm", "answeredArm",
          "assignedGeneration", "answeredGeneration", "segment")  # fmt: skip


def _texts(fields: dict[str, Any]) -> list[str | None]:
    get, texts = fields.get, list[str | None]()
    for name in _TEXTS:
        value = get(name)
        if value is None or value == "-" or value == "":
            texts.append(None)
        elif value.__class__ is str:
            texts.append(value)
        else:
            raise Malformed(f"{name} is not a string")
    return texts


def parse(line: bytes) -> Request:
    try:
        fields = _object(line)
        ms = time_ms(fields["time"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Malformed(str(error)) from error
    status = _whole(fields, "status", 600)
    duration_ms = None if fields.get("durationMs") in (None, "-") else _whole(fields, "durationMs", 1 << 40)
    request, user, conversation, message, purpose, experiment, slice_, assigned, answered, should, did, segment = _texts(fields)
    revision = fields.get("revision")
    return Request(
        ms,
        request or line.decode("utf-8", "replace"),
        status,
        duration_ms,
        user,
        conversation,
        message,
        purpose,
        _experiment(experiment),
        _SLICE.get(slice_ or "none", NONE),
        _generation(did or should),
        status == 0 or status >= 500,
        assigned is not None and answered is not None and assigned != answered,
        revision if isinstance(revision, int) and 0 < revision < 1 << 53 else 0,
        _segment(segment),
    )
