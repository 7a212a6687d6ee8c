from __future__ import annotations

import json
import logging
import sys

import pytest

from flywheel.plan.base import Defaults
from flywheel.runtime.logs import JsonFormatter
from flywheel.runtime.settings import SettingsError, load_settings


def test_what_is_not_set_has_a_default() -> None:
    settings = load_settings({})
    assert settings.defaults == Defaults()
    assert settings.namespaces == ()
    assert not settings.leader_election


def test_images_prometheus_and_namespaces_come_from_the_environment() -> None:
    settings = load_settings(
        {
            "FLYWHEEL_TRAINER_IMAGE": "r/trainer:1",
            "FLYWHEEL_VLLM_IMAGE": "r/vllm:1",
            "FLYWHEEL_COLLECTOR_IMAGE": "r/collector:1",
            "FLYWHEEL_ENVOY_IMAGE": "r/envoy:1",
            "FLYWHEEL_OPERATOR_IMAGE": "r/operator:1",
            "FLYWHEEL_PROMETHEUS_ADDRESS": "http://p:9090",
            "FLYWHEEL_WATCH_NAMESPACES": "b, a,,b",
            "FLYWHEEL_LEADER_ELECTION": "True",
            "POD_NAMESPACE": "system",
            "POD_NAME": "operator-0",
        }
    )
    assert settings.defaults == Defaults("r/trainer:1", "r/vllm:1", "r/collector:1", "r/envoy:1", "r/operator:1", "http://p:9090")
    assert settings.namespaces == ("a", "b")
    assert settings.leader_election
    assert settings.namespace == "system"
    assert settings.identity.startswith("operator-0_")


def test_a_price_table_that_makes_no_sense_is_refused_by_name() -> None:
    assert load_settings({"FLYWHEEL_PRICES": '{"currency": "USD", "perHour": {"cpu": 1}}'}).defaults.prices.per_hour == {"cpu": 1.0}
    with pytest.raises(SettingsError, match=r"FLYWHEEL_PRICES perHour\.cpu must be a number that is not negative, not -1"):
        load_settings({"FLYWHEEL_PRICES": '{"currency": "USD", "perHour": {"cpu": -1}}'})


@pytest.mark.parametrize(("value", "limit"), [("", None), (" ", None), ("0", 0), ("16", 16)])
def test_a_gpu_budget_of_nothing_is_no_limit_and_of_zero_is_none_at_all(value: str, limit: int | None) -> None:
    assert load_settings({"FLYWHEEL_GPU_BUDGET": value}).gpu_budget == limit


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLYWHEEL_LEADER_ELECTION", "maybe"),
        ("FLYWHEEL_PORT", "http"),
        ("FLYWHEEL_PORT", "70000"),
        ("FLYWHEEL_GPU_BUDGET", "-1"),
        ("FLYWHEEL_GPU_BUDGET", "many"),
        ("FLYWHEEL_GPU_BUDGET", "1.5"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}.*{value}"):
        load_settings({name: value})


def a_record(message: str, **extra: object) -> logging.LogRecord:
    record = logging.LogRecord("flywheel", logging.WARNING, __file__, 1, message, None, None)
    record.__dict__.update(extra)
    return record


def test_a_log_line_is_json_with_the_object_it_is_about() -> None:
    line = json.loads(JsonFormatter().format(a_record("pass failed", object="Rollout demo/r")))
    assert (line["level"], line["message"], line["object"]) == ("warning", "pass failed", "Rollout demo/r")


@pytest.mark.parametrize(
    "text",
    ["Authorization: Bearer s3cret", "headers={'Authorization': 'Bearer s3cret'}", "http://user:s3cret@host/", "token bearer s3cret"],
)
def test_no_secret_reaches_the_log(text: str) -> None:
    record = a_record(text)
    try:
        raise ValueError(text)
    except ValueError:
        record.exc_info = sys.exc_info()
    written = JsonFormatter().format(record)
    line = json.loads(written)
    assert "s3cret" not in line["message"]
    assert "s3cret" not in line["trace"].splitlines()[-1]


def test_an_address_with_a_port_is_no_secret() -> None:
    assert json.loads(JsonFormatter().format(a_record("http://f-collector.demo.svc:8080/v1 is away")))["message"].startswith(
        "http://f-collector.demo.svc:8080/v1"
    )
