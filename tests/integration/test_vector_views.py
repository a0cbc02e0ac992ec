"""What the views and DBMS_VECTOR say of vector indexes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

import pythiadb
from tests.integration.background import wait_until
from tests.integration.vector_tables import define, fingerprint, one, rows

DOCS = "CREATE TABLE docs (id bigint PRIMARY KEY, v vector(2), b bit(16), kind text)"
GRAPH = {
    "kind": "graph",
    "rows": 90,
    "bytes": 4000,
    "name": "s1",
    "dead": 3,
    "facts": {"neighbors": 32, "efconstruction": 200},
}
FLAT = {"kind": "flat", "rows": 10, "bytes": 500, "name": "s2", "dead": 1}


@pytest.fixture
def docs(db: pythiadb.Connection) -> Iterator[tuple[pythiadb.Connection, int]]:
    """A graph of which two versions are recorded, the newest with two segments and a measured accuracy."""
    db.execute(DOCS)
    index_id = define(
        db, "docs_graph", "docs", organization="INMEMORY NEIGHBOR GRAPH", include_columns=["kind"]
    )
    for version, segments in ((1, [GRAPH]), (2, [GRAPH, FLAT])):
        db.execute(
            "INSERT INTO pythia.vector_index_version VALUES (%s, %s, gen_random_uuid(), pg_current_snapshot(), %s, 96, %s)",
            (
                index_id,
                version,
                fingerprint(db, index_id),
                Jsonb({"segments": segments, "bytes": 4500, "built_seconds": 1.5}),
            ),
        )
    db.execute(
        "INSERT INTO pythia.vector_index_accuracy VALUES "
        "(%(id)s, 10, 'none', 90, '{}', 0.93, 0.8, 200, 150, 'held-out'), (%(id)s, 100, 'none', 90, '{}', 0.5, 0.5, 200, 150, 'held-out'), "
        "(%(id)s, 10, 'none', 99, '{}', 0.99, 0.9, 200, 150, 'held-out'), (%(id)s, 10, 'in', 90, '{}', 0.1, 0.1, 200, 150, 'held-out')",
        {"id": index_id},
    )
    yield db, index_id
    db.execute("RESET ROLE")


def shown(db: pythiadb.Connection, view: str, columns: str, index_id: int) -> list[tuple[Any, ...]]:
    return rows(db, f"SELECT {columns} FROM pythia.{view} WHERE index_objn = %s", index_id)


def test_status_tells_segments_journal_lag_and_accuracy(docs: tuple[pythiadb.Connection, int]) -> None:
    db, index_id = docs
    columns = "version, rows, segments, segment_kinds, bytes, dead_rows, built_seconds, journal_rows, pending_rows, lag = '0'"
    question = f"SELECT {columns} FROM pythia.vector_index_status WHERE id = %s"
    assert rows(db, question, index_id) == [(2, 96, 2, "1 flat, 1 graph", 4500, 4, 1.5, 0, 0, True)]
    db.execute("INSERT INTO docs (id, v) VALUES (1, '[1,1]'), (2, '[1,1]')")
    assert rows(db, question, index_id) == [(2, 96, 2, "1 flat, 1 graph", 4500, 4, 1.5, 2, 2, False)]
    accuracy = "SELECT target_accuracy, measured_target, measured_k, achieved_accuracy::text, achieved_p5::text, measured_with FROM pythia.vector_index_status WHERE id = %s"
    assert rows(db, accuracy, index_id) == [(90, 90, 10, "93.00", "80.00", "held-out")]


def test_journal_rows_that_a_version_contains_are_not_pending(docs: tuple[pythiadb.Connection, int]) -> None:
    db, index_id = docs
    db.execute("INSERT INTO docs (id, v) VALUES (1, '[1,1]')")
    db.execute(
        "INSERT INTO pythia.vector_index_version VALUES (%s, 3, gen_random_uuid(), pg_current_snapshot(), '', 97)",
        (index_id,),
    )
    db.execute("UPDATE docs SET v = '[2,2]'")
    (found,) = rows(db, "SELECT rows, pending, bytes > 0 FROM pythia.vector_index_journal(%s)", index_id)
    assert found == (2, 1, True)


def test_oracles_views(docs: tuple[pythiadb.Connection, int]) -> None:
    db, index_id = docs
    columns = "owner, index_name, index_organization, allocated_bytes, num_vectors, num_repop, distance_type, index_dimensions, index_dim_type, default_accuracy"
    assert shown(db, "v$vector_index", columns, index_id) == [
        ("POSTGRES", "DOCS_GRAPH", "INMEMORY NEIGHBOR GRAPH", 4500, 96, 1, "COSINE", 2, "FLOAT32", 90)
    ]
    columns = "index_graph_type, num_vectors, num_neighbors, efconstruction, num_snapshots, max_snapshot, covering_cols"
    assert shown(db, "v$vector_graph_index", columns, index_id) == [("HNSW", 96, 32, 200, 2, 2, "kind")]
    assert shown(db, "v$vector_partitions_index", "*", index_id) == []
    other = define(
        db, "docs_parts", "docs", "b", organization="NEIGHBOR PARTITIONS", parameters='{"partitions": 7}'
    )
    columns = "index_name, index_partitions_type, num_neighbor_partitions, num_vectors"
    assert shown(db, "v$vector_partitions_index", columns, other) == [("DOCS_PARTS", "IVF", 7, 0)]
    assert shown(db, "v$vector_index", "index_dim_type, distance_type, index_dimensions", other) == [
        ("BINARY", "HAMMING", 16)
    ]
    pools = dict(rows(db, "SELECT pool, alloc_bytes FROM pythia.v$vector_memory_pool"))
    assert pools.keys() == {"1MB POOL", "64KB POOL", "IM POOL METADATA"}
    assert pools["1MB POOL"] >= 4000
    assert pools["64KB POOL"] >= 500


def test_views_show_what_a_role_may_read(docs: tuple[pythiadb.Connection, int]) -> None:
    db, index_id = docs
    role = f"reader_{uuid.uuid4().hex[:8]}"
    db.execute(
        f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA {one(db, 'SELECT current_schema()')} TO {role}".encode()
    )
    seen = []
    try:
        for grant in (f"REVOKE ALL ON docs FROM {role}", f"GRANT SELECT ON docs TO {role}"):
            db.execute(grant.encode())
            db.execute(f"SET ROLE {role}".encode())
            found = [
                len(rows(db, f"SELECT FROM pythia.{view} WHERE {key} = %s", index_id))
                for view, key in (
                    ("vector_index_status", "id"), ("v$vector_index", "index_objn"), ("v$vector_graph_index", "index_objn"),
                    ("vector_index_version", "index_id"), ("vector_index_accuracy", "index_id"),
                )
            ]  # fmt: skip
            seen.append((found, one(db, "SELECT pending FROM pythia.vector_index_journal(%s)", index_id)))
            db.execute("RESET ROLE")
    finally:
        db.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}".encode())
    assert seen == [([0, 0, 0, 0, 0], None), ([1, 1, 1, 2, 4], 0)]


# DBMS_VECTOR --------------------------------------------------------------------------------------------------------------


def notices(db: pythiadb.Connection, call: str) -> list[str]:
    heard: list[str] = []

    def hear(notice: psycopg.errors.Diagnostic) -> None:
        heard.append(str(notice.message_primary))

    db.add_notice_handler(hear)
    try:
        db.execute(f"CALL dbms_vector.{call}".encode())
    finally:
        db.remove_notice_handler(hear)
    return heard


def test_get_index_status_prints_oracles_lines(docs: tuple[pythiadb.Connection, int]) -> None:
    db, index_id = docs
    for state, lines in (
        ("status = 'VALID'", ["Stage: HNSW Index Creation Completed", "Percentage: 100"]),
        ("status = 'FAILED', error = 'why'", ["Stage: HNSW Index Failed", "Error: why"]),
        ("status = 'BUILDING', error = NULL, progress = '{\"stage\": \"Graph Construction\", \"percent\": 40}'",
         ["Stage: HNSW Index Graph Construction", "Percentage: 40"]),
    ):  # fmt: skip
        with db.transaction(force_rollback=True):
            db.execute(f"UPDATE pythia.vector_index SET {state} WHERE id = {index_id}".encode())
            assert notices(db, "get_index_status(NULL, 'DOCS_GRAPH')") == [f"Index objn: {index_id}", *lines]
    schema = one(db, "SELECT current_schema()")
    assert notices(db, f"get_index_status('{schema}', 'docs_graph')")[0] == f"Index objn: {index_id}"
    for owner, name in (("nobody", "docs_graph"), (schema, "missing")):
        with pytest.raises(
            psycopg.errors.UndefinedObject, match=f'vector index "{owner}.{name}" does not exist'
        ):
            notices(db, f"get_index_status('{owner}', '{name}')")


def test_checkpoints_are_always_there(docs: tuple[pythiadb.Connection, int]) -> None:
    db, _ = docs
    assert notices(db, "create_checkpoint(NULL, 'docs_graph')") == []
    assert notices(db, "enable_checkpoint(NULL, 'docs_graph')") == []
    assert "always on disk" in notices(db, "disable_checkpoint(NULL, 'docs_graph')")[0]
    define(db, "other", "docs", "b")
    with pytest.raises(
        psycopg.errors.ObjectNotInPrerequisiteState, match='vector index "other" has no version yet'
    ):
        notices(db, "create_checkpoint(NULL, 'other')")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ("idx_partitioning_scheme => 'local'", "idx_partitioning_scheme LOCAL"),
        ("idx_quantization_type => 'SCALAR'", "idx_quantization_type SCALAR"),
        ("idx_compression_ratio => 4", "idx_compression_ratio"),
        ("idx_distribute_parameters => '{}'", "idx_distribute_parameters"),
        ("idx_duplicate_parameters => '{}'", "idx_duplicate_parameters"),
    ],
)
def test_options_that_mean_nothing_here_are_refused(
    docs: tuple[pythiadb.Connection, int], arguments: str, what: str
) -> None:
    db, _ = docs
    for call in (f"create_index('x', 'docs', 'b', {arguments})", f"rebuild_index('docs_graph', {arguments})"):
        with pytest.raises(psycopg.errors.FeatureNotSupported, match=f"{what} is not supported"):
            notices(db, call)


def test_rebuild_cannot_change_table_or_columns(docs: tuple[pythiadb.Connection, int]) -> None:
    db, _ = docs
    db.execute("CREATE TABLE other (id int PRIMARY KEY, v vector(2))")
    for arguments in ("'other'", "'docs', 'b'", "'docs', 'v', 'id'"):
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="cannot be changed by rebuilding it"):
            notices(db, f"rebuild_index('docs_graph', {arguments})")


def test_create_and_rebuild_through_oracles_package(docs: tuple[pythiadb.Connection, int]) -> None:
    db, _ = docs
    db.execute("INSERT INTO docs (id, b) SELECT g, g::bit(16) FROM generate_series(1, 50) g")
    db.execute(
        "CALL dbms_vector.create_index('BITS', 'DOCS', 'B', 'KIND', 'GLOBAL', 'NEIGHBOR PARTITIONS', 'JACCARD', 95, "
        '\'{"type": "IVF", "partitions": 2}\', 2)'
    )
    question = "SELECT distance, target_accuracy, include_columns, status, rows FROM pythia.vector_index_status WHERE table_name = 'docs'::regclass AND column_name = 'b'"
    assert rows(db, question) == [("JACCARD", 95, ["kind"], "VALID", 50)]
    db.execute("CALL dbms_vector.rebuild_index('BITS', 'docs', 'b', 'kind', idx_accuracy => 80)")
    assert rows(db, question) == [("JACCARD", 80, ["kind"], "VALID", 50)]


def test_accuracy_of_one_query(docs: tuple[pythiadb.Connection, int]) -> None:
    """Against all distances; where no version can be used the search is exact, and finds everything."""
    db, _ = docs
    db.execute(
        "INSERT INTO docs (id, v) SELECT g, ARRAY[g, 1]::real[]::vector FROM generate_series(1, 100) g"
    )
    ask = "SELECT dbms_vector.index_accuracy_query(NULL, 'DOCS_GRAPH', {}) "
    assert one(db, ask.format("%s, 10, 90"), "[3,4]") == (
        "Accuracy achieved (100%) is 10% higher than the Target Accuracy requested (90%)"
    )
    assert one(db, ask.format("%s::vector, 10, 100"), "[3,4]") == (
        "Accuracy achieved (100%) is equal to the Target Accuracy requested (100%)"
    )
    assert (
        one(db, ask.format("%s, 10, query_param => '{\"EFSEARCH\": 50}'"), "[3,4]")
        == "Accuracy achieved is 100%"
    )
    for wrong in ("'[3,4]', 0, 90", "'[3,4]', 10, 101", "'[3,4]', 10, query_param => '{}'"):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            db.execute(ask.format(wrong).encode())


def test_numbers_may_be_of_oracles_type(docs: tuple[pythiadb.Connection, int]) -> None:
    """NUMBER is numeric; what counts something must be whole."""
    db, _ = docs
    db.execute("INSERT INTO docs (id, b) SELECT g, g::bit(16) FROM generate_series(1, 50) g")
    db.execute(
        "CALL dbms_vector.create_index('bits', 'docs', 'b', idx_distance_metric => 'HAMMING', idx_accuracy => 95::numeric, idx_parallel_creation => 1.0)"
    )
    db.execute("CALL dbms_vector.rebuild_index('bits', idx_accuracy => 80::numeric)")
    assert one(db, "SELECT default_accuracy FROM pythia.v$vector_index WHERE index_name = 'BITS'") == 80
    ask = (
        "SELECT dbms_vector.index_accuracy_query(NULL, 'bits', B'0000000000000001', 3::numeric, {}::numeric)"
    )
    assert "Accuracy achieved" in one(db, ask.format(90))
    with pytest.raises(
        psycopg.errors.InvalidParameterValue, match="target_accuracy must be a whole number, not 90.5"
    ):
        db.execute(ask.format(90.5).encode())


def test_arguments_have_oracles_names(docs: tuple[pythiadb.Connection, int]) -> None:
    db, index_id = docs
    schema = one(db, "SELECT current_schema()")
    names = f"owner_name => '{schema}', index_name => 'docs_graph'"
    assert notices(db, f"get_index_status({names})")[0] == f"Index objn: {index_id}"
    assert notices(db, f"create_checkpoint(idx_owner => '{schema}', idx_name => 'docs_graph')") == []


def test_rebuild_says_that_a_table_is_not_there(docs: tuple[pythiadb.Connection, int]) -> None:
    db, _ = docs
    schema = one(db, "SELECT current_schema()")
    with pytest.raises(psycopg.errors.UndefinedTable, match='relation "nowhere" does not exist'):
        notices(db, "rebuild_index('docs_graph', 'nowhere')")
    with pytest.raises(psycopg.errors.UndefinedTable, match=f'relation "{schema}.nowhere" does not exist'):
        notices(db, f"rebuild_index('docs_graph', 'nowhere', idx_owner => '{schema}')")


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "message"),
    [
        ("NULL, 10, 90", "22004", "the query vector must not be null"),
        ("'[3,4]', 0, 90", "22023", "top_k must be at least 1, not 0"),
        ("'[3,4]', NULL, 90", "22023", "top_k must be at least 1, not NULL"),
        ("'[3,4]', 10, 101", "22023", "target accuracy must be between 1 and 100, not 101"),
        ("'[3,4]', 10, query_param => '{}'", "22023", "query_param has no parameter of a search: {}"),
        ("'[3,4]', 10, query_param => '[1]'", "22023", "query_param has no parameter of a search: [1]"),
        ("'[3,4]', 10, query_param => '{\"accuracy\": \"high\"}'", "22023", 'query_param has no parameter of a search: {"accuracy": "high"}'),
        ("'[3,4]', 10, query_param => '{\"efsearch\": 0}'", "22023", 'query_param has no parameter of a search: {"efsearch": 0}'),
    ],
)  # fmt: skip
def test_accuracy_query_that_asks_for_nothing(
    docs: tuple[pythiadb.Connection, int], arguments: str, sqlstate: str, message: str
) -> None:
    db, _ = docs
    with pytest.raises(psycopg.Error) as caught:
        db.execute(f"SELECT dbms_vector.index_accuracy_query(NULL, 'docs_graph', {arguments})".encode())
    assert (caught.value.sqlstate, caught.value.diag.message_primary) == (sqlstate, message)


def test_views_show_the_structure_that_was_built(db: pythiadb.Connection) -> None:
    """Parameters that the definition leaves open are those of the build; refreshes are no repopulations."""
    db.execute("CREATE TABLE docs (id int PRIMARY KEY, v vector(2))")
    db.execute(
        "INSERT INTO docs SELECT g, ARRAY[g, g * g % 101]::real[]::vector FROM generate_series(1, 5000) g"
    )
    db.execute("CALL pythia.create_vector_index('i', 'docs', 'v', organization => 'NEIGHBOR PARTITIONS')")
    number = one(db, "SELECT id FROM pythia.vector_index WHERE relation = 'docs'::regclass")
    columns = "num_neighbor_partitions, min_partition_vectors_count, max_partition_vectors_count"
    ((partitions, least, most),) = shown(db, "v$vector_partitions_index", columns, number)
    assert 0 <= least < 5000 / partitions < most <= 5000
    db.execute("INSERT INTO docs VALUES (0, '[1,1]')")
    status = "SELECT pending_rows = 0 AND rows = 5001 FROM pythia.vector_index_status WHERE id = %s"
    wait_until(lambda: one(db, status, number))
    assert shown(db, "v$vector_index", "num_repop, num_vectors", number) == [(0, 5001)]
    db.execute("CALL pythia.rebuild_vector_index('i', organization => 'INMEMORY NEIGHBOR GRAPH')")
    assert shown(db, "v$vector_index", "num_repop", number) == [(1,)]
    columns = "num_layers, sparse_layer_vectors, total_edges, num_neighbors, efconstruction"
    ((layers, sparse, edges, neighbors, efconstruction),) = shown(db, "v$vector_graph_index", columns, number)
    assert layers > 1
    assert 0 < sparse < 5000 < edges <= 2 * neighbors * 5001
    assert efconstruction > 0


@pytest.mark.parametrize(
    ("stage", "shown_as"),
    [
        (None, "Initialization"),
        ("loading", "Loading Vectors"),
        ("linking", "Graph Construction"),
        ("measuring accuracy", "Measuring Accuracy"),
    ],
)
def test_stages_of_a_build_have_oracles_names(
    docs: tuple[pythiadb.Connection, int], stage: str | None, shown_as: str
) -> None:
    db, index_id = docs
    with db.transaction(force_rollback=True):
        db.execute(
            "UPDATE pythia.vector_index SET status = 'BUILDING', progress = %s WHERE id = %s",
            (Jsonb({"stage": stage, "percent": 40}), index_id),
        )
        assert notices(db, "get_index_status(NULL, 'docs_graph')")[1] == f"Stage: HNSW Index {shown_as}"
