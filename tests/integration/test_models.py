"""Models as database objects: loading by every way in, refusing bad files without a trace, dropping, sharing of files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import psycopg
import pytest
from onnx import TensorProto, helper, numpy_helper

import pythiadb
from tests.unit.models.small_models import bert_config, bert_weights, string_graph, write_folder

DEFAULT = '{"function":"embedding","embeddingOutput":"embedding","input":{"input":["DATA"]}}'
ANIMALS = string_graph().SerializeToString()  # one dimension each for cat, dog and fish
CORPUS = [
    "the cat sits on the mat",
    "dogs and cats are animals",
    "stock markets fell sharply today",
    "the central bank raised interest rates",
    "a dog chased the cat",
]


def traces(db: pythiadb.Connection) -> tuple[Any, ...]:
    """Everything that a load leaves in the database: rows, files, chunks, views."""
    row = db.execute(
        "SELECT (SELECT count(*) FROM pythia.model), (SELECT count(*) FROM pythia.model_file), "
        "(SELECT count(*) FROM pythia.model_chunk), (SELECT count(*) FROM pg_class WHERE relkind = 'v')"
    ).fetchone()
    assert row is not None
    return tuple(row)


@pytest.fixture
def clean(db: pythiadb.Connection) -> Iterator[pythiadb.Connection]:
    """A connection whose leftover models are removed afterwards, so that tests may count."""
    db.execute("SELECT pythia.remove_orphaned_models()")
    yield db
    if not db.closed:
        db.rollback()
        schema = db.execute("SELECT current_schema()").fetchone()
        db.execute(f"DROP SCHEMA {schema[0]} CASCADE; CREATE SCHEMA {schema[0]}".encode())  # type: ignore[index]
        db.execute("SELECT pythia.remove_orphaned_models()")


def load(db: pythiadb.Connection, name: str, data: bytes = ANIMALS, metadata: str = DEFAULT) -> None:
    db.execute("CALL dbms_vector.load_onnx_model(%s, %s::bytea, %s::jsonb)", (name, data, metadata))


def embed(db: pythiadb.Connection, model: str, text: str) -> list[float]:
    row = db.execute("SELECT vector_embedding(%s::regclass, %s)", (model, text)).fetchone()
    assert row is not None
    found: list[float] = row[0].tolist()
    return found


@pytest.fixture
def folder(make_directory: Callable[[], Path], clean: pythiadb.Connection) -> Path:
    """A folder of the server with animals.onnx in it, known as MODEL_DIR."""
    path = make_directory()
    (path / "animals.onnx").write_bytes(ANIMALS)
    clean.execute("CALL pythia.create_directory('MODEL_DIR', %s)", (str(path),))
    return path


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


def test_file_of_a_named_directory(clean: pythiadb.Connection, folder: Path) -> None:
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
def test_file_names_cannot_leave_their_directory(clean: pythiadb.Connection, folder: Path, name: str) -> None:
    before = traces(clean)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="leaves its directory"):
        clean.execute("CALL dbms_vector.load_onnx_model('MODEL_DIR', %s, 'x')", (name,))
    assert traces(clean) == before


def test_unknown_directory_and_missing_file(clean: pythiadb.Connection, folder: Path) -> None:
    with pytest.raises(psycopg.errors.UndefinedObject, match='directory "nowhere" does not exist') as caught:
        clean.execute("CALL dbms_vector.load_onnx_model('nowhere', 'animals.onnx', 'x')")
    assert "create_directory" in str(caught.value.diag.message_hint)
    with pytest.raises(psycopg.errors.UndefinedFile, match=r"missing\.onnx"):
        clean.execute("CALL dbms_vector.load_onnx_model('MODEL_DIR', 'missing.onnx', 'x')")


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


# Bad files ----------------------------------------------------------------------------------------------------------------


def custom_operator() -> bytes:
    model = string_graph()
    model.graph.node[-1].domain = "evil.example"
    model.opset_import.append(helper.make_opsetid("evil.example", 1))
    return bytes(model.SerializeToString())


def external(location: str) -> bytes:
    """Return a graph one of whose weights lies in another file."""
    model = string_graph()
    weight = numpy_helper.from_array(np.zeros(16, np.float32), "weight")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    model.graph.initializer.append(weight)
    return bytes(model.SerializeToString())


def fails_when_run() -> bytes:
    """Return a graph that ONNX Runtime opens and that fails on every input."""
    model = string_graph()
    model.graph.initializer.append(numpy_helper.from_array(np.array([7, 7], np.int64), "seven"))
    model.graph.node.insert(0, helper.make_node("Reshape", ["input", "seven"], ["unused"]))
    model.graph.node[1].input[0] = "unused"
    return bytes(model.SerializeToString())


BAD = {
    "empty": (b"", "empty"),
    "text": (b"hello, I am a model " * 50, "is not an ONNX model"),
    "truncated": (ANIMALS[: len(ANIMALS) // 2], "is not an ONNX model"),
    "custom operator": (custom_operator(), 'custom operator "Cast" of domain "evil.example"'),
    "external data elsewhere": (external("../../secret"), "outside the model folder"),
    "external data absolute": (external("/etc/passwd"), "outside the model folder"),
    "external data missing": (external("weights.bin"), "is missing"),
    "no embedding": (string_graph(kind=TensorProto.INT64).SerializeToString(), "floating-point"),
    "fails when run": (fails_when_run(), "model"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("by", ["bytes", "file"])
def test_bad_file_is_named_and_leaves_no_trace(
    clean: pythiadb.Connection, folder: Path, case: str, by: str
) -> None:
    data, message = BAD[case]
    before = traces(clean)
    with pytest.raises(psycopg.DatabaseError, match=message) as caught:
        if by == "bytes":
            load(clean, "bad", data)
        else:
            (folder / "bad.onnx").write_bytes(data)
            clean.execute("CALL dbms_vector.load_onnx_model('MODEL_DIR', 'bad.onnx', 'bad')")
    assert caught.value.sqlstate not in (None, "XX000", "58X02"), "an internal error is no answer"
    assert traces(clean) == before
    assert embed(clean, "public.minilm", "still there")


def test_result_that_is_no_number_fails_its_call_only(clean: pythiadb.Connection) -> None:
    """The square root of -1 for known animals, 0 for all others: the engine goes on."""
    model = string_graph()
    model.graph.node.append(helper.make_node("Neg", ["embedding"], ["negative"]))
    model.graph.node.append(helper.make_node("Sqrt", ["negative"], ["root"]))
    model.graph.output.append(helper.make_tensor_value_info("root", TensorProto.FLOAT, ["batch", 3]))
    metadata = '{"function":"embedding","embeddingOutput":"root","input":{"input":["DATA"]}}'
    load(clean, "roots", model.SerializeToString(), metadata)
    clean.execute("SET statement_timeout = '10s'")
    with pytest.raises(psycopg.DataError, match="NaN"):
        embed(clean, "roots", "cat")
    assert np.abs(embed(clean, "roots", "unknown")).tolist() == [0, 0, 0]
    assert embed(clean, "public.minilm", "still there")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("[]", "metadata"),
        ('{"function":"embeding"}', "embeding"),
        ('{"function":"embedding","input":{"nosuch":["DATA"]}}', "nosuch"),
        ('{"function":"embedding","embeddingOutput":"nosuch"}', "nosuch"),
        (None, "metadata"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(
    clean: pythiadb.Connection, metadata: Any, message: str
) -> None:
    before = traces(clean)
    with pytest.raises(psycopg.DatabaseError, match=message) as caught:
        load(clean, "bad", metadata=metadata)
    assert caught.value.sqlstate not in ("XX000", "58X02")
    assert traces(clean) == before


def test_failed_load_aborts_only_its_transaction(clean: pythiadb.Connection) -> None:
    before = traces(clean)
    with pytest.raises(psycopg.DataError), clean.transaction():
        load(clean, "good")
        load(clean, "bad", b"no model")
    assert traces(clean) == before
    load(clean, "good")
    assert embed(clean, "good", "cat") == [1, 0, 0]


def test_folder_without_tokenizer_is_refused(clean: pythiadb.Connection, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "bert", bert_config(), bert_weights())
    (source / "tokenizer.json").unlink()
    before = traces(clean)
    with pytest.raises(pythiadb.Error, match=r"tokenizer\.json"):
        pythiadb.load_model(clean, source, "bert")
    with pytest.raises(pythiadb.Error, match="does not exist"):
        pythiadb.load_model(clean, tmp_path / "nowhere", "bert")
    assert traces(clean) == before


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
        "model_size", "partitioned", "comments",
    ]  # fmt: skip
    animals, mixed = cursor.fetchall()
    assert animals[:4] == ("ANIMALS", "EMBEDDING", "ONNX", "NATIVE")
    assert animals[6:] == (len(ANIMALS), "NO", "cats and dogs")
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
