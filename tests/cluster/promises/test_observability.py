"""What the chart asks of Prometheus, asked of a real one that scrapes the operator of this checkout."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from dev.demo import kube
from tests.chart.observability import alerts, queries
from tests.cluster.promises.operator_pod import OperatorPod

pytestmark = pytest.mark.cluster
PROMETHEUS = "/api/v1/namespaces/flywheel-system/services/prometheus:http/proxy/api/v1"


def prometheus(path: str, **query: str) -> Any:
    """An answer of Prometheus' API, by way of the API server."""
    answer = json.loads(kube.kubectl("get", "--raw", f"{PROMETHEUS}/{path}?{urlencode(query)}"))
    assert answer["status"] == "success", answer
    return answer["data"]


def test_every_query_of_the_dashboard_is_answered(operator: OperatorPod) -> None:
    for title, query in queries().items():
        assert prometheus("query", query=query)["resultType"] == "vector", title


def test_the_operator_tells_prometheus_that_it_leads_and_that_its_loop_ticks(operator: OperatorPod) -> None:
    ticks = "count(flywheel_operator_leader == 1 and on (instance) time() - flywheel_operator_last_tick_timestamp_seconds < 30)"
    kube.wait("one operator that ticks", lambda: [r["value"][1] for r in prometheus("query", query=ticks)["result"]] == ["1"], timeout=60)


def test_every_alert_is_evaluated_and_reaches_an_alertmanager(operator: OperatorPod) -> None:
    kube.wait("every rule to be evaluated", evaluated, timeout=60)
    kube.wait("an Alertmanager", lambda: bool(prometheus("alertmanagers")["activeAlertmanagers"]), timeout=60)


def evaluated() -> bool:
    """Whether Prometheus holds these rules and no others, and each could be evaluated."""
    rules = {rule["name"]: rule["health"] for group in prometheus("rules")["groups"] for rule in group["rules"]}
    return rules == {rule["alert"]: "ok" for rule in alerts()}
