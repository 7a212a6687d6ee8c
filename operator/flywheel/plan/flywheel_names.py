"""What a Flywheel calls its laps and its first champion: at most 40 characters, and never what another Flywheel calls its own."""

from __future__ import annotations

from flywheel.api.flywheel import Flywheel, FlywheelStatus
from flywheel.plan.base import stable_hash

LONGEST = 32  # of the part that stands for the Flywheel


def lap_name(flywheel: Flywheel, number: int) -> str:
    """Name of a lap that begins now."""
    return f"{_stem(flywheel.metadata.name)}-{number}"


def newest_lap(flywheel: Flywheel, status: FlywheelStatus) -> str | None:
    """Name of the newest lap this Flywheel has started. An older operator recorded only its number, and cut a long name."""
    if not status.laps:
        return None
    return status.last_lap or f"{flywheel.metadata.name[:LONGEST]}-{status.laps}"


def first_generation(flywheel: Flywheel) -> str:
    """Name of the generation that the base is. One that is on record keeps the name it has."""
    champion = flywheel.status.champion
    if champion is not None and is_first(flywheel, champion.generation):
        return champion.generation
    return f"{_stem(flywheel.metadata.name)}-initial"


def is_first(flywheel: Flywheel, generation: str) -> bool:
    """Whether that is what this or an older operator calls the generation that the base is."""
    name = flywheel.metadata.name
    return generation in (f"{_stem(name)}-initial", f"{name[:LONGEST]}-initial")


def _stem(name: str) -> str:
    """The name itself, or what is left of a long one and a hash of the whole: two that begin alike stay apart."""
    if len(name) <= LONGEST:
        return name
    suffix = f"-{stable_hash(name, length=6)}"
    return name[: LONGEST - len(suffix)].rstrip("-") + suffix
