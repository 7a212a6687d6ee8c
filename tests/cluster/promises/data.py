"""What lies on the store before the first run: datasets and a broken model, written with the trainers' own code."""

from __future__ import annotations

import json

from dev.demo.install import Model
from tests.cluster.promises import space

_COMMON = """
import datetime, json, pathlib, shutil, sys
import pyarrow as pa
from flywheel_trainers import digests, tables
root = pathlib.Path("/flywheel/artifacts")

def dataset(name, rows, subset, schema):
    directory = root / name
    directory.mkdir(parents=True, exist_ok=True)
    tables.write(directory, subset, rows, pa.schema(schema))
    return digests.directory_digest(directory)

talk = [("Hello!", "Hello, how are you today?"), ("I like tea.", "Tea is nice. Which kind do you like?")]
said = [(f"{ask} {i}", reply) for i in range(30) for ask, reply in talk]
noon = datetime.datetime(2026, 11, 1, 12, tzinfo=datetime.timezone.utc)
turn_schema = [("user_hash", pa.string()), ("conversation_id", pa.string()), ("message_id", pa.string()), ("turn", pa.int64()),
               ("time", pa.timestamp("us", tz="UTC")),
               ("generation", pa.string()), ("messages", tables.message_type()), ("response", pa.string()), ("continued", pa.bool_()),
               ("thumbs", pa.int8()), ("regenerated", pa.bool_())]
turns = [{"user_hash": f"u{i}", "conversation_id": f"c{i}", "message_id": f"m{i}", "turn": 1, "time": noon, "generation": "g0",
          "messages": [{"role": "user", "content": ask}], "response": reply, "continued": i % 2 == 0, "thumbs": 0, "regenerated": False}
         for i, (ask, reply) in enumerate(said)]
"""
_PREPARE = (
    _COMMON
    + """
broken = root / "promises-no-weights"
shutil.copytree(root / sys.argv[1], broken, dirs_exist_ok=True)
(broken / "model.safetensors").unlink(missing_ok=True)
rows = [{"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]} for ask, reply in said]
say = lambda role, text: [{"role": role, "content": text}]
pairs = [{"prompt": say("user", ask), "chosen": say("assistant", reply), "rejected": say("assistant", "No.")} for ask, reply in said]
print(json.dumps({
    "sft": dataset("promises-sft", rows, "sft", [("messages", tables.message_type())]),
    "pairs": dataset("promises-pairs", pairs, "preferences-reward", [(name, tables.message_type()) for name in pairs[0]]),
    "turns": dataset("promises-turns", turns, "turns", turn_schema),
    "empty": dataset("promises-empty", [], "turns", turn_schema),
    "broken": digests.directory_digest(broken),
}))
"""
)
_LATE = _COMMON + 'dataset("promises-late", turns, "turns", turn_schema)'
_CLEAR = """
import pathlib, shutil
for path in pathlib.Path("/flywheel").iterdir():
    shutil.rmtree(path, ignore_errors=True)
"""
_DIGEST = "import pathlib, sys; from flywheel_trainers import digests; print(digests.directory_digest(pathlib.Path(sys.argv[1])))"


def clear(namespace: str) -> None:
    """Leave nothing on the claim."""
    space.desk(_CLEAR, namespace=namespace)


def prepare(base: Model, namespace: str) -> dict[str, str]:
    """Write `promises-sft`, `-pairs`, `-turns`, `-empty` and a model without weights; returns their digests."""
    digests: dict[str, str] = json.loads(space.desk(_PREPARE, base.name, namespace=namespace))
    return digests


def arrive_late() -> None:
    """Write the dataset that a run asked for before it was there."""
    space.desk(_LATE)


def digest_of(uri: str) -> str:
    """The digest of what lies there now."""
    return space.desk(_DIGEST, uri.removeprefix("file://")).strip()
