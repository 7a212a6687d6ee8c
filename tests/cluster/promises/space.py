"""The namespace that the promises are tried in: objects are applied, watched and described as a user would, with kubectl."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dev.demo import kube

Body = dict[str, Any]
Until = Callable[[Body], bool]
NAMESPACE = "promises"
DESK = "desk"  # a pod with Python that holds the claim: what a person at a shell in the cluster would use


class Late(AssertionError):
    """Something did not happen in time; the message says what was seen last."""


@dataclass
class Watched:
    """What a watch saw of one object, oldest first."""

    seen: list[Body] = field(default_factory=list)
    gone: bool = False

    @property
    def last(self) -> Body:
        """The newest state."""
        return self.seen[-1] if self.seen else {}


def kubectl(*arguments: str, namespace: str = NAMESPACE, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
    """kubectl in the namespace of the promises, or in another."""
    return kube.kubectl("-n", namespace, *arguments, stdin=stdin, check=check, timeout=timeout)


def apply(body: Body, *, namespace: str = NAMESPACE) -> Body:
    """Apply an object of this namespace."""
    metadata = {**body["metadata"], "namespace": namespace}
    kube.apply({**body, "metadata": metadata})
    return body


def get(kind: str, name: str, *, namespace: str = NAMESPACE) -> Body:
    """An object that must be there."""
    body = kube.get(kind, name, namespace)
    assert body is not None, f"there is no {kind} {name}"
    return body


def children(kind: str, selector: str) -> list[Body]:
    """All objects of a kind with these labels."""
    items: list[Body] = json.loads(kubectl("get", kind, "-l", selector, "-o", "json"))["items"]
    return items


def patch(kind: str, name: str, change: Body) -> None:
    """A merge patch, as `kubectl patch` sends it."""
    kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(change))


def retry(kind: str, name: str, token: str) -> None:
    """Ask for another try, as `kubectl flywheel retry` does."""
    kubectl("annotate", kind, name, f"modelflywheel.dev/retry={token}", "--overwrite")


def watch(kind: str, name: str, until: Until, *, timeout: float, namespace: str = NAMESPACE) -> Watched:
    """Follow one object until it is as wanted. Fails with its last words when that takes too long."""
    watched = Watched()
    for type_, body in follow(kind, namespace, timeout, f"--field-selector=metadata.name={name}"):
        watched.gone = type_ == "DELETED"
        watched.seen.append(body)
        if not watched.gone and until(body):
            return watched
    raise Late(f"{kind} {name}: not as wanted after {timeout:.0f} s; last: {_words(watched.last)}")


def gone(kind: str, name: str, *, timeout: float) -> None:
    """Wait until an object is no more."""
    kubectl("wait", "--for=delete", f"{kind}/{name}", f"--timeout={timeout:.0f}s", timeout=timeout + 10)


def phase(*wanted: str) -> Until:
    """A condition of `watch`: the object has one of these phases, and says so about the spec as it is now."""
    return lambda body: status(body).get("phase") in wanted and status(body).get("observedGeneration") == body["metadata"].get("generation")


def status(body: Body) -> Body:
    """The status, empty before the first pass."""
    return body.get("status") or {}


def condition(body: Body, type_: str) -> Body:
    """One of its conditions."""
    return next((c for c in status(body).get("conditions") or () if c["type"] == type_), {})


def reason(type_: str, wanted: str) -> Until:
    """A condition of `watch`: this condition has this reason."""
    return lambda body: condition(body, type_).get("reason") == wanted


def desk(script: str, *arguments: str, namespace: str = NAMESPACE, timeout: float = 60) -> str:
    """Run Python in the pod that holds the claim."""
    return kubectl("exec", "-i", DESK, "--", "python", "-", *arguments, namespace=namespace, stdin=script, timeout=timeout)


def _words(body: Body) -> str:
    if not body:
        return "it was never there"
    told = [f"{c['type']}={c['status']} {c.get('reason')}: {c.get('message')}" for c in status(body).get("conditions") or ()]
    return f"phase {status(body).get('phase')}; " + " | ".join(told)


def follow(kind: str, namespace: str, timeout: float, *selector: str) -> Iterator[tuple[str, Body]]:
    """(type, object) of a watch; begun again when the server ends it."""
    deadline = time.monotonic() + timeout
    command = ["kubectl", "get", kind, "-n", namespace, *selector, "--watch", "--output-watch-events", "-o", "json"]
    while time.monotonic() < deadline:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            lines: queue.Queue[str | None] = queue.Queue()
            threading.Thread(target=_pump, args=(process, lines), daemon=True).start()
            try:
                for event in _documents(lines, deadline):
                    yield event["type"], event["object"]
            finally:
                process.kill()


def _pump(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def _documents(lines: queue.Queue[str | None], deadline: float) -> Iterator[Body]:
    """The JSON documents of a watch, one a line, until it ends or the time is up."""
    while (left := deadline - time.monotonic()) > 0:
        try:
            line = lines.get(timeout=left)
        except queue.Empty:
            return
        if line is None:
            return
        yield json.loads(line)
