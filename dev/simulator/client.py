"""The app: chat requests to the router, events to the collector."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

import aiohttp

from dev.simulator.targets import LocalResolver, Refused, check_url

MAX_TOKENS = 32
TEMPERATURE = 0.8
SAMPLING = {"max_tokens": MAX_TOKENS, "temperature": TEMPERATURE}


class Failed(Exception):
    """No reply; the argument is the kind."""


class Reply(NamedTuple):
    text: str
    generation: str
    """For the census only."""
    sent: float
    received: float


class App:
    def __init__(self, router: str, events: str, model: str, concurrency: int) -> None:
        self._router, self._events, self._model = check_url(router), check_url(events), model
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=2 * concurrency, resolver=LocalResolver()),
            timeout=aiohttp.ClientTimeout(total=30, connect=5),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._session.close()

    async def chat(self, user: str, conversation: str, message: str, messages: list[dict[str, str]]) -> Reply:
        headers = {"x-user-id": user, "x-conversation-id": conversation, "x-message-id": message}
        sent = time.time()
        try:
            async with self._session.post(
                self._router + "/v1/chat/completions", headers=headers, json={"model": self._model, "messages": messages, **SAMPLING},
                allow_redirects=False,
            ) as response:  # fmt: skip
                if response.status != 200:
                    raise Failed(f"http_{response.status}")
                text = (await response.json())["choices"][0]["message"]["content"]
                if not isinstance(text, str):
                    raise Failed("bad_body")
                return Reply(text, response.headers.get("x-flywheel-generation", "unknown"), sent, time.time())
        except (Failed, Refused):
            raise
        except Exception as error:
            raise Failed(kind_of(error)) from error

    async def post(self, *events: dict[str, Any]) -> None:
        try:
            async with self._session.post(self._events + "/v1/events", json={"events": events}, allow_redirects=False) as response:
                if response.status != 200:
                    raise Failed(f"http_{response.status}")
                if (await response.json())["rejected"]:
                    raise Failed("rejected")
        except (Failed, Refused):
            raise
        except Exception as error:
            raise Failed(kind_of(error)) from error


def event(kind: str, user: str, conversation: str, message: str, **fields: Any) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"id": f"{message}-{kind}", "type": kind, "time": now, "user": user, "conversation": conversation, "message": message, **fields}


def kind_of(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "connect"
    if isinstance(error, aiohttp.ClientError | OSError):
        return "disconnected"
    return "bad_body"
