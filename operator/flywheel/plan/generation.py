"""Generation: snapshot the spec, run the stages, judge the gates, ask the users, record how it ended."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from flywheel.api.base import API_VERSION, get_condition, parse_duration, set_condition
from flywheel.api.common import Artifact
from flywheel.api.flywheel import Flywheel
from flywheel.api.generation import (
    ROLLOUT,
    Champion,
    GenerationDecision,
    GenerationSpec,
    GenerationStatus,
    StageStatus,
)
from flywheel.api.names import retry_token
from flywheel.api.reasons import Reason
from flywheel.api.rollout import ArmModel, Rollout, RolloutSpec
from flywheel.plan import generation_approval as approval
from flywheel.plan.base import LABEL, MANAGED_BY, Action, Apply, Create, Emit, Manifest, Owner, Plan, child_name, earliest
from flywheel.plan.generation_children import goes_on, pause_unfinished
from flywheel.plan.generation_end import at_rest, expiry
from flywheel.plan.generation_inputs import InputError
from flywheel.plan.generation_lap import check_lap, lap_stages
from flywheel.plan.generation_observed import GenerationObserved, snapshot_name
from flywheel.plan.generation_record import build_record, carried_records, stage_costs
from flywheel.plan.generation_retry import asked_for, remembered
from flywheel.plan.generation_stages import plan_stages
from flywheel.plan.quarantine import rejected
from flywheel.plan.recording import plan_recording

TICK = dt.timedelta(seconds=10)
UNCHANGED = ("suspend", "approvals", "ttl_after_finished")  # fields of the spec that ask for no other lap
OVER = ("Passed", "Skipped")
AT_WORK = ("Running", "Retrying", "Suspended", "AwaitingApproval")
MAX_CURRENT_STAGE = 253  # as the CRD has it


@dataclass
class Draft:
    """A pass in the making."""

    observed: GenerationObserved
    now: dt.datetime
    status: GenerationStatus
    actions: list[Action] = field(default_factory=list)
    waiting: tuple[Reason, str] = (Reason.RUNNING, "")

    def set(self, **changes: Any) -> None:
        """Change fields of the status."""
        self.status = self.status.model_copy(update=changes)


def plan_generation(observed: GenerationObserved, now: dt.datetime) -> Plan:
    """The next status of a Generation, what follows from it, and when to look again."""
    draft = Draft(observed, now, observed.generation.status)
    if _lap_begins(observed):
        _begin(draft)  # on record first: what stands of the lap before is not of this one
    elif draft.status.decision is None:
        _run(draft)
        _rest(draft)
        draft.set(cost=stage_costs(observed, draft.status.stages), record=build_record(observed, draft.status))
    recording = plan_recording(observed, draft.status, now)
    draft.status = recording.status
    if draft.status.decision is None:
        _report(draft)
        again = earliest([now + TICK, recording.wake, *(s.next_retry_time for s in draft.status.stages)])
        return Plan(draft.status.dump(), (*draft.actions, *recording.actions), again)
    draft.actions += pause_unfinished(observed)
    _rest(draft)
    _report(draft)
    removal, again = expiry(observed, now)
    return Plan(draft.status.dump(), (*draft.actions, *recording.actions, *removal), earliest((recording.wake, again)))


def _rest(draft: Draft) -> None:
    """Of a lap that has ended no stage runs."""
    if draft.status.decision is not None:
        draft.set(stages=at_rest(draft.status.stages, goes_on(draft.observed, draft.status.stages)))


def _lap_begins(observed: GenerationObserved) -> bool:
    """At the first sight; and after an end, when the spec was mended or a retry was asked for."""
    generation, status = observed.generation, observed.generation.status
    if status.revision is None:
        return True
    if status.decision is None:
        return False
    failed, retry = status.decision.verdict not in ("Promoted", "Completed"), retry_token(generation.metadata)
    return _edited(observed) or (failed and retry is not None and retry != status.retry)


def _edited(observed: GenerationObserved) -> bool:
    """Whether the spec asks for another lap than the one on record. A pause, an approval and the time it is kept do not."""
    generation, snapshot = observed.generation, observed.snapshot
    if generation.status.revision in (None, generation.metadata.generation):
        return False
    unchanged = {field: getattr(generation.spec, field) for field in UNCHANGED}
    return snapshot is None or snapshot.model_copy(update=unchanged) != generation.spec


def _begin(draft: Draft) -> None:
    generation, champion = draft.observed.generation, _champion(draft.observed.flywheel)
    if generation.spec.suspend:
        draft.waiting = (Reason.SUSPENDED, "spec.suspend is true")
        return
    if champion is None:
        draft.waiting = (Reason.REFERENCE_NOT_FOUND, f"Flywheel {generation.spec.flywheel} does not exist or serves nobody yet")
        return
    old, only = draft.status, asked_for(generation)
    draft.status = GenerationStatus(
        revision=generation.metadata.generation,
        retry=retry_token(generation.metadata),
        retry_stage=only,
        stages=remembered(old, only, retry_token(generation.metadata)),
        approvals=old.approvals,
        snapshot=snapshot_name(generation.metadata),
        parent=champion,
        quarantined=_quarantined(draft.observed, champion),
        phase="Training",
        start_time=draft.now,
        conditions=old.conditions,
        gpu_seconds=old.gpu_seconds,
        earlier_records=carried_records(old),
    )
    again = f", for another try of stage {only}" if only else ""
    draft.actions.append(Emit("Normal", "Started", f"the lap starts from champion {champion.generation}{again}"))


def _quarantined(observed: GenerationObserved, champion: Champion) -> tuple[str, ...]:
    """Fixed when the lap first begins. One that starts again keeps it: another list would be other data, and all would be trained anew."""
    status = observed.generation.status
    return rejected(observed.siblings, observed.rollouts, champion.generation) if status.revision is None else status.quarantined


def _champion(flywheel: Flywheel | None) -> Champion | None:
    found = flywheel.status.champion if flywheel else None
    return Champion(generation=found.generation, uri=found.uri, digest=found.digest) if found else None


def _run(draft: Draft) -> None:
    observed, status = draft.observed, draft.status
    if observed.snapshot is None:
        draft.actions.append(Create(_snapshot(draft)))
        draft.waiting = (Reason.STARTING, "taking a snapshot of the spec")
        return
    spec, flywheel = observed.snapshot, observed.flywheel
    if flywheel is None:
        draft.waiting = (Reason.REFERENCE_NOT_FOUND, f"Flywheel {spec.flywheel} is gone")
        return
    opponent = (status.opponent if status.rollout else _champion(flywheel)) or status.parent
    if opponent is None:
        draft.waiting = (Reason.REFERENCE_NOT_FOUND, f"Flywheel {spec.flywheel} serves nobody")
        return
    if status.rollout is not None:  # users are asked about what these stages made: nothing is made again
        _ask_users(draft, spec, flywheel, opponent)
        return
    try:
        stages = observed.stages or lap_stages(spec, began_unpinned=True)
        check_lap(spec, stages)
    except InputError as error:
        _decide(draft, "Failed", Reason.INVALID_SPEC, str(error))
        return
    lap = plan_stages(observed, flywheel, spec, stages, opponent, draft.now)
    draft.set(stages=lap.stages, opponent=opponent, phase="Suspended" if observed.generation.spec.suspend else "Training")
    draft.set(approvals=approval.recorded(status.approvals, lap.approvals, draft.now))
    runs = (*observed.training_runs.values(), *observed.reward_runs.values())
    draft.set(gpu_seconds=sum(run.status.gpu_seconds for run in runs))
    if _ended_early(draft, lap.stages, spec):
        return
    draft.actions += lap.actions
    if any(s.phase not in OVER for s in lap.stages):
        _wait_for_stages(draft, lap.stages)
        return
    if _approved(draft, spec, opponent):
        _ask_users(draft, spec, flywheel, opponent)


def _wait_for_stages(draft: Draft, stages: tuple[StageStatus, ...]) -> None:
    """Say what runs; or, when nothing does any more, who is waited for."""
    running = [s for s in stages if s.phase in ("Running", "Retrying", "Suspended")]
    asking = [s for s in stages if s.phase == "AwaitingApproval"]
    told = "; ".join(f"{s.name}: {s.message}" for s in (*running, *asking))
    if asking and not running and draft.status.phase == "Training":
        draft.set(phase="AwaitingApproval")
        draft.waiting = (Reason.AWAITING_APPROVAL, told)
    else:
        draft.waiting = (Reason.RUNNING, told or "waiting for stages")


def _stages_at_start(spec: GenerationSpec) -> list[dict[str, Any]] | None:
    """Pinned with the spec: the default lap of a newer operator is no reason to run this one otherwise. None: they stand in the spec."""
    if spec.stages and spec.default_stages == "Replace" and not spec.stage_patches:
        return None
    try:
        return [stage.dump() for stage in lap_stages(spec)]
    except InputError:
        return None  # the next pass says so


def _snapshot(draft: Draft) -> Manifest:
    generation = draft.observed.generation
    labels = {
        **MANAGED_BY,
        LABEL + "flywheel": generation.spec.flywheel,
        LABEL + "generation": generation.metadata.name,
        LABEL + "component": "snapshot",
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": draft.status.snapshot,
            "namespace": generation.metadata.namespace,
            "labels": labels,
            "ownerReferences": [Owner("Generation", generation.metadata).reference()],
        },
        "revision": max(1, generation.metadata.generation),
        "data": {"spec": generation.spec.dump()} | ({"stages": stages} if (stages := _stages_at_start(generation.spec)) else {}),
    }


def _ended_early(draft: Draft, stages: tuple[StageStatus, ...], spec: GenerationSpec) -> bool:
    for stage in stages:
        if stage.phase == "Failed":
            reason = (stage.message or "").partition(":")[0]
            known = Reason(reason) if reason in Reason.__members__.values() else Reason.STAGE_FAILED
            _decide(draft, "Failed", known, f"stage {stage.name}: {stage.message}", stage.name)
        elif stage.phase in ("Rejected", "Held"):
            by_hand = (stage.message or "").startswith(f"{Reason.REJECTED_BY_HAND.value}:")
            reason = Reason.REJECTED_BY_HAND if by_hand else Reason.GATE_REJECTED if stage.phase == "Rejected" else Reason.GATE_HELD
            _decide(draft, stage.phase, reason, f"stage {stage.name}: {stage.message}", stage.name)
        if draft.status.decision is not None:
            return True
    started = draft.status.start_time
    if spec.deadline and started and draft.status.rollout is None and draft.now >= started + parse_duration(spec.deadline):
        unfinished = ", ".join(s.name for s in stages if s.phase not in OVER) or "the rollout's queue"
        _decide(draft, "Failed", Reason.DEADLINE_EXCEEDED, f"not done after spec.deadline {spec.deadline}; unfinished: {unfinished}")
        return True
    return False


# ---------------------------------------------------------------------------------------------------- users


def _approved(draft: Draft, spec: GenerationSpec, opponent: Champion) -> bool:
    """Whether the lap's model may meet users, as far as people are asked. There is nothing to ask of one that can't anyhow."""
    generation, model = draft.observed.generation, _candidate_model(draft, spec)
    if spec.approval is None or spec.rollout is None or model is None or model.digest in (None, opponent.digest):
        return True
    draft.set(model=model)
    word = approval.word_on(generation, ROLLOUT, model.digest)
    if word is None:
        asked = approval.question(generation, ROLLOUT, model.digest, spec.approval)
        draft.waiting = (Reason.AWAITING_APPROVAL, f"the rollout {asked}")
        if not generation.spec.suspend:
            draft.set(phase="AwaitingApproval")
        before = get_condition(generation.status.conditions, "Progressing")
        if before is None or before.message != draft.waiting[1][:4096]:
            draft.actions.append(Emit("Normal", approval.EVENT, f"the rollout {asked}"))
        return False
    draft.set(approvals=approval.recorded(draft.status.approvals, [word], draft.now))
    if word.decision == "Reject":
        _decide(draft, "Rejected", Reason.REJECTED_BY_HAND, approval.refusal(word))
    return word.decision == "Approve"


def _ask_users(draft: Draft, spec: GenerationSpec, flywheel: Flywheel, opponent: Champion) -> None:
    model = _candidate_model(draft, spec)
    if model is None or model.digest is None:
        _decide(draft, "Failed", Reason.MODEL_MISSING, "no stage made a model; name one in spec.candidate or add an SFT, DPO or GRPO stage")
        return
    draft.set(model=model)
    if spec.rollout is None:
        _decide(draft, "Completed", Reason.SUCCEEDED, "all gates passed; the spec asks for no rollout")
        return
    if model.digest == opponent.digest:
        message = f"the lap made the champion's model again ({model.digest[:15]}…): there is nothing to compare"
        _decide(draft, "Rejected", Reason.REJECTED, message)
        return
    rollout = draft.observed.rollout
    if draft.status.rollout is None:
        if draft.observed.other_rollout:
            draft.waiting = (Reason.QUEUED, f"waits for Rollout {draft.observed.other_rollout}: one at a time for a service")
            return
        template = spec.rollout.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        question = (model.digest, opponent.digest, draft.status.retry, template)
        draft.set(rollout=child_name(draft.observed.generation.metadata, "rollout", *question))
    manifest = _rollout_manifest(draft, spec, flywheel, model, opponent)
    if rollout is None or rollout.spec.suspend != draft.observed.generation.spec.suspend:
        draft.actions.append(Apply(manifest))
    draft.set(phase="RollingOut")
    draft.waiting = (
        Reason.RUNNING,
        f"Rollout {draft.status.rollout}: {rollout.status.summary or rollout.status.phase if rollout else 'starting'}",
    )
    if rollout is not None:
        _conclude(draft, rollout)


def _candidate_model(draft: Draft, spec: GenerationSpec) -> Artifact | None:
    made = [s for s in draft.status.stages if s.artifact and s.artifact.kind == "model" and spec.candidate in (None, s.name)]
    return made[-1].artifact if made else None


def _rollout_manifest(draft: Draft, spec: GenerationSpec, flywheel: Flywheel, model: Artifact, opponent: Champion) -> Manifest:
    generation = draft.observed.generation
    body = RolloutSpec.model_validate(
        {
            **(spec.rollout.dump() if spec.rollout else {}),
            "flywheel": flywheel.metadata.name,
            "baseline": ArmModel(generation=opponent.generation, uri=opponent.uri, digest=opponent.digest).dump(),
            "candidate": ArmModel(generation=generation.metadata.name, uri=model.uri, digest=model.digest or "").dump(),
            "serving": flywheel.spec.serving.dump(),
            "storage": flywheel.spec.storage.dump(),
            "suspend": generation.spec.suspend,
        }
    )
    labels = {**MANAGED_BY, LABEL + "flywheel": flywheel.metadata.name, LABEL + "generation": generation.metadata.name}
    metadata = {
        "name": draft.status.rollout,
        "namespace": generation.metadata.namespace,
        "labels": labels,
        "ownerReferences": [Owner("Generation", generation.metadata).reference()],
    }
    return {"apiVersion": API_VERSION, "kind": "Rollout", "metadata": metadata, "spec": body.dump()}


def _conclude(draft: Draft, rollout: Rollout) -> None:
    """The lap ends when the traffic has: a promotion counts once the router serves it."""
    status = rollout.status
    if status.decision is None or status.cutover_time is None:
        return
    verdict = "Promoted" if status.decision.verdict == "Promote" else status.phase
    reason = {
        "Promoted": Reason.PROMOTED,
        "RolledBack": Reason.ROLLED_BACK,
        "Inconclusive": Reason.INCONCLUSIVE,
        "Failed": Reason.CANDIDATE_FAILED,
    }[verdict]
    _decide(draft, verdict, reason, f"{status.decision.reason}: {status.decision.message}")


# ---------------------------------------------------------------------------------------------------- words


def _decide(draft: Draft, verdict: str, reason: Reason, message: str, stage: str | None = None) -> None:
    decision = GenerationDecision.model_validate(
        {
            "verdict": verdict,
            "reason": reason.value,
            "message": message[:4096],
            "stage": stage,
            "time": draft.now,
            "revision": draft.status.revision or 0,
        }
    )
    draft.set(decision=decision, phase=verdict, completion_time=draft.now)
    good = verdict in ("Promoted", "Completed")
    draft.actions.append(Emit("Normal" if good else "Warning", verdict, message[:1024]))


def _report(draft: Draft) -> None:
    generation, status = draft.observed.generation, draft.status
    number = generation.metadata.generation
    stages = status.stages
    if stages:
        counted = [s for s in stages if s.phase != "Skipped"]
        done = sum(1.0 if s.phase == "Passed" else (s.percent or 0) / 100 if s.phase in AT_WORK else 0.0 for s in counted)
        draft.set(percent=round(100 * done / max(1, len(counted)), 1))
    now_at = ("AwaitingApproval",) if status.phase == "AwaitingApproval" else ("Running", "Retrying")
    running = ",".join(s.name for s in stages if s.phase in now_at)[:MAX_CURRENT_STAGE]
    draft.set(current_stage=running or ("rollout" if status.phase == "RollingOut" else None), observed_generation=number)
    decision = status.decision
    conditions = status.conditions
    if decision is not None:
        outcome = decision.verdict in ("Promoted", "Completed")
        words = (Reason(decision.reason), decision.message)
        conditions = set_condition(conditions, "Progressing", False, *words, generation=number, now=draft.now)
        conditions = set_condition(conditions, "Succeeded", outcome, *words, generation=number, now=draft.now)
        draft.set(summary=f"{decision.reason}: {decision.message}"[:120])
    else:
        conditions = set_condition(conditions, "Progressing", True, *draft.waiting, generation=number, now=draft.now)
        conditions = set_condition(conditions, "Succeeded", None, Reason.WAITING, "the lap goes on", generation=number, now=draft.now)
        draft.set(summary=draft.waiting[1][:120] or None)
    if decision is None and _edited(draft.observed) and draft.status.revision == draft.observed.generation.status.revision:
        note = f"revision {generation.metadata.generation} of the spec waits: the lap runs by the snapshot of revision {status.revision}"
        conditions = set_condition(conditions, "SpecPinned", True, Reason.WAITING, note, generation=number, now=draft.now)
    elif get_condition(conditions, "SpecPinned"):
        conditions = set_condition(conditions, "SpecPinned", False, Reason.RUNNING, "no edit waits", generation=number, now=draft.now)
    draft.set(conditions=conditions)
