"""The operator's pod: kill it, wait for the next, ask how much memory it takes."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import time
from pathlib import Path

from dev.demo import kube
from tests.cluster.promises.space import Body

SYSTEM = "flywheel-system"
SELECTOR = "app.kubernetes.io/name=flywheel"
PROGRAM = b"flywheel.runtime"  # python -m …


class OperatorPod:
    """Whichever pod of the operator runs now."""

    died: dt.datetime  # when it was killed last

    def pods(self) -> list[Body]:
        """All of its pods."""
        items: list[Body] = json.loads(kube.kubectl("get", "pods", "-n", SYSTEM, "-l", SELECTOR, "-o", "json"))["items"]
        return items

    def ready(self) -> None:
        """Wait until it is."""
        kube.kubectl("rollout", "status", "deployment/flywheel", "-n", SYSTEM, "--timeout=120s", timeout=130)

    def kill(self) -> float:
        """End its processes without a word, and wait for the successor; seconds until that was ready."""
        self.no_restarts()
        began, (pod, *_) = time.monotonic(), self._living()
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        kube.kubectl("delete", "pod", name, "-n", SYSTEM, "--grace-period=0", "--force")
        self.died = dt.datetime.now(dt.UTC)
        kube.wait("the operator's next pod", lambda: any(map(_ready, self._living(but=uid))), timeout=120, interval=0.2)
        return time.monotonic() - began

    def sigkill(self) -> bool:
        """SIGKILL to its process, at once; whether there was one. The pod goes with it, since a container that is started again in the
        same pod would have to wait longer each time. Only where the node is this machine: nothing inside a cluster may kill like that."""
        struck = False
        for pod in self._living():
            for process in _processes(pod["metadata"]["uid"]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                    struck = True
            if struck:
                self.died = dt.datetime.now(dt.UTC)
                kube.kubectl(
                    "delete", "pod", pod["metadata"]["name"], "-n", SYSTEM, "--grace-period=0", "--force", "--wait=false", check=False
                )
        return struck

    def no_restarts(self) -> None:
        """No container of it has ever ended by itself."""
        for pod in self.pods():
            restarts = [c["restartCount"] for c in pod["status"].get("containerStatuses") or ()]
            assert not any(restarts), (
                f"the operator's pod {pod['metadata']['name']} restarted {restarts} times; see kubectl logs --previous"
            )

    def resident_mebibytes(self) -> float:
        """Resident memory of its main process."""
        name = self._living()[0]["metadata"]["name"]
        lines = kube.kubectl("exec", "-n", SYSTEM, name, "--", "cat", "/proc/1/status").splitlines()
        kib = next(line.split()[1] for line in lines if line.startswith("VmRSS"))
        return int(kib) / 1024

    def _living(self, *, but: str = "") -> list[Body]:
        """Its pods that run and are not about to go, without the one of this uid."""
        running = [pod for pod in self.pods() if pod["status"].get("phase") == "Running" and pod["metadata"]["uid"] != but]
        return [pod for pod in running if "deletionTimestamp" not in pod["metadata"]]


def _processes(pod: str) -> list[int]:
    """Processes of this machine that run the operator in the pod of this uid."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"pod{pod}" in (directory / "cgroup").read_text() and PROGRAM in (directory / "cmdline").read_bytes().split(b"\0"):
                found.append(int(directory.name))
    return found


def _ready(pod: Body) -> bool:
    return any((c["type"], c["status"]) == ("Ready", "True") for c in pod["status"].get("conditions") or ())
