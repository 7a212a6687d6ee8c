"""What an artifact *is*: the sha256 of the canonical JSON of its behaviour-bearing files' hashes.

Files count by their bytes, except Parquet tables, which count by their rows: another writer, row group size or compression
is still the same data, and so is another order of the rows.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# Cards, measurements and the manifest itself describe an artifact; they don't change what it does.
DESCRIPTIVE = frozenset({"manifest.json", "metrics.json", "README.md", "LICENSE", ".gitattributes"})
_IGNORED_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".log", ".lock")  # never loaded: pickles are refused, logs are logs


def canonical_json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str).encode()


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rows_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """Row hashes are sorted before they are hashed together: a table is a bag of rows."""
    return sha256_bytes("\n".join(sorted(sha256_bytes(canonical_json(row)) for row in rows)).encode())


def files_of(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() and not path.name.startswith("."))


def content_hashes(directory: Path) -> dict[str, str]:
    """Relative path -> hash of content, behaviour-bearing files only."""
    hashes: dict[str, str] = {}
    for path in files_of(directory):
        name = path.relative_to(directory).as_posix()
        if name in DESCRIPTIVE or name.endswith(_IGNORED_SUFFIXES):
            continue
        hashes[name] = _parquet_digest(path) if path.suffix == ".parquet" else sha256_file(path)
    return hashes


def directory_digest(directory: Path) -> str:
    return "sha256:" + sha256_bytes(canonical_json(content_hashes(directory)))


def _parquet_digest(path: Path) -> str:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        return rows_digest(row for batch in file.iter_batches() for row in batch.to_pylist())
