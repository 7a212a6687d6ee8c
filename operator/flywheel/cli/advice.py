"""What docs/reasons.md says of each reason. The page is shipped with the command, so that there is one place for these words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

COLUMNS = 4  # reason, what it means, what happens next, what to do


@dataclass(frozen=True)
class Advice:
    """A row of the page."""

    means: str
    next: str
    mend: str


def parse(page: str) -> dict[str, Advice]:
    """The rows of the tables of reasons."""
    rows = ([cell.strip() for cell in line.strip().strip("|").split("|")] for line in page.splitlines() if line.startswith("| `"))
    return {row[0].strip("`"): Advice(*row[1:]) for row in rows if len(row) == COLUMNS}


def advice() -> Mapping[str, Advice]:
    """Every reason's row."""
    return parse(resources.files("flywheel.cli").joinpath("reasons.md").read_text(encoding="utf-8"))
