"""Where a lap waits for a person: who may speak, what he has said, and that it was said of this very result."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from flywheel.api.generation import MAX_APPROVALS, Approval, ApprovalRecord, ApprovalRequest, Generation
from flywheel.api.reasons import Reason

EVENT = "AwaitingApproval"


def word_on(generation: Generation, stage: str, digest: str | None) -> Approval | None:
    """What was said of a result. A word on another digest is a word on something else."""
    return next((a for a in generation.spec.approvals if a.stage == stage and a.digest == digest), None)


def question(generation: Generation, stage: str, digest: str | None, request: ApprovalRequest) -> str:
    """What is waited for, and who may give it."""
    name, other = generation.metadata.name, [a for a in generation.spec.approvals if a.stage == stage]
    what = f" of {request.message}" if request.message else ""
    earlier = f" ({other[-1].by} spoke of another result, {other[-1].digest[:15]}…)" if other else ""
    return (
        f"waits for approval{what} ({(digest or 'no digest')[:15]}…): `kubectl flywheel approve generation/{name} --stage {stage}`, by one "
        f"who has the right 'approve' on generations (ClusterRole admin){earlier}"
    )


def refusal(approval: Approval) -> str:
    """A rejection in words, with its reason first."""
    return f"{Reason.REJECTED_BY_HAND.value}: rejected by {approval.by}" + (f": {approval.comment}" if approval.comment else "")


def recorded(known: tuple[ApprovalRecord, ...], used: Iterable[Approval], now: dt.datetime) -> tuple[ApprovalRecord, ...]:
    """The record with the words that the lap goes by now; `now` is when each was first gone by."""
    records = {(r.stage, r.digest): r for r in known}
    for word in used:
        old, key = records.get((word.stage, word.digest)), (word.stage, word.digest)
        if old is None or (old.decision, old.by, old.comment) != (word.decision, word.by, word.comment):
            records.pop(key, None)
            records[key] = ApprovalRecord(
                stage=word.stage, digest=word.digest, decision=word.decision, by=word.by, comment=word.comment, time=now
            )
    return tuple(records.values())[-MAX_APPROVALS:]
