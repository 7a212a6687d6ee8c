"""A digest says what an artifact does: the same content gives the same digest, another content another."""

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_trainers import digests, tables

rows = st.lists(st.fixed_dictionaries({"prompt": st.text(max_size=20), "n": st.integers(-5, 5)}), min_size=1, max_size=8)


@given(rows, st.randoms())
def test_rows_are_a_bag_their_order_does_not_count(table: list[dict[str, Any]], r: Any) -> None:
    shuffled = [dict(reversed(list(row.items()))) for row in table]
    r.shuffle(shuffled)
    assert digests.rows_digest(table) == digests.rows_digest(shuffled)


@given(rows, rows)
def test_other_rows_have_another_digest(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> None:
    def bag(table: list[dict[str, Any]]) -> list[str]:
        return sorted(json.dumps(row, sort_keys=True) for row in table)

    assert (digests.rows_digest(a) == digests.rows_digest(b)) == (bag(a) == bag(b))


@settings(max_examples=20)
@given(rows)
def test_a_table_written_in_another_way_is_the_same_table(table: list[dict[str, Any]]) -> None:
    import tempfile

    import pyarrow as pa
    import pyarrow.parquet as parquet

    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        tables.write(Path(one), "sft", table)
        parquet.write_table(pa.Table.from_pylist(table), Path(other, "sft.parquet"), compression="gzip", row_group_size=1)
        assert digests.directory_digest(Path(one)) == digests.directory_digest(Path(other))


def test_cards_metrics_and_logs_do_not_count_but_weights_and_templates_do(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "chat_template.jinja").write_text("a")
    before = digests.directory_digest(tmp_path)
    for name in ("README.md", "metrics.json", "manifest.json", "train.log", ".hidden"):
        (tmp_path / name).write_text("anything")
    assert digests.directory_digest(tmp_path) == before
    (tmp_path / "chat_template.jinja").write_text("b")
    assert digests.directory_digest(tmp_path) != before


def test_a_renamed_file_is_another_artifact(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    before = digests.directory_digest(tmp_path)
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    assert digests.directory_digest(tmp_path) != before
