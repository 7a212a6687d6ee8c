"""Personal data out of text, before it touches the disk: e-mail addresses, card numbers, IP addresses, phone numbers.

Regular expressions without nested repetition (linear in the text), and the checks that keep ordinary numbers: Luhn for cards, parsing for
addresses, a digit count for phones. The known libraries for this bring a language model or a date parser; this is the light part of them.
"""

from __future__ import annotations

import ipaddress
import re

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_DIGITS = re.compile(r"(?<![\w.])[+(]?\d[\d ().\-/]{5,30}\d(?!\w)")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:])[0-9A-Fa-f:]{2,39}(?:(?<=:)\d{1,3}(?:\.\d{1,3}){3})?(?![\w:])")


def _luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _address(match: re.Match[str]) -> str:
    text = match.group()
    if text.count(":") < 2 and "." not in text:
        return text
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return text
    return "[ip]" if text != "::" else text


def _number(match: re.Match[str]) -> str:
    text = match.group()
    digits = re.sub(r"\D", "", text)
    if 13 <= len(digits) <= 19 and _luhn(digits):
        return "[card]"
    if re.fullmatch(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}", text):
        return text  # a date
    if re.fullmatch(r"\d+\.\d+", text):
        return text  # a decimal number
    if text[0] in "+(" and 7 <= len(digits) <= 15:
        return "[phone]"
    grouped = re.search(r"[ ().\-/]", text) is not None
    if (grouped and 9 <= len(digits) <= 15) or (10 <= len(digits) <= 15):
        return "[phone]"
    return text


def scrub(text: str) -> str:
    text = _EMAIL.sub("[email]", text)
    text = _IPV4.sub(_address, text)
    text = _IPV6.sub(_address, text)
    return _DIGITS.sub(_number, text)


def scrub_strings(value: object) -> object:
    """The strings inside plain JSON; its numbers are nobody's."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, list):
        return [scrub_strings(item) for item in value]
    if isinstance(value, dict):
        return {scrub(key): scrub_strings(item) for key, item in value.items()}
    return value
