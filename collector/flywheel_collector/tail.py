"""Reads `<logs>/<router pod>/access.jsonl` and its rotated siblings from where it stopped, and removes what is read to its end.

A file is known by its pod and its first bytes (the first line carries a request id), not by name or inode: renaming, copy-and-truncate, a
reused inode and a restart in between all look alike. Nothing is kept open; a file that did not change is not opened.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

LIVE, SIGN_OF_LIFE = "access.jsonl", "router.json"
_LOG = re.compile(r"access\.jsonl(\.\d[\w-]*)?")
HEAD_BYTES = 1024
REST_MS = 60_000
"""A rotated file is removed this long after it was last written to; Envoy does not write to it any more."""
DEAD_MS = 3_600_000
"""A router that gives no sign of life for so long is gone."""


class Place(NamedTuple):
    pod: str
    head: bytes


class Chunk(NamedTuple):
    place: Place
    offset: int
    """After these lines."""
    lines: list[bytes]
    behind: bool
    """There is more to read."""


class Removed(NamedTuple):
    places: list[Place]
    torn: int
    """Last lines without an end, which a full disk leaves."""


class _Seen(NamedTuple):
    inode: int
    size: int
    mtime_ns: int


class Tail:
    def __init__(self, root: Path, budget: int = 1 << 20) -> None:
        self._root, self._budget = root, budget
        self._done: dict[str, _Seen] = {}
        self._places: dict[str, Place] = {}

    def available(self) -> bool:
        return self._root.is_dir()

    def _files(self) -> Iterator[tuple[str, str, os.stat_result]]:
        for pod in os.scandir(self._root):
            if pod.is_dir(follow_symlinks=False):
                for entry in os.scandir(pod.path):
                    if _LOG.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        try:
                            yield pod.name, entry.path, entry.stat()
                        except FileNotFoundError:
                            continue

    def read(self, offsets: Mapping[Place, int], budget: int | None = None) -> list[Chunk]:
        """The next lines of every file that has some. Whole lines only; at most the budget in all."""
        changed: list[tuple[str, str, _Seen]] = []
        present = set()
        for pod, path, stat in self._files():
            present.add(path)
            seen = _Seen(stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if stat.st_size and self._done.get(path) != seen:
                changed.append((pod, path, seen))
        self._done = {path: seen for path, seen in self._done.items() if path in present}
        self._places = {path: place for path, place in self._places.items() if path in present}
        chunks: dict[Place, Chunk] = {}
        share = max((budget or self._budget) // max(len(changed), 1), 64 << 10)
        # The longest first: of two copies of one file (copy-and-truncate in mid-air) only that is read.
        for pod, path, seen in sorted(changed, key=lambda item: -item[2].size):
            try:
                chunk = _read(pod, path, offsets, share, chunks.keys())
            except FileNotFoundError:
                continue
            if chunk is not None:
                chunks[chunk.place] = chunk
                self._places[path] = chunk.place
            if chunk is None or not chunk.behind:
                self._done[path] = seen
        return [chunk for chunk in chunks.values() if chunk.lines]

    def reread(self) -> None:
        """After a failed transaction: what was read has to be read again."""
        self._done.clear()

    def remove_read(self, offsets: Mapping[Place, int], now_ms: int) -> Removed:
        """Rotated files whose lines are all taken and durably counted, and the directories of routers that are gone.

        A file next to which there is no `access.jsonl` may still be written to: only Envoy makes that, when it opens its log anew.
        """
        places: list[Place] = []
        torn = 0
        for pod in os.scandir(self._root):
            if not pod.is_dir(follow_symlinks=False):
                continue
            files = {entry.path: entry.stat() for entry in os.scandir(pod.path) if _LOG.fullmatch(entry.name)}
            live, dead = os.path.join(pod.path, LIVE), _is_dead(pod.path, files.values(), now_ms)
            read = [path for path, stat in files.items() if self._is_read(path, stat, offsets)]
            if dead and len(read) == len(files):
                shutil.rmtree(pod.path, ignore_errors=True)
            elif live in files or dead:
                read = [path for path in read if path != live and now_ms - files[path].st_mtime_ns // 1_000_000 > REST_MS]
                for path in read:
                    os.unlink(path)
            else:
                continue
            for path in read:
                place = self._places.pop(path, None)
                self._done.pop(path, None)
                torn += place is not None and offsets.get(place, 0) < files[path].st_size
                places += [place] if place is not None else []
        return Removed(places, torn)

    def _is_read(self, path: str, stat: os.stat_result, offsets: Mapping[Place, int]) -> bool:
        if not stat.st_size:
            return True
        place = self._places.get(path)
        unchanged = self._done.get(path) == _Seen(stat.st_ino, stat.st_size, stat.st_mtime_ns)
        return unchanged and place is not None and place in offsets


def _is_dead(directory: str, logs: Collection[os.stat_result], now_ms: int) -> bool:
    """A router that never gave a sign of life (an older one) is left alone."""
    try:
        signs = [os.stat(os.path.join(directory, SIGN_OF_LIFE)), *logs]
    except FileNotFoundError:
        return False
    return all(now_ms - stat.st_mtime_ns // 1_000_000 > DEAD_MS for stat in signs)


def _read(pod: str, path: str, offsets: Mapping[Place, int], share: int, taken: Collection[Place]) -> Chunk | None:
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        end = head.find(b"\n")
        if end < 0 and len(head) < HEAD_BYTES:
            return None  # not one whole line yet
        place = Place(pod, blake2b(head[: end + 1] if end >= 0 else head, digest_size=16).digest())
        if place in taken:
            return None
        offset = offsets.get(place, 0)
        file.seek(offset)
        data = file.read(share)
        whole = data.rfind(b"\n") + 1
        if not whole and len(data) == share:
            whole = len(data)  # a line longer than the share: its pieces are malformed, and counted
        behind = len(data) == share and whole > 0
        return Chunk(place, offset + whole, data[:whole].splitlines(), behind)
