"""Alerts and dashboard: what they ask for exists, what they tell is explained, and promtool agrees."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart.observability import ALERTS, REPOSITORY, alerts, panels, queries
from tests.chart.promtool import Promtool, found

RULE_TESTS = Path(__file__).with_name("alerts.test.yaml")
SOURCES = ("operator/flywheel/runtime/metrics.py", "operator/flywheel/runtime/object_metrics.py")
OF_THE_COLLECTOR = "collector/flywheel_collector/exposition.py"
SERIES = re.compile(r"\bflywheel_(?!namespace\b)[a-z_]+")


@pytest.fixture(scope="module")
def promtool() -> Iterator[Promtool]:
    with found() as program:
        if program is None:
            message = "promtool is not on PATH (Debian's package prometheus has it), and no cluster is up to run it in"
            (pytest.fail if os.environ.get("FLYWHEEL_REQUIRE_CLUSTER") else pytest.skip)(message)
        yield program


def exported() -> set[str]:
    """The families that the operator and the collector have."""
    return {name for path in (*SOURCES, OF_THE_COLLECTOR) for name in re.findall(r'"(flywheel_[a-z_]+)"', (REPOSITORY / path).read_text())}


def family(series: str) -> str:
    """The family of a series, as it is declared."""
    return re.sub(r"_(bucket|count)$", "", series)


def known(series: str) -> bool:
    return family(series) in exported() or family(series).removesuffix("_total") in exported()


def test_alerts_and_panels_ask_only_for_series_that_somebody_exports() -> None:
    asked = {series for text in (*queries().values(), *(rule["expr"] for rule in alerts())) for series in SERIES.findall(text)}
    assert [series for series in sorted(asked) if not known(series)] == []


def test_the_operator_exports_nothing_that_no_alert_and_no_panel_asks_for() -> None:
    asked = {family(s) for text in (*queries().values(), *(rule["expr"] for rule in alerts())) for s in SERIES.findall(text)}
    own = {name for path in SOURCES for name in re.findall(r'"(flywheel_[a-z_]+)"', (REPOSITORY / path).read_text())} - {
        "flywheel_namespace"
    }
    assert own - asked == set()


def test_every_series_of_the_operator_is_documented() -> None:
    text = (REPOSITORY / "docs" / "observability.md").read_text()
    own = {name for path in SOURCES for name in re.findall(r'"(flywheel_[a-z_]+)"', (REPOSITORY / path).read_text())}
    assert [name for name in sorted(own) if f"`{name}" not in text] == []


def test_every_alert_has_a_severity_and_says_which_object_which_value_and_where_to_read_on() -> None:
    for rule in alerts():
        notes = rule["annotations"]
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        assert set(notes) == {"summary", "description", "runbook"}, rule["alert"]
        assert "$value" in notes["description"] or rule["expr"].startswith("absent("), rule["alert"]
        assert "$labels." in notes["description"] or rule["expr"].startswith("absent("), rule["alert"]
        assert notes["runbook"] == f"docs/runbooks.md#{rule['alert'].lower()}"


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    headings = re.findall(r"^### (Flywheel\w+)$", (REPOSITORY / "docs" / "runbooks.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(rule["alert"] for rule in alerts())


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    """Beside it stands what must not fire: promtool compares all alerts of a moment."""
    cases = [case for test in yaml.safe_load(RULE_TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == {rule["alert"] for rule in alerts()}


def test_every_panel_says_what_it_shows() -> None:
    for panel in panels():
        assert panel["description"], panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


@pytest.mark.cluster
def test_the_alerts_fire_when_they_should_and_not_when_they_should_not(promtool: Promtool) -> None:
    files = {"alerts.yaml": ALERTS.read_text(), "alerts.test.yaml": RULE_TESTS.read_text()}
    checked = promtool.run(files, "check", "rules", "alerts.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    done = promtool.run(files, "test", "rules", "alerts.test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.cluster
def test_every_query_of_the_dashboard_is_promql(promtool: Promtool) -> None:
    """As rules that record them: promtool parses those."""
    rules = [{"record": f"panel:query_{n}", "expr": query} for n, query in enumerate(queries().values())]
    files = {"panels.yaml": yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]})}
    checked = promtool.run(files, "check", "rules", "panels.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
