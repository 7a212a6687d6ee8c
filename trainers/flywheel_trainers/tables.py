"""Datasets on disk: `<subset>.parquet` files of plain rows, and the growing tree of conversation files."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .errors import RunError

Row = dict[str, Any]
CONVERSATIONS = {"messages", "chosen", "rejected", "completion"}  # columns that are lists of messages wherever they occur


def read_subset(directory: Path, subset: str, what: str, columns: tuple[str, ...]) -> list[Row]:
    path = directory / f"{subset}.parquet"
    if not path.is_file():
        present = sorted(p.stem for p in directory.glob("*.parquet"))
        raise RunError(
            "DatasetMissing", f"{what} has no subset '{subset}'; it has {', '.join(present) or 'none'}: name one of them as its subset"
        )
    rows = list(read_file(path, columns, what))
    if not rows:
        raise RunError("DatasetEmpty", f"{what}, subset '{subset}', has no rows; collect more data, or loosen Curate's filters")
    return rows


def read_tree(directory: Path, what: str, columns: tuple[str, ...]) -> Iterator[Row]:
    """Rows of every Parquet file below `directory`, files in the order of their paths.

    Files are opened one by one: a `generation=` folder must not shadow the column of that name.
    """
    for path in sorted(directory.rglob("*.parquet")):
        if not path.name.startswith("."):
            yield from read_file(path, columns, what)


def read_file(path: Path, columns: tuple[str, ...], what: str) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            missing = sorted(set(columns) - set(file.schema_arrow.names))
            if missing:
                raise RunError(
                    "DatasetInvalid",
                    f"{what}: {path.name} lacks the column(s) {', '.join(missing)}; it has {', '.join(file.schema_arrow.names)}",
                )
            for name in sorted(CONVERSATIONS & set(columns)):
                if not _is_conversation(kind := file.schema_arrow.field(name).type):
                    raise RunError("DatasetInvalid", f"{what}: {path.name}: column {name} is {kind}, not a list of {{role, content}}")
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk failed, not the file
        raise RunError("DatasetInvalid", f"{what}: {path.name} is not a readable Parquet file: {error}; write it again") from error


def _is_conversation(kind: Any) -> bool:
    import pyarrow.types as types

    if not (types.is_list(kind) or types.is_large_list(kind)) or not types.is_struct(kind.value_type):
        return False
    fields = {field.name: field.type for field in kind.value_type}
    return all(name in fields and (types.is_string(fields[name]) or types.is_large_string(fields[name])) for name in ("role", "content"))


def write(directory: Path, subset: str, rows: Sequence[Row], schema: Any = None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    parquet.write_table(pa.Table.from_pylist(list(rows), schema=schema), directory / f"{subset}.parquet")


def mix(parts: Sequence[tuple[list[Row], float]], seed: int) -> list[Row]:
    """Weight 1 takes every row once, 0.5 a fixed half of them, 2.5 every row twice and half of them a third time."""
    mixed: list[Row] = []
    r = random.Random(seed)  # noqa: S311 - sampling, not secrecy
    for rows, weight in parts:
        whole, rest = int(weight), weight - int(weight)
        mixed += rows * whole + r.sample(rows, round(rest * len(rows)))
    return mixed


def message_type() -> Any:
    import pyarrow as pa

    return pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
