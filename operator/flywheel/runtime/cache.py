"""What the watches have seen, indexed the way the planners ask, and who must look again when something changes.

A pass reads through a `View`, which subscribes its object to everything it looks at. So the wake-ups need no map of who
depends on whom: whoever has read an object (or its absence) is woken when it changes.
"""

from __future__ import annotations

import logging
import marshal  # several times as fast as json, for what never leaves the process
import sys
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from flywheel.plan.base import LABEL, Manifest
from flywheel.plan.parts import UNKNOWN, fields_of_ours
from flywheel.runtime.keys import KINDS, LABELS, PARTS, UNOWNED, WATCHED_FOR_EDITS, Key, Topic

_log = logging.getLogger(__name__)
_TOMBSTONES = 10_000
ROUTES = f"{LABEL}component=routes"  # the label of what is planned though it is none of the five kinds: it may outlive them all
OURS = "fieldsOfOurs"  # of a part of a service, instead of its managedFields
_SHORT = 64  # characters of a string that others may have too


@dataclass(frozen=True, slots=True)
class _Held:
    """One object. Kept packed but for the parts, of which little is kept: as dictionaries they take ten times the memory."""

    uid: str
    version: str
    topics: frozenset[Topic]
    content: Manifest | bytes

    @property
    def body(self) -> Manifest:
        if isinstance(self.content, bytes):
            unpacked: Manifest = marshal.loads(zlib.decompress(self.content))  # noqa: S302 - packed by this very process
            return unpacked
        return self.content


def _hold(key: Key, body: Manifest, kept: Manifest) -> _Held:
    content = _shared(kept) if key.kind in PARTS else zlib.compress(marshal.dumps(kept), 1)
    return _Held(body["metadata"]["uid"], body["metadata"].get("resourceVersion", ""), _topics(key, body), content)


class Cache:
    """Objects by key, newest version only. All methods are synchronous: a reader never sees half a change."""

    def __init__(self, wake: Callable[[Key], None]) -> None:
        self._wake = wake
        self._objects: dict[str, dict[Key, _Held]] = defaultdict(dict)  # by kind
        self._index: dict[Topic, set[Key]] = defaultdict(set)
        self._subscribers: dict[Topic, set[Key]] = defaultdict(set)
        self._buried: OrderedDict[str, None] = OrderedDict()  # uids never return: a late list can't raise the dead
        self._accepted: dict[Key, str] = {}
        self.listeners: list[Callable[[Key, Manifest | None], None]] = []  # told of every change of the five kinds, before anybody is woken

    def put(self, body: Manifest) -> None:
        """Take an object over, unless a newer version is held: a write's answer may overtake its watch event."""
        key, uid = key_of(body), body["metadata"]["uid"]
        held = self._objects[key.kind].get(key)
        if uid in self._buried or (held is not None and not _newer(body["metadata"].get("resourceVersion", ""), held.version)):
            return
        kept = slim(body)
        if (accepted := self._accepted.get(key)) is not None and kept.get(OURS) == accepted:
            kept[OURS] = UNKNOWN
        now = _hold(key, body, kept)
        self._objects[key.kind][key] = now
        before = held.topics if held else frozenset()
        for topic in before - now.topics:
            self._unindex(topic, key)
        for topic in now.topics - before:
            self._index[topic].add(key)
        if key.kind in KINDS:
            self._tell(key, kept)
        self._notify(key, before | now.topics)

    def accept(self, body: Manifest) -> None:
        """An object is as whole as it gets: while the same fields of it are ours, nothing of it counts as changed by hand."""
        self._accepted[key_of(body)] = fields_of_ours(body)

    def remove(self, body: Manifest) -> None:
        """Forget an object, unless its name has been taken by another since."""
        self._remove(key_of(body), body["metadata"]["uid"])

    def _remove(self, key: Key, uid: str) -> None:
        self._bury(uid)
        held = self._objects[key.kind].get(key)
        if held is None or held.uid != uid:
            return
        del self._objects[key.kind][key]
        self._accepted.pop(key, None)
        for topic in held.topics:
            self._unindex(topic, key)
        if key.kind in KINDS:
            self._tell(key, None)
        self._notify(key, held.topics)

    def get(self, key: Key) -> Manifest | None:
        """The object, or None."""
        held = self._objects[key.kind].get(key)
        return held.body if held else None

    def find(self, topic: Topic) -> list[Manifest]:
        """The objects of a topic, by name."""
        objects = self._objects[topic.kind]
        return [objects[key].body for key in sorted(self._index.get(topic, ()))]

    def uids(self, kind: str, namespace: str | None = None) -> set[str]:
        """The uids of a kind's objects."""
        return {held.uid for key, held in self._objects[kind].items() if namespace in (None, key.namespace)}

    def drop(self, kind: str, uids: set[str]) -> None:
        """Forget objects of a kind by their uids."""
        for key, uid in [(key, held.uid) for key, held in self._objects[kind].items() if held.uid in uids]:
            self._remove(key, uid)

    def keys(self, kinds: Iterable[str]) -> list[Key]:
        """All objects of some kinds."""
        return [key for kind in kinds for key in self._objects[kind]]

    def everything(self) -> Iterator[Manifest]:
        """All objects."""
        return (held.body for objects in list(self._objects.values()) for held in list(objects.values()))

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
        topics = (*topics, Topic("name", key.kind, key.namespace, key.name))
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

    def keep(self, listed: set[str], before: set[str]) -> None:
        self._cache.drop(self._kind, before - listed)


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
        assert kind not in UNOWNED, f"{kind} is not indexed by its owner"
        return self._find("owner", kind, uid)

    def labelled(self, kind: str, label: str, value: str) -> list[Manifest]:
        """Objects with a label of ours (without its prefix)."""
        assert label in LABELS, f"{label} is not indexed"
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


def _topics(key: Key, body: Manifest) -> frozenset[Topic]:
    """The sets an object is found in, besides by its name. Only those that somebody looks up: an index takes memory too."""
    meta, topics = body["metadata"], []
    labels = meta.get("labels") or {}
    if key.kind in ("Generation", "Rollout"):
        topics.append(Topic("service", key.kind, key.namespace, (body.get("spec") or {}).get("flywheel") or key.name))
    if key.kind not in UNOWNED:
        topics += [Topic("owner", key.kind, key.namespace, owner["uid"]) for owner in meta.get("ownerReferences") or ()]
    if f"{LABEL}component={labels.get(LABEL + 'component')}" == ROUTES:
        topics.append(Topic("label", key.kind, key.namespace, ROUTES))
    trains = labels.get(LABEL + "component") == "trainer"  # of a service too, but nothing that serves it
    for label in LABELS:
        if (value := labels.get(LABEL + label)) is not None and not (trains and label == "flywheel"):
            topics.append(Topic("label", key.kind, key.namespace, f"{LABEL}{label}={value}"))
    return frozenset(topics)


def _newer(new: str, old: str) -> bool:
    """Whether a version is a later one. Versions are numbers that grow (stated by the API since Kubernetes 1.35, true of etcd always)."""
    return int(new) > int(old) if new.isdigit() and old.isdigit() else bool(new != old)


def _shared(value: Any) -> Any:
    """The same, with the strings that thousands of objects have in common kept once."""
    if isinstance(value, dict):
        return {sys.intern(name): _shared(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_shared(one) for one in value]
    return sys.intern(value) if isinstance(value, str) and len(value) < _SHORT else value


def slim(body: Manifest) -> Manifest:
    """The object without what no decision reads: most of a Pod or a Deployment is its template. Doing it again changes nothing."""
    meta = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    if notes := meta.get("annotations"):
        meta["annotations"] = {name: value for name, value in notes.items() if name != "kubectl.kubernetes.io/last-applied-configuration"}
    kept = {**body, "metadata": meta}
    if body["kind"] == "Pod":
        kept.pop("spec", None)
    elif body["kind"] in ("Job", "Deployment"):
        kept["spec"] = {name: value for name, value in (body.get("spec") or {}).items() if name != "template"}
    elif body["kind"] == "JobSet":
        kept["spec"] = {**(body.get("spec") or {}), "replicatedJobs": [_slim_job(one) for one in body["spec"].get("replicatedJobs") or ()]}
    if body["kind"] in PARTS:
        names = ("name", "namespace", "uid", "resourceVersion", "labels", "deletionTimestamp")
        kept = {"kind": body["kind"], "metadata": {name: meta[name] for name in names if name in meta}}
    if body["kind"] in WATCHED_FOR_EDITS:
        kept[OURS] = body[OURS] if OURS in body else sys.intern(fields_of_ours(body))  # parts of one making have it in common
    return kept


def _slim_job(one: Manifest) -> Manifest:
    """A JobSet's replicated Job without the template of its pods."""
    job = one["template"].get("spec") or {}
    return {**one, "template": {"spec": {name: value for name, value in job.items() if name != "template"}}}
