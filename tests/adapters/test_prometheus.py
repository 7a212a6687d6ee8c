from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from flywheel.adapters import prometheus, prometheus_shared
from flywheel.adapters.prometheus import PrometheusMetrics
from flywheel.adapters.prometheus_shared import SharedPrometheus
from flywheel.plan.rollout_observed import ErrorShare
from flywheel.stats.evidence import Evidence, Measured, NoData, Stale, Unavailable
from flywheel.stats.moments import Moments, PairMoments

NOW = 1_800_000_000.0
EXPERIMENT = "demo.g1-rollout.3f2a9c1e"


def series(name: str, value: object, **labels: str) -> dict[str, Any]:
    return {"metric": {"__name__": f"flywheel_experiment_{name}", "experiment": EXPERIMENT, **labels}, "value": [NOW, str(value)]}


def a_good_answer(*, n: object = 100, total: object = 60, squares: object = 80, updated: object = NOW - 3, **labels: str) -> list[Any]:
    found = [series("updated_timestamp_seconds", updated, **labels)]
    for slice_ in ("control", "rest", "candidate"):
        found.append(series("assigned_users", 150, slice=slice_, **labels))
        for name, value in (("users", n), ("sum", total), ("sum_squares", squares)):
            found.append(series(name, value, slice=slice_, metric="breadth", **labels))
    return found


class Server:
    """A Prometheus that answers what it is told to."""

    def __init__(self) -> None:
        self.status = 200
        self.body: bytes | None = None
        self.result: list[Any] | dict[str, list[Any]] = []
        self.delay = 0.0
        self.queries: list[str] = []
        self.redirect_to: str | None = None
        self.elsewhere = 0  # requests that followed it

    async def away(self, _request: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": []}})

    async def query(self, request: web.Request) -> web.Response:
        text = str((await request.post())["query"])
        self.queries.append(text)
        if self.redirect_to:
            raise web.HTTPTemporaryRedirect(self.redirect_to)
        result = self.result
        if isinstance(result, dict):
            result = next((r for part, r in result.items() if part in text), [])
        body = {"status": "success", "data": {"resultType": "vector", "result": result}}
        return web.Response(body=self.body if self.body is not None else json.dumps(body).encode(), status=self.status)


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, PrometheusMetrics]]:
    told, app = Server(), web.Application()
    app.router.add_post("/api/v1/query", told.query)
    app.router.add_post("/api/v1/elsewhere", told.away)
    async with TestServer(app) as http, aiohttp.ClientSession() as session:
        yield told, PrometheusMetrics(session, str(http.make_url("/")))


async def look(metrics: PrometheusMetrics, *names: str) -> Evidence:
    return await metrics.evidence(EXPERIMENT, names or ("breadth",), stale_after=dt.timedelta(seconds=60), window_over=False)


Given = tuple[Server, PrometheusMetrics]


async def test_moments_of_both_slices_are_read_with_one_query(server: Given) -> None:
    told, metrics = server
    told.result = a_good_answer()
    evidence = await look(metrics)
    assert evidence.metrics["breadth"] == Measured(Moments(100, 60, 80), Moments(100, 60, 80))
    assert evidence.assigned == (150, 150)
    assert told.queries == [f'{{__name__=~"flywheel_experiment_.+",experiment="{EXPERIMENT}"}}']


async def test_a_metric_that_has_no_series_is_no_data(server: Given) -> None:
    told, metrics = server
    told.result = a_good_answer()
    assert (await look(metrics, "breadth", "depth")).metrics["depth"] == NoData()


async def test_an_experiment_nobody_knows_is_no_data_and_unknown_assignments(server: Given) -> None:
    _, metrics = server
    assert await look(metrics) == Evidence(None, {"breadth": NoData()}, False)


async def test_numbers_that_are_too_old_are_stale_by_prometheus_clock(server: Given) -> None:
    told, metrics = server
    told.result = a_good_answer(updated=NOW - 61)
    assert (await look(metrics)).metrics["breadth"] == Stale(61.0)


async def test_after_a_restart_of_the_collector_the_newer_pod_is_believed(server: Given) -> None:
    told, metrics = server
    old = a_good_answer(n=90, updated=NOW - 200, instance="10.0.0.1:8080")
    new = a_good_answer(n=100, updated=NOW - 2, instance="10.0.0.2:8080")
    told.result = old + new
    assert (await look(metrics)).metrics["breadth"] == Measured(Moments(100, 60, 80), Moments(100, 60, 80))


@pytest.mark.parametrize(
    "values",
    [
        {"n": "NaN"},
        {"n": "+Inf"},
        {"n": -1},
        {"n": 1.5},
        {"n": 1e300},
        {"total": "NaN"},
        {"total": "-Inf"},
        {"squares": "NaN"},
        {"squares": -4},
        {"squares": 0},
        {"n": 0},
    ],
    ids=str,
)
async def test_a_value_that_can_not_be_is_unavailable_and_says_which(server: Given, values: dict[str, Any]) -> None:
    told, metrics = server
    told.result = a_good_answer(**values)
    found = (await look(metrics)).metrics["breadth"]
    assert isinstance(found, Unavailable)
    assert "breadth" in found.message


@pytest.mark.parametrize("updated", ["NaN", "+Inf"])
async def test_an_update_time_that_can_not_be_is_unavailable(server: Given, updated: str) -> None:
    told, metrics = server
    told.result = a_good_answer(updated=updated)
    assert isinstance((await look(metrics)).metrics["breadth"], Unavailable)


async def test_two_series_where_one_is_expected_are_unavailable(server: Given) -> None:
    told, metrics = server
    told.result = [*a_good_answer(), series("users", 7, slice="control", metric="breadth", shard="x")]
    assert isinstance((await look(metrics)).metrics["breadth"], Unavailable)


async def test_a_slice_without_assignments_makes_assignments_unknown(server: Given) -> None:
    told, metrics = server
    told.result = [s for s in a_good_answer() if s["metric"].get("slice") != "candidate" or "assigned" not in s["metric"]["__name__"]]
    assert (await look(metrics)).assigned is None


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, b"upstream down"),
        (200, b"<html>log in</html>"),
        (200, b""),
        (200, b"null"),
        (200, b"[]"),
        (200, b'{"status":"success"}'),
        (200, b'{"status":"success","data":{"resultType":"matrix","result":[]}}'),
        (200, b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[]}]}}'),
        (200, b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,{}]}]}}'),
        (422, b'{"status":"error","errorType":"execution","error":"query timed out"}'),
        (200, b"x" * (5 * 1024 * 1024)),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_an_answer_that_makes_no_sense_is_unavailable_and_never_raises(server: Given, status: int, body: bytes) -> None:
    told, metrics = server
    told.status, told.body = status, body
    assert isinstance((await look(metrics)).metrics["breadth"], Unavailable)
    assert await metrics.error_share("lab", "demo", "g1") is None
    assert await metrics.scalar("up") is None


async def test_a_prometheus_that_is_not_there_is_unavailable() -> None:
    async with aiohttp.ClientSession() as session:
        found = (await look(PrometheusMetrics(session, "http://127.0.0.1:9"))).metrics["breadth"]
    assert isinstance(found, Unavailable)
    assert "127.0.0.1:9" in found.message


async def test_an_address_of_a_spec_leads_nowhere_else(server: Given) -> None:
    """Whoever may write a Rollout must not have the operator ask what only the operator can reach."""
    told, metrics = server
    told.redirect_to, told.result = "/api/v1/elsewhere", [{"metric": {}, "value": [NOW, "1"]}]
    found = (await look(metrics)).metrics["breadth"]
    assert isinstance(found, Unavailable)
    assert "status 307" in found.message
    assert told.elsewhere == 0


async def test_the_error_share_is_of_one_generation(server: Given) -> None:
    told, metrics = server
    told.result = {'code=~"5.."': [{"metric": {}, "value": [NOW, "3"]}], "flywheel_requests_total": [{"metric": {}, "value": [NOW, "60"]}]}
    assert await metrics.error_share("lab", "demo", "g1") == ErrorShare(failed=3.0, total=60.0)


async def test_without_any_server_error_the_share_is_zero(server: Given) -> None:
    told, metrics = server
    told.result = {'code=~"5.."': [], "flywheel_requests_total": [{"metric": {}, "value": [NOW, "60"]}]}
    assert await metrics.error_share("lab", "demo", "g1") == ErrorShare(failed=0.0, total=60.0)


async def test_a_quote_in_a_name_does_not_leave_its_string(server: Given) -> None:
    told, metrics = server
    await metrics.error_share("lab", "demo", 'x"} or up{a="')
    assert '{generation="x\\"} or up{a=\\""' in told.queries[0]


async def test_a_generation_of_the_same_name_elsewhere_is_not_counted(server: Given) -> None:
    told, metrics = server
    await metrics.error_share("lab", "demo", "g1")
    assert told.queries
    assert all('flywheel="demo",flywheel_namespace="lab"' in query for query in told.queries)


async def test_conversations_of_a_flywheel_of_the_same_name_elsewhere_are_not_asked_for(server: Given) -> None:
    told, metrics = server
    told.result = [{"metric": {}, "value": [NOW, "7"]}]
    assert await metrics.conversations("lab", "f") == 7
    assert told.queries == ['max(flywheel_conversations_total{flywheel="f",flywheel_namespace="lab"})']


def replies(service: str, generation: str, value: object, namespace: str = "lab") -> dict[str, Any]:
    return {"metric": {"flywheel": service, "flywheel_namespace": namespace, "generation": generation}, "value": [NOW, str(value)]}


async def test_a_thousand_rollouts_share_one_answer_and_each_gets_its_own_share(server: Given) -> None:
    told, metrics = server
    everybody = [replies(f"f{n}", "g1", n) for n in range(1, 1001)]
    told.result = {'code=~"5.."': [replies("f7", "g1", 3), replies("f7", "g2", 5)], "flywheel_requests_total": everybody}
    shared = SharedPrometheus(metrics)
    shares = await asyncio.gather(*(shared.error_share("lab", f"f{n}", "g1") for n in range(1, 1001)))
    assert len(told.queries) == 2
    assert shares[6] == ErrorShare(failed=3.0, total=7.0)
    assert all(share == ErrorShare(failed=0.0, total=float(n)) for n, share in enumerate(shares, 1) if n != 7)
    assert await shared.error_share("elsewhere", "f7", "g1") is None
    assert await shared.error_share("lab", "f7", "g2") is None, "failures alone are no share"


async def test_a_shared_answer_is_asked_for_again_when_it_is_no_longer_fresh(server: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    told, metrics = server
    shared = SharedPrometheus(metrics)
    told.result = [{"metric": {"flywheel": "f", "flywheel_namespace": "lab"}, "value": [NOW, "7"]}]
    assert await shared.conversations("lab", "f") == 7
    told.result = [{"metric": {"flywheel": "f", "flywheel_namespace": "lab"}, "value": [NOW, "8"]}]
    assert await shared.conversations("lab", "f") == 7
    monkeypatch.setattr(prometheus_shared, "FRESH", 0.0)
    assert await shared.conversations("lab", "f") == 8


async def test_a_prometheus_in_trouble_is_asked_no_more_often_than_a_healthy_one(server: Given) -> None:
    told, metrics = server
    told.status, told.body = 503, b"busy"
    shared = SharedPrometheus(metrics)
    assert await asyncio.gather(*(shared.conversations("lab", f"f{n}") for n in range(50))) == [None] * 50
    assert await asyncio.gather(*(shared.error_share("lab", f"f{n}", "g") for n in range(50))) == [None] * 50
    assert len(told.queries) == 3


async def test_an_answer_for_all_that_is_too_long_is_asked_for_one_by_one(server: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    told, metrics = server
    shared = SharedPrometheus(metrics)
    monkeypatch.setattr(prometheus, "MAX_ANSWER", 400)
    told.result = {
        " by ": [replies(f"f{n}", "g1", n) for n in range(100)],
        'code=~"5.."': [{"metric": {}, "value": [NOW, "2"]}],
        "flywheel_requests_total": [{"metric": {}, "value": [NOW, "60"]}],
        "flywheel_conversations_total": [{"metric": {}, "value": [NOW, "9"]}],
    }
    assert await shared.error_share("lab", "f7", "g1") == ErrorShare(failed=2.0, total=60.0)
    assert await shared.conversations("lab", "f7") == 9


def completeness(total: float, lost: float, names: tuple[str, str], slice_: str = "candidate") -> list[Any]:
    return [series(name, value, slice=slice_) for name, value in zip(names, (total, lost), strict=True)]


COUNTED, CHECKED = ("router_requests", "lost_requests"), ("checked_requests", "misassigned_requests")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (completeness(12_000, 120, COUNTED), "120 of the 12000 requests of slice candidate that the routers counted are missing"),
        (completeness(900, 90, CHECKED), "90 of 900 requests logged in slice candidate are of users whose hash puts them elsewhere"),
    ],
)
async def test_numbers_of_a_log_that_lacks_lines_or_has_them_in_the_wrong_slice_are_not_believed(
    server: Given, more: list[Any], words: str
) -> None:
    answers, metrics = server
    answers.result = a_good_answer() + more
    evidence = await look(metrics, "depth", "breadth")
    assert evidence.assigned is None
    for measured in evidence.metrics.values():
        assert isinstance(measured, Unavailable)
        assert words in measured.message


@pytest.mark.parametrize(
    "more",
    [completeness(12_000, 60, COUNTED), completeness(100, 10, COUNTED), completeness(10_000, 20, CHECKED), completeness(0, 0, COUNTED)],
)
async def test_a_killed_envoys_last_lines_and_a_strange_client_stop_no_verdict(server: Given, more: list[Any]) -> None:
    answers, metrics = server
    answers.result = a_good_answer() + more
    assert isinstance((await look(metrics)).metrics["breadth"], Measured)


# ------------------------------------------------------------------------------------------------ optional series


def with_more(*, cross: object = 90) -> list[Any]:
    """A good answer of a collector that was asked for pre-periods and segments."""
    found = a_good_answer()
    for slice_ in ("control", "rest", "candidate"):
        labels = {"slice": slice_, "metric": "breadth"}
        known = (("known_users", 70), ("known_sum", 40), ("known_sum_squares", 60))
        x = (("covariate_sum", 80), ("covariate_sum_squares", 200), ("covariate_cross_sum", cross))
        messages = (("denominator_sum", 300), ("denominator_sum_squares", 1000), ("denominator_cross_sum", 200))
        found += [series(name, value, **labels) for name, value in (*known, *x, *messages)]
        for segment, n in (("new", 30), ("known", 70)):
            part = (("segment_users", n), ("segment_sum", 20), ("segment_sum_squares", 20))
            found += [series(name, value, segment=segment, **labels) for name, value in part]
    return found


async def test_pre_periods_messages_and_segments_are_read_where_they_are_exported(server: Given) -> None:
    told, metrics = server
    told.result = with_more()
    measured = (await look(metrics)).metrics["breadth"]
    assert isinstance(measured, Measured)
    known = PairMoments(Moments(70, 40, 60), Moments(70, 80, 200), 90)
    messages = PairMoments(Moments(100, 60, 80), Moments(100, 300, 1000), 200)
    assert measured.known == (known, known)
    assert measured.messages == (messages, messages)
    assert measured.segments == (("known", Moments(70, 20, 20), Moments(70, 20, 20)), ("new", Moments(30, 20, 20), Moments(30, 20, 20)))


async def test_products_that_no_users_have_are_unavailable(server: Given) -> None:
    told, metrics = server
    told.result = with_more(cross=1e6)
    measured = (await look(metrics)).metrics["breadth"]
    assert isinstance(measured, Unavailable)
    assert "cross" in measured.message


async def test_half_of_an_optional_series_is_as_good_as_none(server: Given) -> None:
    told, metrics = server
    told.result = [s for s in with_more() if not s["metric"]["__name__"].endswith("covariate_sum_squares")]
    measured = (await look(metrics)).metrics["breadth"]
    assert isinstance(measured, Measured)
    assert measured.known is None
    assert measured.messages is not None
