"""GarbageCollect: deletes artifacts and checkpoints of one Flywheel's runs that nothing refers to; by default it only lists them.

The operator says what stays (`keep`) and when it looked (`markedAt`). Nothing is touched that is younger than `markedAt` less the grace,
that a run of another owner has made, or of which nobody knows who has made it.
"""

import json
import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import artifacts
from ..errors import RunError
from ..job import Job, Outcome
from ..parameters import option
from ..sweep import Found, Keep, refuse_links, sweep_artifacts, sweep_checkpoints

SHORTEST_GRACE = 3600.0
LISTED = 60  # of the largest, in the metrics; the report has all


@dataclass(frozen=True)
class Parameters:
    """Parameters of GarbageCollect."""

    flywheel: str = option("", "The Flywheel whose garbage it is.")
    markedAt: str = option("", "When the operator looked at what is needed, in RFC 3339.")
    graceSeconds: float = option(604800.0, "What is younger than this at that time stays.", minimum=SHORTEST_GRACE, unit="seconds")
    dryRun: bool = option(True, "Only list what would be deleted.")
    keep: dict[str, Any] | None = option(None, "What stays: `digests` (their first 20 digits) and `runs` (uids).")


def run(job: Job) -> Outcome:
    p: Parameters = job.parameters
    keep = _keep(job, p)
    store = _local(job.config.output_uri, "output.uri")
    checkpoint = job.config.checkpoint
    found: list[Found] = []
    with artifacts.storage_errors(job.config.output_uri):
        refuse_links(store)
        job.progress.enter("Sweeping")
        found += sweep_artifacts(store, keep, delete=not p.dryRun, check=job.check)
        if checkpoint is not None:  # <store>/checkpoints/<this run's uid>/<hash>
            root = _local(checkpoint.uri, "checkpoint.uri").parent.parent
            refuse_links(root)
            if root.name == "checkpoints":
                found += sweep_checkpoints(root, keep, delete=not p.dryRun, check=job.check)
    return _outcome(job, p, found)


def _keep(job: Job, p: Parameters) -> Keep:
    namespace = str(job.config.run.get("namespace") or "")
    if not p.flywheel or not namespace or p.keep is None:
        raise RunError(
            "InvalidParameter", "parameters.flywheel, parameters.keep and run.namespace are needed: without them everything is garbage"
        )
    lists = {name: p.keep.get(name) for name in ("digests", "runs")}
    for name, values in lists.items():
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise RunError("InvalidParameter", f"parameters.keep.{name} must be a list of texts")
    if not all(len(digest) == 20 for digest in p.keep["digests"]):
        raise RunError("InvalidParameter", "parameters.keep.digests must have the first 20 hexadecimal digits of each digest")
    try:
        marked = datetime.fromisoformat(p.markedAt)
    except ValueError:
        raise RunError("InvalidParameter", f"parameters.markedAt must be a time in RFC 3339, not {p.markedAt[:80]!r}") from None
    cutoff = (marked if marked.tzinfo else marked.replace(tzinfo=UTC)).timestamp() - p.graceSeconds
    if not math.isfinite(cutoff):
        raise RunError("InvalidParameter", "parameters.markedAt is no time of this world")
    return Keep(frozenset(p.keep["digests"]), frozenset(p.keep["runs"]), (namespace, p.flywheel), cutoff)


def _local(uri: str, where: str) -> Path:
    path = artifacts.local_path(uri)
    if path is None:
        raise RunError("InvalidConfig", f"{where} {uri} is no claim: a bucket may be shared; give it a lifecycle rule instead")
    return path


def _name(one: Found) -> str:
    """`artifact.0a1b2c3d4e5f` or `checkpoint.<run uid>.<hash>`, as a metric is called."""
    return (
        f"artifact.{one.path.removeprefix('sha256-')[:12]}" if one.kind == "artifact" else f"checkpoint.{one.path.replace('/', '.')[:46]}"
    )


def _outcome(job: Job, p: Parameters, found: list[Found]) -> Outcome:
    gone = sorted((one for one in found if one.fate == "collected"), key=lambda one: -one.bytes)
    stays = [one for one in found if one.fate != "collected"]
    metrics = {
        "dry_run": float(p.dryRun),
        "collected_artifacts": float(sum(one.kind == "artifact" for one in gone)),
        "collected_checkpoints": float(sum(one.kind == "checkpoint" for one in gone)),
        "collected_bytes": float(sum(one.bytes for one in gone)),
        "kept_bytes": float(sum(one.bytes for one in stays)),
        **{f"kept_{fate}": float(sum(one.fate == fate for one in stays)) for fate in ("referenced", "young", "foreign")},
    }
    for one in gone[:LISTED]:
        metrics[_name(one)] = float(one.bytes)
    content = job.scratch / "content"
    content.mkdir()
    report = {"flywheel": p.flywheel, "markedAt": p.markedAt, "graceSeconds": p.graceSeconds, "dryRun": p.dryRun}
    (content / "report.json").write_text(json.dumps({**report, "found": [asdict(one) for one in [*gone, *stays]]}, indent=1) + "\n")
    words = "would be deleted" if p.dryRun else "were deleted"
    summary = f"{len(gone)} artifacts and checkpoints of {p.flywheel} {words}; {len(stays)} stay."
    return Outcome(kind="report", content=content, summary=summary, metrics=metrics)
