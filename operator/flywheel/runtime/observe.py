"""What all observers share: the ports they may ask, throttles, and the parts of a model service."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from flywheel.api.base import Resource
from flywheel.api.flywheel import Flywheel
from flywheel.api.training_run import Backend
from flywheel.plan.adoption import AdoptedState, adopted_state, asked_for
from flywheel.plan.base import LABEL, Defaults, Manifest
from flywheel.plan.kube import DeploymentState, deployment_state
from flywheel.plan.parts import Parts
from flywheel.plan.rollout_observed import Acknowledgement, RoutesState
from flywheel.plan.routes import UNREADABLE, routes_name
from flywheel.plan.training_run import POLL
from flywheel.ports import AdmissionQueues, AdoptedServers, MetricsProvider, TrafficRouter, TrainerProgress
from flywheel.runtime.cache import OURS, View
from flywheel.runtime.gpu_queue import GpuQueue
from flywheel.runtime.keys import PARTS
from flywheel.specs.envoy import RoutesError, parse_routes
from flywheel.specs.vllm import PORT

_log = logging.getLogger(__name__)
ADOPTED_EVERY, ADOPTING_EVERY = dt.timedelta(seconds=5), dt.timedelta(seconds=1)  # reads of a Deployment that no watch tells of
TRAINERS_A_SECOND = 25.0  # progress changes at every look, and every change is a write of a status
Model = TypeVar("Model", bound=Resource)
Value = TypeVar("Value")


class Throttle:
    """Asks the outside world for one thing at most every so often; the last answer stands meanwhile."""

    def __init__(self, size: int = 4096) -> None:
        self._answers: OrderedDict[str, tuple[dt.datetime, Any]] = OrderedDict()
        self._size = size

    async def ask(self, key: str, every: dt.timedelta, now: dt.datetime, ask: Callable[[], Awaitable[Value]]) -> Value:
        """The answer to `ask`, at most `every` old."""
        held = self._answers.get(key)
        if held is not None and dt.timedelta() <= now - held[0] < every:
            return held[1]  # type: ignore[no-any-return]
        answer = await ask()
        self._answers[key] = (now, answer)
        self._answers.move_to_end(key)
        while len(self._answers) > self._size:
            self._answers.popitem(last=False)
        return answer


class Pace:
    """How often each of many may be asked, so that all together are asked at most so many times a second."""

    def __init__(self, least: dt.timedelta, rate: float) -> None:
        self._least, self._rate = least, rate
        self._asked: OrderedDict[str, dt.datetime] = OrderedDict()  # those that ask, the one that is silent for longest first

    def interval(self, key: str, now: dt.datetime) -> dt.timedelta:
        """For one of them, which counts from now on, until it has been silent for two intervals."""
        self._asked[key] = now
        self._asked.move_to_end(key)
        interval = self._interval()
        while len(self._asked) > 1 and abs(now - next(iter(self._asked.values()))) > 2 * interval:
            self._asked.popitem(last=False)
        return self._interval()

    def _interval(self) -> dt.timedelta:
        return max(self._least, dt.timedelta(seconds=len(self._asked) / self._rate))


class Parser:
    """Manifests as models, parsed once a version: siblings read each other in every pass."""

    def __init__(self, size: int = 256) -> None:  # some 25 kB each
        self._models: OrderedDict[str, tuple[str, Resource]] = OrderedDict()
        self._size = size

    def parse(self, model: type[Model], body: Manifest, *inside: str) -> Model:
        """An object, or what is inside of it. Raises pydantic's ValidationError for an object that a newer or an older operator wrote."""
        meta = body["metadata"]
        held = self._models.get(meta["uid"])
        if held is not None and held[0] == meta["resourceVersion"] and isinstance(held[1], model):
            return held[1]
        for name in inside:
            body = body[name]
        parsed = model.model_validate(body)
        self._models[meta["uid"]] = (meta["resourceVersion"], parsed)
        self._models.move_to_end(meta["uid"])
        while len(self._models) > self._size:
            self._models.popitem(last=False)
        return parsed


@dataclass(frozen=True)
class World:
    """Everything an observer may ask besides the caches."""

    defaults: Defaults
    metrics: Callable[[str], MetricsProvider]  # by the address of a Prometheus
    router: TrafficRouter
    trainer: TrainerProgress
    queues: AdmissionQueues | None = None
    backends: Callable[[], frozenset[Backend]] = lambda: frozenset({"Job"})  # what the cluster has by now
    parser: Parser = field(default_factory=Parser)
    throttle: Throttle = field(default_factory=Throttle)
    gpus: GpuQueue = field(default_factory=GpuQueue)
    adopted: AdoptedServers | None = None
    trainers: Pace = field(default_factory=lambda: Pace(POLL, TRAINERS_A_SECOND))


@dataclass(frozen=True)
class ServiceState:
    """One model service as the caches have it."""

    deployments: Mapping[str, DeploymentState]
    anchors: Mapping[str, Manifest]
    routes: RoutesState | None
    parts: Parts


def observe_service(view: View, service: str) -> ServiceState:
    """Arms, router, collector and routes of a service."""
    pods = view.labelled("Pod", "flywheel", service)
    found = view.labelled("Deployment", "flywheel", service)
    deployments = [deployment_state(body, _pods_of(body, pods)) for body in found]
    found += [body for kind in PARTS for body in view.labelled(kind, "flywheel", service)]
    parts = {(body["kind"], body["metadata"]["name"]): body[OURS] for body in found}
    revisions = view.labelled("ControllerRevision", "flywheel", service)
    arms = {_label(body, "arm"): body for body in revisions if _label(body, "component") == "vllm"}
    anchors = {arm: body for arm, body in arms.items() if arm}
    return ServiceState({d.name: d for d in deployments}, anchors, routes_of(view, service), parts)


def _pods_of(deployment: Manifest, pods: list[Manifest]) -> list[Manifest]:
    wanted = ((deployment.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    return [p for p in pods if wanted and wanted.items() <= (p["metadata"].get("labels") or {}).items()]


def _label(body: Manifest, name: str) -> str | None:
    return (body["metadata"].get("labels") or {}).get(LABEL + name)


def routes_of(view: View, service: str) -> RoutesState | None:
    """What the router of a service is told, as the cache has it."""
    body = view.get("ConfigMap", routes_name(service))
    if body is None:
        return None
    try:
        routes = parse_routes((body.get("data") or {}).get("routes.json", ""))
    except RoutesError as error:
        _log.warning("routes of %s can't be read and are written anew: %s", service, error)
        routes = UNREADABLE
    return RoutesState(routes, body["metadata"]["resourceVersion"])


async def observe_adopted(world: World, flywheel: Flywheel, now: dt.datetime, routes: RoutesState | None) -> AdoptedState | None:
    """The Deployment that a Flywheel has adopted or is about to; what it serves is asked only before the first user is sent there."""
    asked, namespace, server = asked_for(flywheel), flywheel.metadata.namespace, world.adopted
    if asked is None or server is None:
        return None
    arm, adopted = asked
    routed = routes is not None and arm in (one.arm for one in routes.routes.arms)
    seen = await read_adopted(world, namespace, arm, adopted.deployment, now, ADOPTED_EVERY if routed else ADOPTING_EVERY)
    if routed or seen is None or seen.service is None or seen.state is None or not seen.state.ready_replicas:
        return seen
    models, silence = await server.models(f"http://{arm}.{namespace}.svc:{PORT}")
    return replace(seen, models=models, silence=silence)


async def read_adopted(
    world: World, namespace: str, arm: str, deployment: str, now: dt.datetime, every: dt.timedelta = ADOPTED_EVERY
) -> AdoptedState | None:
    """A Deployment that serves as an arm though it is not ours, at most `every` old."""
    server = world.adopted
    if server is None:
        return None
    key = f"adopted/{namespace}/{arm}/{deployment}"
    found, service = await world.throttle.ask(key, every, now, lambda: server.read(namespace, deployment, arm))
    return adopted_state(arm, found, service)


async def acknowledgements(world: World, service: ServiceState, name: str) -> tuple[Acknowledgement, ...]:
    """What every router pod that takes traffic says. Pods on their way out, and those not yet ready, get no new requests."""
    router = service.deployments.get(f"{name}-router")
    pods = {pod.name: pod.ip or "" for pod in router.pods if pod.ready and not pod.deleting} if router else {}
    return await world.router.acknowledgements(pods) if pods else ()


async def together(*questions: Awaitable[Any]) -> list[Any]:
    """Ask independent things at once."""
    return list(await asyncio.gather(*questions))
