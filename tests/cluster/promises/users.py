"""Users inside the cluster: a bounded, steady trickle of requests to the service's router, from the desk pod, and nowhere else."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from tests.cluster.promises.objects import SERVICE
from tests.cluster.promises.space import DESK, NAMESPACE, Late, desk

Reply = dict[str, Any]
RATE, SECONDS = 8.0, 600.0  # requests a second at most, and for how long at most: longer than any test waits while they are there

# One JSON line a request: when, who, the status, who answered. Ends at the first line on its standard input, or after a while.
_SCRIPT = """
import json, sys, threading, time, urllib.error, urllib.request, uuid
from concurrent.futures import ThreadPoolExecutor
router, model, rate, seconds, favourite = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
stop, lock, eager = threading.Event(), threading.Lock(), []
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()

def ask(user):
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 2}).encode()
    ids = {"x-user-id": user, "x-conversation-id": user, "x-message-id": uuid.uuid4().hex}
    request = urllib.request.Request(router + "/v1/chat/completions", body, {"Content-Type": "application/json", **ids})
    said = {"at": time.time(), "user": user}
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            text = json.load(reply)["choices"][0]["message"]["content"]
            said |= {"status": reply.status, "text": text}
            headers = reply.headers
    except urllib.error.HTTPError as error:
        said |= {"status": error.code, "error": error.read(300).decode(errors="replace")}
        headers = error.headers
    except Exception as error:
        said |= {"status": 0, "error": repr(error)}
        headers = {}
    said |= {"generation": headers.get("x-flywheel-generation"), "id": headers.get("x-request-id")}
    with lock:
        print(json.dumps(said), flush=True)
        if favourite and said["generation"] == favourite and sum(u == user for u in asked) < 4:
            eager.append(user)

asked, began, count = [], time.monotonic(), 0
with ThreadPoolExecutor(8) as pool:
    while not stop.is_set() and time.monotonic() - began < seconds:
        with lock:
            user = eager.pop(0) if eager else f"u-{uuid.uuid4().hex}"
            asked.append(user)
        pool.submit(ask, user)
        count += 1
        stop.wait(max(0.0, began + count / rate - time.monotonic()))
    pool.shutdown(wait=False, cancel_futures=True)  # those who are still to ask go home, those who have asked wait for their reply
"""
_LOGGED = """
import json, pathlib, subprocess, sys, time
wanted, service, end = set(json.load(open("/tmp/wanted.json"))), sys.argv[1], time.monotonic() + 20
files = [str(path) for path in pathlib.Path("/flywheel/logs", service).glob("*/access.jsonl")]
with subprocess.Popen(["tail", "-q", "-n", "+1", "-F", *files], stdout=subprocess.PIPE, text=True) as tail:
    for line in tail.stdout:
        entry = json.loads(line)
        if entry["requestId"] in wanted:
            wanted.remove(entry["requestId"])
            print(json.dumps(entry))
        if not wanted or time.monotonic() > end:
            break
    tail.kill()
"""


@dataclass
class Crowd:
    """Users who come and ask until they are sent home."""

    process: subprocess.Popen[str]
    replies: list[Reply] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.replies.append(json.loads(line))
                self._news.notify_all()

    def until(self, enough: Callable[[list[Reply]], bool], *, timeout: float = 40) -> None:
        """Wait until their replies are as wanted."""
        with self._news:
            if not self._news.wait_for(lambda: enough(self.replies), timeout=timeout):
                raise Late(f"not as wanted after {timeout:.0f} s: {len(self.replies)} replies, the last: {self.replies[-3:]}")

    def ask_more(self, count: int) -> None:
        """Wait for the replies to so many requests that are yet to begin."""
        now = time.time()
        self.until(lambda replies: sum(reply["at"] > now for reply in replies) >= count)

    def leave(self) -> list[Reply]:
        """Let them end what they began; all replies."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):  # their time was up before
                self.process.stdin.write("enough\n")
                self.process.stdin.close()
        try:
            self.process.wait(timeout=40)
        finally:
            self.process.kill()  # a kubectl that hangs; the script in the pod ends with its input
            self._reader.join(timeout=10)
        return self.replies

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.leave()


def crowd(*, favourite: str = "", rate: float = RATE, service: str = SERVICE, namespace: str = NAMESPACE) -> Crowd:
    """New users, one request each; those whom `favourite` answered write three times more."""
    command = ["kubectl", "exec", "-i", "-n", namespace, DESK, "--", "python", "-c", _SCRIPT]
    arguments = [f"http://{service}-router.{namespace}.svc", service, str(rate), str(SECONDS), favourite]
    return Crowd(subprocess.Popen([*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))


def one_reply() -> Reply:
    """What one user is told now."""
    with crowd() as user:
        user.until(lambda replies: len(replies) >= 1)
    return user.replies[0]


@contextmanager
def served(*, favourite: str = "", rate: float = RATE, service: str = SERVICE, namespace: str = NAMESPACE) -> Iterator[Crowd]:
    """Nobody's request may fail while this lasts."""
    with crowd(favourite=favourite, rate=rate, service=service, namespace=namespace) as users:
        yield users
    failures = [reply for reply in users.replies if reply["status"] != 200]
    assert not failures, f"{len(failures)} of {len(users.replies)} requests failed; the first: {failures[0]}"


def access_log(replies: list[Reply]) -> list[dict[str, Any]]:
    """The router's own lines about these requests; waits for the last of them."""
    ids = json.dumps([reply["id"] for reply in replies if reply["id"]])
    desk(f"open('/tmp/wanted.json', 'w').write({ids!r})")
    return [json.loads(line) for line in desk(_LOGGED, SERVICE).splitlines()]
