"""Whom users meet: the routes a Rollout writes while it holds the service, and whether the router has confirmed them.

Nothing counts as traffic before every router replica has said so; the collector knows of an experiment before its first user.
"""

from __future__ import annotations

from typing import Any

from flywheel.api.base import parse_duration
from flywheel.api.reasons import Reason
from flywheel.api.rollout import Analysis, Weights
from flywheel.plan import arms
from flywheel.plan.base import PutExperiment
from flywheel.plan.rollout_arms import baseline_arm, candidate_arm, owners
from flywheel.plan.rollout_draft import SOON, Draft
from flywheel.plan.rollout_observed import service_name
from flywheel.plan.routes import acknowledged, next_revision, same_routes, write_routes
from flywheel.plan.service import collector_address
from flywheel.specs.envoy import Arm, Routes
from flywheel.stats.analysis import EARLY, LATE


def shared_routes(draft: Draft, weight: int) -> Routes:
    """The routes that give the candidate this share of users, and as many to its control."""
    status, header = draft.status, draft.observed.rollout.spec.traffic.assignment.header
    return Routes(
        revision=1,
        stable=baseline_arm(draft),
        candidate=candidate_arm(draft),
        experiment=status.experiment,
        salt=status.salt,
        weight_percent=weight,
        header=header,
    )


def route(draft: Draft, wanted: Routes, weight: int) -> bool:
    """Make the routes so; true when every router replica has confirmed them."""
    observed, service = draft.observed, service_name(draft.observed.rollout)
    standing = same_routes(observed.routes, wanted)
    revision = observed.routes.routes.revision if standing and observed.routes else next_revision(observed.routes, draft.now)
    confirmed = standing and acknowledged(observed.acknowledgements, revision)
    draft.set(weights=Weights(intended=weight, acknowledged=weight if confirmed else None, revision=revision))
    if not standing and wanted.candidate is not None:
        draft.actions.append(put_experiment(draft))  # before the first user can be counted
    draft.actions += write_routes(
        observed.routes, wanted, service=service, namespace=observed.rollout.metadata.namespace, owners=owners(draft), now=draft.now
    )
    if not confirmed:
        draft.waiting = draft.waiting or (Reason.WAITING, f"the router has yet to confirm revision {revision}")
        draft.wake_at(draft.now + SOON)
    return confirmed


def send_home(draft: Draft, home: Arm) -> bool:
    """All users to one arm, if it can answer and they are elsewhere: with the candidate of an earlier question, or nowhere yet.

    True when the routes are written in this pass.
    """
    observed, spec = draft.observed, draft.observed.rollout.spec
    standing = observed.routes.routes if observed.routes else None
    there = standing is not None and standing.candidate is None and standing.stable.arm == home.arm
    if there or (standing is None and spec.flywheel) or not arms.ready_replicas(observed.deployments, home.arm):
        return False
    wanted = Routes(revision=1, stable=home, header=spec.traffic.assignment.header)
    service, namespace = service_name(observed.rollout), observed.rollout.metadata.namespace
    draft.actions += write_routes(observed.routes, wanted, service=service, namespace=namespace, owners=owners(draft), now=draft.now)
    return True


def put_experiment(draft: Draft) -> PutExperiment:
    """Tell the collector what to count; saying it again does no harm."""
    rollout, started = draft.observed.rollout, draft.status.prepare_start_time or draft.now
    definition = {
        "horizonSeconds": parse_duration(rollout.spec.analysis.horizon).total_seconds(),
        "winsorCap": rollout.spec.analysis.winsor_cap,
        "startedAt": started.isoformat(),
        "enrolUntil": None,
    } | asked_of_the_collector(rollout.spec.analysis)
    return PutExperiment(collector_address(service_name(rollout), rollout.metadata.namespace), draft.status.experiment or "", definition)


LONGEST = 30 * 86400.0  # seconds; the collector's limit


def asked_of_the_collector(analysis: Analysis) -> dict[str, Any]:
    """What only some plans need; left out otherwise, so that a collector of before takes the definition."""
    asked: dict[str, Any] = {}
    segments = list(analysis.segments)
    if analysis.cuped:
        asked["covariateSeconds"] = parse_duration(analysis.cuped.period).total_seconds()
    if analysis.novelty:
        segments += [EARLY, LATE]
        asked["earlySeconds"] = min(parse_duration(analysis.window).total_seconds() / 2, LONGEST)
    if segments:
        asked["segments"] = segments
    if burn_in := parse_duration(analysis.burn_in).total_seconds():
        asked["burnInSeconds"] = burn_in
    return asked
