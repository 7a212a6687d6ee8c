"""A vLLM Deployment that somebody runs becomes the first champion as it is, and is its owner's again when users have chosen another."""

from __future__ import annotations

import copy
from typing import Any

from tests.plan.rollout_world import BETTER, EQUAL, evidence
from tests.runtime import faketime
from tests.runtime.simulated_api import Body, Ref
from tests.runtime.simulated_cluster import SimulatedCluster, rendered_once
from tests.runtime.test_killed_anywhere import FLYWHEEL

THEIRS = Ref("Deployment", "llama")
LABELS = {"app": "llama"}


def deploy(cluster: SimulatedCluster, **spec: Any) -> Body:
    """What the user runs: two pods of his own that listen on 8001."""
    containers = [{"name": "server", "ports": [{"containerPort": 8001}]}]
    given = {
        "replicas": 2,
        "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, "spec": {"containers": containers}},
        **spec,
    }
    cluster.listens = {8001: ("demo",)}
    meta = {"name": "llama", "labels": {"team": "chat"}}
    return copy.deepcopy(cluster.api.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": given}))


def adopting(**adopt: Any) -> Body:
    return {**FLYWHEEL, "adopt": {"deployment": "llama", "port": 8001, **adopt}}


def condition(cluster: SimulatedCluster, type_: str) -> Body:
    found: list[Body] = [c for c in cluster.state.every("Flywheel")[0]["status"]["conditions"] if c["type"] == type_]
    return found[0] if found else {}


def untouched(cluster: SimulatedCluster, before: Body) -> None:
    """The Deployment is as its owner has made it, but for its status."""
    now = cluster.state.objects[THEIRS]
    assert now["spec"] == before["spec"]
    assert {field: now["metadata"].get(field) for field in before["metadata"] if field != "resourceVersion"} == {
        field: value for field, value in before["metadata"].items() if field != "resourceVersion"
    }
    assert "ownerReferences" not in now["metadata"]


def edit(cluster: SimulatedCluster, **spec: Any) -> None:
    body = cluster.state.every("Flywheel")[0]
    cluster.api.put({**body, "spec": {**body["spec"], **spec}})


def vllm(cluster: SimulatedCluster) -> list[str]:
    """Arms that the operator runs."""
    ours = [b for b in cluster.state.every("Deployment") if b["metadata"]["labels"].get("modelflywheel.dev/component") == "vllm"]
    return [b["metadata"]["name"] for b in ours]


def test_users_are_sent_to_an_adopted_deployment_that_stays_as_it_is_until_it_is_replaced_and_afterwards_too() -> None:
    async def story() -> None:
        cluster = SimulatedCluster()
        theirs = deploy(cluster)
        cluster.kept = lambda: 0.0
        cluster.make("Flywheel", "demo", adopting())
        async with cluster.operator() as operator:
            await cluster.live(12)
            champion = cluster.state.every("Flywheel")[0]["status"]["champion"]
            arm = champion["arm"]
            assert champion["adopted"] == {"deployment": "llama", "port": 8001}
            assert (champion["digest"], condition(cluster, "Adopted")["status"]) == (FLYWHEEL["base"]["digest"], "True")
            assert cluster.state.routes[-1]["stable"] == {"arm": arm, "generation": "demo-initial", "service": arm, "port": 8000}
            service = cluster.state.objects[Ref("Service", arm)]
            assert (service["spec"]["selector"], service["spec"]["ports"][0]["targetPort"]) == (LABELS, 8001)
            assert cluster.state.every("Flywheel")[0]["status"]["phase"] == "Serving"
            assert vllm(cluster) == []
            written = cluster.state.version
            cluster.api.remove(Ref("Service", arm))  # by somebody's hand
            await cluster.live(12)
            assert cluster.state.objects[Ref("Service", arm)]["spec"] == service["spec"]
            assert cluster.state.version > written

            cluster.kept, cluster.answer = lambda: 60.0, lambda experiment: evidence(EQUAL, BETTER)
            parked = False
            for _ in range(200):
                await cluster.live(0.5)
                status = cluster.state.every("Flywheel")[0]["status"]
                parked = parked or condition(cluster, "Adopted").get("reason") == "Watching"
                if status["champion"]["generation"] == "demo-1" and condition(cluster, "Adopted")["reason"] == "Released":
                    break
            assert parked
            assert "no user is sent to Deployment llama any more" in condition(cluster, "Adopted")["message"]
            await cluster.live(5)
            untouched(cluster, theirs)
            assert {ref.name for ref in cluster.state.objects if ref.kind == "ControllerRevision"} & {arm} == set()
            assert Ref("Service", arm) not in cluster.state.objects
            assert operator.errors == []

    with rendered_once():
        faketime.run(story())


def test_what_keeps_users_from_an_adopted_deployment_is_said_with_its_mend_and_goes_on_by_itself_when_mended() -> None:
    async def story() -> None:
        cluster = SimulatedCluster()
        cluster.kept = lambda: 0.0
        cluster.make("Flywheel", "demo", adopting(port=9))

        async def says(reason: str, words: str) -> None:
            await cluster.live(14)
            for type_ in ("Adopted", "Ready"):
                said = condition(cluster, type_)
                assert (said["status"], said["reason"]) == ("False", reason), said
                assert words in said["message"]
            assert cluster.state.routes == ()

        async with cluster.operator() as operator:
            await says("ReferenceNotFound", "Deployment llama does not exist; create it, or correct spec.adopt.deployment")
            cluster.serves = lambda pod: "llama" not in pod["metadata"]["name"]
            theirs = deploy(cluster)
            await says("NotReady", "0 of 2 pods of the adopted Deployment llama are ready")
            cluster.serves = lambda pod: True
            await says("NotReady", "correct spec.adopt.port (its containers declare 8001), or let the operator reach its pods")
            edit(cluster, adopt={"deployment": "llama", "port": 8001})
            cluster.listens = {8001: ("org/Llama-8B",)}
            await says("InvalidSpec", "answers to org/Llama-8B, but candidates would answer to demo")
            edit(cluster, serving={"modelName": "org/Llama-8B"})
            await cluster.live(14)
            assert condition(cluster, "Adopted")["status"] == "True"
            assert len(cluster.state.routes) == 1
            assert vllm(cluster) == []
            untouched(cluster, theirs)
            assert operator.errors == []

    with rendered_once():
        faketime.run(story())


def test_a_flywheel_that_is_made_again_without_the_word_adopt_goes_on_with_the_adopted_deployment() -> None:
    async def story() -> None:
        cluster = SimulatedCluster()
        theirs = deploy(cluster)
        cluster.kept = lambda: 0.0
        cluster.make("Flywheel", "demo", adopting())
        async with cluster.operator():
            await cluster.live(12)
            stable = cluster.state.routes[-1]
            cluster.api.remove(Ref("Flywheel", "demo"))
            await cluster.live(5)
            assert Ref("Service", stable["stable"]["service"]) in cluster.state.objects
            cluster.make("Flywheel", "demo", FLYWHEEL)
            await cluster.live(12)
            status = cluster.state.every("Flywheel")[0]["status"]
            assert status["champion"]["adopted"] == {"deployment": "llama", "port": 8001}
            assert (cluster.state.routes[-1], vllm(cluster), status["phase"]) == (stable, [], "Serving")
            untouched(cluster, theirs)

    with rendered_once():
        faketime.run(story())


def test_under_delete_the_service_goes_with_the_flywheel_and_the_deployment_stays() -> None:
    async def story() -> None:
        cluster = SimulatedCluster()
        theirs = deploy(cluster)
        cluster.kept = lambda: 0.0
        cluster.make("Flywheel", "demo", {**adopting(), "deletionPolicy": "Delete"})
        async with cluster.operator():
            await cluster.live(12)
            arm = cluster.state.routes[-1]["stable"]["service"]
            cluster.api.remove(Ref("Flywheel", "demo"))
            await cluster.live(5)
            assert Ref("Service", arm) not in cluster.state.objects
            untouched(cluster, theirs)

    with rendered_once():
        faketime.run(story())


def test_adopt_is_without_effect_once_there_is_a_champion_and_that_is_said() -> None:
    async def story() -> None:
        cluster = SimulatedCluster()
        deploy(cluster)
        cluster.kept = lambda: 0.0
        cluster.make("Flywheel", "demo", FLYWHEEL)
        async with cluster.operator():
            await cluster.live(12)
            served = cluster.state.routes
            edit(cluster, adopt={"deployment": "llama", "port": 8001})
            await cluster.live(12)
            assert cluster.state.routes == served
            said = condition(cluster, "Adopted")
            assert (said["status"], said["reason"]) == ("False", "InvalidSpec")
            assert "demo-initial is champion already; remove spec.adopt" in said["message"]
            edit(cluster, adopt=None)
            await cluster.live(12)
            assert condition(cluster, "Adopted") == {}

    with rendered_once():
        faketime.run(story())


def test_an_adopted_deployment_that_goes_away_later_is_named_and_users_keep_their_routes() -> None:
    async def story() -> None:
        cluster = SimulatedCluster()
        deploy(cluster)
        cluster.kept = lambda: 0.0
        cluster.make("Flywheel", "demo", adopting())
        async with cluster.operator():
            await cluster.live(12)
            served = cluster.state.routes
            cluster.api.remove(THEIRS)
            await cluster.live(14)
            status = cluster.state.every("Flywheel")[0]["status"]
            assert (status["phase"], condition(cluster, "Ready")["reason"]) == ("Degraded", "ReferenceNotFound")
            assert cluster.state.routes == served
            deploy(cluster, selector={"matchLabels": {"app": "other"}}, template={"metadata": {"labels": {"app": "other"}}, "spec": {}})
            await cluster.live(14)
            arm = served[-1]["stable"]["service"]
            assert cluster.state.objects[Ref("Service", arm)]["spec"]["selector"] == {"app": "other"}
            assert cluster.state.every("Flywheel")[0]["status"]["phase"] == "Serving"

    with rendered_once():
        faketime.run(story())
