"""The one place where the operator reads the wall clock."""

from __future__ import annotations

import datetime as dt


class SystemClock:
    """The Clock port."""

    def now(self) -> dt.datetime:
        """The time in UTC."""
        return dt.datetime.now(dt.UTC)
