"""Asking for a garbage collection, and what is said of its answer."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from aiohttp import web

from flywheel.cli import acting
from flywheel.cli.collect import report, request, size
from flywheel.cli.errors import Problem
from tests.cli.conftest import Flywheel
from tests.cli.fake_api import FakeApi
from tests.cli.recorded import NOW, Object, recorded

ASK = "modelflywheel.dev/collect-garbage"
METRICS = {
    "dry_run": 1,
    "collected_artifacts": 3,
    "collected_checkpoints": 1,
    "collected_bytes": 2_500_000,
    "kept_bytes": 10,
    "kept_referenced": 4,
    "kept_young": 1,
    "kept_foreign": 0,
    "artifact.0a1b2c3d4e5f": 2_000_000,
    "checkpoint.uid.0a1b2c3d": 400_000,
}


def collected(**changes: Any) -> Object:
    body = recorded("Flywheel", "companion")
    report = {"uri": "file:///flywheel/artifacts/sha256-r"}
    body["status"]["collection"] = {"phase": "Done", "dryRun": True, "metrics": METRICS, "report": report, **changes}
    return body


def test_a_dry_run_is_told_with_what_would_go_what_stays_and_how_to_delete() -> None:
    assert report(collected()) == [
        "3 artifacts and 1 checkpoints (2.5 MB) of companion would be deleted.",
        "      2.0 MB  artifact   sha256-0a1b2c3d4e5f",
        "    400.0 kB  checkpoint uid.0a1b2c3d",
        "  and 2 more; the whole list is report.json in file:///flywheel/artifacts/sha256-r",
        "10 B stay: 4 are referred to, 1 are younger than the grace.",
        "Nothing was touched. `kubectl flywheel gc flywheel/companion --yes` deletes.",
    ]


def test_a_deletion_is_told_as_one() -> None:
    lines = report(collected(dryRun=False))
    assert "were deleted" in lines[0]
    assert not any("--yes" in line for line in lines)


def test_a_failed_collection_is_a_problem_with_its_reason() -> None:
    with pytest.raises(Problem, match="Nothing was collected for Flywheel companion: no space"):
        report(collected(phase="Failed", message="no space"))


def test_only_a_flywheel_on_a_claim_can_be_asked() -> None:
    with pytest.raises(Problem, match="collect the garbage of its Flywheel"):
        request(recorded("Generation", "companion-1"), False, NOW)
    remote = recorded("Flywheel", "companion")
    remote["spec"]["storage"] = {"uri": "s3://bucket/x"}
    with pytest.raises(Problem, match="lifecycle rule"):
        request(remote, False, NOW)


def test_sizes_are_read_by_people() -> None:
    assert [size(n) for n in (0, 999, 1500, 2.5e9, 3e12)] == ["0 B", "999 B", "1.5 kB", "2.5 GB", "3.0 TB"]


class Answering(FakeApi):
    """An API server whose operator answers at once."""

    async def _answer(self, request: web.Request) -> web.Response:
        answer = await super()._answer(request)
        if request.method == "PATCH":
            token = self.patches[-1]["metadata"]["annotations"][ASK]
            body = self.answers[request.path]
            assert isinstance(body, dict)
            body["status"]["collection"] = {**collected(dryRun=token.startswith("dry-run"))["status"]["collection"], "asked": token}
        return answer


@pytest.fixture
def api() -> Any:
    fake = Answering()
    fake.start()
    yield fake
    fake.stop()


def test_the_command_asks_waits_and_tells(api: FakeApi, flywheel: Flywheel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "EVERY", 0.01)
    monkeypatch.setattr(acting, "now", lambda: dt.datetime(2026, 11, 25, tzinfo=dt.UTC))
    api.hold(recorded("Flywheel", "companion"))
    said = flywheel("gc", "flywheel/companion")
    assert (said.exit_code, said.output.splitlines()[0]) == (0, report(collected())[0])
    assert api.patches[0]["metadata"]["annotations"] == {ASK: "dry-run 2026-11-25T00:00:00.000000Z"}
    assert flywheel("gc", "companion", "--yes").exit_code == 0
    assert api.patches[1]["metadata"]["annotations"][ASK].startswith("delete ")
    assert json.loads(flywheel("gc", "companion", "-o", "json").output)["metrics"]["collected_artifacts"] == 3
    assert flywheel("gc", "companion", "--yes", "--dry-run").exit_code == 2
    assert flywheel("gc", "companion", "--timeout", "0").exit_code == 0
