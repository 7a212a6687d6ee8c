"""Which slice a user belongs to, computed again from the routes: the same hash as Envoy's (xxHash64 of salt and user id). Pure.

Only short strings are hashed, in a few microseconds each, and remembered: a compiled dependency is not worth it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from flywheel_collector.logline import CANDIDATE, CONTROL, REST

PARTS = 10_000
_MASK = 0xFFFF_FFFF_FFFF_FFFF
_P1, _P2, _P3, _P4, _P5 = (
    0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5,
)  # fmt: skip


class Route(NamedTuple):
    """What one revision of the routes says of an experiment."""

    experiment: str
    salt: str
    parts: int
    """The candidate's share, and the control's, in ten thousandths."""

    def slice(self, user: str) -> int:
        place = position(self.salt, user)
        return CONTROL if place < self.parts else CANDIDATE if place >= PARTS - self.parts else REST


@lru_cache(maxsize=1 << 16)
def position(salt: str, user: str) -> int:
    return xxh64(f"{salt}:{user}".encode()) % PARTS


def _left(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & _MASK


def _round(accumulator: int, lane: int) -> int:
    return _left((accumulator + lane * _P2) & _MASK, 31) * _P1 & _MASK


def xxh64(data: bytes) -> int:
    """With seed 0."""
    length, at = len(data), 0
    if length >= 32:
        lanes = [(_P1 + _P2) & _MASK, _P2, 0, -_P1 & _MASK]
        while at + 32 <= length:
            for index in range(4):
                lanes[index] = _round(lanes[index], int.from_bytes(data[at : at + 8], "little"))
                at += 8
        result = sum(_left(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
        for lane in lanes:
            result = ((result ^ _round(0, lane)) * _P1 + _P4) & _MASK
    else:
        result = _P5
    result = (result + length) & _MASK
    while at + 8 <= length:
        result = (_left(result ^ _round(0, int.from_bytes(data[at : at + 8], "little")), 27) * _P1 + _P4) & _MASK
        at += 8
    if at + 4 <= length:
        result = (_left(result ^ (int.from_bytes(data[at : at + 4], "little") * _P1 & _MASK), 23) * _P2 + _P3) & _MASK
        at += 4
    for byte in data[at:]:
        result = _left(result ^ (byte * _P5 & _MASK), 11) * _P1 & _MASK
    result = (result ^ (result >> 33)) * _P2 & _MASK
    result = (result ^ (result >> 29)) * _P3 & _MASK
    return result ^ (result >> 32)
