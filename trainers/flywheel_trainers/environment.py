"""Process-wide settings that only work before torch and transformers are imported."""

import os


def prepare() -> None:
    """Never reach out to a hub, never spin more threads than asked for: OpenMP's spinning costs 3-5x on shared cores."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_DATASETS_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    # The root file system of a training pod is read-only: every library cache goes where writing is allowed.
    if not os.access(os.path.expanduser("~"), os.W_OK):
        os.environ["HOME"] = os.environ.get("TMPDIR", "/tmp")  # noqa: S108 - the pod's only writable directory
    os.environ.setdefault("HF_HOME", os.path.join(os.environ.get("TMPDIR", "/tmp"), "huggingface"))  # noqa: S108


def limit_threads() -> None:
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
