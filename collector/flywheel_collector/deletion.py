"""A user's data is deleted: from the state at once, then from the Parquet files, and for good by a list that Curate reads.

`tombstones.json` beside the conversations names users by their hash; curated data that is made from now on leaves out what they said
until then. Until every file has been looked through the tombstone is not done; a restart in between looks through them again.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flywheel_collector.clock import as_datetime
from flywheel_collector.experiments import Experiments
from flywheel_collector.identity import user_hash
from flywheel_collector.moments import withdraw
from flywheel_collector.store import Store

log = logging.getLogger(__name__)
FILE = "tombstones.json"


class Deletion:
    def __init__(self, store: Store, experiments: Experiments, root: Path) -> None:
        self._store, self._experiments, self._root = store, experiments, root
        self.until: dict[int, int] = dict(store.db.execute("SELECT user, ms FROM tombstone").fetchall())
        """What a user did up to this time is deleted, also if the log tells it only now."""
        self._files: Iterator[Path] | None = None
        self._users: dict[str, int] = {}
        self._listed = False

    @property
    def pending(self) -> int:
        return int(self._store.db.execute("SELECT count(*) FROM tombstone WHERE done = 0").fetchone()[0])

    def delete(self, user_id: str, now_ms: int) -> None:
        """At once in the state, the experiments' numbers included."""
        user = self._store.identity.user(user_id)
        registered = self._experiments.all()
        with self._store.transaction() as db:
            for experiment, slice_, exposed_ms in db.execute(
                "SELECT experiment, slice, exposed_ms FROM subject WHERE user = ?", (user,)
            ).fetchall():
                if experiment in registered:
                    withdraw(db, user, registered[experiment])
                    db.execute(
                        "UPDATE moment SET n = n - ? WHERE experiment = ? AND slice = ? AND metric = 'assigned'",
                        (registered[experiment].definition.enrols(exposed_ms), experiment, slice_),
                    )
            said = db.execute("SELECT DISTINCT conversation FROM utterance WHERE user = ?", (user,)).fetchall()
            for table in ("subject", "message", "signal", "utterance"):
                db.execute(f"DELETE FROM {table} WHERE user = ?", (user,))  # noqa: S608
            db.executemany("DELETE FROM conversation WHERE id = ?", said)
            db.execute("INSERT OR REPLACE INTO tombstone VALUES(?, ?, 0)", (user, now_ms))
        self.until[user] = now_ms
        self._files, self._listed = None, False

    def step(self) -> bool:
        """Some of what is left to do in files, in small pieces; -> whether there is more."""
        if self.until and not self._listed:
            self._list()
        if self._files is None:
            self._users = {user_hash(user): user for (user,) in self._store.db.execute("SELECT user FROM tombstone WHERE done = 0")}
            if not self._users:
                return False
            self._files = iter(sorted(self._root.glob("date=*/generation=*/*.parquet")))
        for path in self._files:
            self._clean(path)
            return True
        with self._store.transaction() as db:
            db.executemany("UPDATE tombstone SET done = 1 WHERE user = ? AND ms = ?", [(u, self.until[u]) for u in self._users.values()])
        self._files = None
        return True

    def _list(self) -> None:
        """Everybody who was ever deleted: artifacts of any age may be curated again."""
        entries = [{"user_hash": user_hash(user), "deletedAt": as_datetime(ms).isoformat()} for user, ms in sorted(self.until.items())]
        replace(self._root / FILE, json.dumps({"users": entries}, indent=1).encode())
        self._listed = True

    def _clean(self, path: Path) -> None:
        try:
            hashes = pq.read_table(path, columns=["user_hash", "time"], partitioning=None)
            if not pc.any(pc.is_in(hashes["user_hash"], value_set=pa.array(list(self._users)))).as_py():
                return
            table = pq.read_table(path, partitioning=None)
        except FileNotFoundError:
            return
        keep = [
            self._users.get(row["user_hash"]) is None or row["time"].timestamp() * 1000 > self.until[self._users[row["user_hash"]]]
            for row in hashes.to_pylist()
        ]
        if not any(keep):
            path.unlink()
            return
        sink = path.with_name(f".{path.name}.tmp")
        with open(sink, "wb") as file:
            pq.write_table(table.filter(keep), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        os.replace(sink, path)


def replace(path: Path, content: bytes) -> None:
    """All or nothing, and durable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
