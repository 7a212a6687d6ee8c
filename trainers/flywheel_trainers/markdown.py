"""Text of unknown origin in a card: it is shown as it is, and is never markup, a link or a row of its own."""

import json
import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")  # new lines, escapes, and turns of direction
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~$:@-])")
LIMIT = 500


def escaped(value: object, limit: int = LIMIT) -> str:
    """One line of Markdown that reads as the value; at most `limit` characters of it."""
    text = value if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else str(value)
    line = _CONTROL.sub(" ", text).strip().encode("utf-8", "replace").decode()  # half a surrogate pair can't be written
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    return _MARKUP.sub(r"\\\1", line).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    """Lines of a table; nothing without rows."""
    if not rows:
        return []
    cells = [[escaped(cell) if cell is not None else "" for cell in row] for row in rows]
    head = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return [*head, *("| " + " | ".join(row) + " |" for row in cells), ""]


def front_matter(fields: dict[str, object]) -> list[str]:
    """YAML between dashes. The values are JSON, which YAML reads as it is meant: no text can end the block or begin a tag."""
    return ["---", *(f"{key}: {json.dumps(value, ensure_ascii=True, allow_nan=False)}" for key, value in fields.items()), "---", ""]
