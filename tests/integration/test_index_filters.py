"""Predicates over INCLUDE columns find the rows that PostgreSQL finds: random rows, random predicates, one answer."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import pythiadb
from pythiadb.index.column_writer import ColumnsWriter
from pythiadb.index.columns import Columns, open_columns
from pythiadb.index.filters import Filters

# Values of each type as PostgreSQL's text: ordinary ones and those at the edges.
VALUES: dict[str, list[str]] = {
    "int2": ["0", "1", "-1", "7", "32767", "-32768"],
    "int4": ["0", "1", "-1", "7", "128", "2147483647", "-2147483648"],
    "int8": ["0", "1", "-1", "9007199254740993", "9223372036854775807", "-9223372036854775808"],
    "float4": ["0", "-0", "1.5", "0.1", "16777216", "1e38", "1e-45", "NaN", "Infinity", "-Infinity"],
    "float8": ["0", "-0", "1.5", "0.1", "-2.25", "1e308", "5e-324", "NaN", "Infinity", "-Infinity"],
    "bool": ["t", "f"],
    "date": ["2000-01-01", "1999-12-31", "2024-02-29", "0044-03-15 BC", "5874897-12-31", "infinity", "-infinity"],
    "timestamp": ["2000-01-01", "2024-02-29 12:00:00.000001", "1999-12-31 23:59:59.999999", "0044-03-15 12:30:00 BC",
                  "294276-12-31 23:59:59.999999", "infinity", "-infinity"],
    "timestamptz": ["2000-01-01 00:00:00+00", "2024-02-29 12:00:00.000001+02", "1999-12-31 23:30:00-05:30",
                    "0044-03-15 12:30:00+00 BC", "infinity", "-infinity"],
    "numeric": ["0", "1", "1.0", "1.50", "-1.5", "10.005", "99999999.99", "NaN", "Infinity", "-Infinity"],
    "text": ["", "a", "A", "a ", "é", "日本", "%", "O'Hara", "a\\b"],
    "varchar": ["", "a", "b", "a ", "ß"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "ffffffff-ffff-ffff-ffff-ffffffffff00"],
}  # fmt: skip
# Numbers that need more than 64 bits at one scale.
WIDE = [
    "123456789012345678901234567890",
    "0.000000000000000000000000000001",
    "1e100",
    "1.0",
    "1",
    "NaN",
    "-Infinity",
]
# Values that a column need not have, but a predicate may.
OTHERS: dict[str, list[str]] = {
    "int2": ["2", "40000", "1.5", "-0.5", "1e3", "99999999999999999999"],
    "int4": ["3", "0.5", "3000000000", "-99999999999999999999.5"],
    "int8": ["9223372036854775807.5", "9223372036854775808", "-9223372036854775809", "0.1"],
    "float4": ["2", "-16777216", "0.5"],
    "float8": ["0.30000000000000004", "2", "1e-310", "123456789012345678901234567890"],
    "bool": ["true", "off", "1", "no"],
    "date": ["2001-05-05", "4713-01-01 BC"],
    "timestamp": ["2001-05-05", "2001-05-05T10:11:12.5", "2024-02-29 12:00:00"],
    "timestamptz": ["2001-05-05 10:11+01", "2024-02-29 10:00:00.000001Z", "2024-02-29 10:00:00+0130"],
    "numeric": ["1.5000", "1.49999999999999999999", "1e30", "-1e30", "0.000000001", "15e-1", ".5"],
    "text": ["b", "A "],
    "varchar": ["A", "c"],
    "uuid": ["{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}", "a0eebc999c0b4ef8bb6d6bb9bd380a11", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
}  # fmt: skip
COLUMNS = {**{f"c_{name}": name for name in VALUES}, "c_wide": "numeric", 'odd "name"': "int4"}
EQUALITY_ONLY = {"text", "varchar", "uuid"}
BARE = {"int2", "int4", "int8", "float8", "numeric"}  # types whose constants need no quotes


def _values(column: str) -> list[str]:
    return WIDE if column == "c_wide" else VALUES[COLUMNS[column]]


_row = st.fixed_dictionaries({c: st.none() | st.sampled_from(_values(c)) for c in COLUMNS})
_rows = st.lists(_row, max_size=25)


@st.composite
def _leaf(draw: st.DrawFn) -> list[Any]:
    column = draw(st.sampled_from(list(COLUMNS)))
    kind = COLUMNS[column]
    value = st.sampled_from(_values(column) + OTHERS[kind]) | st.none()
    if kind == "float4":
        value = value.filter(lambda text: text not in {"0.1", "1e38", "1e-45"})
    shape = draw(st.sampled_from(["compare", "compare", "in", "between", "null"]))
    if shape == "in":
        return ["in", column, draw(st.lists(value, max_size=12))]
    if shape == "null":
        return [draw(st.sampled_from(["null", "notnull"])), column]
    if shape == "between" and kind not in EQUALITY_ONLY:
        return ["between", column, draw(value), draw(value)]
    operators = ["=", "<>"] if kind in EQUALITY_ONLY else ["=", "<>", "<", "<=", ">", ">="]
    return [draw(st.sampled_from(operators)), column, draw(value)]


_predicates = st.recursive(
    _leaf(),
    lambda inner: (
        st.builds(lambda p: ["not", p], inner)
        | st.builds(lambda word, parts: [word, *parts], st.sampled_from(["and", "or"]), st.lists(inner, max_size=3))
    ),
    max_leaves=6,
)  # fmt: skip


def _constant(column: str, value: str | None) -> str:
    """The SQL of a constant: bare where the type allows it, as a client would write it."""
    kind = COLUMNS[column]
    fractional = {"int2", "int4", "int8"} & {kind} and value is not None
    if value is None:
        return f"NULL::{kind}"
    if fractional or (kind in BARE and value[-1].isdigit()):
        return f"({value})"
    return "'" + value.replace("'", "''") + f"'::{kind}"


def _sql(predicate: list[Any]) -> str:
    word, *rest = predicate
    if word == "not":
        return f"NOT ({_sql(rest[0])})"
    if word in {"and", "or"}:
        return f" {word} ".join(f"({_sql(part)})" for part in rest) or ("true" if word == "and" else "false")
    name = '"' + rest[0].replace('"', '""') + '"'
    if word in {"null", "notnull"}:
        return f"{name} IS {'NOT ' if word == 'notnull' else ''}NULL"
    if word == "in":
        constants = ", ".join(_constant(rest[0], value) for value in rest[1])
        return f"{name} IN ({constants})" if rest[1] else "false"
    if word == "between":
        return f"{name} BETWEEN {_constant(rest[0], rest[1])} AND {_constant(rest[0], rest[2])}"
    return f"{name} {word} {_constant(rest[0], rest[1])}"


@pytest.fixture(scope="module")
def table(shop: Path) -> Iterator[psycopg.Connection[Any]]:
    """A connection with an empty temporary table `t` of one column of each type."""
    columns = ", ".join('"' + name.replace('"', '""') + f'" {kind}' for name, kind in COLUMNS.items())
    with pythiadb.connect(shop, autocommit=True) as db:
        db.execute("SET timezone = 'Asia/Kolkata'")
        db.execute(f"CREATE TEMP TABLE t (id int PRIMARY KEY, {columns})".encode())
        yield db


def _stored(db: psycopg.Connection[Any], rows: list[dict[str, str | None]]) -> None:
    db.execute("TRUNCATE t")
    with db.cursor().copy("COPY t FROM STDIN") as copy:
        for number, row in enumerate(rows):
            copy.write_row((number, *(row[column] for column in COLUMNS)))


def _columns(folder: Path, batches: list[list[tuple[Any, ...]]]) -> Columns:
    writer = ColumnsWriter(COLUMNS)
    for batch in batches:
        turned = list(zip(*batch, strict=True)) or [()] * len(COLUMNS)
        writer.add(dict(zip(COLUMNS, turned, strict=True)))
    writer.finish(folder)
    return open_columns(folder, COLUMNS, writer.rows, verify=True)


def _select(texts: set[str]) -> bytes:
    quoted = {c: '"' + c.replace('"', '""') + '"' for c in COLUMNS}
    return (
        "SELECT " + ", ".join(f"{q}::text" if c in texts else q for c, q in quoted.items()) + " FROM t ORDER BY id"
    ).encode()  # fmt: skip


@settings(
    max_examples=100,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=_rows,
    predicates=st.lists(_predicates, min_size=1, max_size=8),
    cut=st.integers(0, 25),
    data=st.data(),
)
def test_the_same_rows_as_postgresql(
    table: psycopg.Connection[Any], rows: list[dict[str, str | None]], predicates: list[Any], cut: int, data: st.DataObject
) -> None:  # fmt: skip
    _stored(table, rows)
    # Python's dates end where PostgreSQL's do not; those columns are read as text.
    texts = {"c_date", "c_timestamp", "c_timestamptz", *data.draw(st.sets(st.sampled_from(list(COLUMNS))))}
    table.execute("SET datestyle = 'ISO'")
    loaded = table.execute(_select(texts)).fetchall()
    with tempfile.TemporaryDirectory() as name:
        columns = _columns(Path(name), [loaded[:cut], loaded[cut:]])
        moved = ColumnsWriter(COLUMNS)
        kept = np.array(data.draw(st.permutations(range(len(rows)))), np.int64)
        for part in np.array_split(kept, 2):
            moved.add(columns.take(part))
        (Path(name) / "moved").mkdir()
        moved.finish(Path(name) / "moved")
        merged = open_columns(Path(name) / "moved", COLUMNS, len(rows), verify=True)
        for predicate in predicates:
            statement = f"SELECT id FROM t WHERE {_sql(predicate)} ORDER BY id".encode()
            expected = [row[0] for row in table.execute(statement)]
            assert Filters(columns).positions(predicate).tolist() == expected
            assert sorted(kept[Filters(merged).positions(predicate)].tolist()) == expected
