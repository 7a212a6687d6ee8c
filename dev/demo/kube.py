"""The cluster as the demo sees it: kubectl and helm for what a user would type, nothing the operator keeps to itself."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

Body = dict[str, Any]
KINDS = "flywheels,generations,trainingruns,rewardmodels,rollouts"


class DemoError(Exception):
    """The demo can't go on; the message says what was expected, what was seen and where to look."""


def run_bytes(*command: str, stdin: bytes | None = None, check: bool = True, timeout: float = 120) -> bytes:
    """Run a command and return what it printed; its own words in the error when it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise DemoError(f"{' '.join(command[:6])} failed ({done.returncode}): {done.stderr.decode(errors='replace').strip()[-2000:]}")
    return done.stdout


def run(*command: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
    """The same for text."""
    return run_bytes(*command, stdin=stdin.encode() if stdin else None, check=check, timeout=timeout).decode(errors="replace")


def kubectl(*args: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
    """kubectl, in the cluster that KUBECONFIG names."""
    return run("kubectl", *args, stdin=stdin, check=check, timeout=timeout)


def apply(*bodies: Mapping[str, Any] | str) -> None:
    """Apply manifests as a user would; server-side, because the CRDs are larger than client-side apply likes."""
    for body in bodies:
        text = body if isinstance(body, str) else json.dumps(body)
        kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)


def get(kind: str, name: str, namespace: str) -> Body | None:
    """One object, or None."""
    text = kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
    body: Body | None = json.loads(text) if text.strip() else None
    return body


def story(namespace: str) -> dict[str, list[Body]]:
    """All objects of the five kinds, by kind, oldest first."""
    items = json.loads(kubectl("get", KINDS, "-n", namespace, "-o", "json"))["items"]
    by_kind: dict[str, list[Body]] = {}
    for item in sorted(items, key=lambda i: (i["metadata"]["creationTimestamp"], i["metadata"]["name"])):
        by_kind.setdefault(item["kind"], []).append(item)
    return by_kind


def wait(what: str, found: Callable[[], bool], *, timeout: float, tick: Callable[[], None] | None = None, interval: float = 1.0) -> float:
    """Wait until `found`; returns the seconds it took. Raises DemoError when it takes too long."""
    started = time.monotonic()
    while not found():
        if time.monotonic() - started > timeout:
            raise DemoError(f"waited {timeout:.0f} s for {what}; look with: kubectl get modelflywheel -A; kubectl get pods -A")
        if tick:
            tick()
        time.sleep(interval)
    return time.monotonic() - started


def in_claim(script: str, namespace: str, *, image: str, stdin: bytes | None = None, timeout: float = 120) -> bytes:
    """Run a shell line in a short-lived pod that holds the data claim at /flywheel, as one would on any cluster; returns its output."""
    pod = "flywheel-loader"
    container = {
        "name": "load",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "3600"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/flywheel"}],
    }
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "flywheel-data"}}],
    }
    kubectl("delete", "pod", pod, "-n", namespace, "--ignore-not-found", "--now")
    apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": namespace}, "spec": spec})
    kubectl("wait", "--for=condition=Ready", f"pod/{pod}", "-n", namespace, "--timeout=120s", timeout=130)
    try:
        return run_bytes("kubectl", "exec", "-i", "-n", namespace, pod, "--", "sh", "-c", script, stdin=stdin, timeout=timeout)
    finally:
        kubectl("delete", "pod", pod, "-n", namespace, "--now", "--wait=false")
