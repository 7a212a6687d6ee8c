"""An API server in memory: what the operator asks of the real one, with the same refusals.

Uids follow from kind, name and how often the name was taken, so that two runs of one story give the same names to the same children.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from flywheel.adapters.kube_api import api_error
from flywheel.adapters.resources import collection_path
from flywheel.api.base import API_VERSION
from flywheel.runtime.keys import CHILDREN, KINDS

Body = dict[str, Any]
Change = Callable[[str, Body], None]  # put or remove, and the object
NAMESPACE = "demo"
OTHERS = {"Event": "v1", "Service": "v1", "ServiceAccount": "v1", "PodDisruptionBudget": "policy/v1"}
OTHERS |= {"Role": "rbac.authorization.k8s.io/v1", "RoleBinding": "rbac.authorization.k8s.io/v1"}
VERSIONS: dict[str, str] = {**dict.fromkeys(KINDS, API_VERSION), **CHILDREN, **OTHERS}
COLLECTIONS = {collection_path(version, kind, NAMESPACE): kind for kind, version in VERSIONS.items()}
TRAVEL = 0.004  # seconds a request takes, and its answer


class Ref(NamedTuple):
    """One object of the namespace."""

    kind: str
    name: str


@dataclass
class State:
    """Everything that survives the operator. No body in it is ever changed, so a copy of the tables is a copy of all."""

    objects: dict[Ref, Body] = field(default_factory=dict)
    applied: dict[Ref, Body] = field(default_factory=dict)  # what server-side apply has put there
    made: Counter[Ref] = field(default_factory=Counter)  # how often each name was taken
    changed: dict[Ref, dt.datetime] = field(default_factory=dict)
    routes: tuple[Body, ...] = ()  # every word the router was given
    experiments: dict[str, Body] = field(default_factory=dict)  # the collector's
    version: int = 1000

    def copy(self) -> State:
        """As it is now."""
        return replace(
            self,
            objects=dict(self.objects),
            applied=dict(self.applied),
            made=Counter(self.made),
            changed=dict(self.changed),
            experiments=dict(self.experiments),
        )

    def every(self, kind: str) -> list[Body]:
        """The objects of a kind, by name."""
        return [self.objects[ref] for ref in sorted(ref for ref in self.objects if ref.kind == kind)]


class SimulatedApi:
    """Stands where KubeApi does; `before` and `after` stand around every write and may raise."""

    def __init__(self, state: State, now: Callable[[], dt.datetime]) -> None:
        self.state, self._now = state, now
        self.watchers: list[Change] = []
        self.before: Callable[[str], None] = lambda what: None
        self.after: Callable[[str], None] = lambda what: None

    async def request(self, method: str, path: str, *, body: Any = None, **_: Any) -> Body:
        """One request and its answer."""
        sent = json.loads(json.dumps(body, allow_nan=False))
        await asyncio.sleep(TRAVEL)
        if method == "GET":
            return self._get(*_parse(path))
        self.before(f"{method} {path}")
        answer = self._write(method, path, sent)
        self.after(f"{method} {path}")
        await asyncio.sleep(TRAVEL)
        return answer

    # ------------------------------------------------------------------------------------------------ what the operator may

    def _write(self, method: str, path: str, sent: Body) -> Body:
        ref, sub = _parse(path)
        if ref.kind == "Event":
            self.state.version += 1
            return sent  # nobody here reads them
        if method == "POST":
            return self.create(sent)
        if method == "PATCH":
            return self._apply(ref, sent)
        held = self._get(ref)
        if method == "PUT" and sub == "status":
            for fence in ("uid", "resourceVersion"):
                _check(sent["metadata"][fence] == held["metadata"][fence], 409, f"{ref}: {fence} is not the newest")
            return self.put({**held, "status": sent["status"]})
        _check(sent["preconditions"]["uid"] == held["metadata"]["uid"], 409, f"{ref}: another uid")
        self.remove(ref)
        return {}

    def _apply(self, ref: Ref, sent: Body) -> Body:
        held, fences = self.state.objects.get(ref), {"uid", "resourceVersion"} & sent["metadata"].keys()
        if held is None:
            _check(not fences, 409, f"{ref} is gone")
            self.state.applied[ref] = _stated(sent)
            return self.create(sent)
        for fence in fences:
            _check(sent["metadata"][fence] == held["metadata"][fence], 409, f"{ref}: {fence} is not the newest")
        merged = _merge(held, sent, self.state.applied.get(ref, {}))
        self.state.applied[ref] = _stated(sent)
        return held if merged == held else self.put(merged)

    def _get(self, ref: Ref, _sub: str = "") -> Body:
        _check(ref in self.state.objects, 404, f"{ref} not found")
        return self.state.objects[ref]

    # ------------------------------------------------------------------------------------------------ what everybody may

    def create(self, body: Body) -> Body:
        """A new object."""
        ref, meta = Ref(body["kind"], body["metadata"]["name"]), body["metadata"]
        _check(ref not in self.state.objects, 409, f"{ref} exists")
        self.state.made[ref] += 1
        given = {"uid": f"{ref.kind}.{ref.name}.{self.state.made[ref]}", "creationTimestamp": f"{self._now():%Y-%m-%dT%H:%M:%SZ}"}
        return self.put({**body, "metadata": {**meta, "namespace": NAMESPACE, **given}})

    def put(self, body: Body) -> Body:
        """Another version of an object; another generation if its spec is another."""
        ref, meta = Ref(body["kind"], body["metadata"]["name"]), body["metadata"]
        held = self.state.objects.get(ref)
        generation = held["metadata"]["generation"] + (held.get("spec") != body.get("spec")) if held else 1
        self.state.version += 1
        made = {**body, "metadata": {**meta, "generation": generation, "resourceVersion": str(self.state.version)}}
        self.state.objects[ref], self.state.changed[ref] = made, self._now()
        if ref.kind == "ConfigMap" and ref.name.endswith("-routes"):
            self.state.routes += (json.loads(made["data"]["routes.json"]),)
        self._tell("put", made)
        return made

    def remove(self, ref: Ref) -> None:
        """It is gone at once, and what it owned a little later."""
        self.state.applied.pop(ref, None)
        body = self.state.objects.pop(ref)
        self.state.version += 1
        self._tell("remove", body)

    def _tell(self, what: str, body: Body) -> None:
        for watcher in self.watchers:
            watcher(what, body)


def _parse(path: str) -> tuple[Ref, str]:
    collection = next(c for c in COLLECTIONS if path == c or path.startswith(c + "/"))
    name, _, sub = path.removeprefix(collection).removeprefix("/").partition("/")
    return Ref(COLLECTIONS[collection], name), sub


def _check(holds: bool, status: int, message: str) -> None:
    if not holds:
        raise api_error(status, message.encode(), None, "simulated")


def _stated(sent: Body) -> Body:
    """What an apply states, without what only says which object it is about."""
    return {**sent, "metadata": {key: value for key, value in sent["metadata"].items() if key not in ("uid", "resourceVersion")}}


def _merge(held: Body, new: Body, before: Body) -> Body:
    """Server-side apply: what is stated holds, what is stated no more goes, what others have set stays."""
    result = {key: value for key, value in held.items() if key in new or key not in before}
    for key in held.keys() & before.keys() - new.keys():
        if isinstance(held[key], dict) and isinstance(before[key], dict) and (rest := _merge(held[key], {}, before[key])):
            result[key] = rest
    for key, value in new.items():
        nested = isinstance(value, dict) and isinstance(held.get(key), dict)
        result[key] = _merge(held[key], value, before.get(key) or {}) if nested else value
    return result
