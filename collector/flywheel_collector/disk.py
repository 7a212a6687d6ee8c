"""A reserve for a full disk: space that is given up so that what was logged can be taken, after which read logs can be removed."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sqlite3
from pathlib import Path

log = logging.getLogger(__name__)
LEAN_BYTES = 128 << 10
"""Of log in one pass while the disk is full: a small transaction needs little space."""


def is_full(error: BaseException) -> bool:
    if isinstance(error, sqlite3.Error):
        return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL if hasattr(error, "sqlite_errorcode") else "full" in str(error)
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


class Reserve:
    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size
        self.spent = False
        """The disk was full lately."""

    def spend(self) -> None:
        self.spent = True
        try:
            self._path.unlink()
            log.warning("the disk is full: %d bytes kept for this moment are given up", self._size)
        except FileNotFoundError:
            return

    def restore(self) -> None:
        """When there is plenty of space. Raises nothing: a reserve is not worth a failure."""
        if not self._size or (self._path.exists() and not self.spent):
            return
        try:
            if shutil.disk_usage(self._path.parent).free < 4 * self._size:
                return
            with open(self._path, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
        except OSError as error:
            log.warning("no reserve for a full disk: %s", error)
            self._path.unlink(missing_ok=True)
            return
        self.spent = False
