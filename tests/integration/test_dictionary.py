"""What the dictionary says of models: Oracle's views, the detail views, shared memory, privileges, comments, dependencies."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psycopg
import pytest
from background import wait_until

import pythiadb
from pythiadb.models.mapped import GRAPH_NAME, WEIGHTS_NAME
from tests.integration import scoring_models, shop_models, weighty_models
from tests.unit.models.small_models import string_graph

GRAPH = string_graph()
ANIMALS = GRAPH.SerializeToString()
TEXT = {"function": "embedding", "embeddingOutput": "embedding", "input": {"input": ["DATA"]}, "note": "kept"}
MODELS = "owner, model_name, mining_function, algorithm, algorithm_type, creation_date, build_duration, model_size, partitioned, comments, external_data, inmemory"
ATTRIBUTES = "owner, model_name, attribute_name, attribute_type, data_type, data_length, data_precision, data_scale, usage_type, target, attribute_spec, vector_info"
VIEWS = "owner, model_name, view_name, view_type"
SETTINGS = "owner, model_name, setting_name, setting_value, setting_type"


def load(db: pythiadb.Connection, name: str, graph: bytes = ANIMALS, metadata: Any = TEXT) -> None:
    db.execute(
        "CALL dbms_vector.load_onnx_model(%s, %s::bytea, %s::jsonb)", (name, graph, json.dumps(metadata))
    )


def rows(db: pythiadb.Connection, query: str, *values: Any) -> list[tuple[Any, ...]]:
    return db.execute(query.encode(), values).fetchall()


@pytest.fixture
def role(db: pythiadb.Connection) -> Iterator[str]:
    """A role that may use the test's schema."""
    name = f"reader_{uuid.uuid4().hex[:8]}"
    schema = rows(db, "SELECT current_schema()")[0][0]
    db.execute(f"CREATE ROLE {name}; GRANT USAGE, CREATE ON SCHEMA {schema} TO {name}".encode())
    yield name
    if not db.closed:
        db.rollback()
        db.execute(f"RESET ROLE; DROP OWNED BY {name} CASCADE; DROP ROLE {name}".encode())


# Oracle's views -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("models", MODELS),
        ("model_attributes", ATTRIBUTES),
        ("model_views", VIEWS),
        ("model_settings", SETTINGS),
    ],
)
def test_columns_are_oracles(db: pythiadb.Connection, kind: str, columns: str) -> None:
    """USER_ lacks OWNER."""
    for scope in ("dba", "all", "user"):
        cursor = db.execute(f"SELECT * FROM {scope}_mining_{kind}".encode())
        assert cursor.description is not None
        wanted = columns.split(", ")[1 if scope == "user" else 0 :]
        assert [column.name for column in cursor.description] == wanted


def test_model_by_its_oracle_name(db: pythiadb.Connection) -> None:
    """In upper case unless it was quoted; pythia.model and the model's own view show PostgreSQL's names."""
    load(db, "animals")
    load(db, '"Mixed"')
    churn = shop_models.churn()
    load(db, "churn", churn.graph, churn.metadata)
    query = (
        "SELECT owner, model_name, mining_function, algorithm, algorithm_type, model_size, partitioned, external_data, inmemory, "
        "creation_date BETWEEN localtimestamp - interval '1 minute' AND localtimestamp + interval '1 second', "
        "build_duration BETWEEN 0.001 AND 60 FROM {}_mining_models WHERE model_name IN ('ANIMALS', 'Mixed', 'CHURN') ORDER BY 2"
    )
    for scope in ("all", "dba"):
        assert rows(db, query.format(scope)) == [
            ("POSTGRES", name, function, "ONNX", "NATIVE", size, "NO", "NO", "NO", True, True)
            for name, function, size in (
                ("ANIMALS", "EMBEDDING", len(ANIMALS)),
                ("CHURN", "CLASSIFICATION", len(churn.graph)),
                ("Mixed", "EMBEDDING", len(ANIMALS)),
            )
        ]
    assert rows(db, "SELECT relation::text FROM pythia.model WHERE relation IN ('animals'::regclass, '\"Mixed\"') ORDER BY 1") == [
        ('"Mixed"',), ("animals",)
    ]  # fmt: skip


def test_attributes_of_every_function(db: pythiadb.Connection) -> None:
    load(db, "animals")
    for name, made in (
        ("churn", shop_models.churn()),
        ("segments", shop_models.segments()),
        ("reranker", shop_models.reranker()),
    ):
        load(db, name, made.graph, made.metadata)
    towns = scoring_models.make_all()["towns"]
    load(db, "towns", towns.graph, towns.metadata)
    found = rows(
        db,
        "SELECT model_name, attribute_name, attribute_type, data_type, data_length, usage_type, target, vector_info "
        "FROM user_mining_model_attributes WHERE model_name = ANY (%s) ORDER BY model_name, target, attribute_name",
        ["ANIMALS", "CHURN", "SEGMENTS", "RERANKER", "TOWNS"],
    )
    number = ("NUMERICAL", "NUMBER", None, "ACTIVE", "NO", None)
    assert found == [
        ("ANIMALS", "DATA", "TEXT", "VARCHAR2", 4000, "ACTIVE", "NO", None),
        ("ANIMALS", "ORA$ONNXTARGET", "VECTOR", "VECTOR", None, "ACTIVE", "YES", "VECTOR(3,FLOAT32)"),
        ("CHURN", "AGE", *number),
        ("CHURN", "VISITS", *number),
        ("CHURN", "ORA$ONNXTARGET", "CATEGORICAL", "VARCHAR2", 4000, "ACTIVE", "YES", None),
        ("RERANKER", "DATA1", "CATEGORICAL", "VARCHAR2", 4000, "ACTIVE", "NO", None),
        ("RERANKER", "DATA2", "CATEGORICAL", "VARCHAR2", 4000, "ACTIVE", "NO", None),
        ("RERANKER", "ORA$ONNXTARGET", "NUMERICAL", "BINARY_DOUBLE", None, "ACTIVE", "YES", None),
        ("SEGMENTS", "AGE", *number),
        ("SEGMENTS", "VISITS", *number),
        ("TOWNS", "AGE", *number),
        ("TOWNS", "CITY", "CATEGORICAL", "VARCHAR2", 4000, "ACTIVE", "NO", None),
        ("TOWNS", "ORA$ONNXTARGET", "CATEGORICAL", "VARCHAR2", 4000, "ACTIVE", "YES", None),
    ]


def test_settings_are_the_metadata(db: pythiadb.Connection) -> None:
    load(db, "animals")
    found = rows(
        db,
        "SELECT setting_name, setting_value, setting_type FROM user_mining_model_settings WHERE model_name = 'ANIMALS' ORDER BY 1",
    )
    assert ("ALGO_NAME", "ALGO_ONNX", "DEFAULT") in found
    assert ("note", "kept", "INPUT") in found
    assert {name for name, _, kind in found if kind == "INPUT"} == set(TEXT)


def test_only_owners_readers_and_monitors_see_a_model(db: pythiadb.Connection, role: str) -> None:
    load(db, "animals")
    queries = [
        f"SELECT count(*) FROM {{}}_mining_{kind} WHERE model_name = 'ANIMALS'"
        for kind in ("models", "model_attributes", "model_views", "model_settings")
    ]

    def seen(scope: str) -> list[bool]:
        return [rows(db, query.format(scope))[0][0] > 0 for query in queries]

    assert seen("user") == seen("all") == seen("dba") == [True] * 4
    db.execute(f"SET ROLE {role}".encode())
    assert seen("user") == seen("all") == [False] * 4
    assert rows(db, "SELECT count(*) FROM pythia.model WHERE relation = 'animals'::regclass") == [(0,)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        seen("dba")
    db.execute(f"RESET ROLE; GRANT SELECT ON animals TO {role}; SET ROLE {role}".encode())
    assert seen("user") == [False] * 4
    assert seen("all") == [True] * 4
    assert rows(db, "SELECT count(*) FROM pythia.model WHERE relation = 'animals'::regclass") == [(1,)]
    db.execute(
        f"RESET ROLE; GRANT pg_monitor TO {role}; REVOKE SELECT ON animals FROM {role}; SET ROLE {role}".encode()
    )
    assert seen("all") == [False] * 4
    assert seen("dba") == [True] * 4


def test_comments(db: pythiadb.Connection, role: str) -> None:
    load(db, "animals")
    db.execute("COMMENT ON VIEW animals IS 'cats and dogs'")
    assert rows(db, "SELECT comments FROM user_mining_models WHERE model_name = 'ANIMALS'") == [
        ("cats and dogs",)
    ]
    db.execute(f"GRANT SELECT ON animals TO {role}; SET ROLE {role}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"):
        db.execute("COMMENT ON VIEW animals IS 'mine'")


# Owners -------------------------------------------------------------------------------------------------------------------


def test_loading_needs_a_privilege_and_makes_an_owner(db: pythiadb.Connection, role: str) -> None:
    db.execute(f"SET ROLE {role}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        load(db, "mine")
    db.execute(f"RESET ROLE; CALL pythia.grant_create_model('{role}'); SET ROLE {role}".encode())
    load(db, "mine")
    assert rows(db, "SELECT model_name FROM user_mining_models") == [("MINE",)]
    assert rows(db, "SELECT DISTINCT owner FROM all_mining_model_views WHERE model_name = 'MINE'") == [
        (role.upper(),)
    ]
    assert [
        row[0]
        for row in rows(
            db,
            "SELECT tableowner FROM (SELECT viewowner AS tableowner FROM pg_views WHERE viewname ~ 'mine$') v",
        )
    ] == [role] * 4
    assert rows(db, "SELECT value FROM \"dm$vpmine\" WHERE name = 'note'") == [("kept",)]


def test_only_the_owner_drops_and_renames(db: pythiadb.Connection, role: str) -> None:
    load(db, "animals")
    db.execute(f"GRANT SELECT ON animals TO {role}; SET ROLE {role}".encode())
    for statement in (
        "CALL dbms_vector.drop_onnx_model('animals')",
        "CALL dbms_vector.drop_onnx_model('animals', true)",
        "CALL dbms_data_mining.drop_model('animals')",
        "CALL dbms_data_mining.rename_model('animals', 'beasts')",
        "CALL dbms_vector.inmemory_onnx_model('animals')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"):
            db.execute(statement.encode())
    db.execute("RESET ROLE")
    assert rows(db, "SELECT vector_embedding('animals', 'cat')::text") == [("[1,0,0]",)]


def test_objects_that_use_a_model_hinder_its_drop(db: pythiadb.Connection) -> None:
    """Force is for models that are not there, not for dependents; the detail views do not count, what stands on them does."""
    load(db, "animals")
    db.execute("CREATE VIEW pets AS SELECT VECTOR_EMBEDDING(animals USING 'cat' AS data) AS v")
    for force in ("false", "true"):
        with pytest.raises(psycopg.errors.DependentObjectsStillExist) as caught:
            db.execute(f"CALL dbms_vector.drop_onnx_model('animals', {force})".encode())
        assert "view pets depends on view animals" in str(caught.value.diag.message_detail)
        assert "dm$" not in str(caught.value.diag.message_detail)
    db.execute('DROP VIEW pets; CREATE VIEW facts AS SELECT * FROM "dm$vmanimals"')
    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="facts"):
        db.execute("CALL dbms_data_mining.drop_model('animals')")
    db.execute("DROP VIEW facts; CALL dbms_data_mining.drop_model('animals')")
    assert rows(
        db,
        "SELECT count(*) FROM pg_class WHERE relname ~ 'animals$' AND relnamespace = current_schema()::regnamespace",
    ) == [(0,)]


# Detail views -------------------------------------------------------------------------------------------------------------


def test_detail_views_say_what_the_file_is(db: pythiadb.Connection) -> None:
    load(db, "animals")
    found = dict(rows(db, 'SELECT name, value FROM "dm$vmanimals"'))
    assert found["Graph Name"] == GRAPH.graph.name
    assert found["Producer Name"] == GRAPH.producer_name
    assert found["Model Size"] == str(len(ANIMALS))
    assert found["Input[0]"] == "input:string[?]"
    assert found["Output[0]"] == "embedding:float32[?,3]"
    parameters = dict(rows(db, 'SELECT name, value FROM "dm$vpanimals"'))
    assert parameters == {k: v if isinstance(v, str) else json.dumps(v) for k, v in TEXT.items()}
    assert rows(db, 'SELECT metadata FROM "dm$vjanimals"') == [(TEXT,)]
    assert rows(
        db, "SELECT view_name, view_type FROM user_mining_model_views WHERE model_name = 'ANIMALS' ORDER BY 1"
    ) == [
        ("DM$VJANIMALS", "ONNX Metadata Information"),
        ("DM$VMANIMALS", "ONNX Model Information"),
        ("DM$VPANIMALS", "ONNX Parsing Information"),
    ]


def test_detail_views_in_oracles_dialect(oracle: pythiadb.Connection) -> None:
    oracle.execute(
        "CALL dbms_vector.load_onnx_model('animals', :graph, :metadata)",
        {"graph": ANIMALS, "metadata": json.dumps(TEXT)},
    )
    row = oracle.execute("SELECT value FROM DM$VManimals WHERE name = 'Graph Name'").fetchone()
    assert row == (GRAPH.graph.name,)
    row = oracle.execute(
        "SELECT view_name FROM USER_MINING_MODEL_VIEWS WHERE view_name = 'DM$VMANIMALS'"
    ).fetchone()
    assert row == ("DM$VMANIMALS",)


def test_detail_views_of_a_quoted_name(db: pythiadb.Connection) -> None:
    load(db, '"Mixed Case"')
    assert rows(db, 'SELECT count(*) FROM "DM$VMMixed Case"')[0][0] > 0
    assert rows(db, "SELECT count(*) FROM user_mining_model_views WHERE view_name = 'DM$VPMixed Case'") == [
        (1,)
    ]
    db.execute("CALL dbms_vector.drop_onnx_model('\"Mixed Case\"')")
    assert rows(db, "SELECT to_regclass('\"DM$VMMixed Case\"')") == [(None,)]


def test_detail_views_show_nothing_without_the_model(db: pythiadb.Connection, role: str) -> None:
    """Who was granted a detail view sees something in it as long as he may score with the model."""
    load(db, "animals")
    db.execute(f'GRANT SELECT ON "dm$vmanimals", "dm$vjanimals" TO {role}; SET ROLE {role}'.encode())
    assert (
        rows(db, 'SELECT count(*) FROM "dm$vmanimals"')
        == rows(db, 'SELECT count(*) FROM "dm$vjanimals"')
        == [(0,)]
    )
    db.execute(f"RESET ROLE; GRANT SELECT ON animals TO {role}; SET ROLE {role}".encode())
    assert rows(db, 'SELECT metadata FROM "dm$vjanimals"') == [(TEXT,)]


def test_plain_drop_of_a_models_view_frees_its_names(db: pythiadb.Connection) -> None:
    """DROP VIEW knows nothing of detail views: they are empty then, and gone with the next load or clean-up."""
    load(db, "animals")
    load(db, "beasts")
    db.execute("DROP VIEW animals; DROP VIEW beasts")
    assert rows(
        db, "SELECT count(*) FROM user_mining_model_views WHERE model_name IN ('ANIMALS', 'BEASTS')"
    ) == [(0,)]
    load(db, "animals", metadata=TEXT | {"note": "second"})
    assert rows(db, "SELECT metadata ->> 'note' FROM \"dm$vjanimals\"") == [("second",)]
    db.execute("SELECT pythia.remove_orphaned_models()")
    assert rows(db, "SELECT to_regclass('\"dm$vmbeasts\"'), to_regclass('\"dm$vmanimals\"') IS NULL") == [
        (None, False)
    ]


def test_clean_up_leaves_an_orphaned_detail_view_that_is_used(db: pythiadb.Connection) -> None:
    load(db, "animals")
    db.execute('CREATE VIEW facts AS SELECT * FROM "dm$vmanimals"; DROP VIEW animals')
    db.execute("SELECT pythia.remove_orphaned_models()")
    assert rows(db, "SELECT count(*) FROM facts") == [(0,)]
    with pytest.raises(psycopg.errors.DuplicateTable, match=r"dm\$vmanimals"):
        load(db, "animals")
    db.execute('DROP VIEW facts; DROP VIEW "dm$vmanimals"')
    load(db, "animals")


def test_name_of_a_detail_view_that_is_taken(db: pythiadb.Connection) -> None:
    db.execute('CREATE TABLE "dm$vpanimals" (id int)')
    with pytest.raises(psycopg.errors.DuplicateTable, match=r"dm\$vpanimals") as caught:
        load(db, "animals")
    assert caught.value.diag.message_detail == "A detail view of the model needs this name."
    assert rows(db, "SELECT to_regclass('animals')") == [(None,)]


def test_detail_view_cannot_be_forged(db: pythiadb.Connection, role: str) -> None:
    """A view counts as a detail view only if it shows a model of its own owner's."""
    load(db, "animals")
    number = rows(db, "SELECT id FROM pythia.model WHERE relation = 'animals'::regclass")[0][0]
    db.execute(f"SET ROLE {role}".encode())
    db.execute(
        f'CREATE VIEW "dm$vmforged" AS SELECT m.* FROM pythia.model_details AS m, (SELECT 1) AS x WHERE m.id = {number}'.encode()
    )
    for name in ("dm$vmforged", "animals"):
        with pytest.raises(psycopg.errors.WrongObjectType, match="is not a detail view"):
            db.execute("SELECT pythia.record_detail_view(%s::regclass, 'dm$vm')", (f'"{name}"',))
    db.execute("RESET ROLE")
    assert len(rows(db, "SELECT FROM user_mining_model_views WHERE model_name = 'ANIMALS'")) == 3


# Shared memory ------------------------------------------------------------------------------------------------------------


def mapped_folder(db: pythiadb.Connection, model: str) -> Path:
    """The folder of the engine's cache that holds a model's shared weights."""
    assert db.server is not None
    package = rows(db, "SELECT package FROM pythia.model WHERE relation = %s::regclass", model)[0][0]
    found = list(db.server.layout.engine.rglob(f"mapped/{package}-*/"))
    assert len(found) == 1
    return found[0]


def tensor_bytes(graph: Path) -> int:
    """The bytes of the plain weights that an optimized graph refers to."""
    model = onnx.load(str(graph), load_external_data=False)
    lengths = [
        entry.value for t in model.graph.initializer for entry in t.external_data if entry.key == "length"
    ]
    return sum(map(int, lengths))


def workers_that_map(db: pythiadb.Connection, path: Path) -> dict[int, int]:
    """Worker processes that have a file mapped, with the lowest address of it."""
    found = {}
    for worker in rows(db, "SELECT pythia.engine_status()")[0][0]["workers"]:
        lines = [
            line for line in Path(f"/proc/{worker['pid']}/maps").read_text().splitlines() if str(path) in line
        ]
        if lines:
            found[worker["pid"]] = min(int(line.partition("-")[0], 16) for line in lines)
    return found


def pinned(db: pythiadb.Connection) -> int:
    return int(rows(db, "SELECT pin_count FROM v$im_onnx_model WHERE name = 'WEIGHTY'")[0][0])


def test_shared_memory_is_as_the_files_are(
    db: pythiadb.Connection, make_directory: Callable[[], Path], role: str
) -> None:
    pythiadb.load_model(
        db, weighty_models.save(make_directory()), "weighty", metadata=weighty_models.METADATA
    )
    question = "SELECT external_data, inmemory FROM user_mining_models WHERE model_name = 'WEIGHTY'"
    assert rows(db, question) == [("YES", "NO")]
    assert rows(db, "SELECT count(*) FROM v$im_onnx_model WHERE name = 'WEIGHTY'") == [(0,)]
    db.execute("CALL dbms_vector.inmemory_onnx_model('weighty')")
    assert rows(db, question) == [("YES", "YES")]
    folder = mapped_folder(db, "weighty")
    graph, data = folder / GRAPH_NAME, folder / WEIGHTS_NAME
    wait_until(lambda: pinned(db) == len(workers_that_map(db, data)) > 0)  # workers report every now and then
    pins = workers_that_map(db, data)
    model = rows(
        db,
        "SELECT owner, populate_status, metadata_size, initializer_size, prepacked_size, pin_count, con_id "
        "FROM v$im_onnx_model WHERE name = 'WEIGHTY'",
    )
    initializers, prepacked = model[0][3], model[0][4]
    assert model == [
        ("POSTGRES", "ENABLED", graph.stat().st_size, tensor_bytes(graph), prepacked, len(pins), 0)
    ]
    assert (
        initializers + prepacked <= data.stat().st_size < initializers + prepacked + 10 * 65536
    )  # pieces begin at pages
    assert prepacked >= weighty_models.weight_bytes() - 4096 * 4 * 3  # the wide matrix at least is prepacked
    segments = rows(
        db,
        "SELECT type, seg_size, populate_status, address FROM v$im_onnx_segment WHERE name = 'WEIGHTY' ORDER BY type",
    )
    assert [row[:3] for row in segments] == [
        ("INITIALIZER", initializers, "ENABLED"), ("METADATA", graph.stat().st_size, "ENABLED"), ("PREPACKED WEIGHTS", prepacked, "ENABLED")
    ]  # fmt: skip
    assert {int(row[3], 16) for row in segments} <= set(pins.values())
    found = rows(db, "SELECT vector_embedding('weighty', 'dog')::real[]")[0][0]
    np.testing.assert_allclose(found, weighty_models.embedding("dog"), rtol=1e-4, atol=1e-3)
    db.execute(f"SET ROLE {role}".encode())
    assert (
        rows(db, "SELECT count(*) FROM v$im_onnx_model")
        == rows(db, "SELECT count(*) FROM v$im_onnx_segment")
        == [(0,)]
    )
    db.execute("RESET ROLE; CALL dbms_vector.inmemory_onnx_model('weighty', false)")
    assert rows(db, question) == [("YES", "NO")]
    assert not folder.exists()
    found = rows(db, "SELECT vector_embedding('weighty', 'cat')::real[]")[0][0]
    np.testing.assert_allclose(found, weighty_models.embedding("cat"), rtol=1e-4, atol=1e-3)


def test_model_without_external_data_cannot_be_shared(db: pythiadb.Connection) -> None:
    load(db, "animals")
    for package in ("dbms_vector", "dbms_data_mining"):
        for enable in ("", ", false"):
            with pytest.raises(
                psycopg.errors.ObjectNotInPrerequisiteState, match='animals" has no external data'
            ) as caught:
                db.execute(f"CALL {package}.inmemory_onnx_model('animals'{enable})".encode())
            assert "pythia model load" in str(caught.value.diag.message_hint)
    with pytest.raises(psycopg.errors.UndefinedObject, match='model "nosuch" does not exist'):
        db.execute("CALL dbms_vector.inmemory_onnx_model('nosuch')")
    with pytest.raises(psycopg.errors.NullValueNotAllowed):
        db.execute("CALL dbms_vector.inmemory_onnx_model('animals', NULL)")
