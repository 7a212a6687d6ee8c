"""The report's pictures, as PNG bytes."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

Body = dict[str, Any]
SLICE_COLOURS = {"control": "#4c78a8", "candidate": "#e45756"}
VERDICT_COLOURS = {"Promoted": "#54a24b", "RolledBack": "#e45756", "Held": "#f2a900", "Rejected": "#e45756"}


def png(figure: Figure) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()


def weights(rows: list[Body], decisions: list[Body]) -> bytes:
    """Share of users the candidate had, over time, with the verdicts."""
    figure, axes = plt.subplots(figsize=(9, 2.8))
    for name in dict.fromkeys(row["rollout"] for row in rows):
        mine = [row for row in rows if row["rollout"] == name]
        times = [row["at"] for row in mine] + [max(mine[-1]["at"] + 5, rows[-1]["at"] if mine[-1]["weight"] else mine[-1]["at"] + 5)]
        values = [row["weight"] for row in mine]
        axes.step(times, [*values, values[-1]], where="post", label=mine[0]["candidate"])
    for decision in decisions:
        axes.axvline(decision["at"], color=VERDICT_COLOURS.get(decision["verdict"], "grey"), linestyle=":", linewidth=1.2)
        axes.annotate(decision["verdict"], (decision["at"], 102), fontsize=8, rotation=0, ha="center")
    axes.set_ylim(0, 112)
    axes.set_xlabel("seconds since the demo began")
    axes.set_ylabel("% of users")
    axes.set_title("Weights as decided: the candidate's share of users")
    axes.legend(loc="upper left", fontsize=8)
    return png(figure)


def engagement(rows: list[Body], title: str) -> bytes:
    """Mean per user by slice, and the lift with its interval, over time: breadth and depth."""
    figure, panels = plt.subplots(2, 2, figsize=(9, 5), sharex=True, layout="constrained")
    for column, metric in enumerate(("breadth", "depth")):
        points = [(row["at"], m) for row in rows for m in row["metrics"] if m["name"] == metric and _both(m)]
        if not points:
            continue
        times = [at for at, _ in points]
        top, bottom = panels[0][column], panels[1][column]
        top.plot(times, [m["meanControl"] for _, m in points], color=SLICE_COLOURS["control"], label="control")
        top.plot(times, [m["meanCandidate"] for _, m in points], color=SLICE_COLOURS["candidate"], label="candidate")
        top.set_title(metric)
        top.set_ylim(bottom=0)
        top.legend(fontsize=8)
        known = [(at, m) for at, m in points if m.get("lift") is not None]
        bottom.plot([at for at, _ in known], [100 * m["lift"] for _, m in known], color="black")
        lifts = [(at, m) for at, m in known if m.get("liftLower") is not None and m.get("liftUpper") is not None]
        lift_times = [at for at, _ in lifts]
        bottom.fill_between(lift_times, [100 * m["liftLower"] for _, m in lifts], [100 * m["liftUpper"] for _, m in lifts], alpha=0.25)
        for at, m in lifts[-1:]:  # the last interval by itself: a quick verdict may have no other
            lift, low, high = (100 * m[key] for key in ("lift", "liftLower", "liftUpper"))
            bottom.errorbar([at], [lift], yerr=[[lift - low], [high - lift]], fmt="o", color="black", markersize=3, capsize=4)
        bottom.axhline(0, color="grey", linewidth=0.8)
        spread = [abs(100 * m[key]) for _, m in lifts[len(lifts) // 3 :] for key in ("liftLower", "liftUpper")]
        if spread:
            bottom.set_ylim(-1.2 * max(spread), 1.2 * max(spread))
        bottom.set_ylabel("lift in %")
        bottom.set_xlabel("seconds since the demo began")
    figure.suptitle(title)
    return png(figure)


def _both(metric: Body) -> bool:
    """Whether both slices have users whose horizon has passed: one may have them a moment before the other."""
    return metric.get("meanControl") is not None and metric.get("meanCandidate") is not None


def stages(generations: list[Body]) -> bytes:
    """Rewards and win rates that the stages reported, by generation, with the gates' limits."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    names = [g["metadata"]["name"] for g in generations]
    for index, generation in enumerate(generations):
        metrics = {k: v for s in (generation.get("status") or {}).get("stages") or [] for k, v in (s.get("metrics") or {}).items()}
        if "reward_first" in metrics and "reward_last" in metrics:
            left.plot([0, 1], [metrics["reward_first"], metrics["reward_last"]], marker="o", label=names[index])
        for shift, key, colour in ((-0.12, "win_rate_user", "#e45756"), (0.12, "win_rate_internal", "#4c78a8")):
            if key in metrics:
                low, high = metrics.get(key + "_lower", metrics[key]), metrics.get(key + "_upper", metrics[key])
                error = [[metrics[key] - low], [high - metrics[key]]]
                right.errorbar([index + shift], [metrics[key]], yerr=error, fmt="o", color=colour, capsize=3)
        for limit in _limits(generation):
            right.hlines(limit, index - 0.35, index + 0.35, color="#54a24b", linestyle="--", linewidth=1.2)
    left.set_xticks([0, 1], ["first RL step", "last RL step"])
    left.set_title("Reward that RL was trained on")
    if left.has_data():
        left.legend(fontsize=8)
    right.set_xticks(range(len(names)), names, fontsize=8)
    right.set_ylim(0, 1)
    right.set_title("Win rate: user (red), internal (blue), gates (green)")
    return png(figure)


def _limits(generation: Body) -> list[float]:
    """Where this lap's gates on the user win rate stand."""
    gates = [g for s in (generation.get("status") or {}).get("stages") or [] for g in s.get("gates") or []]
    return [float(gate["limit"]) for gate in gates if gate["metric"] in ("win_rate_user", "win_rate_user_lower")]


def lineage(generations: list[Body], champion: str) -> bytes:
    """Who came from whom, and how it ended."""
    figure, axes = plt.subplots(figsize=(9, 2.2))
    first = ((generations[0].get("status") or {}).get("parent") or {}) if generations else {}
    names = [first.get("generation", "initial")] if generations else []
    names += [g["metadata"]["name"] for g in generations]
    place = {name: index for index, name in enumerate(names)}
    for generation in generations:
        status, name = generation.get("status") or {}, generation["metadata"]["name"]
        parent = (status.get("parent") or {}).get("generation", names[0])
        phase = status.get("phase", "")
        start, end = place.get(parent, 0), place[name]
        arrow = {"arrowstyle": "->", "color": VERDICT_COLOURS.get(phase, "grey"), "connectionstyle": "arc3,rad=-0.35"}
        axes.annotate("", (end, 0), (start, 0), arrowprops=arrow)
        axes.text(end, -0.28, phase, ha="center", fontsize=9, color=VERDICT_COLOURS.get(phase, "black"))
    for name, index in place.items():
        axes.scatter([index], [0], s=260, color="#54a24b" if name == champion else "#bbbbbb", zorder=3)
        axes.text(index, 0.22, name + (" ★" if name == champion else ""), ha="center", fontsize=9)
    axes.set_xlim(-0.5, max(1, len(names)) - 0.5)
    axes.set_ylim(-0.5, 0.8)
    axes.axis("off")
    axes.set_title("Lineage (★ serves users now)")
    return png(figure)
