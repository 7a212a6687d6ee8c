"""What must stay in the store: the mark of a mark-and-sweep. Pure.

Everything that any object mentions stays, whatever for: the mark reads digests out of whole manifests and knows no field by name. What
may go is what no object mentions, and what is mentioned only by laps that were released on purpose. In doubt a thing is kept: the
sweep touches nothing that is young, that another Flywheel's or nobody's run has made, or that two have made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flywheel.api.flywheel import Flywheel
from flywheel.api.generation import Generation
from flywheel.api.names import retry_token
from flywheel.api.rollout import TERMINAL_ROLLOUT_PHASES, Rollout
from flywheel.plan.base import LABEL, Manifest

COLLECTION = LABEL + "collection"  # on the TrainingRuns that collect: their list of what stays is no reference
PREFIX = 20  # hexadecimal digits of a digest in the list: another artifact of the same prefix is kept as well
MAX_KEPT = 20_000  # a list that fits into an object
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_REFERENCE = {"Generation": "generation", "TrainingRun": "trainingRun", "RewardModel": "rewardModel"}
_FINISHED = ("Succeeded",)


@dataclass(frozen=True)
class Mark:
    """What stays: digests by their first digits, and the runs whose checkpoints may be needed again."""

    digests: tuple[str, ...]
    runs: tuple[str, ...]

    def keeps(self, digest: str) -> bool:
        """Whether an artifact of this digest stays."""
        return digest.removeprefix("sha256:")[:PREFIX] in self.digests


def releasable(flywheel: Flywheel, generations: Iterable[Generation], rollouts: Iterable[Rollout]) -> tuple[str, ...]:
    """Laps that ended otherwise than promoted, beyond the newest `keepRejected`, and that nothing goes on with."""
    keep = flywheel.spec.artifacts.retention.keep_rejected
    if keep is None:
        return ()
    busy = {o.uid for r in rollouts if r.status.phase not in TERMINAL_ROLLOUT_PHASES for o in r.metadata.owner_references}
    champions = {c.generation for c in (flywheel.status.champion, *flywheel.status.previous) if c is not None}
    ended = [g for g in generations if _over(g) and g.metadata.name not in champions]
    ended.sort(key=lambda g: (g.status.completion_time is not None, g.status.completion_time, g.metadata.name), reverse=True)
    return tuple(sorted(g.metadata.name for g in ended[keep:] if g.metadata.uid not in busy))


def _over(generation: Generation) -> bool:
    """Decided for good: neither promoted, nor asked for another try, nor edited since."""
    decision, meta = generation.status.decision, generation.metadata
    if decision is None or decision.verdict in ("Promoted", "Completed") or generation.status.completion_time is None:
        return False
    return generation.status.revision == meta.generation and retry_token(meta) in (None, generation.status.retry)


def mark(flywheel: Flywheel, released: Sequence[str], bodies: Iterable[Manifest]) -> Mark:
    """What stays, by all objects that can be seen. `released` are laps of this Flywheel that keep nothing but their records."""
    everything = list(bodies)
    uid, space = flywheel.metadata.uid, flywheel.metadata.namespace
    roots = {
        body["metadata"]["uid"]
        for body in everything
        if body["kind"] == "Generation"
        and body["metadata"].get("namespace") == space
        and body["metadata"]["name"] in released
        and (body.get("spec") or {}).get("flywheel") == flywheel.metadata.name
    }
    let_go = _descendants(everything, roots)
    collections = _descendants(everything, {b["metadata"]["uid"] for b in everything if COLLECTION in (b["metadata"].get("labels") or {})})
    digests: set[str] = set()
    named: set[tuple[str, str, str]] = set()
    for body in everything:
        meta = body["metadata"]
        if meta["uid"] == uid:
            digests |= _digests(_own(body, flywheel))
        elif meta["uid"] in collections:
            digests |= _digests((body.get("status") or {}).get("artifact"))
        elif meta["uid"] not in let_go:
            digests |= _digests(body)
            named |= {(meta.get("namespace", ""), kind, name) for kind, name in _names(body)}
    for body in everything:
        meta, status = body["metadata"], body.get("status") or {}
        if meta["uid"] in let_go and (meta.get("namespace", ""), body["kind"], meta["name"]) in named:
            digests |= _digests(body)  # something that stays refers to it by name
        elif meta["uid"] in roots:
            digests |= _digests([status.get("recordArtifact"), status.get("earlierRecords")])
    runs = {
        b["metadata"]["uid"] for b in everything if b["kind"] == "TrainingRun" and (b.get("status") or {}).get("phase") not in _FINISHED
    }
    return Mark(tuple(sorted(digest[:PREFIX] for digest in digests)), tuple(sorted(runs)))


def _own(body: Manifest, flywheel: Flywheel) -> list[Any]:
    """What the Flywheel itself needs: all but the models of its long memory, of which it keeps the records and some champions."""
    status = {key: value for key, value in (body.get("status") or {}).items() if key not in ("lineage", "previous", "collection")}
    champions = [c.digest for c in flywheel.status.previous[: flywheel.spec.artifacts.retention.keep_champions]]
    records = [entry.record_digest for entry in flywheel.status.lineage]
    report = flywheel.status.collection.report if flywheel.status.collection else None
    return [body.get("spec"), body["metadata"].get("annotations"), status, champions, records, report.dump() if report else None]


def _descendants(bodies: Sequence[Manifest], roots: set[str]) -> set[str]:
    """The uids and those of everything that they own, and nobody else does."""
    found = set(roots)
    while True:
        more = {
            body["metadata"]["uid"]
            for body in bodies
            if body["metadata"]["uid"] not in found
            and (owners := body["metadata"].get("ownerReferences") or ())
            and all(owner["uid"] in found for owner in owners)
        }
        if not more:
            return found
        found |= more


def _digests(value: object) -> set[str]:
    return set(_DIGEST.findall(json.dumps(value, default=str)))


def _names(value: Any) -> Iterator[tuple[str, str]]:
    """(kind, name) of every reference in a spec: `{type: TrainingRun, trainingRun: x}`."""
    if isinstance(value, dict):
        kind = value.get("type")
        if isinstance(kind, str) and kind in _REFERENCE and isinstance(name := value.get(_REFERENCE[kind]), str):
            yield kind, name
        for child in value.values():
            yield from _names(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _names(child)
