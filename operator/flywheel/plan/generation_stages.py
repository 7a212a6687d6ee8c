"""The stages of a lap: which children must exist, and what they say."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from flywheel.api.base import get_condition
from flywheel.api.common import Artifact
from flywheel.api.flywheel import Flywheel
from flywheel.api.generation import Approval, Baseline, Champion, Generation, GenerationSpec, Stage, StageStatus
from flywheel.api.training_run import TrainingRun, TrainingTemplate
from flywheel.plan import gates
from flywheel.plan import generation_approval as approval
from flywheel.plan import generation_children as kids
from flywheel.plan.base import Action, Emit
from flywheel.plan.generation_cache import Earlier, reusable
from flywheel.plan.generation_inputs import Surroundings, dependencies
from flywheel.plan.generation_observed import GenerationObserved
from flywheel.plan.generation_retry import another_try, retried

FINISHED = ("Passed", "AwaitingApproval")  # it has its result, whatever becomes of its child


@dataclass(frozen=True)
class Lap:
    """What a pass over the stages found."""

    stages: tuple[StageStatus, ...]
    actions: tuple[Action, ...]
    approvals: tuple[Approval, ...]  # the words of people that it went by


@dataclass
class _Pass:
    """A pass over the stages in the making."""

    observed: GenerationObserved
    flywheel: Flywheel
    spec: GenerationSpec
    opponent: Champion
    now: dt.datetime
    retried: frozenset[str]
    records: Mapping[Baseline, gates.Record]
    done: dict[str, StageStatus] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    wanted: set[str] = field(default_factory=set)
    approvals: list[Approval] = field(default_factory=list)

    @property
    def generation(self) -> Generation:
        return self.observed.generation


def plan_stages(
    observed: GenerationObserved, flywheel: Flywheel, spec: GenerationSpec, stages: tuple[Stage, ...], opponent: Champion, now: dt.datetime
) -> Lap:
    """Start what can start, read what runs, judge what has ended. Independent stages run side by side."""
    status = observed.generation.status
    old = {s.name: s for s in status.stages}
    pending = [stage for stage in stages if stage.name not in spec.skip]
    this = _Pass(observed, flywheel, spec, opponent, now, retried(pending, status.retry_stage), {})
    while pending:
        stage = next((s for s in pending if all(d in this.done for d in dependencies(s))), pending[0])
        pending.remove(stage)
        this.records = _records(observed, opponent, stage.name)
        before = old.get(stage.name) or StageStatus(name=stage.name, kind=kids.kind_of(stage))
        if any(d not in this.done or this.done[d].phase != "Passed" for d in dependencies(stage)):
            this.done[stage.name] = StageStatus(name=stage.name, kind=kids.kind_of(stage), rerun=before.rerun)
        else:
            this.done[stage.name] = _advance(this, stage, before)
    this.actions += kids.superseded(observed, this.wanted)
    skipped = {s.name: StageStatus(name=s.name, kind=kids.kind_of(s), phase="Skipped", message="spec.skip names it") for s in stages}
    return Lap(tuple(this.done.get(s.name, skipped[s.name]) for s in stages), tuple(this.actions), tuple(this.approvals))


def _records(observed: GenerationObserved, opponent: Champion, stage: str) -> dict[Baseline, gates.Record]:
    """What the champions have measured at a stage: the one at the lap's start, and today's."""
    parent = observed.generation.status.parent or opponent
    return {"Parent": _record(observed, parent, stage), "Champion": _record(observed, opponent, stage)}


def _record(observed: GenerationObserved, champion: Champion, stage: str) -> gates.Record:
    lap = observed.records.get(champion.generation)
    # A lap that was run again since has another model, and other numbers.
    same = lap is not None and lap.status.model is not None and lap.status.model.digest == champion.digest
    metrics = next((s.metrics for s in lap.status.stages if s.name == stage), {}) if lap and same else {}
    return gates.Record(champion.generation, metrics)


def _advance(this: _Pass, stage: Stage, before: StageStatus) -> StageStatus:
    """A stage whose inputs are there."""
    generation = this.generation
    artifacts = {name: s.artifact for name, s in this.done.items() if s.artifact}
    around = Surroundings(this.spec, this.flywheel, this.opponent, artifacts, generation.status.quarantined)
    template = kids.resolved(stage, around)
    name = kids.name_for(generation, stage, template, before.rerun)
    this.wanted.add(name)
    child = kids.children(this.observed, stage).get(name)
    if before.child != name:  # other inputs: nothing of what was counted or measured is about them
        before = StageStatus(name=stage.name, kind=kids.kind_of(stage), child=name, start_time=this.now, rerun=before.rerun)
    if child is None and before.phase in FINISHED:
        return _approved(this, stage, before)  # what it made is on record, whatever became of its child
    if child is None and (taken := _taken_over(this, stage, template, before)) is not None:
        return taken
    token = generation.status.retry if stage.name in this.retried else None
    status = _read(this, stage, before, child, before.retry or token)
    token = status.retry or token
    wanted = kids.manifest(generation, this.flywheel, stage, template, name, token)
    this.actions += kids.ensure(child, wanted, token, suspend=generation.spec.suspend)
    return status


def _taken_over(this: _Pass, stage: Stage, template: kids.Template, before: StageStatus) -> StageStatus | None:
    """The stage with the result of an earlier run of the same, if there is one that may be used."""
    training = template if isinstance(template, TrainingTemplate) else template.training
    if training is None or before.rerun is not None or this.generation.spec.suspend:
        return None
    policy = stage.cache or this.spec.cache
    earlier = Earlier(this.observed.earlier_runs, this.observed.gone)
    found = reusable(training, policy, earlier, this.flywheel.spec.storage, this.observed.defaults)
    if found is None:
        return None
    run, artifact = found
    if not isinstance(template, TrainingTemplate):  # it was validated by its own minimum, which may be lower than this one
        value = run.status.metrics.get(template.validation.metric)
        if value is None or value < template.validation.minimum:
            return None
    this.actions.append(Emit("Normal", "Reused", f"stage {stage.name} takes over what TrainingRun {run.metadata.name} made of the same"))
    return _judge(this, stage, before.model_copy(update={"reused_from": run.metadata.name}), artifact, run.status.metrics)


def _read(this: _Pass, stage: Stage, status: StageStatus, child: kids.Child | None, token: str | None) -> StageStatus:
    suspend = this.generation.spec.suspend
    if child is None:
        waiting = "spec.suspend is true" if suspend else "starting"
        return status.model_copy(update={"phase": "Waiting" if suspend else "Running", "message": waiting})
    if child.status.phase in ("Succeeded", "Ready"):
        return _judge(this, stage, status, child.status.artifact, child.status.metrics)
    condition = get_condition(child.status.conditions, "Succeeded" if isinstance(child, TrainingRun) else "Ready")
    message = f"{condition.reason}: {condition.message}" if condition else "starting"
    if child.status.phase == "Failed" and kids.answers(child, token):
        again = another_try(stage, status, condition.reason if condition else "", message, this.generation, this.now)
        if again is not None:
            if again.phase != status.phase:
                this.actions.append(Emit("Warning", "Retrying", f"stage {stage.name}: {again.message}"[:1024]))
            return again
        return status.model_copy(
            update={"phase": "Failed", "message": message[:4096], "completion_time": status.completion_time or this.now}
        )
    progress = child.status.progress
    return status.model_copy(
        update={
            "phase": "Suspended" if child.status.phase == "Suspended" else "Running",
            "message": message[:4096],
            "percent": progress.percent if progress else status.percent,
            "eta_seconds": progress.eta_seconds if progress else None,
        }
    )


def _judge(this: _Pass, stage: Stage, status: StageStatus, made: Artifact | None, metrics: Mapping[str, float]) -> StageStatus:
    """What the gates say of a result, and then, if it is asked for, a person."""
    results = gates.evaluate(stage.gates, metrics, this.records, status.gates)
    level = gates.worst_failure(results)
    message = (gates.failure_text(results, level)[:3900] + _win_rates(metrics)) if level else None
    if status.reused_from and message is None:
        message = f"taken over from TrainingRun {status.reused_from}: same inputs, parameters and seed"
    judged = status.model_copy(
        update={
            "artifact": made,
            "metrics": dict(metrics),
            "gates": results,
            "percent": 100.0,
            "eta_seconds": None,
            "next_retry_time": None,
            "completion_time": status.completion_time or this.now,
            "message": message,
        }
    )
    phase = {"Reject": "Rejected", "Hold": "Held"}.get(level or "")
    return judged.model_copy(update={"phase": phase}) if phase else _approved(this, stage, judged)


def _approved(this: _Pass, stage: Stage, status: StageStatus) -> StageStatus:
    """A result that has passed its gates: it counts at once, or once a person has approved it."""
    if stage.approval is None:
        return status if status.phase == "Passed" else status.model_copy(update={"phase": "Passed"})
    digest = status.artifact.digest if status.artifact else None
    word = approval.word_on(this.generation, stage.name, digest)
    if word is None:
        asked = approval.question(this.generation, stage.name, digest, stage.approval)
        if status.phase != "AwaitingApproval":
            this.actions.append(Emit("Normal", approval.EVENT, f"stage {stage.name} {asked}"))
        return status.model_copy(update={"phase": "AwaitingApproval", "message": asked})
    this.approvals.append(word)
    if word.decision == "Reject":
        return status.model_copy(update={"phase": "Rejected", "message": approval.refusal(word)})
    warned = gates.failure_text(status.gates, "Warn")
    told = f"approved by {word.by}" + (f": {word.comment}" if word.comment else "") + (f"; {warned[:2000]}" if warned else "")
    return status.model_copy(update={"phase": "Passed", "message": told})


def _win_rates(metrics: Mapping[str, float]) -> str:
    """Both win rates beside a failed gate: whether a model is too good, or the prompt sets disagree, is read off the pair."""
    pair = [f"{name} prompts {100 * metrics[key]:.1f} %" for name in ("user", "internal") if (key := f"win_rate_{name}") in metrics]
    return f"; win rate on {', on '.join(pair)}" if pair else ""
