"""docs/failure-semantics.md and docs/known-pains.md promise nothing that no test shows."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import pytest

from flywheel.api.reasons import Reason

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "failure-semantics.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| what fails", "| ---"))]
PAINS = [line for line in (ROOT / "docs" / "known-pains.md").read_text().splitlines() if line.startswith("| ")][2:]
SHOWN = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@lru_cache
def names_in(path: str) -> set[str]:
    return set(re.findall(r"^(?:async )?def (test_\w+)", (ROOT / path).read_text(), re.MULTILINE))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_every_row_is_shown_by_tests_that_exist(row: str) -> None:
    assert row.count(" | ") == 4, "what fails, what you see, what happens, what to do, shown by"
    shown = SHOWN.findall(row)
    assert shown, "a row without a test is a hope"
    assert [f"{path}::{name}" for path, name in shown if name not in names_in(path)] == []


@pytest.mark.parametrize("row", PAINS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_every_pain_of_other_controllers_is_met_by_tests_that_exist(row: str) -> None:
    assert row.count(" | ") == 3, "pain, for example, what Flywheel does instead, shown by"
    shown = SHOWN.findall(row)
    assert shown
    assert [f"{path}::{name}" for path, name in shown if name not in names_in(path)] == []


def test_every_alert_that_is_named_exists() -> None:
    alerts = set(re.findall(r"alert: (\w+)", (ROOT / "helm/flywheel/files/alerts.yaml").read_text()))
    assert set(re.findall(r"`(Flywheel[A-Z]\w+)`", PAGE)) <= alerts


def test_every_reason_that_is_named_exists() -> None:
    conditions = {"Reconciled", "Succeeded", "SpecPinned", "Restored", "Failed", "WATCH"}
    said = {word for row in ROWS for word in re.findall(r"`([A-Z][A-Za-z]+)`", row.split(" | ")[1])}
    unknown = said - {reason.value for reason in Reason} - conditions
    assert {word for word in unknown if not word.startswith("Flywheel")} == set()
