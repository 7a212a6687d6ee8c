"""The operator's pod: kill it, wait for the next, ask how much memory it takes."""

from __future__ import annotations

import json
import time

from dev.demo import kube
from tests.cluster.promises.space import Body

SYSTEM = "flywheel-system"
SELECTOR = "app.kubernetes.io/name=flywheel"


class OperatorPod:
    """Whichever pod of the operator runs now."""

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
        began, name = time.monotonic(), self.pods()[0]["metadata"]["name"]
        kube.kubectl("delete", "pod", name, "-n", SYSTEM, "--grace-period=0", "--force")
        kube.kubectl("wait", "--for=delete", f"pod/{name}", "-n", SYSTEM, "--timeout=60s", timeout=70)
        self.ready()
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
        name = self.pods()[0]["metadata"]["name"]
        lines = kube.kubectl("exec", "-n", SYSTEM, name, "--", "cat", "/proc/1/status").splitlines()
        kib = next(line.split()[1] for line in lines if line.startswith("VmRSS"))
        return int(kib) / 1024
