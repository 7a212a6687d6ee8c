"""What laps have cost, and what served users at a time, also when the objects are gone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flywheel.cli.cost import costs
from flywheel.cli.errors import Problem
from flywheel.cli.lineage import ancestry, lineage
from flywheel.cli.served import moment, served
from tests.cli.conftest import Flywheel
from tests.cli.fake_api import FakeApi
from tests.cli.recorded import NOW, Object, everything, recorded

MEMORY: list[Object] = [
    {"generation": "companion-initial", "servedFrom": "2026-11-01T00:00:00Z", "servedUntil": "2026-11-20T10:00:00Z", "digest": "sha256:aa"},
    {
        "generation": "companion-1",
        "parent": "companion-initial",
        "digest": "sha256:bb",
        "verdict": "Promoted",
        "startTime": "2026-11-18T00:00:00Z",
        "decisionTime": "2026-11-20T10:00:00Z",
        "servedFrom": "2026-11-20T10:00:00Z",
        "shares": [
            {"since": "2026-11-19T00:00:00Z", "percent": 5},
            {"since": "2026-11-19T12:00:00Z", "percent": 50},
            {"since": "2026-11-20T10:00:00Z", "percent": 0},
        ],
        "gpuSeconds": 7200,
        "cost": 5.0,
        "currency": "USD",
        "recordUri": "file:///flywheel/artifacts/r",
    },
    {
        "generation": "companion-2",
        "parent": "companion-1",
        "verdict": "Rejected",
        "startTime": "2026-11-21T00:00:00Z",
        "decisionTime": "2026-11-21T10:00:00Z",
        "gpuSeconds": 3600,
        "cost": 2.5,
        "currency": "USD",
    },
]


def with_memory(*entries: Object) -> Object:
    body = recorded("Flywheel", "companion")
    body["status"] |= {
        "lineage": list(entries or MEMORY),
        "previous": [],
        "champion": {**body["status"]["champion"], "since": "2026-11-20T10:00:00Z"},
    }
    return body


def at(time: str, body: Object | None = None) -> list[tuple[str, str, str]]:
    return [(one.generation, one.role, one.share) for one in served(body or with_memory(), *moment(time), NOW)]


@pytest.mark.parametrize(
    ("time", "who"),
    [
        ("2026-11-10", [("companion-initial", "champion")]),
        ("2026-11-19T06:00:00Z", [("companion-initial", "champion"), ("companion-1", "candidate")]),
        ("2026-11-19T09:59:59+03:00", [("companion-initial", "champion"), ("companion-1", "candidate")]),
        ("2026-11-20", [("companion-initial", "champion"), ("companion-1", "candidate"), ("companion-1", "champion")]),
        ("2026-11-20T10:00:00Z", [("companion-1", "champion")]),
        ("2026-11-23", [("companion-1", "champion")]),
    ],
)
def test_what_served_users_on_a_day_has_an_answer_without_laps_and_rollouts(time: str, who: list[tuple[str, str]]) -> None:
    assert [(generation, role) for generation, role, _ in at(time)] == who


def test_a_candidates_share_is_the_one_of_that_time() -> None:
    assert at("2026-11-19T06:00:00Z")[1] == ("companion-1", "candidate", "5 %")
    assert at("2026-11-19T13:00:00Z")[1] == ("companion-1", "candidate", "50 %")
    assert [share for _, role, share in at("2026-11-19") if role == "candidate"] == ["5 %", "50 %"]


def test_a_flywheel_of_an_older_operator_answers_with_its_champions() -> None:
    body = recorded("Flywheel", "companion")
    assert at("2026-11-24T23:15:00Z", body) == [("companion-initial", "champion", "all but a candidate's")]


@pytest.mark.parametrize(
    ("time", "says"),
    [
        ("2026-10-01", "its memory begins at 2026-11-01"),
        ("2027-01-01", "is still to come"),
        ("last week", "--at 'last week' is no time; write a day such as 2026-11-20"),
        ("2026-13-01", "is no time"),
    ],
)
def test_a_time_of_which_nothing_can_be_known_is_refused_in_words(time: str, says: str) -> None:
    with pytest.raises(Problem) as problem:
        at(time)
    assert says in str(problem.value)


def test_the_lineage_goes_back_to_the_root_when_the_laps_are_gone() -> None:
    entries = lineage(with_memory(), [])
    assert [entry.generation for entry in ancestry(entries, "companion-2")] == ["companion-initial", "companion-1", "companion-2"]
    assert [(entry.verdict, entry.record) for entry in entries][1] == ("Promoted", "file:///flywheel/artifacts/r")
    assert ancestry(entries, "nobody") == []


def test_a_circle_of_parents_ends() -> None:
    circle = [{"generation": g, "parent": p, "startTime": "2026-11-18T00:00:00Z"} for g, p in (("a", "b"), ("b", "a"))]
    assert [entry.generation for entry in ancestry(lineage(with_memory(*circle), []), "a")] == ["b", "a"]


# ------------------------------------------------------------------------------------------------------------------ cost


def lap(name: str, verdict: str, cost: Any) -> Object:
    body = recorded("Generation", "companion-1")
    body["metadata"]["name"] = name
    body["status"] |= {"cost": cost, "startTime": "2026-11-23T00:00:00Z"}
    body["status"]["decision"]["verdict"] = verdict
    return body


PRICED = {
    "currency": "USD",
    "amount": 10.0,
    "gpuSeconds": 14400.0,
    "cpuSeconds": 900.0,
    "stages": [
        {"name": "sft", "gpuSeconds": 14400.0, "cpuSeconds": 900.0, "amount": 10.0},
        {"name": "curate", "gpuSeconds": 0, "cpuSeconds": 0},
    ],
}


def test_a_flywheels_bill_has_laps_that_are_gone_and_a_price_for_each_promotion() -> None:
    bill = costs(with_memory(), [lap("companion-3", "Promoted", PRICED)])
    assert [(row[0], row[2], row[4]) for row in bill.rows()] == [
        ("companion-1", "2.00", "5.00 USD"),
        ("companion-2", "1.00", "2.50 USD"),
        ("companion-3", "4.00", "10.00 USD"),
        ("  sft", "4.00", "10.00 USD"),
        ("all", "7.00", "17.50 USD"),
    ]
    assert bill.words()[0] == "8.75 USD for each promoted generation (2 of 3 laps)."
    assert bill.dump()["total"] == {"gpuHours": 7.0, "amount": 17.5}


def test_without_prices_there_are_hours_and_a_word_on_what_is_missing() -> None:
    unpriced = {key: value for key, value in PRICED.items() if key not in ("currency", "amount", "stages")}
    bill = costs(with_memory(), [lap("companion-3", "Promoted", unpriced)])
    assert bill.rows()[-1] == ("all", "", "7.00", "-", "-")
    assert bill.words()[:2] == [
        "3.50 GPU hours for each promoted generation (2 of 3 laps).",
        "Without a cost: companion-3; no prices were set for what they used (chart value `prices`).",
    ]


def test_different_currencies_are_not_added_up() -> None:
    bill = costs(with_memory(), [lap("companion-3", "Promoted", {**PRICED, "currency": "EUR"})])
    assert bill.total.amount is None
    assert "different currencies (EUR, USD)" in " ".join(bill.words())


def test_a_lap_of_an_older_operator_has_its_gpu_hours() -> None:
    bill = costs(recorded("Generation", "companion-1"), [])
    assert bill.rows() == [("companion-1", "Promoted", "0.00", "-", "-")]


def test_the_command_prints_the_bill_and_refuses_what_has_none(api: FakeApi, flywheel: Flywheel) -> None:
    run = next(body for body in everything() if body["kind"] == "TrainingRun")
    api.hold(with_memory(), lap("companion-3", "Promoted", PRICED), run)
    said = flywheel("cost", "flywheel/companion")
    assert said.exit_code == 0
    assert "companion-3  Promoted  4.00       0.25       10.00 USD" in said.output
    assert "Serving (arms, router, collector) is not counted." in said.output
    assert json.loads(flywheel("cost", "generation/companion-3", "-o", "json").output)["laps"][0]["stages"][0]["amount"] == 10.0
    refused = flywheel("cost", f"trainingrun/{run['metadata']['name']}")
    assert (refused.exit_code, "has no bill of its own" in refused.output) == (1, True)


def test_the_command_answers_what_served_users_then(api: FakeApi, flywheel: Flywheel) -> None:
    api.hold(with_memory())
    said = flywheel("lineage", "flywheel/companion", "--at", "2026-11-19T13:00:00Z")
    assert said.exit_code == 0
    assert "companion-1        candidate  50 %" in said.output
    assert [one["role"] for one in json.loads(flywheel("lineage", "companion", "--at", "2026-11-23", "--json").output)] == ["champion"]
    assert flywheel("lineage", "companion", "--of", "companion-2").output.count("companion-initial") == 2
    assert flywheel("lineage", "companion", "--of", "nobody").exit_code == 1
    assert flywheel("lineage", "companion", "--of", "x", "--at", "2026-11-23").exit_code == 2
