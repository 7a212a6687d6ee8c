"""Two whole laps, one that users want and one that they don't, in a namespace of their own; and what they leave behind."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

from dev.demo import kube
from tests.cluster.promises import objects, space
from tests.cluster.promises.conftest import Store
from tests.cluster.promises.space import Body, status
from tests.cluster.promises.users import Reply, crowd
from tests.differences import differences

WANTED, UNWANTED = "wanted", "unwanted"  # two Flywheels, each with one lap
ENDS = {WANTED: "Promoted", UNWANTED: "RolledBack"}
PATIENCE = 600  # seconds; two vLLMs start beside four trainers
QUIET = 30  # seconds in which nothing happens any more: longer than the lease of an operator that died lasts (15 s)
RATE = 5.0  # requests a second to each service
# Everything that the operator makes, by itself or through what it makes.
MADE = "generations,trainingruns,rewardmodels,rollouts,jobs,deployments,controllerrevisions,configmaps,services,serviceaccounts,roles,"
MADE += "rolebindings,poddisruptionbudgets"
RECORD = "modelflywheel.dev/record"
OURS = "app.kubernetes.io/managed-by=flywheel-operator"
HASH = re.compile(r"-[0-9a-f]{8,10}(?=-|$)")  # of the owner's UID, among other things


def lap_name(service: str) -> str:
    """The lap of a service."""
    return f"{service}-lap"


def lap(service: str, store: Store) -> Body:
    """Data, a reward model and a model; then the users. The two laps share no stage's inputs."""
    seed = 11 if service == WANTED else 12
    small: Body = {"seed": seed, "resources": objects.SMALL}
    steps: Body = {"maxSteps": 2, "batchSize": 4, "learningRate": 0.001, "maxLength": 64}
    turns = {"method": "Curate", "datasets": [objects.data("conversations", "promises-turns", store.turns)], **small}
    pairs = [objects.data(name, "promises-pairs", store.pairs) | {"subset": "preferences-reward"} for name in ("train", "eval")]
    # Long enough to be seen in training: whoever follows a dead operator waits for its lease first.
    longer = {**steps, "maxSteps": 600}
    reward = {"method": "Reward", "model": {"type": "Base"}, "datasets": pairs, "parameters": longer, **small}
    sft = {"method": "SFT", "model": {"type": "Base"}, "parameters": steps, **small}
    stages = [
        {"name": "curate", "run": turns},
        {"name": "reward", "rewardModel": {"training": reward, "validation": {"minimum": 0.0}}},
        {
            "name": "sft",
            "run": {**sft, "datasets": [objects.data("train", "promises-sft", store.sft)]},
            "dependsOn": ["curate", "reward"],
            "gates": [{"metric": "loss_last", "operator": "GreaterThan", "value": 0.0}],
        },
    ]
    # Every user of the better model writes four times, every other once: no number is doubtful once each has met some of the fifty users
    # that come by. Harm is found long before this window ends, success at the end of the other.
    window = "45s" if service == WANTED else "10m"
    rollout = {
        "traffic": {"steps": [{"weightPercent": 50}]},
        "metrics": [{"name": name, "role": "Success", "margin": 0.05} for name in ("breadth", "depth")],
        "analysis": {"interval": "1s", "window": window, "horizon": "6s", "minimumUsers": 10, "winsorCap": 6, "patience": "60s"},
        "watch": {"duration": "3s"},
    }
    spec = {"flywheel": service, "stages": stages, "rollout": rollout}
    return {"apiVersion": objects.API, "kind": "Generation", "metadata": {"name": lap_name(service)}, "spec": spec}


def serve(namespace: str, store: Store) -> None:
    """Ask for both services, and wait for their champions."""
    for service in ENDS:
        space.apply(objects.flywheel(store.base, service), namespace=namespace)
    for service in ENDS:
        space.watch("flywheel", service, space.phase("Serving"), timeout=PATIENCE, namespace=namespace)


def run(namespace: str, store: Store) -> list[Reply]:
    """Both laps from their beginning to their verdicts, at the same time; what users were told."""
    for service in ENDS:
        space.apply(lap(service, store), namespace=namespace)
    with ExitStack() as stack:
        crowds = []
        for service in ENDS:
            _meets_users(service, namespace)
            better = lap_name(service) if service == WANTED else f"{service}-initial"
            crowds.append(stack.enter_context(crowd(favourite=better, rate=RATE, service=service, namespace=namespace)))
        for service in ENDS:
            ended = ("Promoted", "RolledBack", "Inconclusive", "Rejected", "Held", "Failed")
            space.watch("generation", lap_name(service), space.phase(*ended), timeout=PATIENCE, namespace=namespace)
    return [reply for users in crowds for reply in users.replies]


def _meets_users(service: str, namespace: str) -> None:
    """Wait until half of the users may meet the lap's model."""
    body = space.watch(
        "generation", lap_name(service), lambda b: bool(status(b).get("rollout")) or _over(b), timeout=PATIENCE, namespace=namespace
    ).last
    assert status(body).get("rollout"), f"{lap_name(service)} ended without users: {status(body).get('decision')}"
    asked = space.watch(
        "rollout",
        status(body)["rollout"],
        lambda b: (status(b).get("weights") or {}).get("acknowledged") == 50 or _over(b),
        timeout=PATIENCE,
        namespace=namespace,
    ).last
    assert not _over(asked), f"the Rollout of {lap_name(service)} ended without users: {status(asked).get('decision')}"


def _over(body: Body) -> bool:
    return bool(status(body).get("decision"))


# -------------------------------------------------------------------------------------------------------- what is left of them


def settled(namespace: str) -> bool:
    """Whether laps and Rollouts are over and the services are as they will stay."""
    items = _items("generations,rollouts,flywheels", namespace)
    phases = {(b["kind"], b["metadata"]["name"].split("-")[0]): status(b).get("phase") for b in items}
    wanted = {(kind, service): end for service, end in ENDS.items() for kind in ("Generation", "Rollout")}
    champions = {b["metadata"]["name"]: (status(b).get("champion") or {}).get("generation") for b in items if b["kind"] == "Flywheel"}
    serving = all(phases.get(("Flywheel", service)) == "Serving" for service in ENDS)
    recorded = all(space.condition(b, "Recorded").get("status") == "True" for b in items if b["kind"] == "Generation")
    ended = recorded and phases.items() >= wanted.items()
    return serving and ended and champions == {WANTED: lap_name(WANTED), UNWANTED: f"{UNWANTED}-initial"}


def outcome_at_rest(namespace: str) -> dict[str, Any]:
    """The outcome once it stays the same: arms that nobody needs go some seconds later."""
    before, now, deadline = None, outcome(namespace), time.monotonic() + PATIENCE
    while before != now:
        assert time.monotonic() < deadline, list(differences(before, now))
        time.sleep(QUIET)
        before, now = now, outcome(namespace)
    return now


def outcome(namespace: str) -> dict[str, Any]:
    """Everything that both laps have left behind, but for when it happened, and for names that hold an owner's UID."""
    kept = {f"{body['kind']} {plain(body['metadata']['name'])}": _end(body) for body in _items(f"{kube.KINDS}", namespace)}
    made = Counter(f"{body['kind']} {plain(body['metadata']['name'])}" for body in _items(MADE, namespace, "-l", OURS))
    routes = {
        plain(b["metadata"]["name"]): _routes(b) for b in _items("configmaps", namespace, "-l", OURS) if "routes.json" in b.get("data", {})
    }
    arms = {plain(b["metadata"]["name"]): b["spec"]["replicas"] for b in _items("deployments", namespace, "-l", OURS)}
    return {"objects": kept, "made": dict(made), "routes": routes, "replicas": arms}


def on_any_machine(found: dict[str, Any]) -> dict[str, Any]:
    """An outcome without digests: weights of a model differ in their last bits from processor to processor."""
    text = re.sub(r"sha256:[0-9a-f]{64}", "sha256:#", json.dumps(found, sort_keys=True))
    plain_one: dict[str, Any] = json.loads(text)
    return plain_one


def restarts(namespace: str) -> dict[str, int]:
    """How often containers of pods that serve have ended."""
    pods = _items("pods", namespace, "-l", "modelflywheel.dev/component in (vllm,router,collector)")
    states = {
        b["metadata"]["name"]: [*(status(b).get("containerStatuses") or ()), *(status(b).get("initContainerStatuses") or ())] for b in pods
    }
    return {name: count for name, containers in states.items() if (count := sum(c["restartCount"] for c in containers))}


def plain(name: str) -> str:
    """A name without the hashes in it."""
    return HASH.sub("-#", name)


def _items(kinds: str, namespace: str, *selector: str) -> list[Body]:
    items: list[Body] = json.loads(space.kubectl("get", kinds, *selector, "-o", "json", namespace=namespace))["items"]
    return items


def _end(body: Body) -> Body:
    """How an object ended: phases, decisions, artifacts, attempts; no times and no numbers that the clock makes."""
    told, decision = status(body), status(body).get("decision") or {}
    end: Body = {
        "phase": told.get("phase"),
        "decision": [decision.get("verdict"), decision.get("reason")],
        "conditions": {c["type"]: [c["status"], c.get("reason")] for c in told.get("conditions") or ()},
        "artifact": "a record" if RECORD in (body["metadata"].get("labels") or {}) else _made(told),
        "stages": {
            s["name"]: [s["phase"], (s.get("artifact") or {}).get("digest"), plain(s.get("child") or "")] for s in told.get("stages") or ()
        },
        "attempts": [[a["number"], a.get("reason"), a.get("counted")] for a in told.get("attempts") or ()],
        "history": [h["event"] for h in told.get("history") or ()],
        "weights": {key: value for key, value in (told.get("weights") or {}).items() if key != "revision"},  # which is a time
        "champion": {key: value for key, value in (told.get("champion") or {}).items() if key in ("generation", "digest")},
        "previous": [p["generation"] for p in told.get("previous") or ()],
        "laps": told.get("laps"),
    }
    return {key: value for key, value in end.items() if value not in (None, {}, [], [None, None])}


def _made(told: Body) -> str | None:
    """The digest of what was made. Not of a record: it holds names, uids and times."""
    digest: str | None = (told.get("artifact") or told.get("model") or {}).get("digest")
    return digest


def _routes(body: Body) -> Body:
    words = json.loads(body["data"]["routes.json"])
    return {
        key: plain(value["arm"]) if isinstance(value, dict) and "arm" in value else None
        for key, value in words.items()
        if key in ("stable", "candidate")
    } | {"weightPercent": words["weightPercent"]}
