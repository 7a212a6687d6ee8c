"""Who is served by whom: a real Envoy, real requests, and the slice each access log line says."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from tests.router.harness import CANDIDATE, QUIET, ROLLOUT, STABLE, Model, Router, at, endpoints

USERS = [f"user-{number}" for number in range(1500)]
Models = tuple[Model, Model]


def within_binomial_error(count: int, total: int, share: float) -> bool:
    return abs(count - total * share) <= 4 * math.sqrt(total * share * (1 - share))


async def test_a_ramp_moves_users_only_from_rest_into_the_slices(router: Router, models: Models) -> None:
    previous: dict[str, str] = dict.fromkeys(USERS, "rest")
    for revision, weight in enumerate((1, 5, 25, 50), start=2):
        await router.apply(at(weight, revision), endpoints(models))
        now = await router.slices(USERS)
        counts = Counter(now.values())
        assert within_binomial_error(counts["candidate"], len(USERS), weight / 100), counts
        assert within_binomial_error(counts["control"], len(USERS), weight / 100), counts
        moved = {(previous[user], now[user]) for user in USERS if previous[user] != now[user]}
        assert moved <= {("rest", "control"), ("rest", "candidate")}
        previous = now
    assert await router.slices(USERS[:300]) == {user: previous[user] for user in USERS[:300]}


async def test_slices_are_the_same_on_another_replica(router: Router, models: Models) -> None:
    await router.apply(at(25, 2), endpoints(models))
    first = await router.slices(USERS[:400])
    other = Router(router.directory / "other")
    await other.start()
    try:
        await other.apply(at(25, 2), endpoints(models))
        assert await other.slices(USERS[:400]) == first
    finally:
        await other.stop()


async def test_a_new_salt_randomises_anew(router: Router, models: Models) -> None:
    await router.apply(at(50, 2), endpoints(models))
    first = await router.slices(USERS)
    await router.apply(at(50, 3, salt="second-salt", experiment="demo.g2.0"), endpoints(models))
    second = await router.slices(USERS)
    twice = sum(first[user] == second[user] == "candidate" for user in USERS)
    assert within_binomial_error(twice, len(USERS), 0.25)


async def test_slices_name_the_arm_that_answers(router: Router, models: Models) -> None:
    await router.apply(ROLLOUT, endpoints(models))
    for user in USERS[:40]:
        await router.ask(user)
    for line in await router.logged(40):
        arm = CANDIDATE if line["slice"] == "candidate" else STABLE
        assert (line["assignedArm"], line["assignedGeneration"]) == (arm.arm, arm.generation)
        assert (line["answeredArm"], line["answeredGeneration"]) == (arm.arm, arm.generation)


@pytest.mark.parametrize(
    "headers",
    [{}, {"x-user-id": ""}, {"x-user-id": "u" * 257}, {"x-user-id": "two,users"}, {"x-user-id": "ünï"}, {"x-user-id": "a b"}],
    ids=["missing", "empty", "too long", "comma", "not ASCII", "space inside"],
)
async def test_a_request_without_a_usable_user_id_is_stables_and_in_no_slice(
    router: Router, models: Models, headers: dict[str, str]
) -> None:
    await router.apply(at(50, 2), endpoints(models))
    for _ in range(5):
        status, got, _ = await router.ask(None, headers)
        assert (status, got["x-flywheel-generation"]) == (200, "initial")
    for line in await router.logged(5):
        assert (line["slice"], line["user"], line["answeredArm"]) == ("none", None, STABLE.arm)


async def test_outside_a_rollout_users_are_known_but_in_no_slice(router: Router, models: Models) -> None:
    await router.apply(QUIET, endpoints(models))
    await router.ask("ann")
    (line,) = await router.logged(1)
    assert (line["user"], line["slice"], line["experiment"], line["assignedArm"]) == ("ann", "none", None, STABLE.arm)


async def test_another_header_may_carry_the_user(router: Router, models: Models) -> None:
    await router.apply(at(25, 2, header="x-account"), endpoints(models))
    await router.ask(None, {"x-account": "ann"})
    (line,) = await router.logged(1)
    assert line["user"] == "ann"
    assert line["slice"] in ("control", "rest", "candidate")


async def test_forged_headers_change_nothing(router: Router, models: Models) -> None:
    await router.apply(ROLLOUT, endpoints(models))
    honest = await router.slices(USERS[:30])
    forged = {
        "x-flywheel-slice": "candidate",
        "x-flywheel-arm": "forged",
        "x-flywheel-generation": "forged",
        "x-flywheel-user": "forged",
        "x-request-id": "forged",
        "x-envoy-max-retries": "9",
        "x-envoy-upstream-rq-timeout-ms": "1",
    }
    for user in USERS[:30]:
        _, got, _ = await router.ask(user, forged)
        assert got["x-flywheel-generation"] in ("initial", "g1")  # the models forge it too
        assert "x-flywheel-slice" not in got
    lines = (await router.logged(60))[30:]
    assert {line["user"]: line["slice"] for line in lines} == honest
    assert len({line["requestId"] for line in lines}) == 30
    assert "forged" not in str(lines)
    for model in models:
        assert not any(name in seen for seen in model.seen for name in ("x-envoy-max-retries", "x-envoy-upstream-rq-timeout-ms"))
        assert "forged" not in str(model.seen)
