"""Reads `<logs>/<router pod>/access.jsonl` and its rotated siblings from where it stopped.

A file is known by its pod and its first bytes (the first line carries a request id), not by name or inode: renaming, copy-and-truncate, a
reused inode and a restart in between all look alike. Nothing is kept open; a file that did not change is not opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

_LOG = re.compile(r"access\.jsonl(\.\d[\w-]*)?")
HEAD_BYTES = 1024


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


class _Seen(NamedTuple):
    inode: int
    size: int
    mtime_ns: int


class Tail:
    def __init__(self, root: Path, budget: int = 1 << 20) -> None:
        self._root, self._budget = root, budget
        self._done: dict[str, _Seen] = {}

    def available(self) -> bool:
        return self._root.is_dir()

    def _files(self) -> Iterator[tuple[str, str, os.stat_result]]:
        for pod in os.scandir(self._root):
            if pod.is_dir(follow_symlinks=False):
                for entry in os.scandir(pod.path):
                    if _LOG.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        yield pod.name, entry.path, entry.stat()

    def read(self, offsets: Mapping[Place, int]) -> list[Chunk]:
        """The next lines of every file that has some. Whole lines only; at most the budget in all."""
        changed: list[tuple[str, str, _Seen]] = []
        present = set()
        for pod, path, stat in self._files():
            present.add(path)
            seen = _Seen(stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if stat.st_size and self._done.get(path) != seen:
                changed.append((pod, path, seen))
        self._done = {path: seen for path, seen in self._done.items() if path in present}
        chunks: dict[Place, Chunk] = {}
        share = max(self._budget // max(len(changed), 1), 64 << 10)
        # The longest first: of two copies of one file (copy-and-truncate in mid-air) only that is read.
        for pod, path, seen in sorted(changed, key=lambda item: -item[2].size):
            try:
                chunk = _read(pod, path, offsets, share, chunks.keys())
            except FileNotFoundError:
                continue
            if chunk is not None:
                chunks[chunk.place] = chunk
            if chunk is None or not chunk.behind:
                self._done[path] = seen
        return [chunk for chunk in chunks.values() if chunk.lines]

    def reread(self) -> None:
        """After a failed transaction: what was read has to be read again."""
        self._done.clear()


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
