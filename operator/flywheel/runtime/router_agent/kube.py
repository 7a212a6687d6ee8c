"""List and watch, with nothing but HTTP: the generated client would cost more memory than everything else here."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

Json = dict[str, Any]
log = logging.getLogger(__name__)
WATCH_SECONDS = 240
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
EXPIRED = 410


class ApiError(Exception):
    """The API server answered, but not with what was asked for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class KubeApi:
    """Reads collections. The token is read for each request: the kubelet rotates it."""

    def __init__(self, url: str, credentials: Path) -> None:
        self._url, self._credentials = url, credentials
        authority = credentials / "ca.crt"
        context = ssl.create_default_context(cafile=str(authority)) if authority.exists() else None
        connector = aiohttp.TCPConnector(ssl=context or True, socket_factory=_impatient_socket)
        self._session = aiohttp.ClientSession(connector=connector, read_bufsize=4 * 1024 * 1024)

    async def close(self) -> None:
        await self._session.close()

    async def list(self, path: str, selector: Mapping[str, str]) -> tuple[dict[str, Json], str]:
        """Objects by name, and the version to watch from."""
        timeout = aiohttp.ClientTimeout(total=15, sock_connect=3)
        async with self._session.get(self._url + path, params=selector, headers=self._headers(), timeout=timeout) as reply:
            await _check(reply)
            body = await reply.json()
        return {item["metadata"]["name"]: item for item in body["items"]}, body["metadata"]["resourceVersion"]

    async def watch(self, path: str, selector: Mapping[str, str], version: str) -> AsyncIterator[tuple[str, Json]]:
        """Events until the server ends the watch."""
        params = {**selector, "watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS)}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=WATCH_SECONDS + 30)
        async with self._session.get(self._url + path, params=params, headers=self._headers(), timeout=timeout) as reply:
            await _check(reply)
            async for line in reply.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiError(event["object"].get("code", 0), event["object"].get("message", "watch error"))
                yield event["type"], event["object"]

    def _headers(self) -> dict[str, str]:
        token = self._credentials / "token"
        return {"authorization": f"Bearer {token.read_text().strip()}"} if token.exists() else {}


async def follow(
    api: KubeApi,
    path: str,
    selector: Mapping[str, str],
    changed: Callable[[dict[str, Json]], None],
    broken: Callable[[str], None],
) -> None:
    """Calls `changed` with all objects after the list and after every event, for ever. `broken` hears of every lost connection."""
    delay = FIRST_DELAY
    while True:
        try:
            objects, version = await api.list(path, selector)
            changed(objects)
            delay = FIRST_DELAY
            while True:
                async for kind, item in api.watch(path, selector, version):
                    version = item["metadata"]["resourceVersion"]
                    if kind == "BOOKMARK":
                        continue
                    if kind == "DELETED":
                        objects.pop(item["metadata"]["name"], None)
                    else:
                        objects[item["metadata"]["name"]] = item
                    changed(objects)
                await asyncio.sleep(FIRST_DELAY / 2)  # the server ended it as agreed: go on from the last version
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
            if not (isinstance(error, ApiError) and error.status == EXPIRED):  # too old a version: list again, nothing is wrong
                log.warning("watch of %s broke, again in %.1f s: %r", path, delay, error)
                broken(repr(error))
        await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - jitter
        delay = min(delay * 2, LONGEST_DELAY)


async def _check(reply: aiohttp.ClientResponse) -> None:
    if reply.status != 200:
        raise ApiError(reply.status, (await reply.text())[:300])


def _impatient_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A peer that vanished without a word is noticed within ten seconds or so."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3)):
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made
