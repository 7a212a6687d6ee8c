"""Numbers as people read them: three significant digits, a sign where the direction matters."""

from __future__ import annotations

from flywheel.stats.contrast import Interval


def number(value: float) -> str:
    """0.0004, 12.3, 1250."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def signed(value: float, *, relative: bool) -> str:
    """+0.02, or as a share +18.2 %."""
    scaled = 100 * value if relative else value
    text = number(scaled)
    return ("" if text.startswith("-") else "+") + text + (" %" if relative else "")


def interval(ends: Interval, *, relative: bool) -> str:
    """[+9.1 %, +27.3 %]."""
    return f"[{signed(ends.lower, relative=relative)}, {signed(ends.upper, relative=relative)}]"


def significant(value: float | None) -> float | None:
    """Six significant digits, so that a status changes only when a number does; None stays None."""
    return None if value is None else float(f"{value:.6g}") + 0.0  # + 0.0: no -0.0
