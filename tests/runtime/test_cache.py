from __future__ import annotations

from typing import Any

from flywheel.plan.parts import UNKNOWN
from flywheel.runtime.cache import OURS, Cache, KindSink, View
from flywheel.runtime.keys import Key, Topic

READER = Key("Generation", "demo", "g1")


def body(kind: str = "Job", name: str = "j", *, version: int = 1, uid: str = "", **more: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "demo", "uid": uid or f"uid-{name}", "resourceVersion": str(version), **more.pop("metadata", {})}
    return {"apiVersion": "v1", "kind": kind, "metadata": meta, **more}


def a_cache() -> tuple[Cache, list[Key]]:
    woken: list[Key] = []
    return Cache(woken.append), woken


def test_an_older_version_never_replaces_a_newer_one() -> None:
    cache, _ = a_cache()
    cache.put(body(version=10, status={"phase": "new"}))
    cache.put(body(version=9, status={"phase": "old"}))
    held = cache.get(Key("Job", "demo", "j"))
    assert held is not None
    assert held["status"] == {"phase": "new"}


def test_versions_are_compared_as_numbers_and_not_as_text() -> None:
    cache, _ = a_cache()
    cache.put(body(version=9))
    cache.put(body(version=10, status={"seen": True}))
    assert "status" in (cache.get(Key("Job", "demo", "j")) or {})


def test_a_late_list_does_not_raise_the_dead() -> None:
    cache, _ = a_cache()
    cache.put(body(version=5))
    cache.remove(body(version=6))
    KindSink(cache, "Job").put(body(version=5))
    assert cache.get(Key("Job", "demo", "j")) is None


def test_a_list_removes_what_was_deleted_while_nobody_watched() -> None:
    cache, woken = a_cache()
    sink = KindSink(cache, "Job")
    cache.put(body(name="stays"))
    cache.put(body(name="goes"))
    View(cache, READER).get("Job", "goes")
    sink.keep({body(name="stays")["metadata"]["uid"]}, sink.present())
    assert cache.get(Key("Job", "demo", "goes")) is None
    assert cache.get(Key("Job", "demo", "stays")) is not None
    assert READER in woken


def test_a_list_keeps_what_appeared_after_it_was_asked_for() -> None:
    cache, _ = a_cache()
    sink = KindSink(cache, "Job")
    before = sink.present()
    cache.put(body(name="newborn", version=7))
    sink.keep(set(), before)
    assert cache.get(Key("Job", "demo", "newborn")) is not None


def test_a_late_deletion_spares_the_successor_of_the_same_name() -> None:
    cache, _ = a_cache()
    cache.put(body(uid="first", version=1))
    cache.put(body(uid="second", version=5))
    cache.remove(body(uid="first", version=4))
    held = cache.get(Key("Job", "demo", "j"))
    assert held is not None
    assert held["metadata"]["uid"] == "second"


def test_a_list_of_one_namespace_leaves_the_others_alone() -> None:
    cache, _ = a_cache()
    elsewhere = body(name="far", metadata={"namespace": "other"})
    cache.put(elsewhere)
    sink = KindSink(cache, "Job", "demo")
    sink.keep(set(), sink.present())
    assert cache.get(Key("Job", "other", "far")) is not None


def test_whoever_read_the_absence_of_an_object_is_woken_when_it_appears() -> None:
    cache, woken = a_cache()
    assert View(cache, READER).get("Job", "j") is None
    cache.put(body())
    assert woken == [READER]


def test_whoever_read_an_owners_children_is_woken_by_a_new_one_and_by_its_deletion() -> None:
    cache, woken = a_cache()
    view = View(cache, READER)
    assert view.owned("Job", "boss") == []
    child = body(metadata={"ownerReferences": [{"uid": "boss"}]})
    cache.put(child)
    assert [b["metadata"]["name"] for b in view.owned("Job", "boss")] == ["j"]
    cache.remove(child)
    assert woken == [READER, READER]


def test_a_label_that_is_taken_away_wakes_its_readers_too() -> None:
    cache, woken = a_cache()
    cache.put(body(version=1, metadata={"labels": {"modelflywheel.dev/flywheel": "f", "app": "x"}}))
    view = View(cache, READER)
    assert len(view.labelled("Job", "flywheel", "f")) == 1
    cache.put(body(version=2))
    assert woken == [READER]
    assert view.labelled("Job", "flywheel", "f") == []


def test_a_rollout_is_found_by_its_service_with_or_without_a_flywheel() -> None:
    cache, _ = a_cache()
    cache.put(body("Rollout", "r1", spec={"flywheel": "f"}))
    cache.put(body("Rollout", "alone", spec={}))
    view = View(cache, READER)
    assert [b["metadata"]["name"] for b in view.of_service("Rollout", "f")] == ["r1"]
    assert [b["metadata"]["name"] for b in view.of_service("Rollout", "alone")] == ["alone"]


def test_an_object_of_ours_is_woken_by_its_own_change() -> None:
    cache, woken = a_cache()
    cache.put(body("Generation", "g1"))
    assert woken == [READER]


def test_a_version_seen_before_wakes_nobody() -> None:
    cache, woken = a_cache()
    cache.put(body("Generation", "g1", version=3))
    cache.put(body("Generation", "g1", version=3))
    assert woken == [READER]


def test_whoever_no_longer_looks_is_no_longer_woken() -> None:
    cache, woken = a_cache()
    view = View(cache, READER)
    view.get("Job", "j")
    cache.unsubscribe(READER, {Topic("name", "Job", "demo", "j")})
    cache.put(body())
    assert woken == []


def test_what_no_decision_reads_is_not_kept() -> None:
    cache, _ = a_cache()
    notes = {"kubectl.kubernetes.io/last-applied-configuration": "long", "modelflywheel.dev/hash": "h"}
    cache.put(body("Pod", "p", spec={"containers": []}, metadata={"managedFields": [1], "annotations": notes}))
    cache.put(body("Deployment", "d", spec={"replicas": 2, "template": {"big": 1}}))
    pod, deployment = cache.get(Key("Pod", "demo", "p")), cache.get(Key("Deployment", "demo", "d"))
    assert pod is not None
    assert deployment is not None
    assert "spec" not in pod
    assert "managedFields" not in pod["metadata"]
    assert pod["metadata"]["annotations"] == {"modelflywheel.dev/hash": "h"}
    assert deployment["spec"] == {"replicas": 2}


def service(fields: dict[str, Any], version: int) -> dict[str, Any]:
    managed = [{"manager": "flywheel-operator", "operation": "Apply", "fieldsV1": fields}]
    return body("Service", "s", version=version, metadata={"managedFields": managed})


def test_of_a_part_is_kept_what_of_it_is_ours_and_nothing_of_what_it_says() -> None:
    cache, _ = a_cache()
    cache.put(service({"f:spec": {"f:ports": {}}}, 1) | {"spec": {"ports": []}, "status": {}})
    held = cache.get(Key("Service", "demo", "s"))
    assert held is not None
    assert held.keys() == {"kind", "metadata", OURS}
    assert held[OURS] == '{"f:spec":{"f:ports":{}}}'


def test_what_a_webhook_takes_from_us_at_every_apply_is_accepted_until_it_changes_again() -> None:
    cache, _ = a_cache()
    rewritten = service({"f:spec": {"f:selector": {}}}, 2)
    cache.accept(rewritten)
    cache.put(rewritten)
    held = cache.get(Key("Service", "demo", "s"))
    assert held is not None
    assert held[OURS] == UNKNOWN
    cache.put(service({"f:spec": {}}, 3))  # and now somebody edits it
    held = cache.get(Key("Service", "demo", "s"))
    assert held is not None
    assert held[OURS] == '{"f:spec":{}}'
