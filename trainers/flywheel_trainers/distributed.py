"""The processes of one run, as torchrun starts them: who leads, what all must agree on, and how the others leave.

One process is a world of its own: every function here then does nothing, and nothing of torch is imported for it.
"""

import datetime as dt
import os
import re
from typing import Any, TypeVar

T = TypeVar("T")
# A process that is lost breaks the connection at once; this is for one that works alone while the others wait, such as at picking prompts.
PATIENCE = dt.timedelta(hours=1)
_BROKEN = re.compile(r"gloo|NCCL|connection (closed|reset)|broken pipe|timed out|TCPStore|recvValue|sendBytes", re.IGNORECASE)


class Follower(Exception):
    """This process has done its part; the leader makes the artifact and tells the result."""


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def size() -> int:
    """How many processes the run has, over all its pods."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def nodes() -> int:
    """How many pods the run has."""
    return int(os.environ.get("GROUP_WORLD_SIZE", "1"))


def leads() -> bool:
    """Whether this is the one process that writes, serves progress and tells the result."""
    return rank() == 0


def begin() -> None:
    """Meet the others. Tensors in a GPU's memory travel by NCCL, what is agreed on by Gloo."""
    if size() == 1:
        return
    import torch
    import torch.distributed as dist

    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)


def leave() -> None:
    if size() == 1:
        return
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def agree(value: T) -> T:
    """The leader's value, in every process."""
    if size() == 1:
        return value
    import torch.distributed as dist

    said: list[Any] = [value]
    dist.broadcast_object_list(said, src=0, device=_cpu())
    return said[0]  # type: ignore[no-any-return]


def anyone(flag: bool) -> bool:
    """Whether the flag is up in any process: then it is in all."""
    if size() == 1:
        return flag
    import torch
    import torch.distributed as dist

    raised = torch.tensor([int(flag)], device=_cpu())
    dist.all_reduce(raised, op=dist.ReduceOp.MAX)
    return bool(raised.item())


def wait() -> None:
    """Until every process has come here."""
    anyone(False)


def _cpu() -> Any:
    import torch

    return torch.device("cpu")


def lost_a_peer(error: Exception) -> bool:
    """Whether this process failed because another one did: a connection broke in the middle of a step."""
    return size() > 1 and isinstance(error, RuntimeError | OSError) and _BROKEN.search(str(error)) is not None
