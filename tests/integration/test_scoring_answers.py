"""The answers of all operators are scikit-learn's and bare ONNX Runtime's, in their types, singly and in batches."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg
import pytest
import scoring_models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scoring_models import Made
from scoring_tables import CLOSE, MATRIX, SOURCES, VALUES

import pythiadb

# Answers ------------------------------------------------------------------------------------------------------------------

HOW = {
    "matrix": "in arrays of",
    "joined": "in arrays of",
    "batch": "in batches of",
    "single": "row by row: a volatile function",
}
GIVEN = 51  # rows without NULL come first


def numbers(made: Made, output: str) -> NDArray[np.float64]:
    """The output of bare ONNX Runtime, of which float32 is widened exactly."""
    return made.bare(MATRIX, output).astype(np.float64)


def answers(made: dict[str, Made]) -> dict[str, tuple[str, list[Any]]]:
    """Operators over p with their SQL type and their answers, from scikit-learn where it can and bare ONNX Runtime."""
    forest, tens = made["forest"], made["numbers"]
    by_class, by_ten = numbers(forest, "probabilities"), numbers(tens, "probabilities")
    distances, shares = numbers(made["segments"], "scores"), numbers(made["mixture"], "probabilities")
    bronze = list(forest.model.classes_).index("bronze")
    return {
        "PREDICTION(forest USING p.*)": ("text", forest.model.classes_[by_class.argmax(axis=1)].tolist()),
        "PREDICTION_PROBABILITY(forest USING p.*)": ("float8", by_class.max(axis=1).tolist()),
        "PREDICTION_PROBABILITY(forest, 'bronze' USING p.*)": ("float8", by_class[:, bronze].tolist()),
        "PREDICTION_PROBABILITY(forest, NULL USING p.*)": ("float8", by_class.max(axis=1).tolist()),
        "PREDICTION(numbers USING p.*)": ("numeric", tens.model.predict(MATRIX[:GIVEN]).tolist()),
        "PREDICTION_PROBABILITY(numbers, 20 USING p.*)": ("float8", by_ten[:, 1].tolist()),
        "PREDICTION(spend USING p.*)": ("float8", numbers(made["spend"], "variable").ravel().tolist()),
        "PREDICTION(line USING p.*)": ("float8", numbers(made["line"], "variable").ravel().tolist()),
        "CLUSTER_ID(segments USING p.*)": ("numeric", (made["segments"].model.predict(MATRIX[:GIVEN]) + 1).tolist()),
        "CLUSTER_DISTANCE(segments USING p.*)": ("float8", distances.min(axis=1).tolist()),
        "CLUSTER_DISTANCE(segments, 3 USING p.*)": ("float8", distances[:, 2].tolist()),
        "CLUSTER_ID(mixture USING p.*)": ("numeric", (made["mixture"].model.predict(MATRIX[:GIVEN]) + 1).tolist()),
        "CLUSTER_PROBABILITY(mixture USING p.*)": ("float8", shares.max(axis=1).tolist()),
        "CLUSTER_PROBABILITY(mixture, 2 USING p.*)": ("float8", shares[:, 1].tolist()),
    }  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("number", range(14))
def test_answers_and_types(
    people: pythiadb.Connection, made: dict[str, Made], source: str, number: int
) -> None:
    """Labels are equal, numbers are bare ONNX Runtime's, whatever way they are computed."""
    call, (kind, expected) = list(answers(made).items())[number]
    statement = f"SELECT p.id, {call} FROM {SOURCES[source]}"
    assert HOW[source] in people.translate(statement).batched[0]
    cursor = people.execute(statement.encode())
    assert cursor.description is not None
    assert psycopg.adapters.types[kind].oid == cursor.description[1].type_code
    assert cursor.description[1].name == call.split("(")[0].lower()
    given = [row[1] for row in sorted(cursor.fetchall())]
    if kind == "float8":
        found = np.array(given, float)  # NaN of bare ONNX Runtime is NULL
        assert [value is None for value in given] == np.isnan(found).tolist()
        np.testing.assert_allclose(found, expected, rtol=CLOSE, atol=CLOSE)
    else:
        assert given[: len(expected)] == expected


@pytest.mark.parametrize("source", SOURCES)
def test_numbers_agree_with_scikit_learn(
    people: pythiadb.Connection, made: dict[str, Made], source: str
) -> None:
    """Of rows without NULL; ONNX Runtime computes in float32."""
    x = scoring_models.X
    rows = people.execute(
        "SELECT PREDICTION(spend USING p.*), PREDICTION(line USING p.*), CLUSTER_DISTANCE(segments, 1 USING p.*), "
        "PREDICTION_PROBABILITY(forest, 'bronze' USING p.*), PREDICTION_PROBABILITY(numbers, 30 USING p.*), "
        f"CLUSTER_PROBABILITY(mixture, 1 USING p.*) FROM {SOURCES[source]} WHERE p.id < {len(x)} ORDER BY p.id".encode()
    ).fetchall()
    expected = [
        made["spend"].model.predict(x),
        made["line"].model.predict(x.astype(np.float64)),
        made["segments"].model.transform(x)[:, 0],
        made["forest"].model.predict_proba(x)[:, 0],
        made["numbers"].model.predict_proba(x)[:, 2],
        made["mixture"].model.predict_proba(x)[:, 0],
    ]
    np.testing.assert_allclose(np.array(rows, float), np.column_stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("PREDICTION(numbers USING p.*)", "PREDICTION_PROBABILITY(numbers USING p.*)"),
        ("PREDICTION(numbers USING p.*)", "PREDICTION_PROBABILITY(numbers, 30 USING p.*)"),
        ("CLUSTER_ID(segments USING p.*)", "CLUSTER_DISTANCE(segments USING p.*)"),
        ("PREDICTION(line USING p.*)", "PREDICTION(line USING p.*)"),
    ],
)
def test_rows_that_null_leaves_without_an_answer_come_last(
    people: pythiadb.Connection, source: str, answer: str, number: str
) -> None:
    """A number is NULL where the label is; as NaN it would be larger than all others."""
    rows = people.execute(
        f"SELECT p.id, {answer}, {number} AS n FROM {SOURCES[source]} ORDER BY n DESC NULLS LAST, p.id".encode()
    ).fetchall()
    holes = [place for place, value in enumerate(VALUES) if None in value]
    assert [row[0] for row in rows[-len(holes) :]] == holes
    assert [row[1:] for row in rows[-len(holes) :]] == [(None, None)] * len(holes)
    assert all(None not in row for row in rows[: -len(holes)])


@pytest.mark.parametrize("form", ["TABLE({})", "LATERAL {}", "{}"])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("arguments", "best", "cutoff"),
    [("", 3, 0.0), (", 2", 2, 0.0), (", 2, 0.31", 2, 0.31), (", NULL, 0.27", 3, 0.27)],
)
def test_sets_are_rows(
    people: pythiadb.Connection,
    made: dict[str, Made],
    form: str,
    source: str,
    arguments: str,
    best: int,
    cutoff: float,
) -> None:
    """The classes by falling probability, no more than asked for, none below the cutoff."""
    call = form.format(f"PREDICTION_SET(forest{arguments} USING p.*)")
    cursor = people.execute(f"SELECT p.id, s.* FROM {SOURCES[source]}, {call} s".encode())
    assert cursor.description is not None
    assert [column.name for column in cursor.description] == ["id", "prediction", "probability"]
    sets: dict[int, dict[str, float]] = {number: {} for number in range(len(VALUES))}
    for number, label, probability in cursor:
        assert all(value >= probability for value in sets[number].values())
        sets[number][label] = probability
    classes = made["forest"].model.classes_.tolist()
    for number, row in enumerate(numbers(made["forest"], "probabilities")):
        known = dict(zip(classes, row, strict=True))
        assert sets[number] == pytest.approx({label: known[label] for label in sets[number]}, abs=CLOSE)
        assert len(sets[number]) == min(best, (row >= cutoff).sum())
        left_out = [value for label, value in known.items() if label not in sets[number]]
        assert min(sets[number].values()) >= max(left_out, default=0) - CLOSE


def test_sets_of_numbers_and_clusters(people: pythiadb.Connection, made: dict[str, Made]) -> None:
    """Numeric labels are numeric; clusters are numbered from 1; a set can be joined, filtered and counted."""
    rows = people.execute(
        "SELECT p.id, s.prediction, c.cluster_id FROM people p, PREDICTION_SET(numbers, 1 USING p.*) s, "
        f"CLUSTER_SET(mixture, 1 USING p.*) AS c WHERE p.id < {GIVEN} ORDER BY p.id"
    ).fetchall()
    tens, clusters = (made[name].model.predict(MATRIX[:GIVEN]) for name in ("numbers", "mixture"))
    assert rows == [(n, Decimal(int(tens[n])), Decimal(int(clusters[n]) + 1)) for n in range(GIVEN)]
    row = people.execute(
        "SELECT count(*), sum(s.probability) FROM people p, TABLE(PREDICTION_SET(forest USING p.*)) s "
        "WHERE s.prediction <> 'bronze'"
    ).fetchone()
    probabilities = numbers(made["forest"], "probabilities")
    assert row == (2 * len(VALUES), pytest.approx(len(VALUES) - probabilities[:, 0].sum()))


def test_a_set_as_a_value(people: pythiadb.Connection, made: dict[str, Made]) -> None:
    """In a select list a set is a JSON array of its rows."""
    rows = people.execute(
        "SELECT PREDICTION_SET(forest, 1 USING *) FROM people WHERE id < 9 ORDER BY id"
    ).fetchall()
    probabilities = numbers(made["forest"], "probabilities")[:9]
    names = made["forest"].model.classes_[probabilities.argmax(axis=1)]
    for (answer,), name, value in zip(rows, names, probabilities.max(axis=1), strict=True):
        assert answer == [{"prediction": name, "probability": pytest.approx(value, abs=CLOSE)}]


@pytest.mark.parametrize("source", ["people p", *list(SOURCES.values())[1:]])
def test_strings_and_numbers_together(
    people: pythiadb.Connection, made: dict[str, Made], source: str
) -> None:
    """A model of two tensors; quotes and letters beyond ASCII arrive as they are."""
    rows = people.execute(
        f"SELECT p.age, p.city, PREDICTION(towns USING p.*), PREDICTION(towns USING p.age + 1 AS age, 'Oslo' AS city) "
        f"FROM {source} WHERE p.age IS NOT NULL".encode()
    ).fetchall()
    model = made["towns"].model
    table = np.array([[city, float(age)] for age, city, _, _ in rows], dtype=object)
    assert [row[2] for row in rows] == model.predict(table).tolist()
    moved = np.array([["Oslo", float(age) + 1] for age, _, _, _ in rows], dtype=object)
    assert [row[3] for row in rows] == model.predict(moved).tolist()


# Batches and single calls -------------------------------------------------------------------------------------------------

NUMBERS = (
    st.none()
    | st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, 1e38, 1e-45])
    | st.floats(-1e6, 1e6, width=32)
)
WORDS = st.none() | st.sampled_from([*scoring_models.CITIES, "", " ", "{}", '"', "\\", "'", "NULL", "null", "\n"]) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12
)  # fmt: skip
RECORDS = st.lists(
    st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS, WORDS, st.none() | st.integers(-(2**63), 2**63 - 1)),
    max_size=12,
)

MIXED = 'CREATE TABLE mixed (k serial PRIMARY KEY, "aGe" real, visits double precision, "SPENT" real, "d ays" float8, city text, n bigint)'
FIELDS = '"aGe" AS age, visits, "SPENT", "d ays" AS "Days"'
# Statements over mixed m, and the plain function for a single row of it.
EQUAL = {
    f"PREDICTION(spend USING {FIELDS})": "pythia.prediction('spend', {})",
    f"PREDICTION(numbers USING {FIELDS})": "pythia.prediction('numbers', {}, NULL::numeric)",
    f"PREDICTION_PROBABILITY(numbers, 20 USING {FIELDS})": "pythia.prediction_probability('numbers', {}, '20')",
    f"CLUSTER_DISTANCE(segments USING {FIELDS})": "pythia.cluster_distance('segments', {})",
    "PREDICTION(towns USING m.*)": "pythia.prediction('towns', to_jsonb(m.*), NULL::text)",
    'PREDICTION_PROBABILITY(towns USING city AS "City", visits AS age)': "pythia.prediction_probability('towns', "
    "jsonb_build_object('CITY', city, 'AGE', visits))",
    "PREDICTION(sevens USING n)": "pythia.prediction('sevens', jsonb_build_object('N', n))",
    "PREDICTION(sevens USING m.*)": "pythia.prediction('sevens', to_jsonb(m))",
}  # fmt: skip
COPIED = '"aGe", visits, "SPENT", "d ays", city, n'
OBJECT = """jsonb_build_object('AGE', "aGe", 'VISITS', visits, 'SPENT', "SPENT", 'DAYS', "d ays")"""


def alike(row: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Compare rows of labels and numbers."""
    return all(
        one == two
        or str(one) == str(two)
        or (isinstance(one, float) and math.isclose(one, two, rel_tol=CLOSE, abs_tol=CLOSE))
        for one, two in zip(row, other, strict=True)
    )


@pytest.fixture
def mixed(people: pythiadb.Connection) -> pythiadb.Connection:
    people.execute(MIXED)
    return people


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=RECORDS, repeated=st.integers(1, 3), alone=st.sampled_from(list(EQUAL)))
def test_batches_equal_single_calls(
    mixed: pythiadb.Connection, records: list[Any], repeated: int, alone: str
) -> None:
    """Whatever the rows hold: NULL, NaN, infinity, duplicates, odd texts; by arrays, by batches, one by one."""
    mixed.execute("DELETE FROM mixed")
    with mixed.cursor() as cursor, cursor.copy(f"COPY mixed ({COPIED}) FROM STDIN") as copy:
        for row in records * repeated:
            copy.write_row(row)
    single = {call: text.format(OBJECT) for call, text in EQUAL.items()}
    expected = mixed.execute(
        f"SELECT {', '.join(single.values())} FROM mixed m ORDER BY k".encode()
    ).fetchall()
    for tables in (
        "mixed m",
        "mixed m CROSS JOIN (VALUES (1)) AS o (one)",
        "mixed m WHERE m.k > 0",
        "(SELECT * FROM mixed) m",
    ):
        found = mixed.execute(f"SELECT {', '.join(EQUAL)} FROM {tables} ORDER BY k".encode()).fetchall()
        assert [row for row in zip(found, expected, strict=True) if not alike(*row)] == []
    found = mixed.execute(f"SELECT {alone} FROM mixed m ORDER BY k".encode()).fetchall()
    place = list(EQUAL).index(alone)
    assert [row for row in zip(found, expected, strict=True) if not alike(row[0], row[1][place:][:1])] == []
