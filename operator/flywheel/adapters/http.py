"""Small JSON answers from our own pods."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

MAX_ANSWER = 256 * 1024


def host(ip: str) -> str:
    """The address as it stands in a URL."""
    return f"[{ip}]" if ":" in ip else ip


async def get_json(session: aiohttp.ClientSession, url: str, limits: aiohttp.ClientTimeout) -> tuple[dict[str, Any] | None, str]:
    """The JSON object at a URL, or None and what went wrong. Pods are not trusted with our memory: answers are bounded."""
    try:
        async with session.get(url, timeout=limits, allow_redirects=False) as response:
            if response.status != 200:
                return None, f"{url}: status {response.status}"
            body = b""
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_ANSWER:
                    return None, f"{url}: the answer is longer than {MAX_ANSWER} bytes"
        answer = json.loads(body)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        return None, f"{url}: {str(error) or type(error).__name__}"
    return (answer, "") if isinstance(answer, dict) else (None, f"{url}: the answer is not an object")
