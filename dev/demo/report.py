"""The closing table, its JSON and the HTML report."""

from __future__ import annotations

import base64
import datetime as dt
import json
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from rich.console import Console
from rich.table import Table

from dev.demo import plots
from dev.demo.record import Recorder

Body = dict[str, Any]
BAND = """Only users whose horizon has passed are counted. While users come, the band is one that may be looked at all the time; at the
window's end it is the 95 % interval of the test."""


@dataclass(frozen=True)
class Expected:
    """How a lap must end: the verdict, and what its reason must say, so that the right end for a wrong reason does not pass."""

    verdict: str
    because: str  # a regular expression

    def met(self, verdict: str, why: str) -> bool:
        return verdict == self.verdict and re.search(self.because, why) is not None


def laps(recorder: Recorder, expected: dict[str, Expected]) -> list[Body]:
    """One row a generation: what was expected, what came, why."""
    rows = []
    for name, wanted in expected.items():
        body = recorder.find("Generation", name) or {}
        status = body.get("status") or {}
        decision = status.get("decision") or {}
        verdict = decision.get("verdict", status.get("phase", "absent"))
        row = {
            "name": name,
            "expected": wanted.verdict,
            "verdict": verdict,
            "ok": wanted.met(verdict, decision.get("message", "")),
            "why": decision.get("message", ""),
            "seconds": _seconds(status),
        }
        rows.append(row)
    return rows


def _seconds(status: Body) -> float | None:
    if "startTime" not in status or "completionTime" not in status:
        return None
    start, end = (dt.datetime.fromisoformat(status[key].replace("Z", "+00:00")) for key in ("startTime", "completionTime"))
    return round((end - start).total_seconds(), 1)


def closing_table(rows: list[Body], traffic: list[Body], spans: list[Body], console: Console) -> None:
    """What the demo showed, in the terminal."""
    table = Table(title="Three laps of the flywheel", title_justify="left")
    for column in ("generation", "expected", "verdict", "seconds", "why"):
        table.add_column(column, overflow="fold")
    for row in rows:
        colour = "green" if row["ok"] else "red"
        table.add_row(row["name"], row["expected"], f"[{colour}]{row['verdict']}[/{colour}]", str(row["seconds"] or ""), row["why"])
    console.print(table)
    failed, requests = sum(t["failed"] for t in traffic), sum(t["requests"] for t in traffic)
    console.print(f"{requests} requests of simulated users, {failed} failed")
    longest = sorted(spans, key=lambda span: -span["seconds"])[:8]
    console.print("where the time went: " + ", ".join(f"{span['text']} {span['seconds']:.0f} s" for span in longest), highlight=False)


def write(recorder: Recorder, rows: list[Body], traffic: list[Body], *, seed: int, extra: Body, directory: Path) -> Path:
    """Write `demo.json` and `report.html`; returns the report's path."""
    directory.mkdir(parents=True, exist_ok=True)
    generations = [g for g in recorder.latest.get("Generation", []) if g["metadata"]["name"] in {row["name"] for row in rows}]
    summary = {"seed": seed, "laps": rows, "traffic": traffic, "spans": recorder.spans, **extra}
    (directory / "demo.json").write_text(json.dumps(summary, indent=1) + "\n")
    history = {"weights": recorder.weights, "estimates": recorder.estimates, "marks": recorder.marks, "objects": recorder.latest}
    (directory / "history.json").write_text(json.dumps(history) + "\n")
    template = jinja2.Environment(autoescape=True, loader=jinja2.FileSystemLoader(Path(__file__).parent)).get_template("report.html.j2")
    html = template.render(
        **summary,
        date=f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC",
        machine=f"{platform.system()} {platform.machine()}, {platform.node()}",
        pictures=_pictures(recorder, generations),
        stages=_stages(generations),
    )
    path = directory / "report.html"
    path.write_text(html)
    return path


def _pictures(recorder: Recorder, generations: list[Body]) -> list[Body]:
    flywheels = recorder.latest.get("Flywheel", [])
    champion = ((flywheels[0].get("status") or {}).get("champion") or {}).get("generation", "") if flywheels else ""
    made = [
        (
            "Lineage",
            "Each lap starts from the champion of its time; only a winner becomes the next one.",
            plots.lineage(generations, champion),
        ),
        (
            "Rewards and win rates",
            "The bars across are each lap's gates on the user win rate. One above the upper bar is a red flag, not a triumph: it is held.",
            plots.stages(generations),
        ),
    ]
    if recorder.weights:
        made.append(
            (
                "Weights",
                "A verdict moves all users at once; before it nobody is moved back.",
                plots.weights(recorder.weights, _decisions(recorder)),
            )
        )
    for candidate in dict.fromkeys(row["candidate"] for row in recorder.estimates):
        rows = [row for row in recorder.estimates if row["candidate"] == candidate]
        title = f"Users of {candidate} against its control"
        made.append(
            (
                title,
                BAND,
                plots.engagement(rows, title),
            )
        )
    return [{"title": title, "text": text, "data": base64.b64encode(data).decode()} for title, text, data in made]


def _decisions(recorder: Recorder) -> list[Body]:
    rows = []
    for rollout in recorder.latest.get("Rollout", []):
        status = rollout.get("status") or {}
        if decision := status.get("decision"):
            at = dt.datetime.fromisoformat(decision["time"].replace("Z", "+00:00")).timestamp() - recorder.started
            rows.append({"at": at, "verdict": status.get("phase", decision["verdict"]).replace("Watching", "Promoted")})
    return rows


def _stages(generations: list[Body]) -> list[Body]:
    rows = []
    for generation in generations:
        for stage in (generation.get("status") or {}).get("stages") or []:
            metrics = ", ".join(f"{k} {v:.4g}" for k, v in sorted((stage.get("metrics") or {}).items())[:24])
            gates = "; ".join(("✓ " if g["passed"] else "✗ ") + g["message"] for g in stage.get("gates") or [])
            rows.append(
                {
                    "generation": generation["metadata"]["name"],
                    "stage": stage["name"],
                    "phase": stage["phase"],
                    "metrics": metrics,
                    "gates": gates,
                }
            )
    return rows
