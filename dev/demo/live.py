"""The terminal while the demo runs: stages with bars, weights, lift with its interval."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dev.demo.record import Recorder

Body = dict[str, Any]
STYLE = {
    "Passed": "green",
    "Running": "cyan",
    "Held": "yellow",
    "Rejected": "red",
    "Failed": "red",
    "Promoted": "green",
    "RolledBack": "magenta",
}
BAR = 24


class View:
    """A live picture on a terminal, or a line every ten seconds elsewhere."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder, self.console = recorder, Console(stderr=False)
        self.live = Live(console=self.console, refresh_per_second=2, transient=True) if sys.stdout.isatty() else None
        self.headline = ""
        self._last_line, self._last_time = "", 0.0

    def __enter__(self) -> View:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def say(self, text: str) -> None:
        """A step of the demo begins."""
        self.headline = text
        elapsed = time.time() - self.recorder.started
        self.console.print(f"[bold]{elapsed:6.0f} s[/bold]  {text}")
        self.recorder.mark(text)

    def refresh(self) -> None:
        """Read the cluster and show it."""
        self.recorder.look()
        if self.live:
            self.live.update(picture(self.recorder, self.headline))
            return
        line, now = one_line(self.recorder), time.time()
        if line != self._last_line and now - self._last_time >= 10:
            self.console.print(f"{now - self.recorder.started:6.0f} s    {line}", highlight=False, soft_wrap=True)
            self._last_line, self._last_time = line, now


def picture(recorder: Recorder, headline: str) -> RenderableType:
    """Everything that runs, as a table of stages and a table of rollouts."""
    table = Table(title=headline, title_justify="left", expand=False, show_edge=False, pad_edge=False)
    for column in ("generation", "stage", "", "", "what it says"):
        table.add_column(column, overflow="ellipsis", no_wrap=True, max_width=90 if column == "what it says" else None)
    for generation in recorder.latest.get("Generation", []):
        for stage in (generation.get("status") or {}).get("stages") or []:
            table.add_row(generation["metadata"]["name"], *stage_row(stage))
    return Group(table, Text(""), *(Text(rollout_line(r)) for r in recorder.latest.get("Rollout", [])))


def stage_row(stage: Body) -> tuple[str, Text, str, str]:
    """Name, bar, ETA and words of a stage."""
    percent = stage.get("percent") or 0.0
    done = round(BAR * percent / 100)
    bar = Text("█" * done + "·" * (BAR - done) + f" {percent:3.0f} %", style=STYLE.get(stage["phase"], "dim"))
    eta = stage.get("etaSeconds")
    return stage["name"], bar, f"{eta:.0f} s to go" if eta is not None else stage["phase"], numbers(stage)


def numbers(stage: Body) -> str:
    """The numbers of a stage that tell most."""
    metrics = stage.get("metrics") or {}
    told = ("win_rate_user", "win_rate_internal", "selected_win_rate", "accuracy", "acceptance_rate", "reward_last", "rows_sft", "loss")
    words = ", ".join(f"{name} {metrics[name]:.3g}" for name in told if name in metrics)
    return words or (stage.get("message") or "")


def rollout_line(rollout: Body) -> str:
    """A Rollout in a line."""
    status = rollout.get("status") or {}
    arms = f"{rollout['spec']['baseline']['generation']} → {rollout['spec']['candidate']['generation']}"
    return f"{arms}: {status.get('phase', 'Pending')} · {status.get('summary') or ''}"


def one_line(recorder: Recorder) -> str:
    """The newest thing that runs, for a log."""
    rollouts = [
        r for r in recorder.latest.get("Rollout", []) if (r.get("status") or {}).get("phase") not in ("Promoted", "RolledBack", "Failed")
    ]
    words = [rollout_line(r) for r in rollouts]
    for generation in recorder.latest.get("Generation", []):
        for stage in (generation.get("status") or {}).get("stages") or []:
            if stage["phase"] == "Running":
                percent, eta = stage.get("percent") or 0, stage.get("etaSeconds")
                left = f", {eta:.0f} s to go" if eta is not None else ""
                words.append(f"{generation['metadata']['name']}/{stage['name']} {percent:.0f} %{left}")
    return " | ".join(words) or "…"
