"""Kills the operator whenever something in a namespace has come to another phase."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.cluster.promises.operator_pod import OperatorPod
from tests.cluster.promises.space import Body, status

KINDS = ("flywheels", "generations", "trainingruns", "rewardmodels", "rollouts")
MOST = 120  # deaths; two laps have about half as many transitions


@dataclass(frozen=True)
class Phases:
    """All of an object that counts as a phase: its own, its stages', the users' share, the verdict, the champion."""

    phase: str | None
    stages: tuple[tuple[str, str], ...]
    weights: tuple[int | None, int | None]
    verdict: str | None
    champion: str | None

    @classmethod
    def of(cls, body: Body) -> Phases:
        told = status(body)
        weights = told.get("weights") or {}
        return cls(
            told.get("phase"),
            tuple((stage["name"], stage["phase"]) for stage in told.get("stages") or ()),
            (weights.get("intended"), weights.get("acknowledged")),
            (told.get("decision") or {}).get("verdict"),
            (told.get("champion") or {}).get("generation"),
        )


@dataclass(frozen=True)
class Transition:
    """What changed."""

    kind: str
    name: str
    before: Phases | None
    after: Phases


@dataclass
class Reaper:
    """What he has seen, and how often he has struck."""

    transitions: list[Transition] = field(default_factory=list)
    kills: int = 0
    errors: list[BaseException] = field(default_factory=list)


@contextmanager
def reaper(namespace: str, operator: OperatorPod, *, kill: bool) -> Iterator[Reaper]:
    """While this lasts, no transition is survived; or all are only noted."""
    seen, events, stop = Reaper(), queue.Queue[Body](), threading.Event()
    watches = [_watch(kind, namespace) for kind in KINDS]
    threads = [threading.Thread(target=_read, args=(process, events), daemon=True) for process in watches]
    threads.append(threading.Thread(target=_strike, args=(seen, events, stop, operator if kill else None), daemon=True))
    for thread in threads:
        thread.start()
    try:
        yield seen
        assert [process.args for process in watches if process.poll() is not None] == [], "a watch ended: transitions may have been missed"
    finally:
        stop.set()
        for process in watches:
            process.kill()
            process.wait()
        for thread in threads:
            thread.join(timeout=60)
    if seen.errors:
        raise seen.errors[0]


def _watch(kind: str, namespace: str) -> subprocess.Popen[str]:
    command = ["kubectl", "get", kind, "-n", namespace, "--watch", "-o", "json", "--output-watch-events"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _read(process: subprocess.Popen[str], events: queue.Queue[Body]) -> None:
    """One JSON document a line."""
    assert process.stdout is not None
    for line in process.stdout:
        events.put(json.loads(line)["object"])


def _strike(seen: Reaper, events: queue.Queue[Body], stop: threading.Event, operator: OperatorPod | None) -> None:
    states: dict[tuple[str, str], Phases] = {}
    try:
        while not stop.is_set():
            try:
                body = events.get(timeout=0.2)
            except queue.Empty:
                continue
            key, after = (body["kind"], body["metadata"]["name"]), Phases.of(body)
            before, states[key] = states.get(key), after
            if after == before:
                continue
            seen.transitions.append(Transition(*key, before, after))
            # If nobody lives, whoever wrote this is dead already.
            if operator is not None and operator.sigkill():
                seen.kills += 1
                assert seen.kills <= MOST, f"{seen.kills} deaths, and the laps are not over; the last: {seen.transitions[-5:]}"
    except BaseException as error:
        seen.errors.append(error)
