"""Golden values of independent libraries (see golden/freeze.py)."""

import json
from pathlib import Path

import pytest

GOLDEN = json.loads((Path(__file__).parent / "golden" / "golden.json").read_text())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`case` runs over the golden cases that the mark `golden("part")` names."""
    if mark := metafunc.definition.get_closest_marker("golden"):
        metafunc.parametrize("case", GOLDEN[mark.args[0]])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "golden(part): run over the cases of this part of golden.json")
