from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client.configuration import Configuration

from flywheel.adapters.cluster import KubernetesCluster
from flywheel.adapters.kube_api import KubeApi
from flywheel.plan.base import LABEL, MANAGED_BY
from flywheel.ports import ClusterError, Conflict, NameConflict

OWNER = {"apiVersion": "modelflywheel.dev/v1alpha1", "kind": "TrainingRun", "name": "run", "uid": "me", "controller": True}
JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "j", "namespace": "demo", "uid": "u", "ownerReferences": [OWNER]},
}
ROLLOUT: dict[str, Any] = {
    "apiVersion": "modelflywheel.dev/v1alpha1",
    "kind": "Rollout",
    "metadata": {"name": "r", "namespace": "demo", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"}},
    "spec": {"x": 1},
    "status": {"phase": "Pending", "step": 1},
}


class Server:
    """An API server that answers what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any, dict[str, str]]] = {}
        self.requests: list[tuple[str, str, dict[str, str], str, Any]] = []
        self.at_once = self.most_at_once = 0
        self.delay = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        text = await request.text()
        body = json.loads(text) if text else None
        self.requests.append((request.method, request.path, dict(request.query), request.headers.get("Content-Type", ""), body))
        await asyncio.sleep(self.delay)
        self.at_once -= 1
        status, answer, headers = self.answers.get(request.method, (200, body or {}, {}))
        return web.json_response(answer, status=status, headers=headers)


Given = tuple[Server, KubernetesCluster]


@pytest.fixture
async def server() -> AsyncIterator[Given]:
    told, app = Server(), web.Application()
    app.router.add_route("*", "/{path:.*}", told.answer)
    async with TestServer(app) as http:
        api = KubeApi(Configuration(host=str(http.make_url("")).rstrip("/")), max_requests=4)
        yield told, KubernetesCluster(api)
        await api.close()


def failure(status: int, message: str = "said no") -> tuple[int, Any, dict[str, str]]:
    return status, {"kind": "Status", "message": message, "code": status}, {}


async def test_apply_is_server_side_with_our_field_manager_and_force(server: Given) -> None:
    told, cluster = server
    await cluster.apply(JOB)
    method, path, query, content_type, body = told.requests[0]
    assert (method, path) == ("PATCH", "/apis/batch/v1/namespaces/demo/jobs/j")
    assert query == {"fieldManager": "flywheel-operator", "force": "true"}
    assert content_type == "application/apply-patch+yaml"
    assert body == JOB


# ------------------------------------------------------------------------------------------ the first apply looks whose it is

OURS: dict[str, Any] = {"name": "x-router", "namespace": "demo", "labels": MANAGED_BY | {LABEL + "flywheel": "x"}}
SERVICE: dict[str, Any] = {"apiVersion": "v1", "kind": "Service", "metadata": OURS, "spec": {"ports": [{"port": 80}]}}
NAMED = {"name": "x-router", "namespace": "demo"}
RUN: dict[str, Any] = {**ROLLOUT, "kind": "TrainingRun", "metadata": {**OURS, "ownerReferences": [OWNER]}}


def held(manifest: dict[str, Any], uid: str = "u1", **metadata: Any) -> tuple[int, Any, dict[str, str]]:
    """The answer with an object of that manifest as the server holds it."""
    return 200, {**manifest, "metadata": {**manifest["metadata"], "uid": uid, **metadata}}, {}


def asked(told: Server) -> list[tuple[str, str | None, str | None]]:
    """Method, force and fenced uid of each request."""
    return [(method, query.get("force"), (body or {}).get("metadata", {}).get("uid")) for method, _, query, _, body in told.requests]


async def test_what_does_not_exist_is_applied_without_force_so_that_a_name_taken_at_that_moment_stays_its_makers(server: Given) -> None:
    told, cluster = server
    told.answers = {"GET": failure(404), "PATCH": held(SERVICE)}
    await cluster.apply(SERVICE)
    assert asked(told) == [("GET", None, None), ("PATCH", "false", None)]
    assert told.requests[1][4] == SERVICE


async def test_what_is_ours_is_looked_at_once_and_then_applied_by_its_uid(server: Given) -> None:
    told, cluster = server
    told.answers = {"GET": held(SERVICE), "PATCH": held(SERVICE)}
    await cluster.apply(SERVICE)
    await cluster.apply(SERVICE)
    assert asked(told) == [("GET", None, None), ("PATCH", "true", "u1"), ("PATCH", "true", "u1")]
    assert "uid" not in OURS


async def test_what_we_have_made_needs_no_further_look(server: Given) -> None:
    told, cluster = server
    told.answers = {"GET": failure(404), "PATCH": held(SERVICE)}
    await cluster.apply(SERVICE)
    await cluster.apply(SERVICE)
    assert asked(told)[2:] == [("PATCH", "true", "u1")]


@pytest.mark.parametrize("status", [409, 422])  # the server's words for "no such uid": none of that name, another of that name
async def test_an_object_that_took_the_place_of_ours_is_looked_at_anew(server: Given, status: int) -> None:
    told, cluster = server
    told.answers = {"GET": held(SERVICE), "PATCH": held(SERVICE)}
    await cluster.apply(SERVICE)
    told.requests.clear()
    told.answers = {"GET": held({**SERVICE, "metadata": NAMED}, "u2"), "PATCH": failure(status)}
    with pytest.raises(NameConflict):
        await cluster.apply(SERVICE)
    assert asked(told) == [("PATCH", "true", "u1"), ("GET", None, None)]


@pytest.mark.parametrize("key", ["uid", "resourceVersion"])
async def test_an_apply_that_says_which_object_it_means_needs_no_look(server: Given, key: str) -> None:
    told, cluster = server
    await cluster.apply({**SERVICE, "metadata": {**OURS, key: "7"}})
    assert [method for method, *_ in asked(told)] == ["PATCH"]


@pytest.mark.parametrize(
    ("metadata", "whose"),
    [
        ({}, "nobody"),
        ({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, "nobody (managed by Helm)"),
        ({"labels": {LABEL + "flywheel": "x"}}, "nobody"),
        ({"labels": MANAGED_BY | {LABEL + "flywheel": "y"}}, "model service y"),
        ({"ownerReferences": [{**OWNER, "kind": "Web", "name": "shop", "uid": "them"}]}, "Web shop (uid them)"),
    ],
)
async def test_a_foreign_object_of_the_same_name_is_never_taken_over(server: Given, metadata: dict[str, Any], whose: str) -> None:
    told, cluster = server
    told.answers["GET"] = held({**SERVICE, "metadata": NAMED | metadata})
    with pytest.raises(NameConflict) as caught:
        await cluster.apply(SERVICE)
    assert str(caught.value) == (
        f"Service x-router exists and belongs to {whose}, not to model service x; "
        "delete or rename it, or choose another name for what needs it"
    )
    assert caught.value.retryable
    assert [method for method, *_ in asked(told)] == ["GET"]


async def test_what_our_owner_controls_is_ours_whatever_its_labels(server: Given) -> None:
    told, cluster = server
    manifest = {**SERVICE, "metadata": {**OURS, "ownerReferences": [OWNER]}}
    told.answers = {"GET": held({**SERVICE, "metadata": {**NAMED, "ownerReferences": [OWNER]}})}
    await cluster.apply(manifest)
    assert asked(told)[1:] == [("PATCH", "true", "u1")]


@pytest.mark.parametrize("owners", [[], [{**OWNER, "uid": "them"}]])
async def test_a_child_of_our_own_kinds_is_ours_by_its_owner_alone_for_people_may_make_and_label_them(
    server: Given, owners: list[dict[str, Any]]
) -> None:
    told, cluster = server
    told.answers["GET"] = held({**RUN, "metadata": {**OURS, "ownerReferences": owners}})
    with pytest.raises(NameConflict, match=r"TrainingRun x-router exists and belongs to .*, not to TrainingRun run \(uid me\)"):
        await cluster.apply(RUN)
    told.answers["GET"] = held(RUN)
    await cluster.apply(RUN)
    assert asked(told)[-1] == ("PATCH", "true", "u1")


async def test_a_look_that_fails_writes_nothing(server: Given) -> None:
    told, cluster = server
    told.answers["GET"] = failure(403)
    with pytest.raises(ClusterError) as caught:
        await cluster.apply(SERVICE)
    assert (caught.value.status, [method for method, *_ in asked(told)]) == (403, ["GET"])


async def test_only_so_many_objects_are_remembered(server: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    told, cluster = server
    monkeypatch.setattr("flywheel.adapters.cluster._REMEMBERED", 2)
    told.answers = {"GET": failure(404), "PATCH": held(SERVICE)}
    names = ["a", "b", "a", "c", "a", "b"]
    for name in names:  # b is the one that was used longest ago when c comes
        await cluster.apply({**SERVICE, "metadata": {**OURS, "name": name}})
    assert [path[-1] for method, path, *_ in told.requests if method == "GET"] == ["a", "b", "c", "b"]


async def test_status_is_replaced_as_a_whole_under_the_version_that_was_read(server: Given) -> None:
    told, cluster = server
    await cluster.patch_status(ROLLOUT, {"phase": "Preparing"})
    method, path, _, _, body = told.requests[0]
    assert (method, path) == ("PUT", "/apis/modelflywheel.dev/v1alpha1/namespaces/demo/rollouts/r/status")
    assert body["status"] == {"phase": "Preparing"}
    assert body["metadata"]["resourceVersion"] == "7"
    assert body["metadata"]["uid"] == "u"


async def test_a_status_that_was_written_in_between_is_a_conflict(server: Given) -> None:
    told, cluster = server
    told.answers["PUT"] = failure(409)
    with pytest.raises(Conflict):
        await cluster.patch_status(ROLLOUT, {})


async def test_creating_what_an_earlier_try_has_made_returns_it(server: Given) -> None:
    told, cluster = server
    told.answers = {"POST": failure(409), "GET": (200, JOB | {"status": {"active": 1}}, {})}
    assert (await cluster.create(JOB))["status"] == {"active": 1}


async def test_creating_over_another_owners_object_is_a_name_conflict_and_changes_nothing(server: Given) -> None:
    told, cluster = server
    foreign = {**JOB, "metadata": {**JOB["metadata"], "ownerReferences": [{**OWNER, "uid": "them"}]}}
    told.answers = {"POST": failure(409), "GET": (200, foreign, {})}
    with pytest.raises(NameConflict, match=r"belongs to TrainingRun run \(uid them\)"):
        await cluster.create(JOB)
    assert {r[0] for r in told.requests} == {"POST", "GET"}


async def test_creating_over_an_object_of_nobody_is_a_name_conflict_too(server: Given) -> None:
    told, cluster = server
    foreign = {**JOB, "metadata": {"name": "j", "namespace": "demo"}}
    told.answers = {"POST": failure(409), "GET": (200, foreign, {})}
    with pytest.raises(NameConflict, match="nobody"):
        await cluster.create(JOB)


async def test_what_outlives_its_maker_is_taken_up_by_its_own_model_service_only(server: Given) -> None:
    told, cluster = server
    mine, theirs = ({**JOB, "metadata": {"name": "j", "namespace": "demo", "labels": MANAGED_BY | {LABEL + "flywheel": f}}} for f in "ab")
    told.answers = {"POST": failure(409), "GET": (200, mine | {"status": {"active": 1}}, {})}
    assert (await cluster.create(mine))["status"] == {"active": 1}
    told.answers["GET"] = (200, theirs, {})
    with pytest.raises(NameConflict, match="belongs to model service b, not to model service a"):
        await cluster.create(mine)
    told.answers["GET"] = (200, {**JOB, "metadata": {"name": "j", "namespace": "demo"}}, {})
    with pytest.raises(NameConflict, match="belongs to nobody"):
        await cluster.create(mine)


@pytest.mark.parametrize("status", [404, 409])
async def test_deleting_what_is_gone_or_has_been_replaced_is_success(server: Given, status: int) -> None:
    told, cluster = server
    told.answers["DELETE"] = failure(status)
    await cluster.delete("batch/v1", "Job", "demo", "j", "u")
    assert told.requests[0][4]["preconditions"] == {"uid": "u"}
    assert told.requests[0][4]["propagationPolicy"] == "Background"


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        (400, False),
        (401, True),
        (403, False),
        (404, False),
        (408, True),
        (409, True),
        (422, False),
        (429, True),
        (500, True),
        (503, True),
        (504, True),
    ],
)
async def test_errors_say_whether_a_retry_can_help(server: Given, status: int, retryable: bool) -> None:
    told, cluster = server
    told.answers["PATCH"] = failure(status, "why not")
    with pytest.raises(ClusterError, match="why not") as caught:
        await cluster.apply(JOB)
    assert (caught.value.status, caught.value.retryable) == (status, retryable)


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("100000", 300.0), ("soon", None), ("-3", 0.0)])
async def test_the_server_may_say_when_to_come_back(server: Given, header: str, seconds: float | None) -> None:
    told, cluster = server
    told.answers["PATCH"] = (429, {"message": "busy"}, {"Retry-After": header})
    with pytest.raises(ClusterError) as caught:
        await cluster.apply(JOB)
    assert caught.value.retry_after == seconds


async def test_an_answer_that_is_not_json_is_retryable(server: Given) -> None:
    told, cluster = server
    told.answers["PATCH"] = (200, "text", {})
    with pytest.raises(ClusterError) as caught:
        await cluster.apply(JOB)
    assert caught.value.retryable


async def test_a_server_that_is_not_there_is_retryable() -> None:
    api = KubeApi(Configuration(host="http://127.0.0.1:9"))
    with pytest.raises(ClusterError) as caught:
        await KubernetesCluster(api).apply(JOB)
    assert (caught.value.status, caught.value.retryable) == (0, True)
    await api.close()


async def test_a_kind_the_operator_never_makes_is_refused_before_it_is_asked_for(server: Given) -> None:
    told, cluster = server
    with pytest.raises(ClusterError, match="Widget"):
        await cluster.apply({**JOB, "kind": "Widget"})
    assert told.requests == []


async def test_only_so_many_requests_run_at_once(server: Given) -> None:
    told, cluster = server
    told.delay = 0.02
    await asyncio.gather(*(cluster.apply(JOB) for _ in range(20)))
    assert told.most_at_once == 4


async def test_an_event_is_recorded_once_however_often_it_is_said(server: Given) -> None:
    told, cluster = server
    for _ in range(3):
        await cluster.emit(ROLLOUT, "Warning", "Held", "too good")
    await cluster.emit(ROLLOUT, "Warning", "Held", "another reason")
    assert [r[4]["message"] for r in told.requests] == ["too good", "another reason"]
    assert told.requests[0][4]["involvedObject"]["uid"] == "u"


async def test_an_event_that_can_not_be_recorded_is_no_error(server: Given) -> None:
    told, cluster = server
    told.answers["POST"] = failure(403)
    await cluster.emit(ROLLOUT, "Normal", "Promoted", "better")
    assert [r[4]["message"] for r in told.requests] == ["better"]  # it was tried


async def test_a_watch_line_longer_than_any_buffer_is_read() -> None:
    long = {"type": "ADDED", "object": {"metadata": {"name": "big"}, "data": "x" * 6_000_000}}

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        text = json.dumps(long).encode() + b"\n" + json.dumps({"type": "BOOKMARK", "object": {}}).encode() + b"\n"
        for start in range(0, len(text), 100_000):
            await response.write(text[start : start + 100_000])
        return response

    app = web.Application()
    app.router.add_get("/watch", stream)
    async with TestServer(app) as http:
        api = KubeApi(Configuration(host=str(http.make_url("")).rstrip("/")))
        async with api.stream("/watch", query=[], seconds=10) as events:
            seen = [event["type"] async for event in events]
        await api.close()
    assert seen == ["ADDED", "BOOKMARK"]


async def test_a_watch_that_is_refused_says_so() -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.json_response({"message": "too old"}, status=410)

    app = web.Application()
    app.router.add_get("/watch", refuse)
    async with TestServer(app) as http:
        api = KubeApi(Configuration(host=str(http.make_url("")).rstrip("/")))
        with pytest.raises(ClusterError) as caught:
            async with api.stream("/watch", query=[], seconds=10):
                pass
        await api.close()
    assert caught.value.status == 410
