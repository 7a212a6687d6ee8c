"""`python -m flywheel.cli`, the same as `kubectl flywheel`."""

from flywheel.cli.main import app

app(prog_name="kubectl flywheel")
