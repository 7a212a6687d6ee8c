"""The commands. Each reads what it needs, lets a pure function say it, and prints.

Exit codes: 0 done · 1 the answer is no (not there, makes no sense, not valid, not healthy) · 2 it could not be asked (usage,
kubeconfig, API server, rights).
"""

from __future__ import annotations

from flywheel.cli import acting, looking, offline
from flywheel.cli.app import app

__all__ = ["acting", "app", "looking", "offline"]  # imported for their commands
