"""What an app may post to `/v1/events`. Anyone might be posting: every field has a type and a limit, and a refused event says why."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, NoReturn

from flywheel_collector.clock import parse_time

MAX_BODY_BYTES = 1 << 20
MAX_BATCH = 1000
MAX_ID = 200
MAX_TEXT = 32_768
MAX_MESSAGES = 200
MAX_SAMPLING = 4096
FUTURE_MS = 300_000
SIGNALS = frozenset({"thumbs_up", "thumbs_down", "regenerate", "edit", "adopt", "report", "missing_knowledge"})
ROLES = frozenset({"system", "user", "assistant", "tool"})


class Refused(ValueError):
    """Why one event, or the whole body, is not taken."""


class Said(NamedTuple):
    role: str
    content: str


class Turn(NamedTuple):
    messages: tuple[Said, ...]
    response: str
    sampling: str
    """JSON."""


class Event(NamedTuple):
    id: str
    type: str
    ms: int
    user: str
    conversation: str
    message: str
    turn: Turn | None


def parse_body(body: bytes) -> list[object]:
    try:
        value = json.loads(body, parse_constant=_not_finite)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the body is not JSON: {error}") from error
    events = value.get("events") if isinstance(value, dict) else None
    if not isinstance(events, list):
        raise Refused('the body must be {"events": [...]}')
    if len(events) > MAX_BATCH:
        raise Refused(f"{len(events)} events; at most {MAX_BATCH} a request")
    return events


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def parse_event(value: object, now_ms: int, floor_ms: int) -> Event:
    if not isinstance(value, dict):
        raise Refused("an event must be an object")
    kind = _id(value, "type")
    if kind != "turn" and kind not in SIGNALS:
        raise Refused("type must be one of turn, " + ", ".join(sorted(SIGNALS)))
    try:
        ms = parse_time(_id(value, "time"))
    except ValueError as error:
        raise error if isinstance(error, Refused) else Refused("time must be RFC 3339, such as 2026-01-31T12:00:00Z") from error
    if ms > now_ms + FUTURE_MS:
        raise Refused("time is in the future")
    if ms < floor_ms:
        raise Refused("time is too long ago")
    return Event(
        id=_id(value, "id"),
        type=kind,
        ms=ms,
        user=_id(value, "user"),
        conversation=_id(value, "conversation"),
        message=_id(value, "message"),
        turn=_turn(value) if kind == "turn" else None,
    )


def _id(value: dict[str, Any], field: str) -> str:
    text = _text(value, field, MAX_ID)
    if not text or text == "-" or not text.isprintable():
        raise Refused(f"{field} must be 1 to {MAX_ID} printable characters, and not '-'")
    return text


def _text(value: dict[str, Any], field: str, limit: int) -> str:
    text = value.get(field)
    if not isinstance(text, str):
        raise Refused(f"{field} must be a string")
    if len(text) > limit:
        raise Refused(f"{field} is longer than {limit} characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refused(f"{field} is not valid Unicode") from error
    return text


def _turn(value: dict[str, Any]) -> Turn:
    messages = value.get("messages")
    if not isinstance(messages, list) or not 1 <= len(messages) <= MAX_MESSAGES:
        raise Refused(f"messages must be a list of 1 to {MAX_MESSAGES}")
    said = []
    for message in messages:
        if not isinstance(message, dict):
            raise Refused("a message must be an object with role and content")
        role = _text(message, "role", MAX_ID)
        if role not in ROLES:
            raise Refused("role must be one of " + ", ".join(sorted(ROLES)))
        said.append(Said(role, _text(message, "content", MAX_TEXT)))
    if said[-1].role != "user":
        raise Refused("the last of messages must be the user's")
    return Turn(tuple(said), _text(value, "response", MAX_TEXT), _sampling(value.get("sampling")))


def _sampling(value: object) -> str:
    if value is None:
        return "{}"
    if not isinstance(value, dict):
        raise Refused("sampling must be an object")
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise Refused("sampling must be plain JSON with finite numbers") from error  # 1e999 parses as infinite
    if len(text) > MAX_SAMPLING:
        raise Refused(f"sampling is longer than {MAX_SAMPLING} characters")
    return text
