"""What a server that somebody else runs says of itself."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from flywheel.adapters.adopted import AdoptedDeployments
from flywheel.ports import ClusterError
from tests.adapters.test_pods import serving


class Api:
    """An API server that has what it was given."""

    def __init__(self, **found: Any) -> None:
        self.found, self.asked = found, [""]

    async def request(self, method: str, path: str) -> Any:
        self.asked.append(f"{method} {path}")
        answer = self.found.get(path.rsplit("/", 2)[1])
        if isinstance(answer, int):
            raise ClusterError("no", status=answer, retryable=False)
        return answer


async def names(answer: Any, **how: Any) -> tuple[tuple[str, ...] | None, str]:
    async with serving("/v1/models", answer, **how) as http, aiohttp.ClientSession() as session:
        return await AdoptedDeployments(Api(), session).models(f"http://127.0.0.1:{http.port}")  # type: ignore[arg-type]


async def test_a_server_says_which_names_it_answers_to() -> None:
    assert await names({"object": "list", "data": [{"id": "org/model"}, {"id": "short"}]}) == (("org/model", "short"), "")


@pytest.mark.parametrize("answer", [{}, {"data": "x"}, {"data": ["x", {"id": 7}]}])
async def test_a_server_that_lists_nothing_answers_all_the_same(answer: Any) -> None:
    assert await names(answer) == ((), "")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_server_with_a_key_of_its_own_answers_too(status: int) -> None:
    assert await names({}, status=status) == ((), "")


@pytest.mark.parametrize("how", [{"status": 404}, {"status": 500}])
async def test_a_server_of_something_else_is_no_answer(how: dict[str, Any]) -> None:
    found, why = await names({}, **how)
    assert found is None
    assert f"status {how['status']}" in why


async def test_a_closed_port_is_no_answer() -> None:
    async with aiohttp.ClientSession() as session:
        found, why = await AdoptedDeployments(Api(), session).models("http://127.0.0.1:1")  # type: ignore[arg-type]
    assert found is None
    assert "127.0.0.1:1" in why


async def test_the_deployment_and_our_service_are_read_by_name_and_what_is_missing_is_none() -> None:
    api = Api(deployments={"kind": "Deployment"}, services=404)
    async with aiohttp.ClientSession() as session:
        read = AdoptedDeployments(api, session).read  # type: ignore[arg-type]
        assert await read("demo", "llama", "arm") == ({"kind": "Deployment"}, None)
        api.found["services"] = 500
        with pytest.raises(ClusterError):
            await read("demo", "llama", "arm")
    assert api.asked[1:3] == ["GET /apis/apps/v1/namespaces/demo/deployments/llama", "GET /api/v1/namespaces/demo/services/arm"]
