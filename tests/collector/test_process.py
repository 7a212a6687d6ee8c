"""The real program: killed again and again while the log grows, asked over HTTP, told to stop."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from flywheel_collector.openapi import document
from flywheel_collector.outcome import METRICS
from tests.collector.recount import recount
from tests.processes import end_with_parent, free_ports

EXPERIMENT = "demo.g1.kill"
HORIZON, CAP = 30.0, 4
KILLS, EACH = 20, 1200


class Process:
    def __init__(self, root: Path, *options: str) -> None:
        self.root, self.port, self.options = root, free_ports(1)[0], options
        self.authorization: str | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flywheel_collector", "--flywheel", "demo", "--logs", f"{self.root}/logs", "--data", f"{self.root}/data",
             "--state", f"{self.root}/state.sqlite", "--port", str(self.port), "--host", "127.0.0.1", "--conversation-idle", "0.2",
             *self.options],
            stderr=subprocess.DEVNULL, env=os.environ, preexec_fn=end_with_parent,
        )  # fmt: skip

    def stop(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        if self.authorization is not None:
            request.add_header("Authorization", self.authorization)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def values(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        families = text_string_to_metric_families(self.ask("GET", "/metrics")[1])
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def until(condition: Callable[[], Any], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def ready(process: Process) -> Callable[[], bool]:
    return lambda: process.ask("GET", "/readyz")[0] == 200


def traffic(count: int, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    start = time.time() - 3600
    lines = []
    for number in range(count):
        user = rng.randrange(count // 6)
        moment = datetime.fromtimestamp(start + number / 100 + rng.random(), UTC).isoformat(timespec="milliseconds")
        arm = "old" if user % 2 else "new"
        lines.append({
            "time": moment, "requestId": f"r{number}", "status": rng.choice((200,) * 9 + (503,)), "durationMs": 10,
            "user": f"u{user}", "conversation": f"c{user}", "message": f"m{rng.randrange(8)}",
            "purpose": rng.choice(("-",) * 9 + ("title",)), "experiment": EXPERIMENT,
            "slice": "control" if user % 2 else "candidate", "assignedArm": arm, "answeredArm": rng.choice((arm,) * 9 + ("old",)),
            "assignedGeneration": arm, "answeredGeneration": arm,
        })  # fmt: skip
    return lines


def test_killed_twenty_times_in_mid_stream_the_moments_equal_a_recount_of_the_log(tmp_path: Path) -> None:
    lines, rng = traffic(KILLS * EACH, 1), random.Random(2)
    definition = {"horizonSeconds": HORIZON, "winsorCap": CAP, "startedAt": "2020-01-01T00:00:00Z", "enrolUntil": None}
    process = Process(tmp_path)
    files = {pod: tmp_path / "logs" / pod / "access.jsonl" for pod in ("a", "b")}
    for path in files.values():
        path.parent.mkdir(parents=True)
    total = malformed = 0
    events: list[dict[str, Any]] = []
    for kill in range(KILLS):
        process.start()
        until(ready(process))
        assert process.ask("PUT", f"/v1/experiments/{EXPERIMENT}", definition)[0] == (200 if kill else 201)
        pause = rng.uniform(0.05, 0.5)  # where in the stream the kill falls
        for place in range(kill * EACH, (kill + 1) * EACH, 300):
            late = rng.sample(lines[place : place + 300], 300)  # out of order by up to three seconds
            for line in late:
                with_rubbish, twice = rng.random() < 0.01, rng.random() < 0.01
                with files[rng.choice("ab")].open("a") as file:
                    file.write(("{rubbish\n" if with_rubbish else "") + (json.dumps(line) + "\n") * (1 + twice))
                total, malformed = total + 1, malformed + with_rubbish
            event = {**lines[place], "id": f"e{place}", "type": "thumbs_up"}
            assert process.ask("POST", "/v1/events", {"events": [event]})[0] == 200
            events.append(event)
        time.sleep(pause)
        process.stop(signal.SIGKILL)
        if kill % 5 == 3:
            path = files["ab"[kill % 2]]
            rotated = path.rename(path.with_name(f"access.jsonl.{kill}"))
            os.utime(rotated, (time.time() - 600,) * 2)  # at rest: it may be removed as soon as it is read
    process.start()
    until(ready(process))
    until(lambda: sum(v for (name, _), v in process.values().items() if name == "flywheel_requests_total") >= total)
    # Mature by the wall clock: the traffic is an hour old.
    until(lambda: process.values()[("flywheel_experiment_users", _place("control", "depth"))] >= count_control(lines))
    until(lambda: not list(tmp_path.glob("logs/*/access.jsonl.*")))
    values = process.values()
    assert process.stop(signal.SIGTERM) == 0
    assigned, moments = recount(lines, events, EXPERIMENT, HORIZON, CAP, time.time())
    assert sum(v for (name, _), v in values.items() if name == "flywheel_requests_total") == total
    assert values[("flywheel_collector_malformed_lines_total", ())] == malformed
    names = ("flywheel_experiment_users", "flywheel_experiment_sum", "flywheel_experiment_sum_squares")
    for slice_ in ("control", "candidate"):
        assert values[("flywheel_experiment_assigned_users", (("experiment", EXPERIMENT), ("slice", slice_)))] == assigned[slice_]
        for metric in METRICS:
            assert tuple(values[(name, _place(slice_, metric))] for name in names) == moments[slice_, metric]


def _place(slice_: str, metric: str) -> tuple[tuple[str, str], ...]:
    return (("experiment", EXPERIMENT), ("metric", metric), ("slice", slice_))


def count_control(lines: list[dict[str, Any]]) -> int:
    return len({line["user"] for line in lines if line["slice"] == "control" and line["purpose"] == "-"})


def test_the_api_refuses_what_is_wrong_and_says_why(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.start()
    until(ready(process))
    good = {"horizonSeconds": 15, "winsorCap": None, "startedAt": "2026-01-01T00:00:00Z", "enrolUntil": None}

    def put(change: dict[str, Any], name: str = "x") -> tuple[int, str]:
        return process.ask("PUT", f"/v1/experiments/{name}", good | change)

    assert put({})[0] == 201
    assert put({})[0] == 200
    assert put({"horizonSeconds": 16})[0] == 409
    for change in ({"horizonSeconds": 0}, {"horizonSeconds": "15"}, {"horizonSeconds": True}, {"winsorCap": 0}, {"winsorCap": 1.5},
                   {"startedAt": None}, {"startedAt": "now"}, {"enrolUntil": "then"}, {"surprise": 1}):  # fmt: skip
        status, text = put(change, "y")
        assert (status, next(iter(change)) in text) == (400, True)
    assert put({}, "bad%20name")[0] == 400
    assert put({}, "x" * 129)[0] == 400
    assert process.ask("PUT", "/v1/experiments/y", b"NaN")[0] == 400
    assert process.ask("PUT", "/v1/experiments/y", b"[" * 100_000)[0] == 400
    assert {put({}, f"many{n}")[0] for n in range(64)} == {201}
    assert put({"horizonSeconds": 16})[0] == 201, "the oldest has made room, and its name is free"
    assert process.ask("DELETE", "/v1/experiments/x")[0] == 204
    assert process.ask("DELETE", "/v1/experiments/x")[0] == 204
    assert process.ask("POST", "/v1/events", b"x" * ((1 << 20) + 1))[0] == 413
    assert process.ask("POST", "/v1/events", b"nonsense")[0] == 400
    assert process.ask("POST", "/v1/events", {"events": [1]}) == (
        200, '{"accepted": 0, "duplicate": 0, "rejected": [{"index": 0, "error": "an event must be an object"}]}',
    )  # fmt: skip
    assert process.ask("GET", "/healthz")[0] == 200
    assert process.stop(signal.SIGTERM) == 0


def test_events_need_the_token_when_there_is_one_and_deletion_always_does(tmp_path: Path) -> None:
    token = tmp_path / "token"
    process = Process(tmp_path, "--token-file", str(token))
    process.start()
    until(ready(process))
    assert process.ask("POST", "/v1/events", {"events": []})[0] == 200
    assert process.ask("DELETE", "/v1/users/ann")[0] == 403
    token.write_text("s3cret\n")
    for wrong in (None, "s3cret", "Bearer", "Bearer other", "Bearer s3cre", "Basic s3cret"):
        process.authorization = wrong
        assert process.ask("POST", "/v1/events", {"events": []})[0] == 401
        assert process.ask("DELETE", "/v1/users/ann")[0] == 401
    assert process.ask("PUT", "/v1/experiments/x", {"horizonSeconds": 1, "startedAt": "2026-01-01T00:00:00Z"})[0] == 201
    process.authorization = "Bearer s3cret"
    assert process.ask("POST", "/v1/events", {"events": []})[0] == 200
    assert process.ask("DELETE", "/v1/users/ann") == (202, '{"pending": 1}')
    assert process.ask("DELETE", "/v1/users/" + "x" * 201)[0] == 400
    assert process.ask("DELETE", "/v1/users/a%0Ab")[0] == 400
    until(lambda: process.values()[("flywheel_collector_deletions_pending", ())] == 0)
    assert json.loads((tmp_path / "data" / "tombstones.json").read_text())["users"]
    assert json.loads(process.ask("GET", "/openapi.json")[1]) == document()
    assert process.stop(signal.SIGTERM) == 0
