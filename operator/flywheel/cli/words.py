"""Numbers and times in the words that people read. Pure."""

from __future__ import annotations

import datetime as dt

from flywheel.cli.reading import Body, number, text
from flywheel.plan.base import duration_text

SIGNS = {"GreaterThan": ">", "GreaterThanOrEqual": "≥", "LessThan": "<", "LessThanOrEqual": "≤"}


def clock(time: dt.datetime) -> str:
    """A time, as messages of the operator have it."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def ago(time: dt.datetime, now: dt.datetime) -> str:
    """`3 min ago (2026-11-24 23:20:03 UTC)`."""
    return f"{duration_text(now - time)} ago ({clock(time)})"


def ahead(time: dt.datetime, now: dt.datetime) -> str:
    """`in 3 min (2026-11-24 23:20:03 UTC)`; a time that is over has passed without the operator having acted on it yet."""
    return f"in {duration_text(time - now)} ({clock(time)})" if time > now else f"now (it was due {ago(time, now)})"


def seconds(value: float) -> str:
    """A number of seconds."""
    return duration_text(dt.timedelta(seconds=value))


def percent(value: float | None) -> str:
    """A percentage, or nothing."""
    return "" if value is None else f"{value:.0f} %"


def share(value: float) -> str:
    """A relative difference, signed: 0.123 is `+12.3 %`."""
    return f"{100 * value:+.1f} %"


def short(digest: str) -> str:
    """A digest as far as people compare it."""
    return digest.removeprefix("sha256:")[:12]


def sentence(message: str) -> str:
    """A message without the full stop it may lack or have."""
    return message.strip().rstrip(".")


def estimate(metric: Body) -> tuple[str, str, str, str, str]:
    """(name, role, users, difference with its interval, what was concluded) of a Rollout's metric."""
    users = f"{text(metric, 'nControl') or 0} / {text(metric, 'nCandidate') or 0} users"
    return text(metric, "name"), text(metric, "role"), users, difference(metric), text(metric, "state")


def difference(metric: Body) -> str:
    """Candidate against control: `+12.3 % [+3.1 %, +21.5 %]`; of rare events the plain difference."""
    lift, lower, upper = number(metric, "lift"), number(metric, "liftLower"), number(metric, "liftUpper")
    if lift is not None:
        return share(lift) + (f" [{share(lower)}, {share(upper)}]" if lower is not None and upper is not None else "")
    plain = number(metric, "difference")
    return "not measured" if plain is None else f"{plain:+.3g} a user"


def gate(result: Body) -> str:
    """A gate's result: `win_rate_user is 0.75, must be < 0.65`."""
    said = text(result, "message")
    if said:
        return said
    value, limit = number(result, "value"), number(result, "limit")
    measured = "was not reported" if value is None else f"is {value:.4g}"
    sign = SIGNS.get(text(result, "operator"), text(result, "operator"))
    return f"{text(result, 'metric')} {measured}, must be {sign} {limit:g}" if limit is not None else f"{text(result, 'metric')} {measured}"
