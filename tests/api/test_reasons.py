"""Every reason a condition can have is explained."""

from __future__ import annotations

import re
from pathlib import Path

from flywheel.api.reasons import Reason

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "reasons.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)


def test_every_reason_has_exactly_one_entry() -> None:
    documented = [match[1] for match in ROW.finditer(TEXT)]
    assert sorted(documented) == sorted(reason.value for reason in Reason)


def test_every_entry_says_what_it_means_what_follows_and_what_to_do() -> None:
    for match in ROW.finditer(TEXT):
        assert all(len(match[column].strip()) > 5 for column in (2, 3, 4)), match[0]


def test_every_reason_is_camel_case_as_kubernetes_wants_it() -> None:
    assert [r.value for r in Reason if not re.fullmatch(r"[A-Z][A-Za-z]+", r.value)] == []
