"""Reading ratings: every source gives the same, bad input is named with its line, memory-bounded blocks change nothing."""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc, parquet

from bench.ratings_file import write_ratings
from pythiadb.errors import InvalidParameter, InvalidRatings, UndefinedFile
from pythiadb.recommend.ratings import Ratings, read_ratings

Row = tuple[Any, Any, float, int]
NAMES = ("userId", "movieId", "rating", "timestamp")


def rows(ratings: Ratings) -> list[Row]:
    """The ratings with their ids, in their order."""
    users, items = ratings.user_ids.to_pylist(), ratings.item_ids.to_pylist()
    assert users == sorted(set(users), key=order)
    assert items == sorted(set(items), key=order)
    assert ratings.times is not None
    return [
        (users[user], items[item], value, time)
        for user, item, value, time in zip(
            ratings.users.tolist(),
            ratings.items.tolist(),
            ratings.values.tolist(),
            ratings.times.tolist(),
            strict=True,
        )
    ]


def order(one: int | str) -> int | bytes:
    return one.encode() if isinstance(one, str) else one


def table(given: list[Row]) -> pa.Table:
    columns = list(zip(*given, strict=True))
    kinds = [pa.string() if isinstance(columns[i][0], str) else pa.int64() for i in (0, 1)]
    types = (*kinds, pa.float32(), pa.int64())
    return pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], NAMES)


def write_text(path: Path, given: list[Row], opener: Callable[..., Any] = open, **form: str) -> Path:
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n", **form)
        writer.writerow(NAMES)
        writer.writerows(given)
    return path


def written(folder: Path, given: list[Row]) -> list[Any]:
    """The same ratings in every form that is read."""
    whole = table(given)
    parquet.write_table(whole, folder / "r.parquet")
    with ipc.new_file(folder / "r.arrow", whole.schema) as file:
        file.write_table(whole, max_chunksize=3)
    with ipc.new_stream(folder / "r.feather", whole.schema) as stream:
        stream.write_table(whole, max_chunksize=3)
    return [
        write_text(folder / "r.csv", given),
        write_text(folder / "r.tsv", given, delimiter="\t"),
        write_text(folder / "r.CSV.gz", given, gzip.open),
        folder / "r.parquet",
        str(folder / "r.arrow"),
        folder / "r.feather",
        whole,
        pa.RecordBatchReader.from_batches(whole.schema, whole.to_batches(max_chunksize=2)),
        whole.to_pandas(),
        whole.to_pandas().astype({"userId": "category"}),
    ]


integers = st.integers(-(2**63), 2**63 - 1)
uuids = st.uuids().map(str)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@st.composite
def some_ratings(draw: st.DrawFn) -> list[Row]:
    ids = st.sampled_from([integers, uuids, texts.map(lambda text: f"{text}é ")])
    pairs = draw(st.lists(st.tuples(draw(ids), draw(ids)), min_size=1, max_size=12, unique=True))
    value, time = st.floats(allow_nan=False, allow_infinity=False, width=32), st.integers(-(2**40), 2**40)
    return [(user, item, draw(value), draw(time)) for user, item in pairs]


@settings(max_examples=40, deadline=None)
@given(some_ratings())
def test_every_form_reads_the_same(given: list[Row]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for source in written(Path(folder), given):
            assert rows(read_ratings(source)) == given, source


def test_ids_of_a_text_file_are_integers_when_all_are(tmp_path: Path) -> None:
    given: list[Row] = [("10", "007", 1.0, 1), ("9", "8", 2.0, 2), ("-3", "8", 2.0, 3)]
    ratings = read_ratings(write_text(tmp_path / "r.csv", given))
    assert ratings.user_ids.to_pylist() == [-3, 9, 10]
    assert ratings.item_ids.to_pylist() == ["007", "8"]
    wide: list[Row] = [(str(2**63 - 1), str(2**63), 1.0, 1)]
    ratings = read_ratings(write_text(tmp_path / "r.csv", wide))
    assert (ratings.user_ids.to_pylist(), ratings.item_ids.to_pylist()) == ([2**63 - 1], [str(2**63)])


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.float64(), pa.decimal128(21, 2)])
def test_numbers_of_every_type(kind: pa.DataType) -> None:
    column = pa.array([3, 1]).cast(kind)
    ratings = read_ratings(pa.table([column, column, column, column], NAMES))
    assert rows(ratings) == [(3, 3, 3.0, 3), (1, 1, 1.0, 1)]


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.large_string())]
)
def test_strings_of_every_type(kind: pa.DataType) -> None:
    column = pa.array(["b", "a"]).cast(pa.string()).cast(kind)
    ratings = read_ratings(pa.table({"user": column, "item": column, "score": [1, 2]}))
    assert (ratings.user_ids.to_pylist(), ratings.users.tolist(), ratings.times) == (["a", "b"], [1, 0], None)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_marks_and_ends_of_lines_of_other_systems(tmp_path: Path, mark: bytes, end: bytes) -> None:
    path = tmp_path / "r.csv"
    lines = (b",".join(name.encode() for name in NAMES), b"zo\xc3\xab,2,3.5,4", b"", b"ann,5,1,7")
    path.write_bytes(mark + end.join(lines) + end)
    assert rows(read_ratings(path)) == [("zo\u00eb", 2, 3.5, 4), ("ann", 5, 1.0, 7)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_other_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    text = "user,item,rating\n1,2,3\n" if encoding == "utf-16" else "\ufeffuser,item,rating\n1,2,3\n"
    (tmp_path / "r.csv").write_bytes(text.encode(encoding))
    with pytest.raises(InvalidRatings, match='"r.csv" is in UTF-16\nHINT:  Save it in UTF-8'):
        read_ratings(tmp_path / "r.csv")


def test_hints_say_how_a_file_with_other_separators_is_read(tmp_path: Path) -> None:
    for name, separator, hint in (("r.csv", ";", 'sep=";"'), ("r.csv", "\t", ".tsv"), ("r.tsv", ",", ".csv")):
        write_text(tmp_path / name, [(1, 2, 3.0, 4)], delimiter=separator)
        with pytest.raises(InvalidRatings, match="between its values") as caught:
            read_ratings(tmp_path / name)
        assert hint in (caught.value.hint or "")


def test_uuids_in_other_letters_are_the_same(tmp_path: Path) -> None:
    """As they are for PostgreSQL; in other texts letters count."""
    one, other = "0000000a-0000-0000-0000-00000000000b", "0000000a-0000-0000-0000-00000000000c"
    users = [other.upper(), one, one.upper()]
    given: list[Row] = [(user, f"f{place}", 3.0, 1) for place, user in enumerate(users)]
    for source in (table(given), write_text(tmp_path / "r.csv", given)):
        ratings = read_ratings(source)
        assert (ratings.user_ids.to_pylist(), ratings.users.tolist()) == ([one, other], [1, 0, 0])
    texts = read_ratings(table([*given, ("ann", "f", 1.0, 1)]))
    assert texts.user_ids.to_pylist() == sorted([*users, "ann"])
    again = read_ratings(table([(one, "f", 1.0, 1), (one.upper(), "f", 2.0, 2)]))
    assert (again.values.tolist(), again.notes[0]) == ([2.0], "duplicates: 1, the last rating counts")


def test_uuids_are_strings() -> None:
    ids = [UUID(int=7 << 100), UUID(int=3)]
    column = pa.array([one.bytes for one in ids], pa.uuid())
    for users in (column, column.storage, [str(one) for one in ids]):
        ratings = read_ratings(pa.table({"user": users, "item": [1, 2], "rating": [1, 2]}))
        assert ratings.user_ids.to_pylist() == sorted(map(str, ids))
        assert ratings.users.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        (pa.array([1500, -1], pa.timestamp("ms")), [1, -1]),
        (pa.array([1500, -1], pa.timestamp("ms", "Asia/Tokyo")), [1, -1]),
        (pa.array([1, -1], pa.date32()), [86400, -86400]),
        (pa.array([1.5, -0.5]), [1, -1]),
    ],
)
def test_times_of_every_type(times: pa.Array, seconds: list[int]) -> None:
    ratings = read_ratings(pa.table({"user": [1, 2], "item": [1, 2], "rating": [1, 2], "time": times}))
    assert ratings.times is not None
    assert ratings.times.tolist() == seconds


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        (("1970-01-01 00:00:01", "1969-12-31T23:59:59"), [1, -1]),
        (("1970-01-01 00:00:01.5", "1970-01-01 00:00:02.5"), [1, 2]),
        (("1970-01-01 01:00:00+01:00", "1970-01-01T00:00:00Z"), [0, 0]),
        (("1970-01-02", "1970-01-03"), [86400, 172800]),
        (("1.5", "3"), [1, 3]),
    ],
)
def test_times_of_a_text_file(tmp_path: Path, times: tuple[str, str], seconds: list[int]) -> None:
    path = write_text(tmp_path / "r.csv", [(1, 2, 3.0, times[0]), (2, 2, 3.0, times[1])])  # type: ignore[list-item]
    ratings = read_ratings(path)
    assert ratings.times is not None
    assert ratings.times.tolist() == seconds


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("USER,item_id,Value", {}),
        ("user_id,movieId,score", {}),
        ("time,item,user,value", {"timestamp": None}),
        ("who,what,stars", {"user": "who", "item": "WHAT", "rating": "stars"}),
        ("user,user_id,item,movieid,value,rating", {}),
    ],
)
def test_columns_are_found_by_their_names(header: str, columns: dict[str, str | None]) -> None:
    names = header.split(",")
    meant = {
        "user": 1,
        "user_id": 1,
        "who": 1,
        "item": 2,
        "movieid": 2,
        "movieId": 2,
        "item_id": 2,
        "what": 2,
    }
    values = [meant.get(name.lower(), meant.get(name, 3)) for name in names]
    if "user_id" in names and "user" in names:  # the first of the usual names counts
        values[names.index("user")] = values[names.index("item")] = values[names.index("value")] = 9
    ratings = read_ratings(pa.table({n: [v] for n, v in zip(names, values, strict=True)}), columns=columns)
    assert (ratings.user_ids.to_pylist(), ratings.item_ids.to_pylist(), ratings.values.tolist()) == (
        [1],
        [2],
        [3.0],
    )
    assert ratings.times is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", '"r.csv" is empty'),
        ("\n\n", '"r.csv" is empty'),
        ("user,item,rating\n", '"r.csv" has no ratings'),
        ("1,2,3\n4,5,6\n", '"r.csv" has no column userId or user_id or user'),
        ("user,item,stars\n1,2,3\n", '"r.csv" has no column rating or value or score'),
        ("user,User,item,rating\n1,1,2,3\n", ""),
        ("userId,USERID,item,rating\n1,1,2,3\n", ""),
        ("user,item,item,rating\n1,2,2,3\n", '"r.csv" has 2 columns item'),
        ("user,item,rating\n1,2,3\n\n\n1,3,good\n", 'column rating has "good" in line 5 of "r.csv"'),
        ("user,item,rating\r\n1,2,3\r\n\r\n1,3,\r\n", 'column rating has no value in line 4 of "r.csv"'),
        ("user,item,rating\n1,2,3\n1,3,nan\n", 'column rating has no value in line 3 of "r.csv"'),
        ("user,item,rating\n1,2,3\n1,3,NULL\n", 'column rating has no value in line 3 of "r.csv"'),
        ("user,item,rating\n1,2,3\n1,3,-inf\n", 'column rating has -inf in line 3 of "r.csv"'),
        ("user,item,rating\n1,2,3\n1,3,1e39\n", 'column rating has inf in line 3 of "r.csv"'),
        ("user,item,rating\n1,2,3\n,3,1\n", 'column user has no value in line 3 of "r.csv"'),
        ('user,item,rating\n1,"",3\n', 'column item has no value in line 2 of "r.csv"'),
        ("user,item,rating\n1,2,3\n1,3\n", 'line 3 of "r.csv" has 2 values, not 3'),
        ("user,item,rating\n1,2,3\n1,3,4,5\n", 'line 3 of "r.csv" has 4 values, not 3'),
        ("user,item,rating,time\n1,2,3,9\n1,3,4,late\n", 'column time has "late" in line 3 of "r.csv"'),
        ("user,item,rating,time\n1,2,3,9\n1,3,4,\n", 'column time has no value in line 3 of "r.csv"'),
        ("user,item,rating\n1,2,3\n1,\udce4,4\n", 'column item cannot be read in line 3 of "r.csv"'),
        ("user,item,rating,\udce4\n1,2,3,4\n", '"r.csv" cannot be read'),
        ("user,item,rating\r1,2,3\r\r1,3,good\r", 'column rating has "good" in line 4 of "r.csv"'),
        (
            "user,item,rating\n1,2,3\n1,a\0b,3\n",
            'column item has an id with a zero byte in line 3 of "r.csv"',
        ),
        ("user;item;rating\n1;2;3,5\n", '"r.csv" has semicolons between its values, not commas'),
        ("\r\nuser\titem\trating\r\n1\t2\t3\r\n", '"r.csv" has tabs between its values, not commas'),
    ],
)
def test_bad_text_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    if not message:  # the exact name goes before another case
        assert len(read_ratings(path)) == 1
        return
    with pytest.raises(InvalidRatings) as caught:
        read_ratings(path)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": [1, None]}, "column user has no value in row 2 of the table"),
        ({"user": [1.0, None]}, "column user has no value in row 2 of the table"),
        ({"user": ["a", ""]}, "column user has no value in row 2 of the table"),
        ({"user": [1.5, 2.0]}, "column user of the table has a value that is no integer of 64 bits"),
        (
            {"user": pa.array([2**63, 1], pa.uint64())},
            "column user of the table has a value that is no integer of 64 bits",
        ),
        ({"user": [True, False]}, "column user of the table is of type bool"),
        ({"rating": ["4", "5"]}, "column rating of the table is of type string"),
        ({"rating": [1.0, float("nan")]}, "column rating has nan in row 2 of the table"),
        ({"rating": [None, 1.0]}, "column rating has no value in row 1 of the table"),
        ({"time": ["today", "now"]}, "column time of the table is of type string"),
        ({"time": [1.0, 1e30]}, "column time of the table has a value that is no integer of 64 bits"),
        ({"time": [1, None]}, "column time has no value in row 2 of the table"),
        ({"item": ["a", "b\0"]}, "column item has an id with a zero byte in row 2 of the table"),
    ],
)
def test_bad_columns_are_refused(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRatings) as caught:
        read_ratings(pa.table({"user": [1, 2], "item": [1, 2], "rating": [1.0, 2.0]} | columns))
    assert caught.value.message == message


def test_categories_are_the_ids_that_rows_have() -> None:
    """A filtered frame keeps the categories of all; small numbers of them do not hold those of all blocks."""
    frame = pd.DataFrame({"user": ["zoe", "ann", "bob"], "item": ["x", "y", "x"], "rating": [1.0, 2.0, 3.0]})
    few = frame.astype({"user": "category", "item": "category"})[:1]
    ratings = read_ratings(few)
    assert (ratings.user_ids.to_pylist(), ratings.item_ids.to_pylist()) == (["zoe"], ["x"])
    parts = [
        pa.table({"user": _categories(range(start, start + 100)), "item": [1] * 100, "rating": [2.0] * 100})
        for start in (0, 100)
    ]
    ratings = read_ratings(pa.concat_tables(parts))
    assert np.asarray(ratings.user_ids)[ratings.users].tolist() == [f"u{n}" for n in range(200)]


def _categories(numbers: Iterable[int]) -> pa.DictionaryArray:
    names = [f"u{n}" for n in numbers]
    return pa.DictionaryArray.from_arrays(pa.array(range(len(names)), pa.int8()), names)


def test_a_category_may_be_no_value() -> None:
    users = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array(["ann", None]))
    with pytest.raises(InvalidRatings, match="column user has no value in row 2 of the table"):
        read_ratings(pa.table({"user": users, "item": [1, 2], "rating": [1.0, 2.0]}))


def test_what_breaks_off_is_named(tmp_path: Path) -> None:
    many = pa.table({"user": range(3000), "item": range(3000), "rating": [1.5] * 3000})
    parquet.write_table(many, tmp_path / "r.parquet", use_dictionary=False)
    content = bytearray((tmp_path / "r.parquet").read_bytes())
    content[30:400] = b"\xff" * 370
    (tmp_path / "r.parquet").write_bytes(content)
    with ipc.new_stream(tmp_path / "r.arrow", many.schema) as stream:
        stream.write_table(many, max_chunksize=500)
    whole = (tmp_path / "r.arrow").read_bytes()
    (tmp_path / "r.arrow").write_bytes(whole[: len(whole) * 2 // 3])
    for name in ("r.parquet", "r.arrow"):
        with pytest.raises(InvalidRatings) as caught:
            read_ratings(tmp_path / name)
        assert caught.value.message == f'"{name}" cannot be read'
        assert caught.value.detail
    with pytest.raises(InvalidRatings, match="the table cannot be read"):
        read_ratings(pd.DataFrame({"user": [1, "ann"], "item": [1, 2], "rating": [1.0, 2.0]}, dtype=object))


def test_pandas_says_missing_as_nan() -> None:
    frame = pd.DataFrame({"user": [1, 2], "item": [1, np.nan], "rating": [1.0, np.nan]})
    with pytest.raises(InvalidRatings, match="column item has no value in row 2"):
        read_ratings(frame)


def test_columns_of_one_name_in_a_data_frame() -> None:
    frame = pd.DataFrame([[1, 2, 3, 4.0]], columns=["user", "user", "item", "rating"])
    with pytest.raises(InvalidRatings, match="the table cannot be read") as caught:
        read_ratings(frame)
    assert "user" in (caught.value.detail or "")
    assert caught.value.hint == "Give each column a name of its own."


def test_what_is_no_source(tmp_path: Path) -> None:
    for query in ("SELECT * FROM ratings", f"SELECT {', '.join(['user'] * 200)} FROM ratings"):
        with pytest.raises(UndefinedFile, match="A query needs query_connection") as missing:
            read_ratings(query)
        assert "--query" in (missing.value.hint or "")
    with pytest.raises(InvalidParameter, match="is a directory"):
        read_ratings(tmp_path)
    with pytest.raises(InvalidParameter, match="object of type list"):
        read_ratings([(1, 2, 3.0)])
    for name in ("r.data", "r", "r.gz"):
        (tmp_path / name).touch()
        with pytest.raises(InvalidParameter, match="unknown kind"):
            read_ratings(tmp_path / name)
    for name in ("r.parquet", "r.arrow", "r.csv.gz"):
        (tmp_path / name).write_bytes(b"no such thing")
        with pytest.raises(InvalidRatings):
            read_ratings(tmp_path / name)
    with pytest.raises(InvalidParameter, match='kind of column "film"'):
        read_ratings(pa.table({"user": [1]}), columns={"film": "x"})
    with pytest.raises(InvalidParameter, match="user, user, rating are not different"):
        read_ratings(pa.table({"user": [1], "item": [1], "rating": [1]}), columns={"item": "user"})
    with pytest.raises(InvalidRatings, match="has no column when"):
        read_ratings(pa.table({"user": [1], "item": [1], "rating": [1]}), columns={"timestamp": "when"})


GIVEN: list[Row] = [
    (1, 1, 5.0, 30),
    (1, 2, 1.0, 1),
    (1, 1, 2.0, 10),
    (2, 1, 3.0, 1),
    (1, 1, 2.0, 30),
    (1, 1, 2.0, 20),
]


def test_duplicates() -> None:
    last = read_ratings(table(GIVEN))
    assert rows(last) == [GIVEN[1], GIVEN[3], GIVEN[4]]
    assert last.notes == ("duplicates: 3, the last rating counts", "users with one rating: 1, they stay")
    mean = read_ratings(table(GIVEN), duplicates="mean")
    assert rows(mean) == [GIVEN[1], GIVEN[3], (1, 1, 2.75, 30)]
    untimed = read_ratings(table(GIVEN), columns={"timestamp": None})
    assert untimed.values.tolist() == [1.0, 3.0, 2.0]
    with pytest.raises(
        InvalidRatings, match="user 1 has rated item 1 more than once\nDETAIL:  Duplicates: 3"
    ):
        read_ratings(table(GIVEN), duplicates="error")
    assert rows(read_ratings(table(GIVEN[1:4]), duplicates="error")) == GIVEN[1:4]
    with pytest.raises(InvalidParameter, match='duplicates "first"'):
        read_ratings(table(GIVEN), duplicates="first")  # type: ignore[arg-type]


few = st.integers(0, 3)


@settings(deadline=None)
@given(st.lists(st.tuples(few, few, st.integers(1, 5), few), min_size=1))
def test_duplicates_against_a_dictionary(given: list[Row]) -> None:
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row, (user, item, _, time) in enumerate(given):
        groups.setdefault((user, item), []).append((time, row))
    kept = sorted(max(group)[1] for group in groups.values())
    assert rows(read_ratings(table(given))) == [given[row] for row in kept]
    means = [np.mean([given[row][2] for _, row in groups[given[k][0], given[k][1]]]) for k in kept]
    assert read_ratings(table(given), duplicates="mean").values == pytest.approx(means)


def test_many_blocks(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    write_ratings(path, 250_000, 2_000, 1_500, seed=1)
    ratings = read_ratings(path)
    raw = pd.read_csv(path).to_numpy()
    assert path.stat().st_size > 5 << 20  # more than one block
    assert np.array_equal(np.asarray(ratings.user_ids)[ratings.users], raw[:, 0])
    assert np.array_equal(np.asarray(ratings.item_ids)[ratings.items], raw[:, 1])
    assert np.array_equal(ratings.values, raw[:, 2].astype(np.float32))
    assert np.array_equal(ratings.times, raw[:, 3].astype(np.int64))
    assert (len(ratings.user_ids), len(ratings.item_ids), ratings.notes) == (2_000, 1_500, ())
    with path.open("a") as file:
        file.write("1,2\n")
    with pytest.raises(InvalidRatings, match='line 250002 of "ratings.csv" has 2 values, not 4'):
        read_ratings(path)


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "import pythiadb.errors, pythiadb.recommend, pythiadb.recommend.ratings as r, pythiadb.recommend.split\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)\n"
        "try: r.read_ratings('x.csv')\n"
        "except pythiadb.errors.FeatureNotSupported as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (
        done.stdout
        == "reading ratings needs the package pyarrow\nHINT:  Run: pip install 'pythiadb[train]'\n"
    )
