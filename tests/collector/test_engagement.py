"""What counts as exposed, as a turn, as breadth and as depth."""

from __future__ import annotations

from flywheel_collector.experiments import LIMIT
from tests.collector.world import World


def test_a_user_who_writes_again_after_a_first_reply_counts_for_breadth_and_depth(world: World) -> None:
    world.register()
    for second, message in enumerate(("m1", "m2", "m3")):
        world.turn(message=message, time=second)
    world.turn("u2", "m1", time=0)
    world.run(20)
    assert world.assigned() == 2
    assert world.moment("breadth") == (2, 1, 1)
    assert world.moment("depth") == (2, 2, 4)


def test_a_user_is_not_counted_before_the_horizon_has_passed(world: World) -> None:
    world.register(horizon=10)
    world.turn(time=0)
    world.run(11)
    assert (world.assigned(), world.moment("depth")) == (1, (0, 0, 0))
    world.run(12)
    assert world.moment("depth") == (1, 0, 0)


def test_a_retry_or_regeneration_is_not_a_turn(world: World) -> None:
    world.register()
    world.turn(time=0)
    world.turn(time=1)
    world.run(20)
    assert world.moment("breadth") == (1, 0, 0)
    assert world.value("flywheel_turns_total") == 1


def test_a_failed_first_request_still_exposes_the_user_and_is_an_error(world: World) -> None:
    world.register()
    world.turn(time=0, status=503)
    world.turn("u2", time=0, status=0)
    world.turn("u3", time=0, status=404)
    world.run(20)
    assert world.moment("errors") == (3, 2, 2)
    assert world.moment("depth") == (3, 0, 0)


def test_a_retry_that_succeeds_is_one_turn_and_one_error(world: World) -> None:
    world.register()
    world.turn(message="m1", time=0, status=503)
    world.turn(message="m1", time=1)
    world.turn(message="m2", time=2)
    world.run(20)
    assert world.moment("depth") == (1, 1, 1)
    assert world.moment("errors") == (1, 1, 1)


def test_depth_is_winsorised_at_the_cap(world: World) -> None:
    world.register(cap=3)
    for number in range(9):
        world.turn(message=f"m{number}", time=number)
    world.run(20)
    assert world.moment("depth") == (1, 3, 9)


def test_turns_after_the_horizon_do_not_count(world: World) -> None:
    world.register(horizon=10)
    world.turn(message="m1", time=0)
    world.turn(message="m2", time=10)
    world.run(30)
    assert world.moment("depth") == (1, 0, 0)


def test_a_retry_answered_after_the_horizon_is_no_turn(world: World) -> None:
    world.register(horizon=10)
    world.turn(message="m1", time=0)
    world.turn(message="m2", time=9, status=503)
    world.turn(message="m2", time=11)
    world.run(30)
    assert world.moment("depth") == (1, 0, 0)
    assert world.moment("errors") == (1, 1, 1)


def test_an_answer_of_another_arm_counts_for_the_assigned_slice_as_a_fallback(world: World) -> None:
    world.register()
    world.turn(time=0, slice="candidate", answeredArm="old", answeredGeneration="g-old")
    world.run(20)
    assert world.moment("fallbacks", "candidate") == (1, 1, 1)
    assert world.value("flywheel_requests_total", generation="g-old", code="200") == 1


def test_internal_requests_and_other_slices_are_requests_but_expose_nobody(world: World) -> None:
    world.register()
    world.turn("u1", time=0, purpose="title")
    world.turn("u2", time=0, slice="rest")
    world.turn("u3", time=0, slice="none", experiment="-")
    world.turn(None, time=0)
    world.run(20)
    assert world.assigned() == 0
    assert world.value("flywheel_requests_total", generation="g-old", code="200") == 4
    assert world.value("flywheel_turns_total") == 3


def test_a_user_who_comes_to_a_slice_from_the_rest_is_exposed_then(world: World) -> None:
    world.register(horizon=10)
    world.turn(message="m0", time=0, slice="rest")
    world.turn(message="m1", time=50)
    world.turn(message="m2", time=51)
    world.run(70)
    assert world.moment("depth") == (1, 1, 1)


def test_a_request_without_a_message_id_exposes_but_is_no_turn(world: World) -> None:
    world.register()
    world.turn(message=None, time=0)
    world.turn(message=None, time=1, status=500)
    world.run(20)
    assert world.moment("depth") == (1, 0, 0)
    assert world.moment("errors") == (1, 1, 1)


def test_thumbs_within_the_horizon_count_once_a_message(world: World) -> None:
    world.register(horizon=10)
    world.turn(time=0)
    world.now = 20
    world.post(
        world.event(time=1), world.event(time=2), world.event("thumbs_down", message="m2", time=3), world.event(message="m9", time=15)
    )
    world.run(20)
    assert world.moment("thumbs_up") == (1, 1, 1)
    assert world.moment("thumbs_down") == (1, 1, 1)


def test_a_late_line_corrects_numbers_that_were_published(world: World) -> None:
    world.register(horizon=10)
    world.turn(message="m1", time=5)
    world.run(30)
    assert world.moment("depth") == (1, 0, 0)
    world.turn(message="m2", time=6)
    world.run(31)
    assert world.moment("depth") == (1, 1, 1)
    world.turn(message="m0", time=1, slice="candidate")  # the user's first request was another one
    world.run(32)
    assert (world.assigned("control"), world.assigned("candidate")) == (0, 1)
    assert world.moment("depth") == (0, 0, 0)
    assert world.moment("depth", "candidate") == (1, 2, 4)


def test_only_users_exposed_between_start_and_end_of_enrolment_are_in_the_experiment(world: World) -> None:
    world.register(started=10, until=20)
    for user, time in (("early", 9), ("in", 10), ("late", 20)):
        world.turn(user, time=time)
    world.run(60)
    assert (world.assigned(), world.moment("depth")[0]) == (1, 1)


def test_an_experiment_may_be_registered_after_its_first_requests(world: World) -> None:
    for message in ("m1", "m2"):
        world.turn(message=message, time=1)
    world.run(30)
    assert world.assigned() == 0
    world.register()
    assert world.assigned() == 1
    world.run(31)
    assert world.moment("depth") == (1, 1, 1)


def test_an_experiment_that_is_deleted_and_registered_again_has_the_same_numbers(world: World) -> None:
    world.register()
    for message in ("m1", "m2"):
        world.turn(message=message, time=1)
    world.run(30)
    world.collector.delete_experiment("demo.g1-rollout.3f2a9c1e")
    assert not [name for name, labels in world.series() if dict(labels).get("experiment")]
    world.run(31)
    world.register()
    world.run(32)
    assert (world.assigned(), world.moment("depth")) == (1, (1, 1, 1))


def test_nobody_matures_by_the_clock_while_the_log_is_behind(world: World) -> None:
    world.register(horizon=10)
    world.collector._tail._budget = 1  # the smallest share: 64 KiB a pass
    world.log(*(world.line(f"u{n % 200}", f"m{n}", time=n / 100) for n in range(2000)))
    world.now = 10_000
    assert world.collector.tick(world.ms)
    assert world.moment("depth")[0] == 0
    assert world.value("flywheel_collector_lag_seconds") > 9_000
    world.run()
    assert world.moment("depth") == (200, 200 * 4, 200 * 16)
    assert world.value("flywheel_collector_lag_seconds") == 0


def test_the_cap_is_the_pre_periods_percentile_once_and_for_all(world: World) -> None:
    for message in range(5):
        world.turn("before", f"m{message}", time=message, slice="none", experiment="-")
    world.run(100)
    world.register(cap=None, started=90)
    assert world.value("flywheel_experiment_winsor_cap", experiment="demo.g1-rollout.3f2a9c1e") == 4
    world.register(cap=None, started=90)
    world.restart()
    assert world.value("flywheel_experiment_winsor_cap", experiment="demo.g1-rollout.3f2a9c1e") == 4


def test_the_experiment_after_the_limit_takes_the_place_of_the_oldest(world: World) -> None:
    for number in range(LIMIT + 1):
        world.register(name=f"demo.r{number}", started=-1000.0 + number)
    held = {experiment.name for experiment in world.collector.experiments.all().values()}
    assert held == {f"demo.r{number}" for number in range(1, LIMIT + 1)}
