"""Logs as JSON lines: time, level, logger, message, the object they are about, and an error's trace."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import sys

_EXTRAS = ("object", "reason", "seconds", "failures")
# Nothing that authenticates is ever logged on purpose; a library's error text is not on purpose.
_AUTHORIZATION = r"(?:authorization['\"]?\s*[:=]\s*['\"]?)"
_SECRETS = re.compile(rf"(?i)({_AUTHORIZATION}?(?:bearer|basic)\s+|{_AUTHORIZATION}|//[^/\s:@]+:(?=[^/\s@]+@))[^\s'\"@]+")


class JsonFormatter(logging.Formatter):
    """One record, one line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _SECRETS.sub(r"\1…", record.getMessage()),
        }
        line |= {name: getattr(record, name) for name in _EXTRAS if hasattr(record, name)}
        if record.exc_info:
            line["trace"] = _SECRETS.sub(r"\1…", self.formatException(record.exc_info))
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logs(level: str) -> None:
    """All loggers, kopf's too, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("kopf", "kopf.objects", "aiohttp.access", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
