"""Scoring by the plain functions: many records at once, embeddings, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime as ort
import psycopg
import pytest
from onnx import TensorProto, helper
from psycopg.types.json import Jsonb
from scoring_calls import RECORDS, Ask, X, bare, load
from scoring_models import Made

import pythiadb
from tests.unit.models.small_models import string_graph, tabular_graph

# Batches ------------------------------------------------------------------------------------------------------------------


def test_batch_equals_single_calls(loaded: pythiadb.Connection, ask: Ask) -> None:
    """In order, a NULL for a NULL input, sets as JSON."""
    inputs: list[str | None] = [json.dumps(record) for record in RECORDS]
    inputs.insert(3, None)
    singles = ask("prediction", "forest", RECORDS, ", NULL::text")
    singles.insert(3, None)
    rows = loaded.execute(
        "SELECT * FROM scoring_batch('forest', 'PREDICTION', '[]', %s)", (inputs,)
    ).fetchall()
    assert rows == list(zip(inputs, singles, strict=True))
    rows = loaded.execute(
        "SELECT output::jsonb FROM scoring_batch('forest', 'prediction_set', '[2, 0.1]', %s)", (inputs,)
    )
    sets = [None if row[0] is None else [tuple(entry.values()) for entry in row[0]] for row in rows]
    expected = ask("prediction_set", "forest", RECORDS, ", 2, 0.1")
    expected.insert(3, None)
    assert sets == expected
    none = loaded.execute("SELECT count(*) FROM scoring_batch('forest', 'prediction', NULL, '{}')").fetchone()
    assert none == (0,)


def test_matrix_equals_single_calls(loaded: pythiadb.Connection, ask: Ask) -> None:
    """Columns in any order, by name; more of them than the model takes."""
    columns = ["days", "AGE", "other", "Visits", "spent"]
    wide = np.column_stack([X[:, 3], X[:, 0], np.zeros(len(X)), X[:, 1], X[:, 2]]).astype(np.float64)
    for model, operator, arguments, function, extra in (
        ("forest", "prediction", [], "prediction", ", NULL::text"),
        ("spend", "prediction", [], "prediction", ", NULL::text"),
        ("numbers", "prediction_probability", ["20"], "prediction_probability", ", '20'"),
        ("segments", "cluster_distance", [], "cluster_distance", ""),
    ):
        row = loaded.execute(
            "SELECT scoring_columns(%s::regclass, %s, %s, %s, %s)",
            (model, operator, Jsonb(arguments), columns, wide.T.ravel().tolist()),
        ).fetchone()
        assert row is not None
        expected = ask(function, model, RECORDS, extra)
        if model == "forest":
            assert row[0] == expected
            continue
        found = [float(text) for text in row[0]]  # sums of a batch are rounded in another order
        np.testing.assert_allclose(found, [float(text) for text in expected], rtol=1e-5)


def test_matrix_with_nulls_and_without_a_column(loaded: pythiadb.Connection, made: dict[str, Made]) -> None:
    """The missing column and the NULLs are NaN; a row that a tensor of integers cannot hold has no answer."""
    holes = np.column_stack([X[:, :2], np.full((len(X), 1), np.nan), X[:, 3:]])
    holes[4, 0] = np.nan
    values = [None if np.isnan(v) else v for v in holes[:, [0, 1, 3]].T.ravel().tolist()]
    row = loaded.execute(
        "SELECT scoring_columns('forest', 'prediction_probability', '[]', '{AGE,VISITS,DAYS}', %s::float8[])",
        (values,),
    ).fetchone()
    assert row is not None
    expected = bare(made["forest"], "probabilities", holes).max(axis=1).astype(np.float64)
    assert [float(text) for text in row[0]] == expected.tolist()
    load(loaded, "sums", tabular_graph(TensorProto.INT64, ("batch", 2)).SerializeToString(),
         {"function": "regression", "input": {"x": ["A", "B"]}})  # fmt: skip
    row = loaded.execute(
        "SELECT scoring_columns('sums', 'prediction', '[]', '{a,b}', ARRAY[1, 3, 1e300, 9007199254740994, 2, NULL, 1, 0]::float8[])"
    ).fetchone()
    assert row == (["3.0", None, None, None],)
    empty = loaded.execute("SELECT scoring_columns('sums', 'prediction', '[]', '{a,b}', '{}'::int[])")
    assert empty.fetchone() == ([],)


def test_arrays_of_the_wrong_shape(loaded: pythiadb.Connection) -> None:
    for call in (
        "scoring_columns('forest', 'prediction', '[]', '{AGE,VISITS}', '{1,2,3}'::real[])",
        "scoring_columns('forest', 'prediction', '[]', '{}', '{1,2}'::real[])",
        "scoring_batch('forest', 'prediction', '[]', '{{a},{b}}')",
        "vector_embedding_batch('animals', '{{a},{b}}')",
    ):
        with pytest.raises(psycopg.errors.ArraySubscriptError):
            loaded.execute(f"SELECT {call}".encode())


# Embeddings ---------------------------------------------------------------------------------------------------------------


def test_embedding_of_a_text(loaded: pythiadb.Connection) -> None:
    graph = string_graph().SerializeToString()
    texts = np.array(["cat", "dog", "cow"], dtype=object)
    expected = ort.InferenceSession(graph).run(["embedding"], {"input": texts})[0]
    for text, vector in zip(texts, expected, strict=True):
        for call in ("vector_embedding('animals', %s)", "vector_embedding('animals', %s, 'data')"):
            assert (
                loaded.execute(f"SELECT {call}".encode(), (text,)).fetchone()[0].tolist() == vector.tolist()
            )
    assert loaded.execute("SELECT vector_embedding('animals', NULL::text)").fetchone() == (None,)
    rows = loaded.execute("SELECT * FROM vector_embedding_batch('animals', '{dog,NULL,cat}')").fetchall()
    assert [(text, None if v is None else v.tolist()) for text, v in rows] == [
        ("dog", [0, 1, 0]), (None, None), ("cat", [1, 0, 0])
    ]  # fmt: skip


def statistics() -> bytes:
    """A graph from uint8 bytes of fixed width to a vector: the mean and the highest of them."""
    nodes = [
        helper.make_node("Cast", ["data"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["wide"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("ReduceMax", ["wide"], ["top"], axes=[1], keepdims=1),
        helper.make_node("Concat", ["mean", "top"], ["embedding"], axis=1),
    ]
    given = helper.make_tensor_value_info("data", TensorProto.UINT8, ["batch", 6])
    found = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "bytes", [given], [found])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def test_default_of_an_embedding_stands_in_for_null(loaded: pythiadb.Connection) -> None:
    """In single calls, arrays, statements over columns and generated columns."""
    metadata = {"function": "embedding", "input": {"input": ["DATA"]}, "defaultOnNull": {"data": "dog"}}
    load(loaded, "dogs", string_graph().SerializeToString(), metadata)
    dog = [0, 1, 0]
    rows = loaded.execute(
        "SELECT e.input, e.embedding FROM vector_embedding_batch('dogs', ARRAY['cat', NULL]) AS e"
    ).fetchall()
    assert [(text, vector.tolist()) for text, vector in rows] == [("cat", [1, 0, 0]), (None, dog)]
    loaded.execute(
        "CREATE TABLE kennel (id int PRIMARY KEY, d text, v VECTOR(3, FLOAT32), "
        "g VECTOR(3, FLOAT32) GENERATED ALWAYS AS (VECTOR_EMBEDDING(dogs USING d AS data)) STORED); "
        "INSERT INTO kennel VALUES (1, NULL), (2, 'fish'); UPDATE kennel SET v = VECTOR_EMBEDDING(dogs USING d AS data)"
    )
    try:
        for text in (
            "SELECT VECTOR_EMBEDDING(dogs USING NULL AS data)",
            "SELECT VECTOR_EMBEDDING(dogs USING d AS data) FROM kennel ORDER BY id",
            "SELECT v FROM kennel ORDER BY id",
            "SELECT g FROM kennel ORDER BY id",
        ):
            row = loaded.execute(text.encode()).fetchone()
            assert row is not None
            assert row[0].tolist() == dog
    finally:
        loaded.execute("DROP TABLE kennel")
    assert loaded.execute("SELECT vector_embedding('animals', NULL::text)").fetchone() == (None,)
    assert loaded.execute("SELECT vector_embedding('dogs', NULL, 'other')").fetchone() == (None,)
    assert loaded.execute("SELECT vector_embedding(NULL, 'cat')").fetchone() == (None,)


def test_embedding_of_bytes(loaded: pythiadb.Connection) -> None:
    graph = statistics()
    load(loaded, "byte_statistics", graph, {"function": "embedding", "input": {"data": ["DATA"]}})
    data = bytes([0, 250, 7, 9, 128, 200])
    expected = (
        ort.InferenceSession(graph).run(None, {"data": np.frombuffer(data, np.uint8)[None]})[0][0].tolist()
    )
    assert (
        loaded.execute("SELECT vector_embedding('byte_statistics', %s)", (data,)).fetchone()[0].tolist()
        == expected
    )
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="has 5 bytes, the model takes 6"):
        loaded.execute("SELECT vector_embedding('byte_statistics', %s)", (data[:5],))
    assert loaded.execute("SELECT vector_embedding('byte_statistics', NULL::bytea)").fetchone() == (None,)
    with pytest.raises(psycopg.errors.WrongObjectType, match="embeds texts, not bytes"):
        loaded.execute("SELECT vector_embedding('animals', %s)", (data,))


# Refusals -----------------------------------------------------------------------------------------------------------------

WRONG = [
    (
        "spend",
        "prediction_probability",
        'model "plain_scoring.spend" is a regression model, PREDICTION_PROBABILITY needs a classification model',
    ),
    (
        "forest",
        "cluster_id",
        'model "plain_scoring.forest" is a classification model, CLUSTER_ID needs a clustering model',
    ),
    (
        "segments",
        "prediction",
        'model "plain_scoring.segments" is a clustering model, PREDICTION needs a regression or classification model',
    ),
    (
        "animals",
        "cluster_set",
        'model "plain_scoring.animals" is an embedding model, CLUSTER_SET needs a clustering model',
    ),
    ("segments", "cluster_probability", "model has no output for CLUSTER_PROBABILITY"),
    ("segments", "cluster_set", "model has no output for CLUSTER_SET"),
    ("mixture", "cluster_distance", "model has no output for CLUSTER_DISTANCE"),
]


@pytest.mark.parametrize(("model", "operator", "message"), WRONG)
def test_operator_that_does_not_fit(
    loaded: pythiadb.Connection, ask: Ask, model: str, operator: str, message: str
) -> None:
    with pytest.raises(psycopg.errors.WrongObjectType) as caught:
        ask(operator, model, RECORDS[:1])
    assert caught.value.diag.message_primary == message
    with pytest.raises(psycopg.errors.WrongObjectType):
        loaded.execute("SELECT * FROM scoring_batch(%s::regclass, %s, '[]', '{\"{}\"}')", (model, operator))


def test_embedding_with_a_model_that_does_not_embed(loaded: pythiadb.Connection) -> None:
    message = (
        'model "plain_scoring.forest" is a classification model, VECTOR_EMBEDDING needs an embedding model'
    )
    with pytest.raises(psycopg.errors.WrongObjectType, match=message):
        loaded.execute("SELECT vector_embedding('forest', 'text')")
    with pytest.raises(psycopg.errors.UndefinedColumn, match='animals" has no attribute "body"') as caught:
        loaded.execute("SELECT vector_embedding('animals', 'text', 'body')")
    assert caught.value.diag.message_hint == 'Its attribute is "DATA".'


def test_model_that_is_not_there(loaded: pythiadb.Connection, ask: Ask) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable, match='relation "nosuch" does not exist'):
        ask("prediction", "nosuch", RECORDS[:1])
    with pytest.raises(psycopg.errors.UndefinedObject, match='"pg_class" is not a model'):
        ask("prediction", "pg_class", RECORDS[:1])


def test_data_that_are_no_object(ask: Ask) -> None:
    for wrong, kind in ((5, "number"), ([1, 2], "array"), ("text", "string")):
        with pytest.raises(
            psycopg.errors.InvalidParameterValue, match=f"must be a JSON object of attributes, not {kind}"
        ):
            ask("prediction", "spend", [wrong])


def test_arguments_that_make_no_sense(loaded: pythiadb.Connection, ask: Ask) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match='model has no class "iron"') as caught:
        ask("prediction_probability", "forest", RECORDS[:1], ", 'iron'")
    assert "bronze" in str(caught.value.diag.message_hint)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match='model has no cluster "5"'):
        ask("cluster_distance", "segments", RECORDS[:1], ", '5'")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="must be a positive integer, not 0"):
        ask("prediction_set", "forest", RECORDS[:1], ", 0, NULL")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match='unrecognized scoring operator "guess"'):
        loaded.execute("SELECT * FROM scoring_batch('forest', 'guess', '[]', '{{}}')")
    with pytest.raises(psycopg.errors.InvalidTextRepresentation, match="json"):
        loaded.execute("SELECT * FROM scoring_batch('forest', 'prediction', '[]', ARRAY['{\"AGE\": 1}, {}'])")


def test_privilege_on_the_model_is_asked_for(loaded: pythiadb.Connection, ask: Ask) -> None:
    """For every function and every role, at once after a GRANT or REVOKE."""
    calls = [
        "prediction('forest', '{}', NULL::text)", "prediction_probability('forest', '{}')", "prediction_set('forest', '{}')",
        "cluster_id('segments', '{}')", "cluster_distance('segments', '{}')",
        "cluster_probability('mixture', '{}')", "cluster_set('mixture', '{}')",
        "scoring_batch('forest', 'prediction', '[]', '{\"{}\"}')",
        "scoring_columns('forest', 'prediction', '[]', '{AGE}', '{1}'::real[])",
        "vector_embedding('animals', 'cat')", "vector_embedding_batch('animals', '{cat}')",
    ]  # fmt: skip
    loaded.execute("CREATE ROLE plain_reader; GRANT USAGE ON SCHEMA plain_scoring TO plain_reader")
    try:
        for granted in (False, True, False):
            verb = (
                "GRANT SELECT ON forest, segments, mixture, animals TO"
                if granted
                else "REVOKE SELECT ON forest, segments, mixture, animals FROM"
            )
            loaded.execute(f"{verb} plain_reader".encode())
            loaded.execute("SET ROLE plain_reader")
            for call in calls:
                if granted:
                    loaded.execute(f"SELECT {call}".encode())
                    continue
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for model"):
                    loaded.execute(f"SELECT {call}".encode())
            loaded.execute("RESET ROLE")
    finally:
        loaded.execute("RESET ROLE; DROP OWNED BY plain_reader; DROP ROLE plain_reader")


def test_failed_call_leaves_the_session_usable(ask: Ask, made: dict[str, Made]) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        ask("prediction", "spend", [{"AGE": "old"}])
    assert ask("prediction", "spend", RECORDS[:1]) == [bare(made["spend"], "variable")[0, 0]]
