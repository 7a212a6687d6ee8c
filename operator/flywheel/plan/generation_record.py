"""The record of a lap, built once from what stands when it is decided. Pure; what is not known is left out, never guessed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from flywheel.api.common import Artifact
from flywheel.api.cost import Cost
from flywheel.api.generation import Champion, GenerationSpec, GenerationStatus, StageStatus
from flywheel.api.generation_record import (
    MAX_EARLIER,
    MAX_GATES,
    EarlierRecord,
    GenerationRecord,
    Lift,
    RecordedApproval,
    RecordedData,
    RecordedGate,
    RecordedModel,
    RecordedReward,
    RecordedStage,
    WinRate,
)
from flywheel.api.rollout import Rollout
from flywheel.api.training_run import TrainingRun
from flywheel.plan.base import LABEL
from flywheel.plan.generation_lap import stages_if_any
from flywheel.plan.generation_observed import GenerationObserved
from flywheel.plan.prices import lap_cost

ROWS = "rows_"  # prefix of the metrics in which a stage counts the rows of its subsets


def canonical_digest(value: object) -> str:
    """sha256 over canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def build_record(observed: GenerationObserved, status: GenerationStatus) -> GenerationRecord | None:
    """The record of a lap that has just been decided; None as long as it is not."""
    decision = status.decision
    if decision is None:
        return None
    generation, rollout = observed.generation, observed.rollout
    spec = observed.snapshot or generation.spec
    asked = {stage.name: stage.run.method if stage.run else "Reward" for stage in stages_if_any(spec, observed.stages or ())}
    stages = tuple(_stage(observed, stage, asked) for stage in status.stages)
    return GenerationRecord(
        generation=generation.metadata.name,
        flywheel=generation.spec.flywheel,
        revision=status.revision or 0,
        retry=status.retry,
        verdict=decision.verdict,
        reason=decision.reason,
        message=decision.message[:1024],
        evidence_digest=_evidence(status, rollout),
        start_time=status.start_time,
        decision_time=decision.time,
        parent=_champion(status.parent),
        opponent=_champion(status.opponent),
        base=_base(observed, spec),
        model=_model(generation.metadata.name, status),
        recipe=canonical_digest([_asked(spec), [(stage.name, stage.parameters) for stage in stages]]),
        stages=stages,
        data=tuple(_data(observed, status.stages))[:64],
        reward_models=tuple(_rewards(status.stages))[:32],
        gates=tuple(_gates(status.stages))[:MAX_GATES],
        approvals=tuple(_approvals(status))[:32],
        serving_image=_serving_image(observed) if status.rollout else None,
        rollout=status.rollout,
        predicted_win_rate=_win_rate(status.stages),
        realised_lift=_lifts(rollout),
        cost=stage_costs(observed, status.stages),
    )


def stage_costs(observed: GenerationObserved, stages: Iterable[StageStatus]) -> Cost:
    """What the runs of a lap have cost by stage; those of inputs that hold no more count to their stage as well."""
    runs: dict[str, list[TrainingRun]] = {stage.name: [] for stage in stages}
    for run in (*observed.training_runs.values(), *observed.reward_runs.values()):
        stage = _stage_of(observed, run)
        if stage in runs:
            runs[stage].append(run)
    return lap_cost(runs.items(), observed.defaults.prices)


def _stage_of(observed: GenerationObserved, run: TrainingRun) -> str:
    """The stage that a run works for: by its label, or by its RewardModel's."""
    owners = [observed.reward_models.get(owner.name) for owner in run.metadata.owner_references if owner.kind == "RewardModel"]
    labels = owners[0].metadata.labels if owners and owners[0] else run.metadata.labels
    return labels.get(LABEL + "stage", "")


def carried_records(status: GenerationStatus) -> tuple[EarlierRecord, ...]:
    """What stays of a lap's record when it starts again: where the whole of it lies."""
    if status.record is None:
        return status.earlier_records
    record = status.record
    brief = EarlierRecord(
        revision=record.revision,
        retry=record.retry,
        verdict=record.verdict,
        decision_time=record.decision_time,
        digest=canonical_digest(record.dump()),
        run=status.record_run,
        artifact=status.record_artifact,
    )
    return (*status.earlier_records, brief)[-MAX_EARLIER:]


# ---------------------------------------------------------------------------------------------------------------- parts


def _asked(spec: GenerationSpec) -> Any:
    """The spec as it was asked for: a default that a newer operator adds is no other recipe, and neither is a pause or a word on it."""
    return spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"suspend", "approvals", "ttl_after_finished"})


def _evidence(status: GenerationStatus, rollout: Rollout | None) -> str:
    """Of users, the digest that the Rollout replays by; of gates, over what was measured against which limit."""
    decided = rollout.status.decision if rollout else None
    if decided is not None and decided.evidence_digest:
        return decided.evidence_digest
    gates = [(stage.name, [gate.dump() for gate in stage.gates], dict(stage.metrics)) for stage in status.stages]
    decision = status.decision
    return canonical_digest([decision.verdict, decision.reason, decision.stage, gates] if decision else gates)


def _champion(champion: Champion | None) -> RecordedModel | None:
    return RecordedModel(generation=champion.generation, uri=champion.uri, digest=champion.digest) if champion else None


def _base(observed: GenerationObserved, spec: GenerationSpec) -> RecordedModel | None:
    if spec.base is not None and spec.base.uri:
        return RecordedModel(uri=spec.base.uri, digest=spec.base.digest)
    if spec.base is not None or observed.flywheel is None:
        return None  # by name of an object: the stages that read it have its digest in their inputs
    base = observed.flywheel.spec.base
    return RecordedModel(uri=base.uri, digest=base.digest)


def _model(generation: str, status: GenerationStatus) -> RecordedModel | None:
    """The candidate; of a lap that ended before, the last model that a stage made."""
    made = [stage.artifact for stage in status.stages if stage.artifact and stage.artifact.kind == "model"]
    model = status.model or (made[-1] if made else None)
    return RecordedModel(generation=generation, uri=model.uri, digest=model.digest) if model else None


def _run(observed: GenerationObserved, stage: StageStatus) -> TrainingRun | None:
    """The run that made what the stage passed on."""
    reward = observed.reward_models.get(stage.child or "") if stage.kind == "RewardModel" else None
    if reward is not None:
        return observed.reward_runs.get(reward.status.training_run or "")
    return observed.training_runs.get(stage.child or "")


def _stage(observed: GenerationObserved, stage: StageStatus, methods: Mapping[str, str]) -> RecordedStage:
    run = _run(observed, stage)
    asked = run.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"suspend", "storage"}) if run else None
    return RecordedStage(
        name=stage.name,
        method=run.spec.method if run else methods.get(stage.name, "Unknown"),
        phase=stage.phase,
        child=stage.child,
        parameters=canonical_digest(asked) if asked is not None else None,
        image=_image(observed, run) if run else None,
        artifact=stage.artifact.digest if stage.artifact else None,
        reused_from=stage.reused_from,
    )


def _image(observed: GenerationObserved, run: TrainingRun) -> str | None:
    """By digest as the node reported it, else as it was asked for."""
    told = [image for attempt in run.status.attempts if (image := attempt.image_id)]
    return str(told[-1])[:512] if told else run.spec.image or observed.defaults.trainer_image


def _serving_image(observed: GenerationObserved) -> str | None:
    serving = observed.rollout.spec.serving if observed.rollout else None
    return (serving.image if serving else None) or observed.defaults.vllm_image


def _data(observed: GenerationObserved, stages: Iterable[StageStatus]) -> Iterable[RecordedData]:
    """What stages made, with rows; then what they were given from outside."""
    made: set[str] = set()
    for stage in stages:
        if stage.artifact and stage.artifact.kind == "dataset":
            made.add(stage.artifact.uri)
            yield RecordedData(name=stage.name, uri=stage.artifact.uri, digest=stage.artifact.digest, rows=_rows(stage.metrics))
    for stage in stages:
        run = _run(observed, stage)
        inputs: Mapping[str, Artifact] = run.status.inputs.datasets if run and run.status.inputs else {}
        for name, artifact in sorted(inputs.items()):
            if artifact.uri not in made:
                made.add(artifact.uri)
                yield RecordedData(name=f"{stage.name}/{name}", uri=artifact.uri, digest=artifact.digest)


def _rows(metrics: Mapping[str, float]) -> dict[str, int]:
    counted = {name.removeprefix(ROWS).replace("_", "-"): round(value) for name, value in metrics.items() if name.startswith(ROWS)}
    return dict(sorted(counted.items())[:32])


def _rewards(stages: Iterable[StageStatus]) -> Iterable[RecordedReward]:
    for stage in stages:
        if stage.kind == "RewardModel" and stage.artifact:
            yield RecordedReward(name=stage.child or stage.name, digest=stage.artifact.digest, accuracy=stage.metrics.get("accuracy"))


def _gates(stages: Iterable[StageStatus]) -> list[RecordedGate]:
    """The failed ones first: they are never what the bound cuts off."""
    found = [
        RecordedGate(stage=s.name, metric=g.metric, operator=g.operator, limit=g.limit, value=g.value, passed=g.passed)
        for s in stages
        for g in s.gates
    ]
    return sorted(found, key=lambda gate: gate.passed)


def _approvals(status: GenerationStatus) -> Iterable[RecordedApproval]:
    """Who was asked for a word, and what it was."""
    for word in status.approvals:
        yield RecordedApproval(gate=word.stage, by=word.by, decision=word.decision, time=word.time)


def _win_rate(stages: Iterable[StageStatus]) -> WinRate | None:
    """The last stage that measured one: on the users' prompts."""
    measured = [stage.metrics for stage in stages if "win_rate_user" in stage.metrics]
    if not measured:
        return None
    metrics = measured[-1]
    lower, upper = metrics.get("win_rate_user_lower"), metrics.get("win_rate_user_upper")
    return WinRate(value=metrics["win_rate_user"], lower=lower, upper=upper)


def _lifts(rollout: Rollout | None) -> tuple[Lift, ...]:
    if rollout is None:
        return ()
    measured = [e for e in rollout.status.metrics if e.role == "Success" and e.lift is not None]
    return tuple(
        Lift(metric=e.name, lift=e.lift or 0.0, lower=e.lift_lower, upper=e.lift_upper, users=e.n_control + e.n_candidate)
        for e in measured[:8]
    )
