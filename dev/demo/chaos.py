"""Kill the operator's pod at random times: a run must end as it would have ended without."""

from __future__ import annotations

import random
import threading
import time

from dev.demo import kube

EARLIEST, LATEST = 5, 100  # seconds between two kills


class Chaos:
    """Kills the operator now and then while the demo runs."""

    def __init__(self, kills: int, seed: int) -> None:
        self.wanted, self.kills = kills, []  # type: ignore[var-annotated]  # times of the kills
        self._random, self._stop = random.Random(seed), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        if self.wanted:
            self._thread.start()

    def stop(self) -> None:
        """No more kills."""
        self._stop.set()

    def _run(self) -> None:
        for _ in range(self.wanted):
            if self._stop.wait(self._random.uniform(EARLIEST, LATEST)):
                return
            selector = "app.kubernetes.io/name=flywheel"
            gone = kube.kubectl(
                "delete", "pod", "-n", "flywheel-system", "-l", selector, "--grace-period=0", "--force", "--wait=false", check=False
            )
            if "deleted" in gone:
                self.kills.append(round(time.time(), 1))
