"""One run from start to end: configuration in, artifact and termination message out, and an exit code that says what to do next."""

import errno
import importlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import artifacts, checkpoints, config, distributed, environment, methods, parameters, progress
from .errors import EXIT_OK, EXIT_RETRY, RunError
from .job import Job, Outcome

TERMINATION_LIMIT = 4096
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS}


def run_file(path: Path) -> int:
    stop = threading.Event()
    previous = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        try:
            message, code = _run(config.load(path), stop), EXIT_OK
        except distributed.Follower:
            return EXIT_OK
        except RunError as error:
            message, code = _failure(error), error.exit_code
            print(f"{error.reason}: {error.message}", file=sys.stderr, flush=True)
        except Exception as error:
            traceback.print_exc()
            reason, code = _unforeseen(error, stop)
            message = termination_text({"error": {"reason": reason, "message": f"{type(error).__name__}: {error}"}})
        _write_termination(message)
        return code
    finally:
        distributed.leave()
        signal.signal(signal.SIGTERM, previous)


def _run(settings: config.RunConfig, stop: threading.Event) -> str:
    module_name = methods.module_of(settings.method)
    started = time.monotonic()
    state = progress.Progress()
    chosen: object = parameters.parse(methods.parameters_of(settings.method), settings.parameters)
    server = progress.serve(state, settings.progress_port) if distributed.leads() and settings.progress_port is not None else None
    if server is not None:
        print(f"progress on port {server.server_port}", flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="flywheel-") as scratch:
            job = Job(settings, chosen, state, stop, Path(scratch))
            if module_name not in methods.WITHOUT_TORCH:
                environment.limit_threads()
                _seed(settings.seed)
                distributed.begin()
            outcome: Outcome = importlib.import_module(module_name).run(job)
            metrics = {name: _rounded(value) for name, value in outcome.metrics.items()}
            state.enter("Saving")
            artifact = artifacts.publish(
                outcome.content,
                settings.output_uri,
                kind=outcome.kind,
                card=outcome.card or _card(settings, outcome, metrics),
                metrics={**outcome.details, **metrics},
                created_by=dict(settings.run),
            )
            checkpoints.Checkpoints.of(job).clear()
        state.enter("Done")
        return termination_text(
            {"artifact": artifact.to_json(), "metrics": metrics, "gpuSeconds": _gpu_seconds(module_name, time.monotonic() - started)}
        )
    finally:
        if server is not None:
            server.shutdown()
            server.server_close()


def _seed(seed: int) -> None:
    from transformers import set_seed

    set_seed(seed)


def _gpu_seconds(module_name: str, elapsed: float) -> float:
    if module_name in methods.WITHOUT_TORCH:
        return 0
    import torch

    return round(elapsed * int(torch.cuda.device_count()) * distributed.nodes(), 1)


def _card(settings: config.RunConfig, outcome: Outcome, metrics: Mapping[str, float]) -> str:
    made_from = {f"dataset {d.name}": f"{d.uri} {d.subset or ''} {d.digest or ''}" for d in settings.datasets}
    for role, ref in (("model", settings.model), ("opponent", settings.opponent)):
        if ref is not None:
            made_from[role] = f"{ref.uri} {ref.digest or ''}"
    return artifacts.card(
        f"{outcome.kind}: {settings.run['name']}",
        outcome.summary,
        {"method": settings.method, "seed": settings.seed, **made_from, "parameters": json.dumps(dict(settings.parameters)), **metrics},
    )


def _rounded(value: float) -> float:
    value = float(value)
    if value != value or value in (float("inf"), float("-inf")):
        raise RunError("InvalidParameter", f"a metric is {value}: the training diverged; lower parameters.learningRate")
    return float(f"{value:.6g}")


def _unforeseen(error: Exception, stop: threading.Event) -> tuple[str, int]:
    """(reason, exit code). SIGTERM and full disks reach libraries too, and they fail in their own ways."""
    if stop.is_set():
        return "Interrupted", EXIT_RETRY
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return "StorageUnavailable", EXIT_RETRY
    if distributed.lost_a_peer(error):
        return "PeerLost", EXIT_RETRY
    return "InternalError", 1


def _failure(error: RunError) -> str:
    return termination_text({"error": {"reason": error.reason, "message": error.message}})


def termination_text(document: dict[str, Any]) -> str:
    """JSON of at most 4096 bytes. Metrics leave from the end (methods put the important ones first), long messages are cut."""
    document = json.loads(json.dumps(document))
    text = json.dumps(document, separators=(",", ":"))
    while len(text.encode()) > TERMINATION_LIMIT:
        if document.get("metrics"):
            document["metrics"].popitem()
        else:
            error = document["error"]
            error["message"] = error["message"][: int(len(error["message"]) * 0.9)]
        text = json.dumps(document, separators=(",", ":"))
    return text


def _write_termination(text: str) -> None:
    """The pod's last words. Of several processes in it the one that failed for a reason of its own is heard, not those it took along."""
    path = Path(os.environ.get("FLYWHEEL_TERMINATION_LOG", "/dev/termination-log"))
    print(text, flush=True)
    try:
        if distributed.size() > 1 and not _may_speak(path, text):
            return
        path.write_text(text)
    except OSError as error:
        print(f"termination message not written to {path}: {error}", file=sys.stderr, flush=True)


def _may_speak(path: Path, text: str) -> bool:
    said = path.read_text() if path.exists() else ""
    return not said or (_OTHERS_FAULT in said and _OTHERS_FAULT not in text)


_OTHERS_FAULT = '"reason":"PeerLost"'
