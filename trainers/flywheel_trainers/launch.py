"""Several processes of one run in this pod, started by torchrun's own agent; its exit code is that of the process that failed first.

torchrun itself ends with 1 whatever its processes ended with, and would hide from the operator what is worth another try.
"""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from .errors import EXIT_OK, EXIT_RETRY

PORT = 29500
SHUTDOWN = 110  # seconds for the last checkpoint; the pod has 120


@dataclass(frozen=True)
class Group:
    """The pods of a run, and which of them this is."""

    nodes: int
    node_rank: int
    processes_per_node: int
    leader: str = "127.0.0.1"
    port: int = PORT


def launch(config: Path, group: Group) -> int:
    """Run `flywheel_trainers run` in every process; returns the exit code of the pod."""
    # The same for all pods: each starts its processes once, and a lost one ends the attempt. The operator starts the next.
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    settings = LaunchConfig(
        min_nodes=group.nodes,
        max_nodes=group.nodes,
        nproc_per_node=group.processes_per_node,
        run_id="flywheel",
        rdzv_backend="static",
        rdzv_endpoint=f"{group.leader}:{group.port}",
        rdzv_configs={"rank": group.node_rank, "timeout": 900},
        max_restarts=0,
        monitor_interval=0.5,
        shutdown_timeout=SHUTDOWN,
    )
    arguments = ["-u", "-m", "flywheel_trainers", "run", "--config", str(config)]
    # What kills this process by SIGTERM before its agent listens must not look like a failure of the trainer.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_RETRY))
    try:
        elastic_launch(settings, sys.executable)(*arguments)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        # Killed by a signal: as a shell and the kubelet count it, 137 for the kernel's out-of-memory killer.
        return failure.exitcode if failure.exitcode >= 0 else 128 - failure.exitcode
    except SignalException:
        return EXIT_RETRY
    return EXIT_OK


def from_environment() -> int:
    """The index that an Indexed Job gives its pod."""
    return int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
