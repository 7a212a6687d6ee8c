"""Objects that nobody writes by mistake alone: numbers at and beyond their ends, lists without end, text of other alphabets.

What it is: (object, field in the error, the API server's words, lint's words where they are not the same: neither are rules of ours).
"""

from __future__ import annotations

from tests.cluster.objects import (
    ABSENT,
    DIGEST,
    Object,
    data,
    flywheel,
    from_stage,
    generation,
    model,
    reward,
    rollout,
    run,
    sft,
    spoilt,
    stage,
)  # fmt: skip

Hostile = tuple[Object, str, str] | tuple[Object, str, str, str]
CURATE = stage("curate", "Curate")
METRIC = {"name": "breadth", "role": "Success", "margin": 0.05}
DURATION = "is not a duration; write numbers with ms, s, m or h"
URI = "is not a URI of a store; begin with file:///, s3://, gs://, hf:// or builtin:"
RATE = "an error rate must be above 0 and below 0.5; write 0.025 for 2.5 %"
GATE = {"metric": "rows", "operator": "LessThan", "value": 1}


def _steps(weight: object) -> Object:
    return rollout(traffic={"steps": [{"weightPercent": weight}]})


def _analysis(**analysis: object) -> Object:
    return rollout(analysis=analysis)


def _weighted(weight: object) -> Object:
    return sft(datasets=[{**data("train"), "weight": weight}])


HOSTILE: dict[str, Hostile] = {
    # alphabets and signs
    "a name only looks Latin": (
        spoilt(generation(), "metadata.name", "lар"),
        "metadata.name",
        "'lар' must begin with a letter and have only",
    ),
    "a duration has Arabic digits": (sft(deadline="1٣h"), "spec.deadline", f"'1٣h' {DURATION}"),
    "a header is not ASCII": (
        rollout(traffic={"assignment": {"header": "x-üser"}, "steps": [{"weightPercent": 50}]}),
        "spec.traffic.assignment.header",
        "'x-üser' is not a header's name; write it in lower case, such as x-user-id",
    ),
    "a URI has a NUL in it": (spoilt(sft(), "spec.model.uri", "file:///flywheel/a\x00b"), "spec.model.uri", URI),
    "a generation's name is a shout": (
        spoilt(rollout(), "spec.candidate.generation", "G2!"),
        "spec.candidate.generation",
        "'G2!' is not a name",
    ),
    "a claim's name is a path": (flywheel(storage={"claimName": "../x"}), "spec.storage.claimName", "'../x' is not the name of an object"),
    "a secret's name has a space": (
        flywheel(storage={"credentialsSecretRef": {"name": "A B"}}),
        "spec.storage.credentialsSecretRef.name",
        "'A B' is not the name of an object",
    ),
    "a gate's metric is a formula": (
        generation({**CURATE, "gates": [{**GATE, "metric": "rows} or 1"}]}),
        "spec.stages[0].gates[0].metric",
        "should match '^[A-Za-z][A-Za-z0-9_.]*$'",
        "string should match pattern",
    ),
    # addresses
    "a URI names a host": (spoilt(sft(), "spec.model.uri", "file://host/flywheel/a"), "spec.model.uri", f"'file://host/flywheel/a' {URI}"),
    "a URI is the cloud's own": (spoilt(sft(), "spec.model.uri", "http://169.254.169.254/latest"), "spec.model.uri", URI),
    "Prometheus is a file": (
        _analysis(prometheus={"address": "file:///etc/passwd"}),
        "spec.analysis.prometheus.address",
        "'file:///etc/passwd' is not a URL; begin with http:// or https://",
    ),
    "a time zone is a path": (
        flywheel(trigger={"schedule": "0 3 * * 1", "timeZone": "../../etc/passwd"}),
        "spec.trigger.timeZone",
        "'../../etc/passwd' is not a time zone; write its IANA name",
    ),
    "a digest is in capitals": (
        spoilt(sft(), "spec.model.digest", DIGEST.upper().replace("SHA", "sha")),
        "spec.model.digest",
        "is not a digest; write sha256: and 64 hexadecimal digits",
    ),
    "a digest is one digit short": (spoilt(sft(), "spec.model.digest", DIGEST[:-1]), "spec.model.digest", "is not a digest; write sha256:"),
    # without end
    "a lap has more stages than anybody follows": (
        generation(*(stage(f"s{number}", "Curate") for number in range(25))),
        "spec.stages",
        "Too many: 25: must have at most 24 items",
        "tuple should have at most 24 items",
    ),
    "a run has hundreds of datasets": (
        sft(datasets=[data(f"d{number}") for number in range(300)]),
        "spec.datasets",
        "Too many: 300: must have at most 16 items",
        "tuple should have at most 16 items",
    ),
    "an argument is a novel": (
        flywheel(serving={"args": ["--seed=" + "1" * 5000]}),
        "spec.serving.args[0]",
        "Too long: may not be more than 512 bytes",
        "string should have at most 512 characters",
    ),
    "a URI is a novel": (
        spoilt(sft(), "spec.model.uri", "file:///" + "a" * 5000),
        "spec.model.uri",
        "Too long: may not be more than 1024 bytes",
        "string should have at most 1024 characters",
    ),
    # keys that are there twice
    "two metrics have one name": (
        rollout(metrics=[METRIC, METRIC]),
        "spec.metrics[1]",
        'Duplicate value: {"name":"breadth"}',
        'duplicate value {"name": "breadth"}',
    ),
    "two rewards have one name": (
        run("GRPO", model=model(), datasets=[data("prompts")], rewards=[reward(), reward()]),
        "spec.rewards[1]",
        'Duplicate value: {"name":"reward"}',
        'duplicate value {"name": "reward"}',
    ),
    "a variable is set twice": (
        flywheel(serving={"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}),
        "spec.serving.env[1]",
        'Duplicate value: {"name":"A"}',
        'duplicate value {"name": "A"}',
    ),
    # durations
    "a deadline is negative": (sft(deadline="-5m"), "spec.deadline", f"'-5m' {DURATION}"),
    "a deadline has no unit": (sft(deadline="30"), "spec.deadline", f"'30' {DURATION}"),
    "a deadline is in scientific notation": (sft(deadline="1e3s"), "spec.deadline", f"'1e3s' {DURATION}"),
    "a deadline is a number": (sft(deadline=30), "spec.deadline", "must be of type string", "input should be a valid string"),
    "an interval is zero": (_analysis(interval="0s"), "spec.analysis.interval", "'0s' must be longer than zero, such as 30s"),
    "a watch is negative": (rollout(watch={"duration": "-1h"}), "spec.watch.duration", f"'-1h' {DURATION}"),
    "a schedule has seconds": (
        flywheel(trigger={"schedule": "0 0 3 * * 1"}),
        "spec.trigger.schedule",
        "'0 0 3 * * 1' is not a cron expression; write five fields",
    ),
    # numbers at and beyond their ends
    "a quantity is negative": (
        sft(resources={"limits": {"memory": "-1Gi"}}),
        "spec.resources.limits",
        "memory '-1Gi' is less than nothing, which no pod may ask for; write such as 500m or 4Gi",
    ),
    "a quantity is empty": (
        sft(resources={"limits": {"memory": ""}}),
        "spec.resources.limits",
        "memory '' is not a quantity; write such as",
    ),
    "nobody would meet the candidate": (_steps(0), "spec.traffic.steps[0].weightPercent", "greater than or equal to 1"),
    "a weight is negative": (_steps(-5), "spec.traffic.steps[0].weightPercent", "greater than or equal to 1"),
    "a weight is a fraction": (
        _steps(12.5),
        "spec.traffic.steps[0].weightPercent",
        "must be of type integer",
        "input should be a valid integer",
    ),
    "a weight has a percent sign": (
        _steps("50%"),
        "spec.traffic.steps[0].weightPercent",
        "must be of type integer",
        "input should be a valid integer",
    ),
    "there are no steps": (
        rollout(traffic={"steps": []}),
        "spec.traffic.steps",
        "should have at least 1 items",
        "should have at least 1 item after validation",
    ),
    "no error at all is allowed": (_analysis(alpha=0), "spec.analysis.alpha", RATE),
    "every second verdict may be wrong": (_analysis(alpha=0.5), "spec.analysis.alpha", RATE),
    "an error rate is not a number": (
        _analysis(alpha="NaN"),
        "spec.analysis.alpha",
        "must be of type number",
        "input should be a valid number",
    ),
    "a margin is negative": (rollout(metrics=[{**METRIC, "margin": -0.05}]), "spec.metrics[0].margin", "greater than or equal to 0"),
    "a margin is in percent": (rollout(metrics=[{**METRIC, "margin": 5}]), "spec.metrics[0].margin", "less than or equal to 1"),
    "a margin is beyond all numbers": (rollout(metrics=[{**METRIC, "margin": 1e300}]), "spec.metrics[0].margin", "less than or equal to 1"),
    "a seed is negative": (sft(seed=-1), "spec.seed", "greater than or equal to 0"),
    "a seed is longer than a word": (sft(seed=2**31), "spec.seed", "less than or equal to 2147483647"),
    "a dataset weighs nothing": (_weighted(0), "spec.datasets[0].weight", "greater than 0"),
    "a dataset weighs more than the rest of the world": (_weighted(1e308), "spec.datasets[0].weight", "less than or equal to 1000"),
    "a model has a million replicas": (flywheel(serving={"replicas": 10**6}), "spec.serving.replicas", "less than or equal to 256"),
    "users of less than none are needed": (_analysis(minimumUsers=-1), "spec.analysis.minimumUsers", "greater than or equal to 2"),
    "a gate compares with no number": (
        generation({**CURATE, "gates": [{**GATE, "value": "NaN"}]}),
        "spec.stages[0].gates[0].value",
        "must be of type number",
        "input should be a valid number",
    ),
    # kinds of things
    "a reference has no type": (spoilt(sft(), "spec.model.type", ABSENT), "spec.model.type", "Required value", "is required; add it"),
    "a template is a text": (sft(podTemplate="hostNetwork"), "spec.podTemplate", "must be of type object", "input should be an object"),
    "parameters are a list": (sft(parameters=[1, 2]), "spec.parameters", "must be of type object", "input should be an object"),
    "a switch is a word": (sft(suspend="yes"), "spec.suspend", "must be of type boolean", "input should be a valid boolean"),
    "a policy is unknown": (
        flywheel(deletionPolicy="Orphan"),
        "spec.deletionPolicy",
        'Unsupported value: "Orphan": supported values: "Retain", "Delete"',
        "input should be 'Retain' or 'Delete'",
    ),
    "a reward model learns from a stage that isn't there": (
        generation(
            CURATE,
            {
                "name": "rm",
                "rewardModel": {"training": {"method": "Reward", "model": {"type": "Base"}, "datasets": [from_stage("train", "nowhere")]}},
            },
        ),
        "spec.stages",
        "the datasets of stage 'rm' must name a stage that makes data",
    ),
}
