from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # `dev` and `tests` are folders, not installed packages

from tests.processes import free_ports
from tests.router.harness import Model, Router


@pytest.fixture
async def models() -> AsyncIterator[tuple[Model, Model]]:
    ports = free_ports(2)
    stable, candidate = Model("stable", ports[0]), Model("candidate", ports[1])
    await stable.start()
    await candidate.start()
    yield stable, candidate
    await stable.kill()
    await candidate.kill()


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Router]:
    router = Router(tmp_path)
    await router.start()
    yield router
    await router.stop()
