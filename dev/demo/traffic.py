"""The simulated users as a Job in the cluster: start them, wait for them, read what they counted."""

from __future__ import annotations

import contextlib
import json
import string
import subprocess
from pathlib import Path
from typing import Any

from dev.demo import kube

MANIFESTS = Path(__file__).parent / "manifests"


def manifest(name: str, **values: object) -> str:
    """One of the demo's YAML files with its variables filled in."""
    return string.Template((MANIFESTS / name).read_text()).substitute({k: str(v) for k, v in values.items()})


class Users:
    """One wave of users."""

    def __init__(self, name: str, *, duration: float, seed: int, rate: float = 10) -> None:
        self.name = name
        kube.kubectl("delete", "job", name, "-n", "demo", "--ignore-not-found", "--wait=true")
        kube.apply(manifest("simulator.yaml", NAME=name, RATE=rate, DURATION=duration, SEED=seed))

    def done(self) -> bool:
        """Whether the last of them has left. Raises DemoError when the simulator itself broke."""
        status = (kube.get("job", self.name, "demo") or {}).get("status") or {}
        if status.get("failed"):
            words = kube.kubectl("logs", "-n", "demo", f"job/{self.name}", "--tail=5", check=False)
            raise kube.DemoError(f"the simulator {self.name} failed: {words}")
        return bool(status.get("succeeded"))

    def stop(self) -> None:
        """Let them finish their sentence and leave."""
        pods = json.loads(kube.kubectl("get", "pods", "-n", "demo", "-l", f"job-name={self.name}", "-o", "json"))["items"]
        for pod in pods:
            if pod["status"].get("phase") == "Running":
                # The shell's own `kill`: a minimal image has no other.
                kube.kubectl("exec", "-n", "demo", pod["metadata"]["name"], "--", "sh", "-c", "kill -TERM 1", check=False)

    def summary(self) -> dict[str, Any]:
        """What they counted: the last JSON line that the simulator printed."""
        lines = kube.kubectl("logs", "-n", "demo", f"job/{self.name}", check=False).splitlines()
        for line in reversed(lines):
            with contextlib.suppress(json.JSONDecodeError):
                found = json.loads(line)
                if isinstance(found, dict):
                    return found
        raise kube.DemoError(f"the simulator {self.name} left no summary; look with: kubectl logs -n demo job/{self.name}")


def machine() -> str:
    """Cores and memory, for the record."""
    cores = subprocess.run(["nproc"], capture_output=True, text=True, check=True).stdout.strip()
    with Path("/proc/meminfo").open() as lines:
        kib = int(next(line for line in lines if line.startswith("MemTotal")).split()[1])
    return f"{cores} cores, {kib / 2**20:.0f} GiB"
