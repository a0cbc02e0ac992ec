"""Models as database objects: loading by every way in, refusing bad files without a trace, dropping, sharing of files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import psycopg
import pytest
from onnx import numpy_helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

import pythiadb
from tests.integration.fetching_calls import ANIMALS
from tests.integration.model_loading import DEFAULT, embed, load, traces
from tests.unit.models.small_models import bert_config, bert_weights, string_graph, write_folder

CORPUS = [
    "the cat sits on the mat",
    "dogs and cats are animals",
    "stock markets fell sharply today",
    "the central bank raised interest rates",
    "a dog chased the cat",
]


# Loading ------------------------------------------------------------------------------------------------------------------


def test_scikit_learn_pipeline_gives_scikit_learns_vectors(clean: pythiadb.Connection) -> None:
    """TF-IDF and a truncated SVD inside the graph: the numbers are sklearn's and bare ONNX Runtime's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other projects
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import StringTensorType
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_pipeline

        pipeline = make_pipeline(TfidfVectorizer(), TruncatedSVD(4, random_state=0)).fit(CORPUS)
        model = to_onnx(
            pipeline, initial_types=[("text", StringTensorType([None, 1]))], target_opset=17,
            options={TfidfVectorizer: {"locale": "C.UTF-8"}},
        ).SerializeToString()  # fmt: skip
        expected = pipeline.transform(CORPUS)
    load(
        clean,
        "tfidf",
        model,
        '{"function":"embedding","input":{"text":["DATA"]},"embeddingOutput":"variable"}',
    )
    clean.execute("CREATE TABLE corpus (id int PRIMARY KEY, body text)")
    clean.cursor().executemany("INSERT INTO corpus VALUES (%s, %s)", list(enumerate(CORPUS)))
    rows = clean.execute(
        "SELECT VECTOR_EMBEDDING(tfidf USING body AS data) FROM corpus ORDER BY id"
    ).fetchall()
    found = np.array([row[0] for row in rows])
    bare = ort.InferenceSession(model).run(["variable"], {"text": np.array(CORPUS).reshape(-1, 1)})[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found, bare, atol=1e-6)


def test_file_of_a_named_directory(clean: pythiadb.Connection, model_dir: Path) -> None:
    clean.execute("CALL dbms_vector.load_onnx_model('MODEL_DIR', 'animals.onnx', 'animals')")
    assert embed(clean, "animals", "dog") == [0, 1, 0]
    clean.execute("CALL dbms_vector.load_onnx_model('model_dir', 'animals.onnx', 'again')")
    assert embed(clean, "again", "cat") == [1, 0, 0]


@pytest.mark.parametrize(
    "statement",
    [
        'EXECUTE DBMS_VECTOR.LOAD_ONNX_MODEL(\'MODEL_DIR\', \'animals.onnx\', \'animals\', JSON(\'{"function":"embedding","input":{"input":["DATA"]}}\'))',
        "BEGIN\n  DBMS_VECTOR.LOAD_ONNX_MODEL('MODEL_DIR', 'animals.onnx', 'animals',\n"
        '    JSON(\'{"function":"embedding","embeddingOutput":"embedding","input":{"input":["DATA"]}}\'));\nEND;',
        "BEGIN DBMS_VECTOR.LOAD_ONNX_MODEL(directory => 'MODEL_DIR', file_name => 'animals.onnx', model_name => 'animals'); END;",
    ],
)
def test_oracles_call_loads_a_file(
    oracle: pythiadb.Connection, make_directory: Callable[[], Path], statement: str
) -> None:
    path = make_directory()
    (path / "animals.onnx").write_bytes(ANIMALS)
    oracle.execute(f"EXECUTE pythia.create_directory('MODEL_DIR', '{path}')".encode())
    oracle.execute(statement)
    assert embed(oracle, "animals", "fish") == [0, 0, 1]
    oracle.execute("EXECUTE DBMS_VECTOR.DROP_ONNX_MODEL(model_name => 'animals', force => true)")
    assert oracle.execute("SELECT to_regclass('animals')").fetchone() == (None,)


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "/etc/passwd", "..", "sub/.."])
def test_file_names_cannot_leave_their_directory(
    clean: pythiadb.Connection, model_dir: Path, name: str
) -> None:
    before = traces(clean)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="leaves its directory"):
        clean.execute("CALL dbms_vector.load_onnx_model('MODEL_DIR', %s, 'x')", (name,))
    assert traces(clean) == before


def test_unknown_directory_and_missing_file(clean: pythiadb.Connection, model_dir: Path) -> None:
    with pytest.raises(psycopg.errors.UndefinedObject, match='directory "nowhere" does not exist') as caught:
        clean.execute("CALL dbms_vector.load_onnx_model('nowhere', 'animals.onnx', 'x')")
    assert "create_directory" in str(caught.value.diag.message_hint)
    with pytest.raises(psycopg.errors.UndefinedFile, match=r"missing\.onnx"):
        clean.execute("CALL dbms_vector.load_onnx_model('MODEL_DIR', 'missing.onnx', 'x')")


@pytest.mark.parametrize(
    "arguments",
    [
        "load_onnx_model('x', NULL::bytea)",
        "import_onnx_model('x', NULL::bytea)",
        "load_onnx_model('MODEL_DIR', NULL, 'x')",
        "load_onnx_model_cloud('x', NULL, NULL)",
    ],
)
def test_null_is_refused(clean: pythiadb.Connection, model_dir: Path, arguments: str) -> None:
    before = traces(clean)
    with pytest.raises(psycopg.errors.NullValueNotAllowed, match="must not be null"):
        clean.execute(f"CALL dbms_vector.{arguments}".encode())
    assert traces(clean) == before


# Names --------------------------------------------------------------------------------------------------------------------


def test_taken_name_is_refused_and_nothing_is_left(clean: pythiadb.Connection) -> None:
    load(clean, "animals")
    clean.execute("CREATE TABLE taken (id int)")
    before = traces(clean)
    other = string_graph(output="other").SerializeToString()
    for name in ("animals", "ANIMALS", "taken"):
        with pytest.raises(psycopg.errors.DuplicateTable, match="already exists"):
            load(clean, name, other, '{"function":"embedding"}')
    with pytest.raises(psycopg.errors.DuplicateTable) as caught:
        load(clean, "animals")
    assert "drop_onnx_model" in str(caught.value.diag.message_hint)
    assert traces(clean) == before


def test_names_follow_the_rules_of_identifiers(clean: pythiadb.Connection) -> None:
    schema = clean.execute("SELECT current_schema()").fetchone()
    assert schema is not None
    load(clean, "Folded")
    load(clean, '"Kept As Is"')
    load(clean, f'{schema[0]}."drop table x; --"')
    names = {row[0] for row in clean.execute("SELECT relation::text FROM pythia.model")}
    assert {"folded", '"Kept As Is"', '"drop table x; --"'} <= names
    row = clean.execute("SELECT VECTOR_EMBEDDING(\"Kept As Is\" USING 'cat' AS data)").fetchone()
    assert row is not None
    assert row[0].tolist() == [1, 0, 0]
    for name in ("a.b.c", "a b", "", "1x"):
        with pytest.raises(psycopg.DatabaseError, match="invalid|not a valid"):
            load(clean, name)
    with pytest.raises(psycopg.errors.InvalidSchemaName, match="nosuch"):
        load(clean, "nosuch.animals")


# Transactions -------------------------------------------------------------------------------------------------------------


def test_model_can_score_before_the_commit_and_is_gone_after_a_rollback(clean: pythiadb.Connection) -> None:
    before = traces(clean)
    clean.execute("BEGIN")
    load(clean, "animals", string_graph(output="rolled").SerializeToString(), '{"function":"embedding"}')
    row = clean.execute("SELECT vector_embedding('animals', 'cat', 'input')").fetchone()
    assert row is not None
    assert row[0].tolist() == [1, 0, 0]
    clean.execute("ROLLBACK")
    assert traces(clean) == before
    with pytest.raises(psycopg.errors.UndefinedTable):
        clean.execute("SELECT vector_embedding('animals', 'cat')")


def test_savepoint_takes_a_load_back(clean: pythiadb.Connection) -> None:
    before = traces(clean)
    with clean.transaction():
        with pytest.raises(ZeroDivisionError), clean.transaction():
            load(clean, "first")
            raise ZeroDivisionError
        load(clean, "second")
    assert clean.execute("SELECT to_regclass('first') IS NULL").fetchone() == (True,)
    assert embed(clean, "second", "dog") == [0, 1, 0]
    assert traces(clean)[0] == before[0] + 1


def test_attribute_is_named_after_the_tensor_without_an_input_map(clean: pythiadb.Connection) -> None:
    """Attribute names do not distinguish upper and lower case, as identifiers in SQL do not."""
    load(clean, "animals", metadata='{"function":"embedding"}')
    for attribute in ("input", "INPUT"):
        row = clean.execute(
            f"SELECT VECTOR_EMBEDDING(animals USING 'cat' AS {attribute})".encode()
        ).fetchone()
        assert row is not None
        assert row[0].tolist() == [1, 0, 0]
    with pytest.raises(psycopg.errors.UndefinedColumn, match='no attribute "DATA"') as caught:
        clean.execute("SELECT VECTOR_EMBEDDING(animals USING 'cat' AS data)")
    assert caught.value.diag.message_hint == 'Its attribute is "input".'


# Files ------------------------------------------------------------------------------------------------------------------


def test_two_models_of_one_folder_share_their_chunks(clean: pythiadb.Connection, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "bert", bert_config(), bert_weights())
    pythiadb.load_model(clean, source, "one")
    after_one = traces(clean)
    pythiadb.load_model(clean, source, "two")
    assert traces(clean)[2] == after_one[2]
    clean.execute("CALL dbms_vector.drop_onnx_model('one')")
    assert traces(clean)[2] == after_one[2]
    assert len(embed(clean, "two", "the cat")) == bert_config()["hidden_size"]
    clean.execute("CALL dbms_vector.drop_onnx_model('two')")
    assert traces(clean)[2] < after_one[2]


def test_file_larger_than_a_chunk_comes_back_whole(clean: pythiadb.Connection) -> None:
    """2.5 MB: three chunks; the engine checks the hash of the whole."""
    model = string_graph()
    filler = np.random.default_rng(0).integers(0, 255, 2_621_440, np.uint8)
    model.graph.initializer.append(numpy_helper.from_array(filler, "filler"))
    data = model.SerializeToString()
    load(clean, "large", data)
    rows = clean.execute(
        "SELECT c.data FROM pythia.model m JOIN pythia.model_file f ON f.model_id = m.id "
        "JOIN pythia.model_chunk c USING (sha256) WHERE m.relation = 'large'::regclass ORDER BY c.no"
    ).fetchall()
    assert len(rows) == 3
    assert b"".join(row[0] for row in rows) == data


# Dropping -----------------------------------------------------------------------------------------------------------------


def test_drop_of_what_is_no_model(clean: pythiadb.Connection) -> None:
    clean.execute("CREATE TABLE business (id int); CREATE VIEW sights AS SELECT * FROM business")
    for name in ("nosuch", "business", "sights"):
        with pytest.raises(psycopg.errors.UndefinedObject, match=f'model "{name}" does not exist'):
            clean.execute("CALL dbms_vector.drop_onnx_model(%s)", (name,))
    clean.execute("CALL dbms_vector.drop_onnx_model('nosuch', true)")
    for name in ("business", "sights"):  # force does not drop other people's things
        with pytest.raises(psycopg.errors.UndefinedObject):
            clean.execute("CALL dbms_vector.drop_onnx_model(%s, true)", (name,))
    assert clean.execute("SELECT count(*) FROM sights").fetchone() == (0,)


def test_drop_waits_for_dependents(clean: pythiadb.Connection) -> None:
    load(clean, "animals")
    clean.execute("CREATE VIEW pets AS SELECT VECTOR_EMBEDDING(animals USING 'cat' AS data) AS v")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist) as caught:
        clean.execute("CALL dbms_vector.drop_onnx_model('animals')")
    assert "pets" in str(caught.value.diag.message_detail)
    assert clean.execute("SELECT count(*) FROM pets").fetchone() == (1,)
    clean.execute("DROP VIEW pets")
    clean.execute("CALL dbms_vector.drop_onnx_model('animals')")
    with pytest.raises(psycopg.errors.UndefinedTable):
        clean.execute("SELECT vector_embedding('animals', 'cat')")


def test_dropped_view_ends_the_model_and_clean_up_removes_its_rows(clean: pythiadb.Connection) -> None:
    before = traces(clean)
    load(clean, "animals", string_graph(output="direct").SerializeToString(), '{"function":"embedding"}')
    oid = clean.execute("SELECT 'animals'::regclass::oid").fetchone()
    assert oid is not None
    clean.execute("DROP VIEW animals")
    with pytest.raises(psycopg.errors.UndefinedObject, match="is not a model|does not exist"):
        clean.execute("SELECT vector_embedding(%s::oid::regclass, 'cat')", oid)
    assert clean.execute("SELECT pythia.remove_orphaned_models()").fetchone() == (1,)
    assert traces(clean) == before


def test_renamed_and_moved_model_goes_on(clean: pythiadb.Connection) -> None:
    load(clean, "animals")
    clean.execute("ALTER VIEW animals RENAME TO beasts")
    assert embed(clean, "beasts", "dog") == [0, 1, 0]
    clean.execute("CALL dbms_vector.drop_onnx_model('beasts')")


# Looking ------------------------------------------------------------------------------------------------------------------


def test_user_mining_models_has_oracles_columns(clean: pythiadb.Connection) -> None:
    load(clean, "animals")
    load(clean, '"Mixed"')
    clean.execute("COMMENT ON VIEW animals IS 'cats and dogs'")
    cursor = clean.execute(
        "SELECT * FROM user_mining_models WHERE model_name IN ('ANIMALS', 'Mixed') ORDER BY 1"
    )
    assert cursor.description is not None
    assert [c.name for c in cursor.description] == [
        "model_name", "mining_function", "algorithm", "algorithm_type", "creation_date", "build_duration",
        "model_size", "partitioned", "comments", "external_data", "inmemory",
    ]  # fmt: skip
    animals, mixed = cursor.fetchall()
    assert animals[:4] == ("ANIMALS", "EMBEDDING", "ONNX", "NATIVE")
    assert animals[6:] == (len(ANIMALS), "NO", "cats and dogs", "NO", "NO")
    assert mixed[0] == "Mixed"


def test_models_view_shows_its_details(clean: pythiadb.Connection) -> None:
    load(clean, "animals", metadata=json.dumps({**json.loads(DEFAULT), "note": "kept"}))
    row = clean.execute(
        "SELECT function, dimensions, max_tokens, attributes, model_size, metadata ->> 'note' FROM animals"
    ).fetchone()
    assert row == ("embedding", 3, None, ["DATA"], len(ANIMALS), "kept")


def test_onnx_file_from_the_client(clean: pythiadb.Connection, tmp_path: Path) -> None:
    """pythiadb.load_model with a file, and its progress."""
    path = tmp_path / "animals.onnx"
    onnx.save_model(string_graph(), path)
    seen: list[tuple[int, int]] = []
    pythiadb.load_model(clean, path, "animals", progress=lambda *numbers: seen.append(numbers))
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)
    assert embed(clean, "animals", "fish") == [0, 0, 1]


def test_a_default_export_of_scikit_learn_loads_from_sql(db: pythiadb.Connection) -> None:
    """Its ZipMap makes a list of maps; the graph that is stored has the tensors behind it."""
    values = np.random.default_rng(5).normal(size=(120, 3)).astype(np.float32)
    labels = np.where(values[:, 0] > 0.3, "high", np.where(values[:, 1] > 0, "middle", "low"))
    classifier = LogisticRegression().fit(values, labels)
    export = to_onnx(classifier, values[:1])
    assert [o.type.WhichOneof("value") for o in export.graph.output] == ["tensor_type", "sequence_type"]
    metadata = {"function": "classification", "input": {"X": ["A", "B", "C"]}}
    db.execute(
        "CALL dbms_vector.load_onnx_model('levels', :graph, :metadata)",
        (export.SerializeToString(), json.dumps(metadata)),
    )
    db.execute("CREATE TABLE points (id int, a real, b real, c real)")
    with db.cursor() as cursor, cursor.copy("COPY points FROM STDIN") as copy:
        for number, row in enumerate(values.tolist()):
            copy.write_row([number, *row])
    rows = db.execute(
        "SELECT PREDICTION(levels USING *), PREDICTION_PROBABILITY(levels, 'low' USING *) FROM points ORDER BY id"
    ).fetchall()
    assert [row[0] for row in rows] == classifier.predict(values).tolist()
    truth = classifier.predict_proba(values)[:, list(classifier.classes_).index("low")]
    np.testing.assert_allclose([row[1] for row in rows], truth, atol=1e-5)
