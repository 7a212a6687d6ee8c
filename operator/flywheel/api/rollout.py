"""Rollout: two arms, sticky users, guardrails and a verdict; promotes or rolls back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from flywheel.api.analysis import IS_DURATION, METHOD_RULES, AlwaysValid, Cuped, GroupSequential, Novelty, Segments
from flywheel.api.base import (
    SCHEMALESS,
    Digest,
    Duration,
    Finite,
    Metadata,
    Name,
    ObjectName,
    PositiveDuration,
    Resource,
    Status,
    Time,
    Uri,
)
from flywheel.api.cel import mend, quote, rule, rules
from flywheel.api.common import NOT_BUILTIN, Serving, Storage

HEADER = r"^[a-z0-9][a-z0-9-]*$"


class ArmModel(Resource):
    """A model to serve, by content, with the generation's name that users' replies are attributed to."""

    model_config = Resource.model_config | {"json_schema_extra": rules(NOT_BUILTIN)}

    generation: Annotated[Name, Field(description="Name in the response header `x-flywheel-generation` and in every metric.")]
    uri: Annotated[Uri, Field(description="Directory of the model.")]
    digest: Annotated[Digest, Field(description="Content digest of the model.")]


class Assignment(Resource):
    """How users get their slice: position in [0, 1) = hash(salt, user id)."""

    header: Annotated[
        str,
        Field(
            max_length=63,
            pattern=HEADER,
            description="Request header with the user's id.",
            json_schema_extra=mend("is not a header's name; write it in lower case, such as x-user-id")
            | rules(
                rule("!self.matches('^x-(flywheel|envoy)-')", "'{self}' belongs to the router; choose another header, such as x-user-id")
            ),
        ),
    ] = "x-user-id"
    missing: Annotated[Literal["Stable"], Field(description="Who answers a request without a user id; it is not analysed.")] = "Stable"


class Step(Resource):
    """One step of the ramp."""

    weight_percent: Annotated[
        int,
        Field(
            ge=1,
            le=50,
            description="Share of users the candidate gets; the control slice gets the same, so at most 50.",
        ),
    ]
    duration: Annotated[PositiveDuration | None, Field(description="How long the step lasts; the last step lasts to the verdict.")] = None


class Traffic(Resource):
    """Who is sent where, and how fast it grows."""

    assignment: Annotated[Assignment, Field(description="How users get their slice.")] = Assignment()
    steps: Annotated[
        tuple[Step, ...],
        Field(
            min_length=1,
            max_length=20,
            description="The ramp. Weights never fall, so nobody is moved back.",
            json_schema_extra=rules(
                rule(
                    "self.map(s, s.weightPercent).isSorted()",
                    "weightPercent falls from one step to the next, which would move users back; sort the steps so that it grows",
                ),
                rule(
                    "self.filter(s, !has(s.duration)).size() == 0 || "
                    "(self.filter(s, !has(s.duration)).size() == 1 && !has(self[self.size() - 1].duration))",
                    "a step before the last has no duration; give it one, such as 1h (only the last lasts to the verdict)",
                ),
            ),
        ),
    ] = (Step(weight_percent=1, duration="1h"), Step(weight_percent=5, duration="23h"), Step(weight_percent=10))


RARE = "(self.name in ['errors', 'fallbacks', 'thumbs_down'])"


class Metric(Resource):
    """An engagement metric of the verdict."""

    model_config = Resource.model_config | {
        "json_schema_extra": rules(
            rule(
                f"{RARE} == (self.direction == 'Decrease')",
                "metric {self.name} with direction {self.direction} would count harm as good; set direction: "
                "{self.direction == 'Decrease' ? 'Increase' : 'Decrease'}",
                at=".direction",
            ),
            rule(
                "!(has(self.margin) && has(self.absoluteMargin))",
                "metric {self.name} has both 'margin' and 'absoluteMargin'; keep one (absoluteMargin for rare events)",
            ),
            rule(
                f"!{RARE} || self.role != 'Guardrail' || has(self.margin) || has(self.absoluteMargin)",
                "guardrail {self.name} counts rare events, and the default margin is 5 % of few; set 'absoluteMargin', such as 0.05",
            ),
            rule(
                "self.per == 'User' || !(self.name in ['breadth', 'depth'])",
                "{self.name} per {self.per} has no meaning; remove 'per'",
                at=".per",
            ),
        )
    }

    name: Annotated[
        Literal["breadth", "depth", "errors", "fallbacks", "thumbs_up", "thumbs_down"],
        Field(description="A per-user metric of the collector; docs/concepts.md defines each."),
    ]
    role: Annotated[Literal["Success", "Guardrail"], Field(description="Success must be proven better; a Guardrail must not be worse.")]
    direction: Annotated[Literal["Increase", "Decrease"], Field(description="Which way is good.")] = "Increase"
    margin: Annotated[
        Finite | None, Field(ge=0, le=1, description="Non-inferiority margin relative to the control's mean. Default: 0.05.")
    ] = None
    absolute_margin: Annotated[Finite | None, Field(ge=0, description="Non-inferiority margin in the metric's unit, for rare events.")] = (
        None
    )
    per: Annotated[
        Literal["User", "Message"],
        Field(description="Mean a user, or total over the users' messages."),
    ] = "User"


DEFAULT_METRICS = (
    Metric(name="breadth", role="Success", margin=0.05),
    Metric(name="depth", role="Success", margin=0.05),
    Metric(name="errors", role="Guardrail", direction="Decrease", absolute_margin=0.05),
    Metric(name="thumbs_down", role="Guardrail", direction="Decrease", absolute_margin=0.05),
)


class Prometheus(Resource):
    """A Prometheus server."""

    address: Annotated[
        str,
        Field(
            max_length=512,
            pattern=r"^https?://[^\s]+$",
            description="Base URL, such as `http://prometheus:9090`.",
            json_schema_extra=mend("is not a URL; begin with http:// or https://, such as http://prometheus.monitoring:9090"),
        ),
    ]


ALPHA = mend("an error rate must be above 0 and below 0.5; write 0.025 for 2.5 %")
MAX_HORIZON = "720h"  # the collector's limit


def _at_least(longer: str, shorter: str) -> str:
    """CEL: one duration is not shorter than another; true when either is no duration, which another rule says."""
    return f"!{longer}.{IS_DURATION} || !{shorter}.{IS_DURATION} || duration({longer}) >= duration({shorter})"


class Analysis(Resource):
    """When and how the verdict is reached (docs/concepts.md, 'Verdict')."""

    model_config = Resource.model_config | {
        "json_schema_extra": rules(
            rule(
                _at_least("self.window", "self.horizon"),
                "window {self.window} is shorter than horizon {self.horizon}: nobody would have matured; make window the longer one",
                at=".window",
            ),
            rule(
                _at_least("self.window", "self.interval"),
                "interval {self.interval} is longer than window {self.window}: no guardrail would be looked at in time; shorten interval",
                at=".interval",
            ),
            rule(
                f"!self.horizon.{IS_DURATION} || duration(self.horizon) <= duration({quote(MAX_HORIZON)})",
                f"horizon {{self.horizon}} is longer than {MAX_HORIZON} (30 days), as long as the collector follows a user; shorten it",
                at=".horizon",
            ),
            *METHOD_RULES,
        )
    }

    interval: Annotated[PositiveDuration, Field(description="Time between looks at the guardrails.")] = "1m"
    window: Annotated[PositiveDuration, Field(description="How long users are enrolled; whole weeks, so that weekdays are alike.")] = "168h"
    horizon: Annotated[PositiveDuration, Field(description="How long after a user's first request his turns count.")] = "24h"
    alpha: Annotated[
        Finite,
        Field(
            gt=0, lt=0.5, description="One-sided error rate of a promotion, shared by the success metrics (Holm).", json_schema_extra=ALPHA
        ),
    ] = 0.025
    harm_alpha: Annotated[
        Finite,
        Field(
            gt=0, lt=0.5, description="Error rate of a rollback for harm over all looks, shared by all metrics.", json_schema_extra=ALPHA
        ),
    ] = 0.025
    sample_ratio_alpha: Annotated[
        Finite, Field(gt=0, lt=0.5, description="Error rate of the sample-ratio alarm over all looks.", json_schema_extra=ALPHA)
    ] = 0.001
    minimum_users: Annotated[
        int, Field(ge=2, le=1_000_000_000, description="Matured users a slice before harm or success may be called.")
    ] = 1000
    method: Annotated[
        Literal["FixedHorizon", "GroupSequential", "AlwaysValid"],
        Field(description="Success is tested when the window is over, a few times, or at every interval."),
    ] = "FixedHorizon"
    group_sequential: Annotated[GroupSequential | None, Field(description="Its tests.")] = None
    always_valid: Annotated[AlwaysValid | None, Field(description="Its tests.")] = None
    cuped: Annotated[Cuped | None, Field(description="Adjustment by a pre-period, of metrics with a relative margin.")] = None
    burn_in: Annotated[Duration, Field(description="Who comes in this first part of the window isn't analysed.")] = "0s"
    segments: Segments = ()
    novelty: Annotated[Novelty | None, Field(description="A lift that has worn off isn't promoted.")] = None
    winsor_cap: Annotated[
        int | None,
        Field(ge=1, le=1_000_000, description="Most turns of one user that count. Default: the 99.9th percentile before the start."),
    ] = None
    stale_after: Annotated[PositiveDuration, Field(description="Age after which a metric is stale.")] = "5m"
    patience: Annotated[Duration, Field(description="How long after the window missing or stale metrics are waited for.")] = "1h"
    prometheus: Annotated[Prometheus | None, Field(description="Where the metrics are. Default: the operator's setting.")] = None


class Watch(Resource):
    """What happens after a promotion."""

    duration: Annotated[Duration, Field(description="How long the old arm stays parked after a promotion.")] = "24h"


class Rollback(Resource):
    """When a candidate leaves at once, and what is kept."""

    max_restarts: Annotated[int, Field(ge=1, le=1000, description="Container restarts of one candidate pod that mean a crash loop.")] = 3
    max_error_percent: Annotated[
        Finite, Field(gt=0, le=100, description="Share of the candidate's replies in the last minute that may fail (5xx).")
    ] = 20.0
    min_requests: Annotated[int, Field(ge=1, le=1_000_000, description="Replies in that minute before the share means anything.")] = 20
    parked_replicas: Annotated[int, Field(ge=0, le=256, description="Replicas the losing or replaced arm keeps.")] = 1


_RAMP = f"self.traffic.steps.filter(s, has(s.duration) && s.duration.{IS_DURATION}).map(s, duration(s.duration)).sum()"
RAMP_RULE = rule(
    f"!self.analysis.window.{IS_DURATION} || {_RAMP} <= duration(self.analysis.window)",
    "the steps together last longer than analysis.window {self.analysis.window}; shorten them or lengthen the window",
    at=".traffic.steps",
)


class RolloutTemplate(Resource):
    """How a candidate meets users; shared by Rollout and a Generation."""

    model_config = Resource.model_config | {"json_schema_extra": rules(RAMP_RULE)}

    traffic: Annotated[Traffic, Field(description="Who is sent where, and how fast it grows.")] = Traffic()
    metrics: Annotated[
        tuple[Metric, ...],
        Field(
            min_length=1,
            max_length=8,
            description="Success metrics and guardrails.",
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "x-kubernetes-validations": [
                    rule(
                        "self.exists(m, m.role == 'Success')",
                        "no metric has the role Success, so nothing could be promoted; give it to one",
                    )
                ],
            },
        ),
    ] = DEFAULT_METRICS
    analysis: Annotated[Analysis, Field(description="When and how the verdict is reached.")] = Analysis()
    watch: Annotated[Watch, Field(description="What happens after a promotion.")] = Watch()
    rollback: Annotated[Rollback, Field(description="When a candidate leaves at once, and what is kept.")] = Rollback()


class PromotionByHand(Resource):
    """A person's word that the candidate is to serve all users, whatever the numbers are missing."""

    digest: Annotated[Digest, Field(description="Digest of the candidate that is meant: the word holds for no other.")]
    by: Annotated[str, Field(min_length=1, max_length=512, description="Name of the user who says so, as the API server knows him.")]
    reason: Annotated[str, Field(min_length=1, max_length=1024, description="Why, for the record.")]


class RolloutSpec(RolloutTemplate):
    """Desired state of a Rollout."""

    model_config = Resource.model_config | {
        "json_schema_extra": rules(
            RAMP_RULE,
            rule(
                "self.baseline.digest != self.candidate.digest",
                "candidate.digest {self.candidate.digest} is also the baseline's: there is nothing to compare; set it to another model's",
                at=".candidate.digest",
            ),
            rule(
                "self.baseline.generation != self.candidate.generation",
                "candidate.generation '{self.candidate.generation}' is also the baseline's, so replies could not be told apart; rename one",
                at=".candidate.generation",
            ),
            rule(
                "!has(self.promote) || self.promote.digest == self.candidate.digest",
                "promote.digest {self.promote.digest} is not the candidate's; give {self.candidate.digest}, or remove 'promote'",
                at=".promote.digest",
            ),
            rule(
                "has(self.flywheel) == has(oldSelf.flywheel) && (!has(self.flywheel) || self.flywheel == oldSelf.flywheel)",
                "flywheel can't be changed: these users have been assigned; create another Rollout",
                at=".flywheel",
            ),
        )
    }

    flywheel: Annotated[Name | None, Field(description="The Flywheel whose users are asked. Default: a service of the Rollout's own.")] = (
        None
    )
    baseline: Annotated[ArmModel, Field(description="What serves users now.")]
    candidate: Annotated[ArmModel, Field(description="What may replace it.")]
    serving: Annotated[Serving, Field(description="How both arms are served.")] = Serving()
    storage: Annotated[Storage, Field(description="Where the models lie.")] = Storage()
    suspend: Annotated[bool, Field(description="True keeps the weights as they are and decides nothing; hard limits still act.")] = False
    abort: Annotated[bool, Field(description="True returns all users to the baseline now.")] = False
    promote: Annotated[
        PromotionByHand | None,
        Field(
            description="Gives all users the candidate now, by a person's word (`kubectl flywheel promote`; needs the right `promote` on "
            "rollouts). Proven harm, the hard limits, `abort`, and a candidate without ready pods are stronger."
        ),
    ] = None
    deletion_policy: Annotated[Literal["Retain", "Delete"], Field(description="Whether a standalone Rollout's service outlives it.")] = (
        "Retain"
    )


class Estimate(Resource):
    """What is known of one metric."""

    name: Annotated[str, Field(max_length=63, description="The metric.")]
    role: Annotated[str, Field(max_length=16, description="Success or Guardrail.")]
    n_control: Annotated[int, Field(description="Matured users in the control slice.")] = 0
    n_candidate: Annotated[int, Field(description="Matured users in the candidate slice.")] = 0
    mean_control: Annotated[Finite | None, Field(description="Mean a user in the control slice.")] = None
    mean_candidate: Annotated[Finite | None, Field(description="Mean a user in the candidate slice.")] = None
    difference: Annotated[Finite | None, Field(description="Candidate minus control.")] = None
    lift: Annotated[Finite | None, Field(description="Relative difference; 0.1 is +10 %.")] = None
    lift_lower: Annotated[Finite | None, Field(description="Lower end of the lift's interval.")] = None
    lift_upper: Annotated[Finite | None, Field(description="Upper end of the lift's interval.")] = None
    p_value: Annotated[Finite | None, Field(description="One-sided p-value of the success test.")] = None
    harm_bound: Annotated[Finite | None, Field(description="Bound of the confidence sequence that proves harm.")] = None
    state: Annotated[str, Field(max_length=63, description="Measured, NoData, Stale, Unavailable, or what was concluded.")] = "Measured"


class Decision(Resource):
    """A verdict with the numbers that made it; it replays to the same answer."""

    verdict: Annotated[Literal["Promote", "Rollback", "Inconclusive", "NoVerdict"], Field(description="What was decided.")]
    reason: Annotated[str, Field(max_length=63, description="Why, in one word.")]
    message: Annotated[str, Field(max_length=4096, description="Why, with numbers.")]
    time: Annotated[Time, Field(description="When it was decided.")]
    revision: Annotated[int, Field(description="metadata.generation it was decided about.")]
    evidence_digest: Annotated[str | None, Field(max_length=71, description="sha256 of the evidence.")] = None
    evidence: Annotated[dict[str, Any] | None, Field(description="The moments that were looked at.", json_schema_extra=SCHEMALESS)] = None


class Weights(Resource):
    """Where users are sent."""

    intended: Annotated[int, Field(ge=0, le=100, description="Percent of users the candidate is to get.")] = 0
    acknowledged: Annotated[int | None, Field(ge=0, le=100, description="Percent that every router replica has confirmed.")] = None
    revision: Annotated[int, Field(ge=0, description="Revision of the routes that carries it.")] = 0


class ArmStatus(Resource):
    """One arm."""

    name: Annotated[ObjectName, Field(description="Name of its Deployment and Service.")]
    generation: Annotated[Name, Field(description="Generation it serves.")]
    digest: Annotated[Digest, Field(description="Content digest of its model.")]
    role: Annotated[Literal["Stable", "Candidate", "Parked"], Field(description="What it is now.")]
    ready_replicas: Annotated[int, Field(ge=0, description="Pods that answered a completion.")] = 0


class HistoryEntry(Resource):
    """Something that happened."""

    time: Annotated[Time, Field(description="When.")]
    event: Annotated[str, Field(max_length=63, description="What, in one word.")]
    message: Annotated[str, Field(max_length=1024, description="What, in a sentence.")] = ""


RolloutPhase = Literal[
    "Pending",
    "Preparing",
    "Progressing",
    "Paused",
    "Promoting",
    "Watching",
    "RollingBack",
    "Promoted",
    "RolledBack",
    "Inconclusive",
    "Failed",
]
TERMINAL_ROLLOUT_PHASES: tuple[RolloutPhase, ...] = ("Promoted", "RolledBack", "Inconclusive", "Failed")


class RolloutStatus(Status):
    """Observed state of a Rollout."""

    phase: Annotated[RolloutPhase, Field(description="For people; decisions read the conditions.")] = "Pending"
    experiment: Annotated[str | None, Field(max_length=253, description="The experiment's id in logs and metrics.")] = None
    salt: Annotated[str | None, Field(max_length=64, description="Salt of the user hash; a new rollout re-randomises.")] = None
    weights: Annotated[Weights, Field(description="Where users are sent.")] = Weights()
    step: Annotated[int | None, Field(ge=0, description="Index of the running step.")] = None
    step_start_time: Annotated[Time | None, Field(description="When the step began.")] = None
    prepare_start_time: Annotated[Time | None, Field(description="When the candidate's pods were asked for.")] = None
    window_start_time: Annotated[Time | None, Field(description="When the first user met the candidate.")] = None
    window_end_time: Annotated[Time | None, Field(description="When the verdict is due.")] = None
    cutover_time: Annotated[Time | None, Field(description="When every router replica had confirmed the decision.")] = None
    watch_end_time: Annotated[Time | None, Field(description="When the parked arm may go.")] = None
    last_analysis_time: Annotated[Time | None, Field(description="When the metrics were last looked at.")] = None
    arms: Annotated[tuple[ArmStatus, ...], Field(max_length=4, description="The two arms.")] = ()
    metrics: Annotated[tuple[Estimate, ...], Field(max_length=16, description="The latest estimates.")] = ()
    sample_ratio_p: Annotated[Finite | None, Field(description="Anytime-valid p-value of the 1:1 ratio.")] = None
    looks: Annotated[
        tuple[Annotated[Finite, Field(gt=0)], ...],
        Field(max_length=19, description="Tests so far, by share of the planned users."),
    ] = ()
    decision: Annotated[Decision | None, Field(description="The verdict; made once for a revision.")] = None
    history: Annotated[tuple[HistoryEntry, ...], Field(max_length=50, description="What happened, oldest first, bounded.")] = ()
    summary: Annotated[str | None, Field(max_length=256, description="One line for `kubectl get`.")] = None


class Rollout(Resource):
    """Two models in front of users: who is better, and who stays."""

    metadata: Metadata
    spec: RolloutSpec
    status: RolloutStatus = RolloutStatus()
