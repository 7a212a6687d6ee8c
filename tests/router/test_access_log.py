from __future__ import annotations

import asyncio
import datetime as dt
import json
import re

from tests.router.harness import CANDIDATE, PATH, ROLLOUT, Model, Router, at, endpoints

Models = tuple[Model, Model]
FIELDS = {
    *("time", "requestId", "method", "path", "status", "flags", "durationMs", "user", "conversation", "message", "purpose"),
    *("experiment", "slice", "assignedArm", "answeredArm", "assignedGeneration", "answeredGeneration", "revision", "segment"),
}


async def test_every_field_of_the_contract_and_no_other(router: Router, models: Models) -> None:
    await router.apply(ROLLOUT, endpoints(models))
    sent = {"x-conversation-id": "c-1", "x-message-id": "m-1", "x-flywheel-purpose": "title"}
    _, got, _ = await router.ask("ann", sent, query="?key=secret")
    (line,) = await router.logged(1)
    assert set(line) == FIELDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert abs(dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(line["time"])) < dt.timedelta(seconds=30)
    assert line["requestId"] == got["x-request-id"]
    assert (line["method"], line["path"], line["status"], line["flags"]) == ("POST", PATH, 200, "-")
    assert isinstance(line["durationMs"], int)
    assert (line["user"], line["conversation"], line["message"], line["purpose"]) == ("ann", "c-1", "m-1", "title")
    assert (line["experiment"], line["revision"]) == (ROLLOUT.experiment, 2)


async def test_before_any_routes_requests_are_refused_and_logged(router: Router) -> None:
    status, got, _ = await router.ask("ann")
    (line,) = await router.logged(1)
    assert (status, line["status"], line["answeredArm"]) == (503, 503, None)
    assert "x-flywheel-generation" not in got


async def test_hostile_ids_are_bounded_and_stay_one_line_of_json(router: Router, models: Models) -> None:
    await router.apply(ROLLOUT, endpoints(models))
    hostile = '"}\t{"user": "x", \\' + "é" * 400
    await router.ask('quote"brace}', {"x-conversation-id": hostile, "x-message-id": "m" * 5000, "x-flywheel-purpose": "p" * 500})
    (line,) = await router.logged(1)
    assert set(line) == FIELDS
    assert line["user"] == 'quote"brace}'
    assert line["conversation"].startswith('"}\t{"user"')
    assert (len(line["message"]), len(line["purpose"])) == (256, 64)
    assert len(line["conversation"]) <= 256


async def test_invalid_utf8_does_not_break_the_log(router: Router, models: Models) -> None:
    await router.apply(ROLLOUT, endpoints(models))
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nx-user-id: \xff\xfe\r\nx-message-id: \xc3\x28\r\nconnection: close\r\n\r\n")
    await reader.read()
    writer.close()
    (line,) = await router.logged(1)
    assert (line["slice"], line["user"]) == ("none", None)


async def test_two_user_headers_are_one_sticky_user(router: Router, models: Models) -> None:
    await router.apply(at(50, 2), endpoints(models))
    for _ in range(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nx-user-id: ann\r\nx-user-id: bob\r\nconnection: close\r\n\r\n")
        await reader.read()
        writer.close()
    lines = await router.logged(5)
    assert {line["user"] for line in lines} == {"ann"}
    assert len({line["slice"] for line in lines}) == 1


async def test_huge_headers_are_refused(router: Router, models: Models) -> None:
    await router.apply(ROLLOUT, endpoints(models))
    status, _, _ = await router.ask("ann", {"x-message-id": "m" * 40_000})
    assert status == 431
    assert (await router.ask("ann"))[0] == 200


async def test_prometheus_port_shows_statistics_and_nothing_else(router: Router, models: Models) -> None:
    await router.apply(ROLLOUT, endpoints(models))
    base = f"http://127.0.0.1:{router.stats_port}"
    assert f'envoy_cluster_name="{CANDIDATE.service}"' in await router.get(f"{base}/stats/prometheus")
    for path in ("/", "/config_dump", "/stats", "/stats/prometheus/../../quitquitquit"):
        async with router.session.get(f"{base}{path}") as reply:
            assert reply.status == 404
    async with router.session.post(f"{base}/stats/prometheus") as reply:
        assert reply.status == 404
    assert json.loads(await router.get(f"{router.admin}/server_info"))["state"] == "LIVE"
