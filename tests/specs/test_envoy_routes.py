from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.specs.envoy import Arm, Routes, RoutesError, format_routes, parse_routes

EXAMPLE: dict[str, Any] = {
    "revision": 7,
    "experiment": "demo.g1-rollout.3f2a9c1e",
    "salt": "5eed",
    "weightPercent": 50,
    "assignment": {"header": "x-user-id"},
    "stable": {"arm": "companion-initial-0a1b2c3d", "generation": "initial", "service": "companion-initial-0a1b2c3d", "port": 8000},
    "candidate": {"arm": "g1-9f8e7d6c", "generation": "g1", "service": "g1-9f8e7d6c", "port": 8000},
}
OUTSIDE = {**EXAMPLE, "candidate": None, "experiment": None, "salt": None, "weightPercent": 0}


def changed(path: str, value: Any) -> dict[str, Any]:
    body = json.loads(json.dumps(EXAMPLE))
    *parents, last = path.split(".")
    at = body
    for name in parents:
        at = at[name]
    at[last] = value
    return dict(body)


def test_the_example_of_the_architecture_is_read() -> None:
    routes = parse_routes(json.dumps(EXAMPLE))
    assert (routes.revision, routes.experiment, routes.salt, routes.weight_percent, routes.header) == (
        7,
        "demo.g1-rollout.3f2a9c1e",
        "5eed",
        50,
        "x-user-id",
    )
    assert routes.stable == Arm("companion-initial-0a1b2c3d", "initial", "companion-initial-0a1b2c3d", 8000)
    assert routes.candidate is not None
    assert routes.candidate.generation == "g1"


def test_outside_a_rollout() -> None:
    routes = parse_routes(json.dumps(OUTSIDE))
    assert (routes.candidate, routes.experiment, routes.weight) == (None, None, 0)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("revision", 0, "revision must be an integer from 1 up, not 0"),
        ("revision", "7", "revision must be an integer"),
        ("revision", True, "revision must be an integer"),
        ("weightPercent", 50.01, "weightPercent must be between 0 and 50"),
        ("weightPercent", -1, "weightPercent must be between 0 and 50"),
        ("weightPercent", 0.001, "at most two decimals"),
        ("weightPercent", "5", "weightPercent must be between"),
        ("weightPercent", float("nan"), "weightPercent must be between"),
        ("salt", "a\\1b", "salt must be letters"),
        ("salt", "", "salt must be letters"),
        ("salt", None, "a candidate needs experiment and salt"),
        ("experiment", None, "a candidate needs experiment and salt"),
        ("experiment", "two words", "experiment must be letters"),
        ("candidate", None, "without a candidate"),
        ("assignment", "x-user-id", "assignment must be a JSON object"),
        ("assignment.header", "X-User", "assignment.header must be a lower-case header name"),
        ("assignment.header", ":path", "assignment.header must be"),
        ("assignment.header", "x-flywheel-user", "outside x-flywheel-"),
        ("assignment.header", 5, "assignment.header must be"),
        ("stable.service", "Bad_Name", "stable.service must be a Kubernetes name"),
        ("stable.arm", "a" * 64, "stable.arm must be a Kubernetes name"),
        ("candidate.port", 0, "candidate.port must be an integer between 1 and 65535"),
        ("candidate.port", "8000", "candidate.port must be an integer"),
        ("candidate.service", "companion-initial-0a1b2c3d", "candidate and stable must be two arms"),
        ("stable", [], "stable must be a JSON object, not list"),
        ("holdout", {}, "unknown key 'holdout'"),
        ("stable.weight", 5, "stable has the unknown key 'weight'"),
    ],
)
def test_bad_routes_are_refused_by_name(path: str, value: Any, message: str) -> None:
    with pytest.raises(RoutesError, match=message.replace(".", r"\.")):
        parse_routes(json.dumps(changed(path, value)))


@pytest.mark.parametrize("key", sorted(EXAMPLE))
def test_nothing_may_be_left_out(key: str) -> None:
    body = {name: value for name, value in EXAMPLE.items() if name != key}
    with pytest.raises(RoutesError, match=f"lacks {key}"):
        parse_routes(json.dumps(body))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '"x"', "{}", " " * 70_000])
def test_what_is_no_routes_at_all_is_refused(text: str) -> None:
    with pytest.raises(RoutesError, match=r"routes\.json"):
        parse_routes(text)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_no_value_anywhere_ends_in_another_error(value: Any) -> None:
    for path in (*EXAMPLE, "stable.arm", "stable.port", "assignment.header"):
        try:
            parse_routes(json.dumps(changed(path, value)))
        except RoutesError as error:
            assert str(error)  # noqa: PT017


names = st.from_regex(r"[a-z][a-z0-9]{0,20}", fullmatch=True)


@given(st.integers(1, 2**53 - 1), st.integers(0, 5000), names, names, st.booleans())
def test_what_is_written_is_read_back(revision: int, weight: int, stable: str, candidate: str, rollout: bool) -> None:
    first, second = Arm(f"s-{stable}", "g0", f"s-{stable}"), Arm(f"c-{candidate}", "g1", f"c-{candidate}", 9000)
    routes = Routes(revision, first)
    if rollout:
        routes = Routes(revision, first, second, "demo.x.1", "salt", weight / 100)
    assert parse_routes(format_routes(routes)) == routes
