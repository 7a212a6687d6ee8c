"""What a real API server says to typical mistakes: a sentence with field, value and mend."""

from __future__ import annotations

import pytest
import yaml

from tests.cluster.api_server import ApiServer
from tests.cluster.hostile_objects import HOSTILE
from tests.cluster.objects import (
    ABSENT,
    DIGEST,
    OTHER_DIGEST,
    STORE,
    Object,
    data,
    flywheel,
    from_stage,
    generation,
    model,
    reward,
    reward_model,
    rollout,
    run,
    sft,
    spoilt,
    stage,
)  # fmt: skip

pytestmark = pytest.mark.cluster

CURATE = stage("curate", "Curate")
LONG = "a-very-long-name-for-a-model-that-nobody-would-type-again"
NAME_SAYS = "write a-z, 0-9 and '-', with a letter or digit at both ends"
DURATION_SAYS = "is not a duration; write numbers with ms, s, m or h, such as 90s, 30m or 168h (7 days)"
STEPS = [{"weightPercent": 10, "duration": "1h"}, {"weightPercent": 50}]
METRIC = {"name": "breadth", "role": "Success", "margin": 0.05}

# what the mistake is: (object, field in the error, words of the error)
MISTAKES: dict[str, tuple[Object, str, str]] = {
    # names
    "a Flywheel's name is too long": (
        spoilt(flywheel(), "metadata.name", LONG),
        "metadata.name",
        f"metadata.name '{LONG}' is too long; choose one of at most 40 characters",
    ),
    "a Generation's name is too long": (
        spoilt(generation(), "metadata.name", LONG),
        "metadata.name",
        f"metadata.name '{LONG}' is too long; choose one of at most 40 characters",
    ),
    "a standalone Rollout's name is too long": (
        spoilt(rollout(), "metadata.name", LONG),
        "metadata.name",
        f"'{LONG}' is too long for a Rollout without spec.flywheel, which names a service of its own; choose one of at most 40",
    ),
    "a name begins with a digit": (
        spoilt(generation(), "metadata.name", "2nd-lap"),
        "metadata.name",
        "metadata.name '2nd-lap' must begin with a letter and have only a-z, 0-9 and '-' (no dots)",
    ),
    "a name has a dot": (spoilt(sft(), "metadata.name", "sft.v1"), "metadata.name", "metadata.name 'sft.v1' must begin with a letter"),
    "a stage's name has capitals": (generation(stage("Curate", "Curate")), "spec.stages[0].name", f"'Curate' is not a name; {NAME_SAYS}"),
    # stages that are skipped, added and approved
    "a candidate that is skipped": (
        generation(candidate="rl", skip=["rl"]),
        "spec.candidate",
        "candidate 'rl' is skipped; name another stage, or take it out of 'skip'",
    ),
    "an added stage needs what no default stage makes": (
        generation(stage("dpo", "DPO", model=model(), datasets=[from_stage("train", "rl")]), defaultStages="Extend"),
        "spec.stages",
        "the datasets of stage 'dpo' must name a stage that makes data",
    ),
    "a lap without a rollout asks before it": (
        generation(approval={}),
        "spec.approval",
        "approval is asked for before the rollout, and there is none; add 'rollout', or give 'approval' to a stage",
    ),
    "a stage called as the approval before the rollout": (
        generation(stage("rollout", "Curate"), approval={}, rollout={}),
        "spec.stages",
        "a stage is called 'rollout', which is the name of the approval before the rollout; rename the stage",
    ),
    "an approval of nothing": (
        generation(approvals=[{"stage": "sft", "decision": "Approve", "by": "alice"}]),
        "spec.approvals[0].digest",
        "Required value",
    ),
    "a stage is retried without end": (
        generation({**CURATE, "retry": {"limit": 100}}),
        "spec.stages[0].retry.limit",
        "should be less than or equal to 20",
    ),
    "a promotion of another candidate": (
        rollout(promote={"digest": DIGEST, "by": "alice", "reason": "because"}),
        "spec.promote.digest",
        "is not the candidate's; give sha256:",
    ),
    "a promotion without a reason": (
        rollout(promote={"digest": OTHER_DIGEST, "by": "alice", "reason": ""}),
        "spec.promote.reason",
        "should be at least 1 chars long",
    ),
    # garbage collection
    "the grace is too short to be safe": (
        flywheel(artifacts={"retention": {"policy": "Delete", "grace": "5m"}}),
        "spec.artifacts.retention.grace",
        "grace 5m is shorter than 1h: a run that is writing could lose what it made; lengthen it",
    ),
    "a bucket is to be collected": (
        flywheel(artifacts={"retention": {"policy": "Delete"}}, storage={"uri": "s3://bucket/x"}),
        "spec.artifacts.retention.policy",
        "artifacts.retention.policy Delete works on a claim only, not on s3://bucket/x, which others may share; set it to None",
    ),
    "a retention policy is unknown": (
        flywheel(artifacts={"retention": {"policy": "Always"}}),
        "spec.artifacts.retention.policy",
        'Unsupported value: "Always": supported values: "None", "Delete"',
    ),
    "more champions are to stay than are remembered": (
        flywheel(artifacts={"retention": {"keepChampions": 51}}),
        "spec.artifacts.retention.keepChampions",
        "should be less than or equal to 50",
    ),
    "a stage collects garbage": (
        generation(stage("sweep", "GarbageCollect")),
        "spec.stages[0].run.method",
        "stage 'sweep' deletes from the store, which is no step of a lap; remove it and set the Flywheel's artifacts.retention",
    ),
    # spelling
    "a field is misspelt": (sft(dataset=[]), "spec.dataset", 'unknown field "spec.dataset"'),
    "a method is unknown": (run("PPO"), "spec.method", 'Unsupported value: "PPO": supported values: "Curate", "Reward", "RejectionSample"'),
    "a number is a text": (sft(seed="17"), "spec.seed", "must be of type integer"),
    # identity
    "a digest is no digest": (
        spoilt(sft(), "spec.model.digest", "sha256:latest"),
        "spec.model.digest",
        "'sha256:latest' is not a digest; write sha256: and 64 hexadecimal digits",
    ),
    "a model has no digest": (
        spoilt(sft(), "spec.model.digest", ABSENT),
        "spec.model.digest",
        f"uri '{STORE}m' needs its 'digest'; copy it from the manifest.json beside it",
    ),
    "a path stands where a URI belongs": (
        spoilt(sft(), "spec.model.uri", "/models/llama"),
        "spec.model.uri",
        "'/models/llama' is not a URI of a store; begin with file:///, s3://, gs://, hf:// or builtin:",
    ),
    "a URI leads out of the store": (
        spoilt(sft(), "spec.datasets[0].from.uri", "file:///flywheel/../etc"),
        "spec.datasets[0].from.uri",
        "'file:///flywheel/../etc' leads to a parent directory; give the full path without '..'",
    ),
    "a rule stands where a model belongs": (
        spoilt(sft(), "spec.model", {"type": "Uri", "uri": "builtin:question-mark"}),
        "spec.model.uri",
        "uri 'builtin:question-mark' is no model; give the directory of one",
    ),
    "a reference has no name": (
        spoilt(sft(), "spec.model", {"type": "Generation"}),
        "spec.model",
        "type is Generation: 'generation' must be given when type is Generation, and only then",
    ),
    "a reference has a name too many": (
        spoilt(sft(), "spec.model.trainingRun", "other"),
        "spec.model",
        "type is Uri: 'trainingRun' must be given when type is TrainingRun, and only then",
    ),
    "a digest stands beside a name": (
        spoilt(sft(), "spec.model", {"type": "TrainingRun", "trainingRun": "other", "digest": DIGEST}),
        "spec.model",
        "'digest' belongs to type Uri, not to TrainingRun; remove it",
    ),
    # what methods need
    "SFT has no model": (run("SFT", datasets=[data("train")]), "spec.model", "method SFT needs a model; set 'model'"),
    "SFT has nothing to learn from": (
        run("SFT", model=model(), datasets=[data("eval")]),
        "spec.datasets",
        "method SFT needs a dataset to learn from; add one named 'train'",
    ),
    "GRPO has no prompts": (
        run("GRPO", model=model(), datasets=[data("train")], rewards=[reward()]),
        "spec.datasets",
        "method GRPO needs a dataset named 'prompts'; add it to 'datasets'",
    ),
    "GRPO has no reward": (
        run("GRPO", model=model(), datasets=[data("prompts")], rewards=[reward("Judge")]),
        "spec.rewards",
        "method GRPO needs a reward with the role Reward; add one to 'rewards'",
    ),
    "Evaluate has no opponent": (
        run("Evaluate", model=model(), datasets=[data("user")], rewards=[reward("Judge")]),
        "spec.opponent",
        "method Evaluate needs an opponent; set 'opponent'",
    ),
    "Evaluate has no judge": (
        run("Evaluate", model=model(), opponent=model(), datasets=[data("user")], rewards=[reward()]),
        "spec.rewards",
        "method Evaluate needs a reward with the role Judge",
    ),
    "Curate has no conversations": (run("Curate"), "spec.datasets", "method Curate needs a dataset named 'conversations'"),
    "DPO has no pairs": (run("DPO", model=model(), datasets=[data("pairs")]), "spec.datasets", "method DPO needs a dataset named 'train'"),
    "two datasets have one name": (sft(datasets=[data("train"), data("train")]), "spec.datasets[1]", 'Duplicate value: {"name":"train"}'),
    # outside of a lap
    "a run names the champion": (
        spoilt(sft(), "spec.model", {"type": "Champion"}),
        "spec.model",
        "model.type Champion means something only in a stage of a Generation; use type Uri, TrainingRun or Generation",
    ),
    "a run names a stage's data": (
        sft(datasets=[from_stage("train", "sample")]),
        "spec.datasets",
        "Stage or Conversations, which mean something only in a stage of a Generation; use type Uri or TrainingRun",
    ),
    # pods
    "a quantity has a wrong unit": (
        sft(resources={"limits": {"memory": "8GB"}}),
        "spec.resources.limits",
        "memory '8GB' is not a quantity; write such as 500m, 2 or 4Gi (not 4GB)",
    ),
    "a duration is in days": (sft(deadline="2d"), "spec.deadline", f"'2d' {DURATION_SAYS}"),
    "a duration is longer than anybody waits": (sft(deadline="100000h"), "spec.deadline", f"'100000h' {DURATION_SAYS}, at most 99999h"),
    "a deadline is zero": (sft(deadline="0s"), "spec.deadline", "'0s' must be longer than zero, such as 30s"),
    "an adapter has no rank": (
        sft(adapter={"rank": 0}),
        "spec.adapter.rank",
        "Invalid value: 0: spec.adapter.rank in body should be greater",
    ),
    "an argument is the operator's": (
        flywheel(serving={"args": ["--max-model-len=4096", "--port=9000"]}),
        "spec.serving.args",
        "--port=9000 is set by the operator; remove it",
    ),
    "a model's code would be run": (
        flywheel(serving={"args": ["--trust-remote-code"]}),
        "spec.serving.args",
        "--trust-remote-code runs code of whoever made the model; remove it",
    ),
    "a drain would hold up a node for days": (
        flywheel(serving={"drain": "72h"}),
        "spec.serving.drain",
        "drain 72h is longer than a day, and would hold up a node's drain as long; shorten it to 24h or less",
    ),
    "a model's code would be run, by another spelling": (
        flywheel(serving={"args": ["--seed=1", "--trust_remote-code=true"]}),
        "spec.serving.args",
        "--trust_remote-code=true runs code of whoever made the model; remove it",
    ),
    "a model's code would be run, by an abbreviation": (
        flywheel(serving={"args": ["--trust"]}),
        "spec.serving.args",
        "--trust runs code of whoever made the model; remove it",
    ),
    "the name that users call is set by an abbreviation": (
        flywheel(serving={"args": ["--served_model", "mine"]}),
        "spec.serving.args",
        "--served_model is set by the operator; remove it (the name users call is 'modelName')",
    ),
    # reward models
    "a reward model is neither trained nor imported": (
        reward_model(type="Pointwise"),
        "spec",
        "give either 'training' (to train the reward model) or 'artifact' (to import one): one of them, not both",
    ),
    "a reward model is trained by SFT": (
        spoilt(reward_model(), "spec.training.method", "SFT"),
        "spec.training.method",
        "training.method SFT makes no reward model; set it to Reward",
    ),
    "an imported reward model has no digest": (
        reward_model(artifact={"uri": STORE + "r"}),
        "spec.artifact.digest",
        f"artifact '{STORE}r' needs its 'digest'",
    ),
    # laps
    "a stage does nothing": (generation({"name": "sft"}), "spec.stages[0]", "stage 'sft' needs either 'run' or 'rewardModel': one of them"),
    "a stage trains a reward model unchecked": (
        generation(CURATE, stage("rm", "Reward", model={"type": "Base"}, datasets=[from_stage("train", "curate")])),
        "spec.stages[1].run.method",
        "stage 'rm' trains a reward model by 'run'; write it as 'rewardModel' with 'training'",
    ),
    "two stages have one name": (generation(CURATE, CURATE), "spec.stages[1]", 'Duplicate value: {"name":"curate"}'),
    "a stage waits for one that isn't there": (
        generation({**CURATE, "dependsOn": ["clean"]}),
        "spec.stages",
        "the dependsOn of stage 'curate' must name a stage that exists; correct the name or add that stage",
    ),
    "a stage waits for itself": (
        generation({**CURATE, "dependsOn": ["curate"]}),
        "spec.stages[0].dependsOn",
        "stage 'curate' depends on itself; remove it from dependsOn",
    ),
    "a stage reads data from one that makes none": (
        generation(
            CURATE,
            stage("sft", "SFT", model={"type": "Base"}, datasets=[from_stage("train", "curate")]),
            stage("more", "SFT", model={"type": "Stage", "stage": "sft"}, datasets=[from_stage("train", "sft")]),
        ),
        "spec.stages",
        "the datasets of stage 'more' must name a stage that makes data (Curate, RejectionSample, Record, Custom)",
    ),
    "a stage's reward comes from no reward model": (
        generation(
            CURATE,
            stage(
                "sample",
                "RejectionSample",
                model={"type": "Champion"},
                datasets=[from_stage("prompts", "curate")],
                rewards=[{"name": "taste", "from": {"type": "Stage", "stage": "curate"}}],
            ),
        ),
        "spec.stages",
        "the rewards of stage 'sample' must name a stage that makes a reward model ('rewardModel')",
    ),
    "a stage of a Flywheel's template lacks its prompts": (
        flywheel(generationTemplate={"stages": [stage("rl", "GRPO", model={"type": "Base"}, rewards=[reward()])]}),
        "spec.generationTemplate.stages[0].run.datasets",
        "method GRPO needs a dataset named 'prompts'",
    ),
    "the candidate is no model": (
        generation(CURATE, candidate="curate"),
        "spec.candidate",
        "candidate 'curate' is no stage that makes a model; name one whose method is among SFT, DPO, KTO, GRPO, RLOO",
    ),
    "a gate's share is in percent": (
        generation({**CURATE, "gates": [{"metric": "win_rate_user", "operator": "LessThan", "value": 65}]}),
        "spec.stages[0].gates[0].value",
        "the value of win_rate_user is not a share between 0 and 1; write 0.65 for 65 %",
    ),
    "a gate's operator is a sign": (
        generation({**CURATE, "gates": [{"metric": "rows", "operator": ">", "value": 1}]}),
        "spec.stages[0].gates[0].operator",
        'Unsupported value: ">": supported values: "GreaterThan"',
    ),
    # rollouts
    "both arms are one model": (
        spoilt(rollout(), "spec.candidate.digest", DIGEST),
        "spec.candidate.digest",
        f"candidate.digest {DIGEST} is also the baseline's: there is nothing to compare",
    ),
    "both arms have one name": (
        spoilt(rollout(), "spec.candidate.generation", "g1"),
        "spec.candidate.generation",
        "candidate.generation 'g1' is also the baseline's, so replies could not be told apart; rename one",
    ),
    "a weight is above 50": (
        rollout(traffic={"steps": [{"weightPercent": 60}]}),
        "spec.traffic.steps[0].weightPercent",
        "Invalid value: 60: spec.traffic.steps[0].weightPercent in body should be less than or equal to 50",
    ),
    "weights fall": (
        rollout(traffic={"steps": [{"weightPercent": 20, "duration": "1h"}, {"weightPercent": 5}]}),
        "spec.traffic.steps",
        "weightPercent falls from one step to the next, which would move users back; sort the steps so that it grows",
    ),
    "an early step has no duration": (
        rollout(traffic={"steps": [{"weightPercent": 5}, {"weightPercent": 20}]}),
        "spec.traffic.steps",
        "a step before the last has no duration; give it one, such as 1h",
    ),
    "the ramp outlasts the window": (
        rollout(traffic={"steps": STEPS}, analysis={"window": "30m", "horizon": "1m"}),
        "spec.traffic.steps",
        "the steps together last longer than analysis.window 30m; shorten them or lengthen the window",
    ),
    "the window is shorter than the horizon": (
        rollout(analysis={"window": "12h"}, traffic={"steps": [{"weightPercent": 50}]}),
        "spec.analysis.window",
        "window 12h is shorter than horizon 24h: nobody would have matured; make window the longer one",
    ),
    "the horizon is longer than the collector remembers": (
        rollout(analysis={"window": "1440h", "horizon": "721h"}),
        "spec.analysis.horizon",
        "horizon 721h is longer than 720h (30 days), as long as the collector follows a user; shorten it",
    ),
    "guardrails are looked at too late": (
        rollout(analysis={"window": "48h", "interval": "72h"}),
        "spec.analysis.interval",
        "interval 72h is longer than window 48h: no guardrail would be looked at in time; shorten interval",
    ),
    "a method has no numbers": (
        rollout(analysis={"method": "GroupSequential"}),
        "spec.analysis.method",
        "method GroupSequential doesn't fit; set groupSequential or alwaysValid with the method of that name, and only then",
    ),
    "a look would never be due": (
        rollout(analysis={"method": "GroupSequential", "groupSequential": {"usersPerSlice": 500}}),
        "spec.analysis.groupSequential",
        "usersPerSlice is below minimumUsers, so no test would be due; raise it",
    ),
    "novelty is looked for in half a window": (
        rollout(analysis={"method": "AlwaysValid", "alwaysValid": {"usersPerSlice": 5000}, "novelty": {}}),
        "spec.analysis.novelty",
        "novelty needs the whole window, and method AlwaysValid may end before; set FixedHorizon",
    ),
    "a segment is told by a pre-period that there is not": (
        rollout(analysis={"segments": ["known"]}),
        "spec.analysis.segments",
        "segments 'known' and 'new' need cuped, and 'early' and 'late' belong to novelty; set these",
    ),
    "the burn-in is all of the window": (
        rollout(analysis={"burnIn": "168h"}),
        "spec.analysis.burnIn",
        "burnIn 168h leaves nobody of window 168h; shorten it",
    ),
    "a pre-period is longer than the collector remembers": (
        rollout(analysis={"cuped": {"period": "721h"}}),
        "spec.analysis.cuped.period",
        "721h is longer than 720h (30 days); shorten it",
    ),
    "breadth is per message": (
        rollout(metrics=[{**METRIC, "name": "breadth", "per": "Message"}]),
        "spec.metrics[0].per",
        "breadth per Message has no meaning; remove 'per'",
    ),
    "alpha is in percent": (
        rollout(analysis={"alpha": 5}),
        "spec.analysis.alpha",
        "an error rate must be above 0 and below 0.5; write 0.025 for 2.5 %",
    ),
    "harm would count as good": (
        rollout(metrics=[METRIC, {"name": "errors", "role": "Guardrail", "absoluteMargin": 0.01}]),
        "spec.metrics[1].direction",
        "metric errors with direction Increase would count harm as good; set direction: Decrease",
    ),
    "a guardrail on rare events has no margin": (
        rollout(metrics=[METRIC, {"name": "errors", "role": "Guardrail", "direction": "Decrease"}]),
        "spec.metrics[1]",
        "guardrail errors counts rare events, and the default margin is 5 % of few; set 'absoluteMargin', such as 0.05",
    ),
    "a metric has two margins": (
        rollout(metrics=[{**METRIC, "absoluteMargin": 0.1}]),
        "spec.metrics[0]",
        "metric breadth has both 'margin' and 'absoluteMargin'; keep one",
    ),
    "nothing could be promoted": (
        rollout(metrics=[{**METRIC, "role": "Guardrail"}]),
        "spec.metrics",
        "no metric has the role Success, so nothing could be promoted; give it to one",
    ),
    "a header has capitals": (
        rollout(traffic={"assignment": {"header": "X-User-Id"}, "steps": STEPS}),
        "spec.traffic.assignment.header",
        "'X-User-Id' is not a header's name; write it in lower case, such as x-user-id",
    ),
    "a header is the router's": (
        rollout(traffic={"assignment": {"header": "x-envoy-user"}, "steps": STEPS}),
        "spec.traffic.assignment.header",
        "'x-envoy-user' belongs to the router; choose another header, such as x-user-id",
    ),
    "Prometheus has no scheme": (
        rollout(analysis={"prometheus": {"address": "prometheus:9090"}}),
        "spec.analysis.prometheus.address",
        "'prometheus:9090' is not a URL; begin with http:// or https://",
    ),
    # flywheels
    "a schedule is a nickname": (
        flywheel(trigger={"schedule": "@weekly"}),
        "spec.trigger.schedule",
        "'@weekly' is not a cron expression; write five fields (minute, hour, day, month, weekday), such as '0 3 * * 1'",
    ),
    "a time zone is lower case": (
        flywheel(trigger={"schedule": "0 3 * * 1", "timeZone": "berlin"}),
        "spec.trigger.timeZone",
        "'berlin' is not a time zone; write its IANA name, such as UTC or Europe/Berlin",
    ),
    "the store is a rule": (
        flywheel(storage={"uri": "builtin:store"}),
        "spec.storage.uri",
        "uri 'builtin:store' is no store; begin with file:///, s3://, gs:// or hf://",
    ),
    "the base has no digest": (spoilt(flywheel(), "spec.base.digest", ABSENT), "spec.base.digest", "Required value"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_bad_object_is_refused_with_field_value_and_mend(apiserver: ApiServer, mistake: str) -> None:
    body, field, words = MISTAKES[mistake]
    answer = apiserver.check(body)
    assert not answer.accepted, f"{mistake}: accepted"
    assert field in answer.error
    assert words in answer.error


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_object_is_refused_with_field_and_bound(apiserver: ApiServer, what: str) -> None:
    body, field, words, *_ = HOSTILE[what]
    answer = apiserver.check(body)
    assert not answer.accepted, f"{what}: accepted"
    assert field in answer.error
    assert words in answer.error


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf", "1e999"])
def test_a_number_that_is_none_never_gets_in(apiserver: ApiServer, number: str) -> None:
    text = yaml.safe_dump(rollout(analysis={"alpha": "NUMBER"})).replace("NUMBER", number)
    assert number in text
    assert not apiserver.kubectl("apply", "--dry-run=server", "-f", "-", stdin=text).accepted


def test_the_corpus_is_as_large_as_was_promised() -> None:
    assert len(MISTAKES) + len(HOSTILE) >= 80
    assert not MISTAKES.keys() & HOSTILE.keys()


def test_a_mistake_is_told_once_and_without_noise(apiserver: ApiServer) -> None:
    """A cross-field rule stays silent about a value that its own field's rule has refused."""
    answer = apiserver.check(rollout(analysis={"window": "7d"}))
    assert answer.error.count("spec.analysis") == 1
    assert f"'7d' {DURATION_SAYS}" in answer.error
