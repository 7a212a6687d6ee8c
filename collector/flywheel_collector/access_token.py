"""The bearer token of the app's side, from a mounted Secret. It is read again at each request: a new token needs no restart."""

from __future__ import annotations

import hmac
from pathlib import Path


class Token:
    def __init__(self, path: Path | None) -> None:
        self._path = path

    def configured(self) -> bool:
        return self._read() is not None

    def admits(self, authorization: str | None) -> bool:
        """Everybody, while no token is configured. Compared in constant time."""
        token = self._read()
        if token is None:
            return True
        kind, _, given = (authorization or "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token)

    def _read(self) -> bytes | None:
        """None also for an empty file; a token that cannot be read admits nobody."""
        if self._path is None:
            return None
        try:
            return self._path.read_bytes().strip() or None
        except FileNotFoundError:
            return None
        except OSError:
            return b"\0"
