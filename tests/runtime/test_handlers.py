from __future__ import annotations

import asyncio
from typing import Any

from flywheel.runtime.handlers import NoMemories


def test_kopf_remembers_no_object() -> None:
    memories = NoMemories()
    body: Any = {"metadata": {"uid": "u1"}}
    first = asyncio.run(memories.recall(body, noticed_by_listing=True))
    assert first.noticed_by_listing
    assert list(memories.iter_all_memories()) == []
    asyncio.run(memories.forget(body))  # of what is gone, too
