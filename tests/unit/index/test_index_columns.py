"""INCLUDE columns and predicates without a database: storage, damage, merging, limits, speed of one comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from pythiadb.errors import CorruptedIndex, FeatureNotSupported, UnsupportedPredicate
from pythiadb.index.column_writer import ColumnsWriter
from pythiadb.index.columns import Columns, base_type, column_path, open_columns
from pythiadb.index.filters import Filters, evaluate


def stored(folder: Path, types: Mapping[str, str], *batches: Mapping[str, Sequence[Any]]) -> Columns:
    writer = ColumnsWriter(types)
    for batch in batches:
        writer.add(batch)
    writer.finish(folder)
    return open_columns(folder, types, writer.rows, verify=True)


def rows(columns: Columns, predicate: list[Any]) -> list[int]:
    return np.flatnonzero(evaluate(columns, predicate)).tolist()


def one(folder: Path, kind: str, values: Sequence[Any]) -> Columns:
    return stored(folder, {"c": kind}, {"c": values})


@pytest.mark.parametrize(
    ("written", "short"),
    [
        ("integer", "int4"),
        ("numeric(10,2)", "numeric"),
        ("timestamp(3) with time zone", "timestamptz"),
        ("timestamp without time zone", "timestamp"),
        ("character varying(20)", "varchar"),
        ("double precision", "float8"),
        ("uuid", "uuid"),
    ],
)
def test_types_as_format_type_writes_them(written: str, short: str) -> None:
    assert base_type(written) == short


@pytest.mark.parametrize("name", ["jsonb", "character(4)", "integer[]", "my_enum", "interval", "citext"])
def test_types_that_cannot_be_included(name: str) -> None:
    with pytest.raises(FeatureNotSupported):
        base_type(name)


def test_python_values_as_psycopg_loads_them(tmp_path: Path) -> None:
    columns = one(tmp_path, "timestamptz", [datetime(2024, 1, 1, 12, tzinfo=UTC), None])
    assert rows(columns, ["=", "c", "2024-01-01 14:00:00+02"]) == [0]
    columns = one(tmp_path, "date", [date(1999, 12, 31), date(2000, 1, 1)])
    assert rows(columns, ["<", "c", "2000-01-01"]) == [0]
    columns = one(tmp_path, "uuid", [UUID(int=7), UUID(int=8)])
    assert rows(columns, ["=", "c", str(UUID(int=8))]) == [1]
    columns = one(tmp_path, "bool", [True, False, None])
    assert rows(columns, ["=", "c", "true"]) == [0]


def test_codes_are_as_narrow_as_they_can_be(tmp_path: Path) -> None:
    assert one(tmp_path, "int8", [1, -128, 127]).by_name["c"].codes.dtype == np.int8
    assert one(tmp_path, "int8", [1, 128]).by_name["c"].codes.dtype == np.int16
    assert one(tmp_path, "date", ["2024-01-01"]).by_name["c"].codes.dtype == np.int16
    assert one(tmp_path, "text", ["x"] * 1000).by_name["c"].codes.dtype == np.int8


def test_numbers_at_scales_that_differ_from_batch_to_batch(tmp_path: Path) -> None:
    types = {"c": "numeric"}
    columns = stored(
        tmp_path, types, {"c": [Decimal("1.5"), None]}, {"c": [Decimal("1.505"), Decimal("NaN")]}
    )
    assert columns.by_name["c"].scale == 3
    assert rows(columns, ["<=", "c", "1.505"]) == [0, 2]
    assert rows(columns, [">", "c", "1.5049999999999999999999"]) == [2, 3]


def test_numbers_too_wide_for_64_bits_stay_exact(tmp_path: Path) -> None:
    values = [
        Decimal("1e30"),
        Decimal("1" + "0" * 29 + "1"),
        Decimal("1.00"),
        Decimal("1e-30"),
        Decimal("1" * 5000),
    ]
    columns = one(tmp_path, "numeric", values)
    assert rows(columns, [">", "c", "1000000000000000000000000000000"]) == [1, 4]
    assert rows(columns, ["=", "c", "1"]) == [2]
    assert rows(columns, ["between", "c", "0", "1"]) == [2, 3]


def test_trailing_zeros_do_not_make_a_number_wide(tmp_path: Path) -> None:
    columns = one(tmp_path, "numeric", [Decimal("3.0000000000000000000000"), Decimal("7")])
    assert columns.by_name["c"].scale == 0
    assert rows(columns, ["=", "c", "3.0"]) == [0]


def test_null_is_true_neither_way(tmp_path: Path) -> None:
    columns = one(tmp_path, "int4", [1, None, 3])
    assert rows(columns, ["not", ["=", "c", "1"]]) == [2]
    assert rows(columns, ["not", ["in", "c", ["1", None]]]) == []
    assert rows(columns, ["not", ["between", "c", "2", None]]) == [0]
    assert rows(columns, ["or", ["null", "c"], ["=", "c", "3"]]) == [1, 2]
    assert rows(columns, ["not", ["in", "c", []]]) == [0, 1, 2]
    assert rows(columns, ["and"]) == [0, 1, 2]
    assert rows(columns, ["or"]) == []


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int4", "five"),
        ("int4", "1_000"),
        ("int4", "0x10"),
        ("int4", "NaN"),
        ("int4", "9" * 500),
        ("int4", "1e9999"),
        ("float8", "1e400"),
        ("float8", "1e-400"),
        ("bool", "maybe"),
        ("date", "01/02/2024"),
        ("date", "2024-02-30"),
        ("date", "0000-01-01"),
        ("date", "today"),
        ("timestamp", "2024-01-01 10:00:00+02"),
        ("timestamp", "2024-01-01 10:00:00.1234567"),
        ("timestamp", "2024-01-01 25:00:00"),
        ("timestamptz", "2024-01-01 10:00:00"),  # the session's TimeZone decides
        ("timestamptz", "2024-01-01 10:00:00 Europe/Berlin"),
        ("timestamptz", "2024-01-01"),
        ("uuid", "urn:uuid:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("text", "\ud800"),
    ],
)
def test_values_of_no_certain_meaning_are_refused(tmp_path: Path, kind: str, value: str) -> None:
    columns = one(tmp_path, kind, [None])
    for predicate in (["=", "c", value], ["in", "c", [value]], ["not", ["<>", "c", value]]):
        with pytest.raises(UnsupportedPredicate):
            evaluate(columns, predicate)


def test_values_between_two_of_the_column(tmp_path: Path) -> None:
    """0.1 is one number as real and another in SQL; 1e39 is beyond all of single precision; ten o'clock is after its day begins."""
    columns = one(tmp_path, "float4", [0.1, 0.25, -0.1, 3e38, float("inf"), float("nan")])
    assert rows(columns, ["=", "c", "0.1"]) == []
    assert rows(columns, ["<>", "c", "0.1"]) == [0, 1, 2, 3, 4, 5]
    assert rows(columns, ["=", "c", "0.10000000149011612"]) == [0]
    assert rows(columns, ["between", "c", "0.1", "1e39"]) == [0, 1, 3]
    assert rows(columns, ["<", "c", "-0.1"]) == [2]
    days = one(tmp_path, "date", [date(2024, 1, 1), date(2024, 1, 2), "0044-03-15 BC"])
    assert rows(days, [">", "c", "2024-01-01T10:00:00"]) == [1]
    assert rows(days, ["<=", "c", "2024-01-01 10:00:00"]) == [0, 2]
    assert rows(days, ["in", "c", ["2024-01-01 10:00:00", "2024-01-02 00:00:00"]]) == [1]
    assert rows(days, ["between", "c", "0044-03-15 00:00:00 BC", "0044-03-15 10:00:00 BC"]) == [2]


@pytest.mark.parametrize(
    "predicate",
    [
        [], None, "c", {}, ["=", "c"], ["=", "c", "1", "2"], ["=", 1, "1"], ["=", "c", 1], ["like", "c", "1"], ["=", "d", "1"],
        ["in", "c", "1"], ["in", "c", ["1"] * 20_000], ["not"], ["not", ["null", "c"], ["null", "c"]], [["null", "c"]],
        ["null", None], ["between", "c", "1"], ["and", 1], ["and", *[["null", "c"]] * 2_000], ["<", "t", "a"], ["between", "t", "a", "b"],
    ],
)  # fmt: skip
def test_predicates_that_are_refused(tmp_path: Path, predicate: Any) -> None:
    columns = stored(tmp_path, {"c": "int4", "t": "text"}, {"c": [1], "t": ["a"]})
    with pytest.raises(UnsupportedPredicate):
        evaluate(columns, predicate)


@pytest.mark.parametrize("depth", [100, 100_000])
def test_deep_predicates_are_refused(tmp_path: Path, depth: int) -> None:
    predicate: list[Any] = ["null", "c"]
    for _ in range(depth):
        predicate = ["not", predicate]
    with pytest.raises(UnsupportedPredicate):
        Filters(one(tmp_path, "int4", [1])).mask(predicate)


@pytest.mark.parametrize("spread", [1_000, 1 << 40])
@pytest.mark.parametrize("count", [3, 500])
def test_long_lists_of_values(tmp_path: Path, spread: int, count: int) -> None:
    draw = np.random.default_rng(spread + count)
    values = draw.integers(-spread, spread, 3_000).tolist()
    wanted = values[:count] + draw.integers(-spread, spread, count).tolist()
    columns = one(tmp_path, "int8", values)
    expected = [place for place, value in enumerate(values) if value in set(wanted)]
    assert rows(columns, ["in", "c", [*map(str, wanted), "1" + "0" * 30, "0.5"]]) == expected


def test_merging_takes_rows_over_as_they_are(tmp_path: Path) -> None:
    types = {"n": "numeric", "t": "text", "d": "date", "w": "numeric"}
    first, second, third = tmp_path / "1", tmp_path / "2", tmp_path / "3"
    for folder in (first, second, third):
        folder.mkdir()
    one_segment = stored(first, types, {"n": [Decimal("1.25"), None, Decimal(3)], "t": ["b", "a", None],
                                        "d": ["infinity", date(2020, 1, 1), None], "w": [Decimal("1e40"), Decimal(1), None]})  # fmt: skip
    other = stored(second, types, {"n": [Decimal("0.5")], "t": ["c"], "d": ["0044-03-15 BC"], "w": [None]})
    writer = ColumnsWriter(types)
    writer.add(one_segment.take(np.array([2, 0])))
    writer.add(other.take(np.array([0])))
    writer.add({"n": [Decimal("NaN")], "t": ["a"], "d": [None], "w": [Decimal("0.001")]})
    writer.finish(third)
    merged = open_columns(third, types, 4, verify=True)
    assert rows(merged, [">=", "n", "1.25"]) == [0, 1, 3]
    assert rows(merged, ["in", "t", ["a", "c"]]) == [2, 3]
    assert rows(merged, ["<", "d", "0001-01-01"]) == [2]
    assert rows(merged, ["=", "d", "infinity"]) == [1]
    assert rows(merged, ["<", "w", "1e40"]) == [3]
    assert rows(merged, ["null", "w"]) == [0, 2]


def test_batches_have_all_columns_at_one_length() -> None:
    for batch in ({"a": [1]}, {"a": [1], "b": [1, 2]}, {"a": [1], "b": [1], "c": [1]}):
        with pytest.raises(ValueError, match="a batch"):
            ColumnsWriter({"a": "int4", "b": "int4"}).add(batch)


def test_no_rows(tmp_path: Path) -> None:
    columns = stored(tmp_path, {"i": "int4", "t": "text", "n": "numeric", "f": "float8"})
    for name in columns.by_name:
        assert rows(columns, ["not", ["in", name, ["1", "2"]]]) == []


def test_damage_is_noticed(tmp_path: Path) -> None:
    one(tmp_path, "text", ["a", "b", None])
    path = column_path(tmp_path, 0)
    sound = path.read_bytes()
    for at in range(0, len(sound), 7):
        if sound[at]:  # bytes that fill up a header mean nothing
            path.write_bytes(sound[:at] + bytes([sound[at] ^ 255]) + sound[at + 1 :])
            with pytest.raises(CorruptedIndex):
                open_columns(tmp_path, {"c": "text"}, 3, verify=True)
    for length in (0, 10, len(sound) - 1):
        path.write_bytes(sound[:length])
        with pytest.raises(CorruptedIndex):
            open_columns(tmp_path, {"c": "text"}, 3, verify=False)
    path.write_bytes(sound)
    for types, count in (({"d": "text"}, 3), ({"c": "int4"}, 3), ({"c": "text"}, 4)):
        with pytest.raises(CorruptedIndex):
            open_columns(tmp_path, types, count, verify=False)


def test_masks_are_kept_and_few(tmp_path: Path) -> None:
    filters = Filters(one(tmp_path, "int4", list(range(100))))
    first = filters.mask(["<", "c", "50"])
    assert filters.mask(["<", "c", "50"]) is first
    assert not first.flags.writeable
    assert filters.positions(["<", "c", "3"]).tolist() == [0, 1, 2]
    for limit in range(20):
        filters.mask(["<", "c", str(limit)])
    assert filters.mask(["<", "c", "50"]) is not first
