"""Rules that keep people out of training data: what looks like an identifier leaves, and what can't be read leaves too.

Rules find forms, not meanings: names and places pass. They are the floor under whatever classifier a deployment adds before it.
"""

import re
from collections.abc import Callable

_IBAN = r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b"
_IPV6 = r"(?<![\w:])(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{1,4}(?![\w:])|(?<![\w:])(?:[0-9a-fA-F]{1,4}:){1,6}:[0-9a-fA-F]{1,4}"
_DIGITS = r"(?<![\w.])\+?\d(?:[ ().\-/]{0,2}\d){%d,%d}(?!\w)"


def _luhn(text: str) -> bool:
    digits = [int(c) for c in text if c.isdigit()]
    doubled = [d if i % 2 == 0 else (2 * d - 9 if d > 4 else 2 * d) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _octets(text: str) -> bool:
    return all(int(part) < 256 for part in text.split("."))


def _phone(text: str) -> bool:
    """Seven digits and more: years, prices and times are shorter; a date such as 2026-11-23 isn't a number to call."""
    return re.fullmatch(r"(?:\d{4}[-/.]\d{2}[-/.]\d{2}|\d{2}[-/.]\d{2}[-/.]\d{4})", text.strip()) is None


# In this order: a card number is a card before it is a phone number.
RULES: tuple[tuple[str, "re.Pattern[str]", Callable[[str], bool] | None], ...] = (
    ("email", re.compile(r"(?<![\w.+'-])[\w.+'-]{1,64}\s?@\s?[\w-]{1,63}(?:\.[\w-]{1,63})+"), None),
    ("secret", re.compile(r"\b(?:sk|ghp|gho|xox[abp]|AKIA)[-_]?[A-Za-z0-9_-]{12,}\b|-----BEGIN [A-Z ]*PRIVATE KEY"), None),
    ("url-credentials", re.compile(r"\b\w+://[^\s/:@]+:[^\s/@]+@"), None),
    ("iban", re.compile(_IBAN), None),
    ("card", re.compile(_DIGITS % (12, 18)), _luhn),
    ("ssn", re.compile(r"\b\d{3}-\d{2}-\d{4}\b"), None),
    ("ipv4", re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])"), _octets),
    ("ipv6", re.compile(_IPV6), None),
    ("phone", re.compile(_DIGITS % (6, 15)), _phone),
)  # fmt: skip


def findings(text: object) -> list[str]:
    """Names of the rules that fire. Whatever isn't clean text counts as a finding: the filter fails closed."""
    if not isinstance(text, str) or "\x00" in text or "\ufffd" in text:
        return ["unreadable"]
    return [name for name, pattern, valid in RULES if any(valid is None or valid(match.group()) for match in pattern.finditer(text))]


def mask(text: str) -> str:
    """Identifiers replaced by the rule's name. Check `findings` again afterwards."""
    for name, pattern, valid in RULES:

        def replace(match: "re.Match[str]", name: str = name, valid: Callable[[str], bool] | None = valid) -> str:
            return f"[{name}]" if valid is None or valid(match.group()) else match.group()

        text = pattern.sub(replace, text)
    return text
