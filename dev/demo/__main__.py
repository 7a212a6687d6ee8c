"""Three laps: one that users choose, one that is held before it meets anyone, one that users leave.

    make demo            or   python -m dev.demo --seed 7 --chaos 5

Exits non-zero when a verdict is not the expected one; nothing is tried again silently.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from dev.demo import children, install, kube, report
from dev.demo.chaos import Chaos
from dev.demo.live import View
from dev.demo.record import Recorder
from dev.demo.traffic import Users, machine, manifest

EXPECTED = {
    "companion-1": report.Expected("Promoted", r"^SuccessProven: "),
    "companion-2": report.Expected("Held", r"win_rate_(user|divergence_significant|internal_upper) is [\d.]+, must be"),
    "companion-3": report.Expected("RolledBack", r"^GuardrailHarm: .*\b(?:breadth|depth|thumbs_down)\b"),
}
ENROL, MATURE = 150, 15
CONVERSATIONS = 800  # fewer give so few prompts that win rates on two of their subsets differ by chance
ROLLBACK_LIMIT = 2.0  # seconds from the decision to the last new request at the candidate
TERMINAL = ("Promoted", "RolledBack", "Inconclusive", "Rejected", "Held", "Failed", "Completed")


class Demo:
    """The run: what is started when, and what it waits for."""

    def __init__(self, seed: int, kills: int) -> None:
        self.seed, self.recorder = seed, Recorder("demo")
        self.view, self.traffic = View(self.recorder), []  # type: ignore[var-annotated]  # rows of the report
        self.chaos = Chaos(kills, seed)
        self.cut: float | None = None  # seconds from the rollback decision to the last request the candidate was given

    def run(self) -> None:
        """All three laps."""
        started = time.monotonic()
        base = install.install(self.view)
        self.recorder.span("install", time.monotonic() - started)
        self.bootstrap(base)
        self.chaos.start()
        self.first_lap()
        self.second_lap()
        self.third_lap()
        self.chaos.stop()

    def bootstrap(self, base: install.Model) -> None:
        """The base model becomes the first champion, and users begin to talk with it."""
        self.view.say("bootstrap: the base model becomes the first champion")
        values = {"BASE_NAME": base.name, "BASE_DIGEST": base.digest, "SEED": self.seed, "JUDGE_SEED": self.seed + 7}
        kube.apply(manifest("flywheel.yaml", **values, CONVERSATIONS=CONVERSATIONS))
        self.wait("the champion to answer", lambda: self.phase("Flywheel", "companion") == "Serving", timeout=300)
        self.view.say(f"users talk with the first champion; the lap starts by itself after {CONVERSATIONS} conversations")
        users = Users("users-0", duration=240, seed=self.seed * 10, rate=18)  # nothing is measured yet: the more the sooner
        self.wait(f"{CONVERSATIONS} conversations", lambda: self.phase("Generation", "companion-1") != "" or users.done(), timeout=300)
        patch = '{"spec":{"trigger":{"newConversations":null}}}'  # the other laps have recipes of their own: they are started by hand
        kube.kubectl("patch", "flywheel", "companion", "-n", "demo", "--type=merge", "-p", patch)
        users.stop()
        self.wait("the users to leave", users.done, timeout=60)
        self.count("before the first lap", users)

    def first_lap(self) -> None:
        """Learns from the conversations and meets users."""
        self.view.say("generation 1 learns from its users")
        self.meet_users("companion-1", "users-1")
        self.settle("companion-1")

    def second_lap(self) -> None:
        """Trains on a naive reward; the gates hold it."""
        self.view.say("generation 2 trains on a naive reward")
        kube.apply(manifest("generation-2.yaml", SEED=self.seed, JUDGE_SEED=self.seed + 7))
        self.settle("companion-2")

    def third_lap(self) -> None:
        """Learns from bad data, passes loosened gates, meets users, is rolled back."""
        self.view.say("generation 3 learns from bad data, behind loosened gates")
        kube.apply(manifest("generation-3.yaml", SEED=self.seed, JUDGE_SEED=self.seed + 7))
        self.meet_users("companion-3", "users-3")
        self.settle("companion-3")

    def meet_users(self, generation: str, wave: str) -> None:
        """Wait until the candidate stands beside the champion, then let users come until the verdict."""
        ready = ("Progressing", *TERMINAL)
        self.wait(f"{generation} to meet users", lambda: self.rollout_phase(generation) in ready or self.ended(generation), timeout=1200)
        if self.ended(generation):
            return
        self.view.say(f"{generation} meets users: half of them, by user, against an equal control")
        users = Users(wave, duration=ENROL + MATURE + 5, seed=self.seed * 10 + int(wave[-1]))
        self.wait(f"the verdict on {generation}", lambda: self.ended(generation), timeout=ENROL + MATURE + 180)
        time.sleep(3)  # a few more users, so that the log shows who answers after the verdict
        users.stop()
        self.wait("the users to leave", users.done, timeout=60)
        self.count(f"{generation} beside the champion", users)

    def settle(self, generation: str) -> None:
        """Wait for the end of a lap and say how it ended."""
        self.wait(f"the end of {generation}", lambda: self.ended(generation), timeout=1200)
        body = self.recorder.find("Generation", generation) or {}
        decision = body.get("status", {}).get("decision", {})
        self.view.say(f"{generation}: {decision.get('verdict')} — {decision.get('message')}")

    def wait(self, what: str, found: Any, *, timeout: float) -> None:
        """Wait, with the live view."""
        self.recorder.look()
        self.recorder.span(what, kube.wait(what, found, timeout=timeout, tick=self.view.refresh))

    def phase(self, kind: str, name: str) -> str:
        """An object's phase; empty while it doesn't exist."""
        body = self.recorder.find(kind, name)
        return (body.get("status") or {}).get("phase", "Pending") if body else ""

    def rollout_phase(self, generation: str) -> str:
        """Phase of a Generation's Rollout."""
        body = self.recorder.find("Generation", generation) or {}
        return self.phase("Rollout", (body.get("status") or {}).get("rollout", ""))

    def ended(self, generation: str) -> bool:
        """Whether a lap has its verdict."""
        return self.phase("Generation", generation) in TERMINAL

    def count(self, phase: str, users: Users) -> None:
        """Add what the users counted to the report."""
        counted = users.summary()
        answered = ", ".join(f"{name}: {n}" for name, n in sorted(counted["generations"].items()))
        requests = counted["turns"] + counted["failed"]
        self.traffic.append({"phase": phase, "requests": requests, "failed": counted["failed"], "answered": answered, "summary": counted})

    def judge(self) -> list[str]:
        """What did not hold, besides the verdicts: requests that failed, a late rollback, children that were made twice."""
        problems = [f"two of a kind: {double}" for double in children.doubles("demo")]
        if failed := sum(row["failed"] for row in self.traffic):
            problems.append(f"{failed} requests of users failed")
        self.cut = self.rollback_seconds()
        if self.cut is None:
            problems.append("how fast the rollback was can't be told: no decision, or no request of companion-3 in the log")
        elif self.cut > ROLLBACK_LIMIT:
            problems.append(f"the candidate was asked {self.cut:.1f} s after the rollback decision; the limit is {ROLLBACK_LIMIT:g} s")
        if len(self.chaos.kills) < self.chaos.wanted:
            problems.append(f"the operator was killed {len(self.chaos.kills)} times, not {self.chaos.wanted}: the run was over before")
        return problems

    def rollback_seconds(self) -> float | None:
        """From the rollback decision to the last request the candidate was given, by the log; negative: none came after."""
        body = self.recorder.find("Generation", "companion-3") or {}
        rollout = self.recorder.find("Rollout", (body.get("status") or {}).get("rollout", "")) or {}
        decision = (rollout.get("status") or {}).get("decision")
        if not decision:
            return None
        log = kube.in_claim("cat /flywheel/logs/companion/*/access.jsonl", "demo", image=install.LIGHT)
        rows = [json.loads(line) for line in log.splitlines()]
        times = [moment(row["time"]) for row in rows if row.get("answeredGeneration") == "companion-3"]
        return round((max(times) - moment(decision["time"])).total_seconds(), 3) if times else None


def moment(text: str) -> dt.datetime:
    """A timestamp of Kubernetes or of the access log."""
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00"))


def main() -> int:
    """Run, report, say how to look around."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED") or random.randint(1, 9999)))
    parser.add_argument("--chaos", type=int, default=0, metavar="N", help="kill the operator's pod at N random times")
    parser.add_argument("--out", type=Path, default=Path("demo-out"))
    options = parser.parse_args()
    console = Console()
    console.print(f"seed {options.seed} on {machine()}; the whole run takes about 12 minutes once everything is built")
    demo, began = Demo(options.seed, options.chaos), time.monotonic()
    problems: list[str] = []
    try:
        with demo.view:
            demo.run()
        demo.recorder.look()
        problems += demo.judge()
    except (kube.DemoError, subprocess.TimeoutExpired) as error:
        problems.append(str(error))
        console.print(f"[red]{error}[/red]")
    finally:
        demo.chaos.stop()
    rows = report.laps(demo.recorder, EXPECTED)
    problems += [f"{row['name']} was to be {row['expected']}, is {row['verdict']}: {row['why']}" for row in rows if not row["ok"]]
    seconds = round(time.monotonic() - began, 1)
    extra = {
        "seconds": seconds,
        "problems": problems,
        "kills": demo.chaos.kills,
        "lastCandidateRequestAfterRollbackSeconds": demo.cut,
        "ok": not problems,
    }
    path = report.write(demo.recorder, rows, demo.traffic, seed=options.seed, extra=extra, directory=options.out / f"seed-{options.seed}")
    report.closing_table(rows, demo.traffic, demo.recorder.spans, console)
    console.print(f"{seconds:.0f} s in all; report: {path}; numbers: {path.with_name('demo.json')}")
    console.print(
        'look around: eval "$(python3 -m dev.cluster env)"; kubectl get modelflywheel -A; kubectl describe generation companion-2 -n demo'
    )
    console.print("Prometheus: kubectl -n flywheel-system port-forward svc/prometheus 9090; stop everything: make cluster-down")
    console.print("alerts: kubectl -n flywheel-system exec deploy/alertmanager -- amtool alert --alertmanager.url=http://localhost:9093")
    if demo.cut is not None:
        console.print(f"last request to companion-3: {demo.cut:+.3f} s after the rollback decision (limit {ROLLBACK_LIMIT:g} s)")
    for problem in problems:
        console.print(f"[red]{problem}[/red]", highlight=False)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
