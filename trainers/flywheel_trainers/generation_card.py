"""The model card of a generation, rendered from its record. The record is anybody's text: missing and strange parts are left out."""

from collections.abc import Mapping
from typing import Any

from .markdown import escaped, front_matter, table

_SIGNS = {"GreaterThan": ">", "GreaterThanOrEqual": "≥", "LessThan": "<", "LessThanOrEqual": "≤"}
Record = Mapping[str, Any]


def generation_card(record: Record) -> str:
    """README.md: YAML front matter as model hubs read it, then the lap's story."""
    name = _text(record, "generation") or "a generation"
    lines = [
        *front_matter(_metadata(record, name)),
        f"# {escaped(name)}",
        "",
        f"A generation of the flywheel {escaped(_text(record, 'flywheel') or 'unknown')}. "
        f"Verdict: **{escaped(_text(record, 'verdict') or 'unknown')}** ({escaped(_text(record, 'reason') or 'no reason')}).",
        "",
        *_paragraph(_text(record, "message")),
        *table(("", ""), _facts(record)),
        *_section("Users", ("Metric", "Lift", "Interval", "Users"), _lifts(record)),
        *_section("Gates", ("Stage", "Metric", "Value", "Limit", "Held"), _gates(record)),
        *_section("Recipe", ("Stage", "Method", "Ended", "Made", "Parameters", "Image"), _stages(record)),
        *_section("Data", ("Name", "Where", "Digest", "Rows"), _data(record)),
        *_section("Reward models", ("Name", "Digest", "Accuracy"), _rewards(record)),
        *_section("Approvals", ("Gate", "Said", "By", "When"), _approvals(record)),
        *_section("Cost", ("Stage", "GPU hours", "CPU hours", "Amount"), _costs(record)),
        "The whole record stands in `generation.json` beside this card.",
    ]
    return "\n".join(lines) + "\n"


def _metadata(record: Record, name: str) -> dict[str, object]:
    """Front matter of the Hugging Face hub: what it reads and what it does not know."""
    base, model, rate = _part(record, "base"), _part(record, "model"), _part(record, "predictedWinRate")
    results = [
        ("win_rate", _number(rate, "value")),
        *((f"lift_{x.get('metric')}", _number(x, "lift")) for x in _list(record, "realisedLift")),
    ]
    measured = [{"type": metric, "value": value} for metric, value in results if value is not None]
    data = [d.get("digest") or d.get("uri") for d in _list(record, "data")]
    index: dict[str, object] = {"name": name, "results": [{"task": {"type": "text-generation"}, "metrics": measured}]}
    fields: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["model-flywheel", f"verdict-{_text(record, 'verdict').lower() or 'unknown'}"],
        "base_model": _text(base, "uri"),
        "datasets": [str(one)[:1024] for one in data if one],
        "model-index": [index] if measured else None,
        "model_digest": _text(model, "digest"),
    }
    return {key: value for key, value in fields.items() if value}


def _facts(record: Record) -> list[tuple[object, ...]]:
    rate, cost = _part(record, "predictedWinRate"), _part(record, "cost")
    facts: list[tuple[object, ...]] = [
        (word, " ".join(part for part in (_text(model, "generation"), _text(model, "digest"), _text(model, "uri")) if part))
        for word, model in (("model", _part(record, "model")), ("parent", _part(record, "parent")), ("base", _part(record, "base")))
        if model
    ]
    facts += [
        (word, _text(record, key))
        for word, key in (
            ("started", "startTime"),
            ("decided", "decisionTime"),
            ("recipe", "recipe"),
            ("evidence", "evidenceDigest"),
            ("rollout", "rollout"),
            ("served by", "servingImage"),
        )
        if _text(record, key)
    ]
    if _number(rate, "value") is not None:
        facts.append(("predicted win rate", _interval(_number(rate, "value"), _number(rate, "lower"), _number(rate, "upper"))))
    if _number(cost, "amount") is not None:
        facts.append(("cost", f"{_number(cost, 'amount'):.2f} {_text(cost, 'currency')}"))
    return facts


def _lifts(record: Record) -> list[tuple[object, ...]]:
    return [
        (x.get("metric"), _share(_number(x, "lift")), _interval(None, _number(x, "lower"), _number(x, "upper")), x.get("users"))
        for x in _list(record, "realisedLift")
    ]


def _gates(record: Record) -> list[tuple[object, ...]]:
    return [
        (g.get("stage"), g.get("metric"), g.get("value"), f"{_SIGNS.get(_text(g, 'operator'), '?')} {g.get('limit')}", g.get("passed"))
        for g in _list(record, "gates")
    ]


def _stages(record: Record) -> list[tuple[object, ...]]:
    fields = ("name", "method", "phase", "artifact", "parameters", "image")
    return [tuple(stage.get(field) for field in fields) for stage in _list(record, "stages")]


def _data(record: Record) -> list[tuple[object, ...]]:
    return [
        (d.get("name"), d.get("uri"), d.get("digest"), ", ".join(f"{name} {count}" for name, count in _part(d, "rows").items()))
        for d in _list(record, "data")
    ]


def _rewards(record: Record) -> list[tuple[object, ...]]:
    return [(r.get("name"), r.get("digest"), r.get("accuracy")) for r in _list(record, "rewardModels")]


def _approvals(record: Record) -> list[tuple[object, ...]]:
    return [tuple(approval.get(field) for field in ("gate", "decision", "by", "time")) for approval in _list(record, "approvals")]


def _costs(record: Record) -> list[tuple[object, ...]]:
    cost = _part(record, "cost")
    rows = [*_list(cost, "stages"), {**cost, "name": "all"}] if _list(cost, "stages") else []
    return [(row.get("name"), _hours(row, "gpuSeconds"), _hours(row, "cpuSeconds"), _number(row, "amount")) for row in rows]


# ---------------------------------------------------------------------------------------------------------------- reading


def _section(heading: str, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    return [f"## {heading}", "", *table(header, rows)] if rows else []


def _paragraph(text: str) -> list[str]:
    return [escaped(text, 2000), ""] if text else []


def _part(record: Record, key: str) -> Record:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _list(record: Record, key: str) -> list[Record]:
    value = record.get(key)
    return [item for item in value if isinstance(item, dict)][:512] if isinstance(value, list) else []


def _text(record: Record, key: str) -> str:
    value = record.get(key)
    return value[:2000] if isinstance(value, str) else ""


def _number(record: Record, key: str) -> float | None:
    value = record.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15 else None


def _hours(record: Record, key: str) -> str:
    return f"{(_number(record, key) or 0) / 3600:.2f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.1f} %"


def _interval(value: float | None, lower: float | None, upper: float | None) -> str:
    whole = "" if value is None else f"{100 * value:.1f} %"
    return whole + (f" [{100 * lower:.1f} %, {100 * upper:.1f} %]" if lower is not None and upper is not None else "")
