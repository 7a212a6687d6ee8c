"""The simulator makes load, so it only talks to this machine and to the local cluster's own addresses. Everything else is refused."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

LEGAL = tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "::1/128", "10.244.0.0/16", "10.96.0.0/16")))
"""Loopback; pods and Services of the local cluster (dev/cluster)."""


class Refused(ValueError):
    """The address is none of ours."""


def check_address(host: str) -> None:
    address = ipaddress.ip_address(host)
    if not any(address in network for network in LEGAL):
        raise Refused(f"{host} is neither this machine nor the local cluster ({', '.join(map(str, LEGAL))}); the simulator makes load")


def check_url(url: str) -> str:
    """-> the URL without a trailing slash. A name is checked again at every connection (`LocalResolver`)."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.username or parts.path.rstrip("/") or parts.query:
        raise Refused(f"{url!r} must look like http://HOST:PORT")
    try:
        ipaddress.ip_address(parts.hostname)
    except ValueError:
        return url.rstrip("/")
    check_address(parts.hostname)
    return url.rstrip("/")


class LocalResolver(AbstractResolver):
    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        for entry in found:
            check_address(entry["host"])
        return found

    async def close(self) -> None:
        await self._resolver.close()
