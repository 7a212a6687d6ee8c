"""n, Σx and Σx² per (experiment, slice, metric), kept by difference so that publishing costs the same for ten users and for ten million."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence

from flywheel_collector.outcome import METRICS

_VALUES = ", ".join(METRICS)

Change = tuple[int, int, str, int, int, int]
"""experiment, slice, metric, and what to add to n, Σx, Σx²."""


def contribution(experiment: int, slice_: int, values: Sequence[int | None], sign: int) -> list[Change]:
    return [(experiment, slice_, metric, sign, sign * x, sign * x * x) for metric, x in zip(METRICS, values, strict=True) if x is not None]


def settle(db: sqlite3.Connection, changes: Iterable[Change]) -> None:
    sums: defaultdict[tuple[int, int, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for experiment, slice_, metric, n, total, squares in changes:
        entry = sums[experiment, slice_, metric]
        entry[0] += n
        entry[1] += total
        entry[2] += squares
    db.executemany(
        "UPDATE moment SET n = n + ?, total = total + ?, squares = squares + ? WHERE experiment = ? AND slice = ? AND metric = ?",
        [(*entry, *place) for place, entry in sums.items() if any(entry)],
    )


def withdraw(db: sqlite3.Connection, user: int, experiment: int) -> None:
    """Take a subject's numbers out of the moments again."""
    where = "WHERE user = ? AND experiment = ?"
    row = db.execute(f"SELECT slice, {_VALUES} FROM subject {where}", (user, experiment)).fetchone()  # noqa: S608
    settle(db, contribution(experiment, row[0], row[1:], -1))
    clear = ", ".join(f"{metric} = NULL" for metric in METRICS)
    db.execute(f"UPDATE subject SET {clear} {where}", (user, experiment))  # noqa: S608
