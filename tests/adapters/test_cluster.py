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
    with pytest.raises(NameConflict, match="belongs to them"):
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
