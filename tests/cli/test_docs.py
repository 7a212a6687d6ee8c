"""docs/cli.md and the shell's completion are what the commands are."""

from __future__ import annotations

import pytest

from dev.cli_docs import PAGE, rendered
from flywheel.cli import kubectl_complete
from tests.cli.conftest import Flywheel
from tests.cli.fake_api import FakeApi
from tests.cli.recorded import everything


def test_the_reference_is_generated_from_the_commands() -> None:
    assert PAGE.read_text() == rendered(), "docs/cli.md differs from the commands; run `make cli-docs`"


@pytest.mark.usefixtures("flywheel")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["li"], ["lineage", "lint"]),
        (["explain", "fly"], ["flywheel/companion"]),
        (["lineage", ""], ["companion"]),
        (["explain", "-n", "other", ""], []),
    ],
)
def test_kubectl_completes_commands_and_names(
    api: FakeApi, words: list[str], offered: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api.hold(*everything())
    for variable in ("_KUBECTL_FLYWHEEL_COMPLETE", "COMP_WORDS", "COMP_CWORD"):
        monkeypatch.setenv(variable, "")  # so that they are taken back
    monkeypatch.setattr("sys.argv", ["kubectl_complete-flywheel", *words])
    with pytest.raises(SystemExit):
        kubectl_complete.main()
    *completions, directive = [line for line in capsys.readouterr().out.splitlines() if line]
    assert (completions, directive) == (offered, ":4")


def test_every_command_explains_itself(flywheel: Flywheel) -> None:
    commands = [line.split("`")[1] for line in rendered().splitlines() if line.startswith("## ")]
    assert len(commands) == 15
    for command in commands:
        assert flywheel(command.split()[-1], "--help").exit_code == 0
