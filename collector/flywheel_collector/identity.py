"""People and messages as 64-bit numbers: rows stay small and no user id is stored.

The hash is keyed with a salt that lives in the state file, so the numbers cannot be looked up from a list of known user ids.
"""

from __future__ import annotations

from hashlib import blake2b

REMEMBERED = 50_000
NOBODY = 0
"""The user of requests that carry no user id."""


class Identity:
    def __init__(self, salt: bytes) -> None:
        self._keyed = blake2b(digest_size=8, key=salt)
        self._known: dict[str, int] = {}

    def _number(self, text: str) -> int:
        digest = self._keyed.copy()
        digest.update(text.encode("utf-8", "surrogatepass"))
        return int.from_bytes(digest.digest(), "big", signed=True)

    def _remembered(self, text: str) -> int:
        """Of people and conversations, who come again and again; so many are remembered."""
        number = self._known.get(text)
        if number is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            number = self._known[text] = self._number(text)
        return number

    def user(self, user: str | None) -> int:
        return NOBODY if user is None else self._remembered("u" + user)

    def conversation(self, user: str | None, conversation: str | None) -> int:
        user, conversation = user or "", conversation or ""
        return self._remembered(f"c{len(user)}:{user}{conversation}")

    def message(self, conversation: str | None, message: str) -> int:
        """Unique within a user. A retry or regeneration has the same number."""
        conversation = conversation or ""
        return self._number(f"m{len(conversation)}:{conversation}{message}")

    def request(self, request: str) -> int:
        return self._number("r" + request)

    def event(self, event: str) -> int:
        return self._number("e" + event)


def user_hash(user: int) -> str:
    """How a user is written in the conversations."""
    return f"{user & 0xFFFF_FFFF_FFFF_FFFF:016x}"
