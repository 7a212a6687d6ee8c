"""What the watches have seen, indexed the way the planners ask, and who must look again when something changes.

A pass reads through a `View`, which subscribes its object to everything it looks at. So the wake-ups need no map of who
depends on whom: whoever has read an object (or its absence) is woken when it changes.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator

from flywheel.plan.base import LABEL, Manifest
from flywheel.runtime.keys import KINDS, Key, Topic

_log = logging.getLogger(__name__)
_TOMBSTONES = 10_000
ROUTES = f"{LABEL}component=routes"  # the label of what is planned though it is none of the five kinds: it may outlive them all


class Cache:
    """Objects by key, newest version only. All methods are synchronous: a reader never sees half a change."""

    def __init__(self, wake: Callable[[Key], None]) -> None:
        self._wake = wake
        self._objects: dict[Key, Manifest] = {}
        self._index: dict[Topic, set[Key]] = defaultdict(set)
        self._subscribers: dict[Topic, set[Key]] = defaultdict(set)
        self._buried: OrderedDict[str, None] = OrderedDict()  # uids never return: a late list can't raise the dead
        self.listeners: list[Callable[[Key, Manifest | None], None]] = []  # told of every change, before anybody is woken

    def put(self, body: Manifest) -> None:
        """Take an object over, unless a newer version is held: a write's answer may overtake its watch event."""
        key, uid = key_of(body), body["metadata"]["uid"]
        held = self._objects.get(key)
        if uid in self._buried or (held is not None and not _newer(body, held)):
            return
        slim = _slim(body)
        self._objects[key] = slim
        before, after = _topics(key, held), _topics(key, slim)
        for topic in before - after:
            self._unindex(topic, key)
        for topic in after - before:
            self._index[topic].add(key)
        self._tell(key, slim)
        self._notify(key, before | after)

    def remove(self, body: Manifest) -> None:
        """Forget an object, unless its name has been taken by another since."""
        key, uid = key_of(body), body["metadata"]["uid"]
        self._bury(uid)
        held = self._objects.get(key)
        if held is None or held["metadata"]["uid"] != uid:
            return
        del self._objects[key]
        topics = _topics(key, held)
        for topic in topics:
            self._unindex(topic, key)
        self._tell(key, None)
        self._notify(key, topics)

    def get(self, key: Key) -> Manifest | None:
        """The object, or None."""
        return self._objects.get(key)

    def find(self, topic: Topic) -> list[Manifest]:
        """The objects of a topic, by name."""
        return [self._objects[key] for key in sorted(self._index.get(topic, ()))]

    def uids(self, kind: str, namespace: str | None = None) -> set[str]:
        """The uids of a kind's objects."""
        return {b["metadata"]["uid"] for k, b in self._objects.items() if k.kind == kind and namespace in (None, k.namespace)}

    def keys(self, kinds: Iterable[str]) -> list[Key]:
        """All objects of some kinds."""
        wanted = set(kinds)
        return [key for key in self._objects if key.kind in wanted]

    def everything(self) -> Iterator[Manifest]:
        """All objects."""
        return iter(list(self._objects.values()))

    def subscribe(self, key: Key, topic: Topic) -> None:
        """Wake `key` when anything of the topic changes."""
        self._subscribers[topic].add(key)

    def unsubscribe(self, key: Key, topics: Iterable[Topic]) -> None:
        """Undo `subscribe`."""
        for topic in topics:
            if (keys := self._subscribers.get(topic)) is not None:
                keys.discard(key)
                if not keys:
                    del self._subscribers[topic]

    def _tell(self, key: Key, body: Manifest | None) -> None:
        for listener in self.listeners:
            listener(key, body)

    def _notify(self, key: Key, topics: Iterable[Topic]) -> None:
        woken = {subscriber for topic in topics for subscriber in self._subscribers.get(topic, ())}
        if key.kind in KINDS or any(topic.value == ROUTES for topic in topics):
            woken.add(key)
        for one in woken:
            self._wake(one)

    def _unindex(self, topic: Topic, key: Key) -> None:
        if (keys := self._index.get(topic)) is not None:
            keys.discard(key)
            if not keys:
                del self._index[topic]

    def _bury(self, uid: str) -> None:
        self._buried[uid] = None
        while len(self._buried) > _TOMBSTONES:
            self._buried.popitem(last=False)


class KindSink:
    """One kind in one scope, as the end of a watch."""

    def __init__(self, cache: Cache, kind: str, namespace: str | None = None) -> None:
        self._cache, self._kind, self._namespace = cache, kind, namespace

    def put(self, body: Manifest) -> None:
        self._cache.put(body)

    def remove(self, body: Manifest) -> None:
        self._cache.remove(body)

    def present(self) -> set[str]:
        return self._cache.uids(self._kind, self._namespace)

    def replace(self, items: list[Manifest], before: set[str]) -> None:
        for body in items:
            self._cache.put(body)
        gone = before - {body["metadata"]["uid"] for body in items}
        for body in [b for k in self._cache.keys([self._kind]) if (b := self._cache.get(k)) and b["metadata"]["uid"] in gone]:
            self._cache.remove(body)


class View:
    """The cache as one pass sees it; remembers what was looked at."""

    def __init__(self, cache: Cache, reader: Key, *, refused: str | None = None) -> None:
        self._cache, self._reader = cache, reader
        self.namespace = reader.namespace
        self.refused = refused  # why the API server would not take what the last pass wanted to write
        self.topics: set[Topic] = set()

    def get(self, kind: str, name: str) -> Manifest | None:
        """An object of the reader's namespace."""
        self._look(Topic("name", kind, self.namespace, name))
        return self._cache.get(Key(kind, self.namespace, name))

    def owned(self, kind: str, uid: str) -> list[Manifest]:
        """Objects whose owner has this uid."""
        return self._find("owner", kind, uid)

    def labelled(self, kind: str, label: str, value: str) -> list[Manifest]:
        """Objects with a label of ours (without its prefix)."""
        return self._find("label", kind, f"{LABEL}{label}={value}")

    def of_service(self, kind: str, service: str) -> list[Manifest]:
        """Generations or Rollouts of one model service, whoever made them."""
        return self._find("service", kind, service)

    def everything(self) -> Iterator[Manifest]:
        """All objects of all namespaces, without being woken when they change: for what is decided once by what stands now."""
        return self._cache.everything()

    def _find(self, what: str, kind: str, value: str) -> list[Manifest]:
        topic = Topic(what, kind, self.namespace, value)
        self._look(topic)
        return self._cache.find(topic)

    def _look(self, topic: Topic) -> None:
        # Subscribed before it is read: a change between this read and the end of the pass wakes the object again.
        self.topics.add(topic)
        self._cache.subscribe(self._reader, topic)


def key_of(body: Manifest) -> Key:
    """The key of a manifest."""
    meta = body["metadata"]
    return Key(body["kind"], meta.get("namespace", ""), meta["name"])


def _topics(key: Key, body: Manifest | None) -> set[Topic]:
    if body is None:
        return set()
    meta = body["metadata"]
    topics = {Topic("name", key.kind, key.namespace, key.name)}
    if key.kind in ("Generation", "Rollout"):
        topics.add(Topic("service", key.kind, key.namespace, (body.get("spec") or {}).get("flywheel") or key.name))
    topics |= {Topic("owner", key.kind, key.namespace, o["uid"]) for o in meta.get("ownerReferences") or ()}
    labels = (meta.get("labels") or {}).items()
    return topics | {Topic("label", key.kind, key.namespace, f"{name}={value}") for name, value in labels if name.startswith(LABEL)}


def _newer(body: Manifest, held: Manifest) -> bool:
    """Whether `body` is a later version. Versions are numbers that grow (stated by the API since Kubernetes 1.35, true of etcd always)."""
    new, old = body["metadata"].get("resourceVersion", ""), held["metadata"].get("resourceVersion", "")
    return int(new) > int(old) if new.isdigit() and old.isdigit() else bool(new != old)


def _slim(body: Manifest) -> Manifest:
    """The object without what no decision reads: most of a Pod or a Deployment is its template."""
    meta = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    if notes := meta.get("annotations"):
        meta["annotations"] = {name: value for name, value in notes.items() if name != "kubectl.kubernetes.io/last-applied-configuration"}
    slim = {**body, "metadata": meta}
    if body["kind"] == "Pod":
        slim.pop("spec", None)
    elif body["kind"] in ("Job", "Deployment"):
        slim["spec"] = {name: value for name, value in (body.get("spec") or {}).items() if name != "template"}
    elif body["kind"] == "JobSet":
        slim["spec"] = {**(body.get("spec") or {}), "replicatedJobs": [_slim_job(one) for one in body["spec"].get("replicatedJobs") or ()]}
    return slim


def _slim_job(one: Manifest) -> Manifest:
    """A JobSet's replicated Job without the template of its pods."""
    job = one["template"].get("spec") or {}
    return {**one, "template": {"spec": {name: value for name, value in job.items() if name != "template"}}}
