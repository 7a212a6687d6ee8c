"""The operator's pod: kill it, wait for the next, ask how much memory it takes."""

from __future__ import annotations

import datetime as dt
import json
import time

from dev.demo import kube
from tests.cluster.promises.space import Body

SYSTEM = "flywheel-system"
SELECTOR = "app.kubernetes.io/name=flywheel"


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


def _ready(pod: Body) -> bool:
    return any((c["type"], c["status"]) == ("Ready", "True") for c in pod["status"].get("conditions") or ())
