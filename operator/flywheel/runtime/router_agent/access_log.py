"""The access log's care: rotation, and what Envoy itself has counted, so that the collector can tell whether lines are missing.

`access.jsonl` is renamed when it is large or old, and Envoy told to open a new one. Its absence means that this has not been done yet (only
Envoy makes it), so a death between the two steps is mended by the next look. The collector removes what it has read; past a limit
the oldest rotated file goes unread, which the counts then show. `router.json` beside the log holds Envoy's counts and the routes' salts.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flywheel.runtime.router_agent.envoy import Counts, Envoy
from flywheel.specs.envoy import Routes

log = logging.getLogger(__name__)
INTERVAL_SECONDS = 1.0
MAX_ROUTES = 256
MAX_EXPERIMENTS = 64


@dataclass(frozen=True)
class Limits:
    rotate_bytes: int = 64 << 20
    rotate_seconds: float = 3600
    keep_bytes: int = 4 << 30
    """Of rotated files that nobody has read."""


@dataclass
class Ledger:
    """What `router.json` says. Requests by experiment ("": none) and slice, over all lives of this pod's Envoy."""

    time_ms: int = 0
    requests: dict[str, dict[str, int]] = field(default_factory=dict)
    routes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By revision: experiment, salt, weightPercent."""
    uptime: float = 0
    base: dict[str, dict[str, int]] = field(default_factory=dict)
    """What earlier lives of Envoy had counted; of each, its last second may be missing."""

    def count(self, counts: Counts, now_ms: int) -> None:
        if counts.uptime < self.uptime or any(
            counts.requests.get(place, 0) < n - self.base.get(place[0], {}).get(place[1], 0) for place, n in _flat(self.requests).items()
        ):
            self.base = self.requests
        self.time_ms, self.uptime = now_ms, counts.uptime
        totals = Counter(_flat(self.base))
        totals.update(counts.requests)
        self.requests = _nested(totals)
        if len(self.requests) > MAX_EXPERIMENTS:  # Envoy lists its counters by name: of the experiments that do not change, some go
            current = {route["experiment"] or "" for route in self.routes.values()}
            keep = sorted(self.requests, key=lambda name: name in current)[-MAX_EXPERIMENTS:]
            self.requests = {name: self.requests[name] for name in keep}

    def know(self, routes: Routes) -> None:
        known = {"experiment": routes.experiment, "salt": routes.salt, "weightPercent": routes.weight_percent}
        self.routes[str(routes.revision)] = known
        for oldest in sorted(self.routes, key=int)[:-MAX_ROUTES]:
            del self.routes[oldest]


def _flat(nested: dict[str, dict[str, int]]) -> dict[tuple[str, str], int]:
    return {(experiment, slice_): n for experiment, slices in nested.items() for slice_, n in slices.items()}


def _nested(flat: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (experiment, slice_), n in flat.items():
        nested.setdefault(experiment, {})[slice_] = n
    return nested


class AccessLog:
    def __init__(self, directory: Path, envoy: Envoy, limits: Limits | None = None, clock: Callable[[], float] = time.time) -> None:
        self._directory, self._envoy, self._limits, self._clock = directory, envoy, limits or Limits(), clock
        self._path, self._told = directory / "access.jsonl", directory / "router.json"
        self._ledger = _load(self._told)
        self._rotated_at = clock()
        self.counts: Counter[str] = Counter()
        self.failed_writes = 0
        """Of Envoy's own, as it counts them: lines that never reached the disk."""

    async def run(self, routes: Callable[[], Routes | None]) -> None:
        """For ever. A disk that is full or away is said and tried again; the router goes on."""
        while True:
            await self.step(routes())
            await asyncio.sleep(INTERVAL_SECONDS)

    async def step(self, routes: Routes | None) -> None:
        counts = await self._envoy.logged()
        try:
            reopen = await asyncio.to_thread(self._care, routes, counts)
        except OSError as error:
            self.counts["failed"] += 1
            if self.counts["failed"] % 60 == 1:
                log.error("the access log's directory can't be written: %s", error)
            return
        if reopen and counts is not None and await self._envoy.reopen_logs():
            self.counts["rotated"] += 1

    def _care(self, routes: Routes | None, counts: Counts | None) -> bool:
        """-> whether Envoy has to open its log anew. Rotation comes first: it works on a disk that is full."""
        if not self._directory.is_dir():
            return False
        reopen = self._rotate()
        if counts is not None:
            self.failed_writes = counts.failed_writes
            if routes is not None:
                self._ledger.know(routes)
            self._ledger.count(counts, round(self._clock() * 1000))
            self._tell()
        return reopen

    def _rotate(self) -> bool:
        now = self._clock()
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return True
        old = now - self._rotated_at >= self._limits.rotate_seconds
        if size < self._limits.rotate_bytes and not (size and old):
            return False
        os.rename(self._path, self._path.with_name(f"access.jsonl.{time.time_ns()}"))
        self._rotated_at = now
        self._drop()
        return True

    def _drop(self) -> None:
        """The oldest rotated files past the limit: a collector that is away must not fill the disk for everybody."""
        rotated = sorted(self._directory.glob("access.jsonl.*"), key=lambda path: path.stat().st_mtime, reverse=True)
        kept = 0
        for path in rotated:
            kept += path.stat().st_size
            if kept > self._limits.keep_bytes:
                path.unlink(missing_ok=True)
                self.counts["dropped"] += 1
                log.error("%s was removed before it was read: unread logs had passed %d bytes", path, self._limits.keep_bytes)

    def _tell(self) -> None:
        """Also a sign of life, which needs no space: the collector sees a router that lives and cannot write."""
        temporary = self._told.with_name(".router.json.tmp")
        try:
            temporary.write_text(json.dumps(asdict(self._ledger)))
            os.replace(temporary, self._told)
        except OSError:
            if self._told.exists():
                os.utime(self._told)
            raise


def _load(path: Path) -> Ledger:
    try:
        return Ledger(**json.loads(path.read_text()))
    except FileNotFoundError:
        return Ledger()
    except (OSError, ValueError, TypeError) as error:
        log.warning("%s can't be read, starting without it: %s", path, error)
        return Ledger()
