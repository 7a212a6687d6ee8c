"""The whole simulator against a stand-in for router and collector, for two seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from dev.simulator.__main__ import parse, simulate
from dev.simulator.targets import LocalResolver, Refused, check_url


@pytest.mark.parametrize(
    "url",
    ["http://8.8.8.8:80", "http://192.168.1.1", "http://10.0.0.1", "http://169.254.169.254", "https://127.0.0.1", "http://user@127.0.0.1",
     "http://127.0.0.1/path", "ftp://127.0.0.1", "nonsense", "http://[2001:db8::1]:80"],
)  # fmt: skip
def test_addresses_outside_this_machine_and_the_local_cluster_are_refused(url: str) -> None:
    with pytest.raises(Refused):
        check_url(url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "http://[::1]:8080", "http://10.244.0.7:8080/", "http://10.96.3.4", "http://demo-router"]
)
def test_local_addresses_are_taken(url: str) -> None:
    assert check_url(url) == url.rstrip("/")


async def test_a_name_is_checked_when_it_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = LocalResolver()

    async def resolve(*_: Any) -> list[dict[str, Any]]:
        return [{"host": "93.184.216.34"}]

    monkeypatch.setattr(resolver._resolver, "resolve", resolve)
    with pytest.raises(Refused):
        await resolver.resolve("example.org", 80)


async def test_users_chat_and_report_as_an_app_would(tmp_path: Path) -> None:
    chats: list[tuple[dict[str, str], dict[str, Any]]] = []
    posted: list[dict[str, Any]] = []

    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        chats.append((dict(request.headers), body))
        if len(chats) % 10 == 0:
            return web.Response(status=503)
        topic = body["messages"][-1]["content"].split()[-1].strip("?.")
        answer = {"choices": [{"message": {"role": "assistant", "content": f"I love {topic}! What do you like about it?"}}]}
        return web.json_response(answer, headers={"x-flywheel-generation": "g1" if len(chats) > 5 else "initial"})

    async def events(request: web.Request) -> web.Response:
        taken = (await request.json())["events"]
        posted.extend(taken)
        return web.json_response({"accepted": len(taken), "duplicate": 0, "rejected": []})

    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", chat), web.post("/v1/events", events)])
    async with TestServer(app) as server:
        url, out = f"http://127.0.0.1:{server.port}", tmp_path / "out.jsonl"
        arguments = ["--router", url, "--events", url, "--model", "m", "--rate", "40", "--duration", "2", "--seed", "3", "--quiet"]
        assert await simulate(parse([*arguments, "--json-out", str(out)])) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    summary = records[-1]
    failed = sum(record["type"] == "failure" for record in records)
    assert summary["type"] == "summary"
    assert summary["turns"] + summary["failed"] == len(chats)
    assert len(chats) >= 10, "too few to tell anything"
    assert summary.get("failures", {}) == ({"http_503": failed} if failed else {})
    assert failed == len(chats) // 10
    assert {record["generation"] for record in records if record["type"] == "generation"} == {"initial", "g1"}
    for record in (record for record in records if record["type"] == "generation"):
        assert record["first_sent"] <= record["first_reply"] <= record["last_reply"]
    turns = [event for event in posted if event["type"] == "turn"]
    assert len(turns) == summary["turns"]
    assert all(event["messages"][-1]["role"] == "user" and event["response"] for event in turns)
    ids = [headers["x-message-id"] for headers, _ in chats]
    assert len(ids) == len(set(ids))
    assert all({"x-user-id", "x-conversation-id"} <= set(headers) and body["max_tokens"] == 32 for headers, body in chats)
    assert not any("generation" in json.dumps(body) for _, body in chats)
    assert not any("generation" in json.dumps(event) for event in posted)
