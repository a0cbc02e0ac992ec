"""The plain functions of schema pythia: scikit-learn's answers and bare ONNX Runtime's, NULLs, types, and what they refuse."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg
import pytest
import scoring_models
from numpy.typing import NDArray
from onnx import TensorProto
from scoring_calls import RECORDS, Ask, X, bare, load
from scoring_models import COLUMNS, Made

import pythiadb
from tests.unit.models.small_models import string_graph, tabular_graph

# Values -------------------------------------------------------------------------------------------------------------------


def test_prediction_of_a_regression(ask: Ask, made: dict[str, Made]) -> None:
    """Equal to bare ONNX Runtime to the bit; float64 graphs lose nothing either."""
    for name in ("spend", "line"):
        found = np.array(ask("prediction", name, RECORDS))
        assert (found == bare(made[name], "variable")[:, 0]).all()
        np.testing.assert_allclose(found, made[name].model.predict(X), rtol=1e-5)


def test_prediction_of_a_classification_in_the_type_asked_for(ask: Ask, made: dict[str, Made]) -> None:
    expected = made["forest"].model.predict(X).tolist()
    assert len(set(expected)) > 1
    assert ask("prediction", "forest", RECORDS, ", NULL::text") == expected
    assert ask("prediction", "forest", RECORDS, ", NULL::varchar") == expected
    expected = made["numbers"].model.predict(X).tolist()
    assert len(set(expected)) > 1
    for sql_type, python_type in (
        ("numeric", Decimal),
        ("int", int),
        ("double precision", float),
        ("text", str),
    ):
        found = ask("prediction", "numbers", RECORDS, f", NULL::{sql_type}")
        assert found == [python_type(label) for label in expected]
        assert {type(value) for value in found} == {python_type}
    assert ask("prediction", "numbers", RECORDS[:1]) == [
        float(expected[0])
    ]  # the default is double precision


def test_label_that_the_asked_type_cannot_hold(ask: Ask) -> None:
    with pytest.raises(psycopg.errors.InvalidTextRepresentation, match="double precision"):
        ask("prediction", "forest", RECORDS[:1])


def test_prediction_probability(ask: Ask, made: dict[str, Made]) -> None:
    for name, classes in (("forest", scoring_models.LABELS.tolist()), ("numbers", [10, 20, 30])):
        one = made[name]
        expected = bare(one, "probabilities").astype(np.float64)
        assert one.model.classes_.tolist() == sorted(classes)
        for place, label in enumerate(one.model.classes_.tolist()):
            quoted = str(label).replace("'", "''")
            assert (
                ask("prediction_probability", name, RECORDS, f", '{quoted}'") == expected[:, place].tolist()
            )
        assert ask("prediction_probability", name, RECORDS) == expected.max(axis=1).tolist()
        np.testing.assert_allclose(expected, one.model.predict_proba(X), atol=1e-5)
    assert ask("prediction_probability", "numbers", RECORDS[:1], ", '20.0'") == ask(
        "prediction_probability", "numbers", RECORDS[:1], ", '20'"
    )


def ranked(values: NDArray[Any], classes: list[Any], n: int | None, cutoff: float | None) -> list[list[Any]]:
    """What a set has to be: classes with their values, the highest first."""
    sets = []
    for row in values.astype(np.float64).tolist():
        pairs = sorted(zip(classes, row, strict=True), key=lambda pair: -pair[1])
        sets.append([pair for pair in pairs if cutoff is None or pair[1] >= cutoff][:n])
    return sets


@pytest.mark.parametrize(
    ("n", "cutoff"), [(None, None), (1, None), (2, None), (9, None), (None, 0.2), (2, 0.4), (1, 1.1)]
)
def test_prediction_set(ask: Ask, made: dict[str, Made], n: int | None, cutoff: float | None) -> None:
    arguments = f", {n or 'NULL'}, {'NULL' if cutoff is None else cutoff}"
    for name, kind in (("forest", str), ("numbers", int)):
        classes = [kind(label) for label in made[name].model.classes_.tolist()]
        expected = ranked(bare(made[name], "probabilities"), classes, n, cutoff)
        typed = ask("prediction_set", name, RECORDS, f"{arguments}, NULL::{'text' if kind is str else 'int'}")
        assert typed == expected
        plain = ask("prediction_set", name, RECORDS, arguments)
        assert plain == [[(str(label), value) for label, value in rows] for rows in expected]
    assert ask("prediction_set", "forest", RECORDS[:1]) == ranked(
        bare(made["forest"], "probabilities")[:1], made["forest"].model.classes_.tolist(), None, None
    )


def test_clusters_by_distance(ask: Ask, made: dict[str, Made]) -> None:
    """Clusters count from 1 in the order of the outputs."""
    segments = made["segments"]
    distances = bare(segments, "scores").astype(np.float64)
    assert ask("cluster_id", "segments", RECORDS) == [Decimal(int(n) + 1) for n in segments.model.predict(X)]
    assert ask("cluster_id", "segments", RECORDS[:1], ", NULL::int") == [
        int(segments.model.predict(X[:1])[0]) + 1
    ]
    assert ask("cluster_distance", "segments", RECORDS) == distances.min(axis=1).tolist()
    for place in range(4):
        assert (
            ask("cluster_distance", "segments", RECORDS, f", '{place + 1}'") == distances[:, place].tolist()
        )
    np.testing.assert_allclose(distances, segments.model.transform(X), rtol=1e-2)


@pytest.mark.parametrize(("n", "cutoff"), [(None, None), (2, None), (None, 0.3)])
def test_clusters_by_probability(
    ask: Ask, made: dict[str, Made], n: int | None, cutoff: float | None
) -> None:
    mixture = made["mixture"]
    shares = bare(mixture, "probabilities").astype(np.float64)
    assert ask("cluster_id", "mixture", RECORDS) == [Decimal(int(n) + 1) for n in mixture.model.predict(X)]
    assert ask("cluster_probability", "mixture", RECORDS) == shares.max(axis=1).tolist()
    assert ask("cluster_probability", "mixture", RECORDS, ", '2'") == shares[:, 1].tolist()
    arguments = f", {n or 'NULL'}, {'NULL' if cutoff is None else cutoff}"
    assert ask("cluster_set", "mixture", RECORDS, arguments) == ranked(
        shares, [Decimal(1), Decimal(2), Decimal(3)], n, cutoff
    )
    np.testing.assert_allclose(shares, mixture.model.predict_proba(X), atol=1e-4)


def test_texts_and_numbers_together(ask: Ask, made: dict[str, Made]) -> None:
    rows = [[city, age] for city in (*scoring_models.CITIES, "Bonn") for age in (20.0, 70.0)]
    expected = made["towns"].model.predict(np.array(rows, dtype=object)).tolist()
    assert len(set(expected)) == 4
    assert ask("prediction", "towns", [{"CITY": c, "AGE": a} for c, a in rows], ", NULL::text") == expected


def test_pair_of_texts(ask: Ask) -> None:
    """A reranker: two string tensors; the answer is a raw logit, here the number of common words."""
    query = "loud fan noise"
    documents = ["fan noise and heat", "screen", "the loud loud fan makes noise"]
    found = ask("prediction", "reranker", [{"DATA1": query, "DATA2": d} for d in documents])
    assert found == [2.0, 0.0, 4.0]


# Attributes ---------------------------------------------------------------------------------------------------------------


def test_names_of_attributes_have_no_case_and_others_are_ignored(ask: Ask, made: dict[str, Made]) -> None:
    expected = bare(made["spend"], "variable")[0, 0]
    age, visits, spent, days = X[0].tolist()
    record = {
        "age": age,
        "Visits": visits,
        "SPENT": spent,
        "dAYS": days,
        "city": "Oslo",
        "more": [1, {"a": 2}],
    }
    assert ask("prediction", "spend", [record]) == [expected]


def test_values_are_converted_as_postgresql_would(ask: Ask, made: dict[str, Made]) -> None:
    age, visits, spent, days = X[0].tolist()
    record = {"AGE": f" {age} ", "VISITS": str(visits), "SPENT": f"{spent:e}", "DAYS": days}
    assert ask("prediction", "line", [record]) == [bare(made["line"], "variable")[0, 0]]
    for wrong in ("many", [1], {"a": 1}, ""):
        with pytest.raises(
            psycopg.errors.InvalidParameterValue, match='invalid value for attribute "AGE"'
        ) as caught:
            ask("prediction", "line", [RECORDS[0] | {"AGE": wrong}])
        assert caught.value.diag.message_detail == "It takes a number."


def test_null_and_missing_values_are_not_numbers_to_a_tensor_of_floats(
    ask: Ask, made: dict[str, Made]
) -> None:
    holes = X[:3].copy()
    holes[0, 2] = holes[1, 0] = holes[2, 3] = np.nan
    expected = bare(made["forest"], "probabilities", holes).max(axis=1).astype(np.float64).tolist()
    records = [
        {k: None if np.isnan(v) else v for k, v in zip(COLUMNS, row, strict=True)} for row in holes.tolist()
    ]
    assert ask("prediction_probability", "forest", records) == expected
    records = [{k: v for k, v in record.items() if v is not None} for record in records]
    assert ask("prediction_probability", "forest", records) == expected


def test_null_makes_null_where_the_tensor_has_no_room_for_it(ask: Ask) -> None:
    assert ask("prediction", "towns", [{"CITY": None, "AGE": 30}, {"AGE": 30}], ", NULL::text") == [
        None,
        None,
    ]
    assert ask("prediction", "reranker", [{"DATA1": "fan"}]) == [None]
    assert ask("prediction_set", "towns", [{"AGE": 30}]) == [[]]
    assert ask("prediction", "forest", [None], ", NULL::text") == [None]
    assert ask("cluster_set", "mixture", [None]) == [[]]


def test_default_on_null_stands_in(loaded: pythiadb.Connection, ask: Ask, made: dict[str, Made]) -> None:
    """Defaults are texts, as Oracle writes them; they count before NULL does."""
    towns = made["towns"]
    load(
        loaded,
        "towns_default",
        towns.graph,
        {**towns.metadata, "defaultOnNull": {"CITY": "Oslo", "AGE": "61"}},
    )
    expected = towns.model.predict(np.array([["Oslo", 61.0], ["Lima", 61.0]], dtype=object)).tolist()
    assert ask("prediction", "towns_default", [{}, {"CITY": "Lima", "AGE": None}], ", NULL::text") == expected
    whole = tabular_graph(TensorProto.INT64, ("batch", 2)).SerializeToString()
    names = {"function": "regression", "input": {"x": ["A", "B"]}}
    load(loaded, "whole", whole, names)
    load(loaded, "whole_default", whole, {**names, "defaultOnNull": {"B": "40"}})
    assert ask("prediction", "whole", [{"A": 2, "B": 3}, {"A": 2}, {"A": 2.5, "B": 1}]) == [5.0, None, 4.0]
    assert ask("prediction", "whole_default", [{"A": 2}, {"B": 2}]) == [42.0, None]


def test_numbers_beyond_double_precision(loaded: pythiadb.Connection, made: dict[str, Made]) -> None:
    """jsonb and numeric hold them: as an attribute they are refused, elsewhere they do not matter."""
    call = "SELECT prediction('line', %s::jsonb || jsonb_build_object(%s::text, 1e400 + %s::numeric))"
    for rest in (0, 0.5):
        row = loaded.execute(call, (json.dumps(RECORDS[0]), "other", rest)).fetchone()
        assert row == (bare(made["line"], "variable")[0, 0],)
        with pytest.raises(
            psycopg.errors.InvalidParameterValue, match='value 10+… of attribute "AGE" is out of range'
        ):
            loaded.execute(call, (json.dumps(RECORDS[0]), "AGE", rest))


def test_the_only_attribute_of_an_embedding_need_not_be_named(db: pythiadb.Connection) -> None:
    """Whatever it is called: in batches, row by row, for a value and for the columns of a table."""
    metadata = '{"function": "embedding", "input": {"input": ["WORDS"]}}'
    db.execute(
        "CALL dbms_vector.load_onnx_model(:1, :2, :3)",
        ("animals", string_graph().SerializeToString(), metadata),
    )
    db.execute("CREATE TABLE said (id int, words text); INSERT INTO said VALUES (1, 'dog'), (2, 'cat')")
    wanted = db.execute(
        'SELECT VECTOR_EMBEDDING(animals USING words AS "WORDS")::text FROM said ORDER BY id'
    ).fetchall()
    assert wanted == [("[0,1,0]",), ("[1,0,0]",)]
    for given in ("words", "said.words", "said.*", "*"):
        text = f"SELECT VECTOR_EMBEDDING(animals USING {given})::text FROM said ORDER BY id"
        assert db.execute(text.encode()).fetchall() == wanted
    assert db.execute("SELECT VECTOR_EMBEDDING(animals USING 'dog')::text").fetchone() == wanted[0]
