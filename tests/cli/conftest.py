"""The command, run as from a shell, against an API server on a port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flywheel.cli.main import app
from tests.cli.fake_api import FakeApi

Flywheel = Callable[..., Result]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """An API server that knows nothing yet."""
    fake = FakeApi()
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def flywheel(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flywheel:
    """`kubectl flywheel ARGUMENTS`, in the namespace demo of that server."""
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig", "demo")))

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin, prog_name="kubectl flywheel")

    return run
