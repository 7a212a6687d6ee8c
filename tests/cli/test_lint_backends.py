"""`lint` agrees with the API server about where a run may run."""

from __future__ import annotations

import pytest

from flywheel.cli.lint import lint
from tests.cluster.objects import Object
from tests.cluster.test_bad_backends import GOOD, LINT_WORDS, MISTAKES


@pytest.mark.parametrize("mistake", MISTAKES)
def test_lint_finds_the_same_field(mistake: str) -> None:
    body, field, words = MISTAKES[mistake]
    (finding,) = lint(body)
    assert finding.path == field
    assert LINT_WORDS.get(mistake, words) in finding.message


@pytest.mark.parametrize("body", GOOD.values(), ids=list(GOOD))
def test_what_is_right_passes(body: Object) -> None:
    assert lint(body) == []
