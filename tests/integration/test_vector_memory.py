"""What a vector index takes, the budget of all, and the organization that a build chooses."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from background import wait_until

import pythiadb
from pythiadb.postgres import cluster
from pythiadb.postgres.server import Server
from tests.integration.databases import own_database
from tests.integration.vector_tables import one, rows
from tests.unit.index.building import clustered

DIMENSIONS = 64
GRAPH, PARTITIONS = "INMEMORY NEIGHBOR GRAPH", "NEIGHBOR PARTITIONS"
ADVISE = "CALL dbms_vector.index_vector_memory_advisor({}, NULL)"


def fill(
    db: pythiadb.Connection, table: str, count: int, *, seed: int = 1, dimensions: int = DIMENSIONS
) -> None:
    """Make a table with vectors in clouds and a number to filter by."""
    texts = [str(vector.tolist()) for vector in clustered(count, dimensions, seed)]
    db.execute(
        f"CREATE TABLE {table} (id bigint PRIMARY KEY, v vector({dimensions}), price integer)".encode()
    )
    db.execute(
        f"INSERT INTO {table} SELECT n, t::vector, mod(n, 100) FROM unnest(%s::text[]) WITH ORDINALITY AS u(t, n)".encode(),
        (texts,),
    )


def create(db: pythiadb.Connection, name: str, table: str, clauses: str = "") -> None:
    db.execute(f"CREATE VECTOR INDEX {name} ON {table} (v) {clauses}".encode())


def status(db: pythiadb.Connection, name: str, columns: str) -> Any:
    found = rows(db, f"SELECT {columns} FROM pythia.vector_index_status WHERE index_name = %s", name)
    return found[0] if found else None


def advise(db: pythiadb.Connection, arguments: str, *values: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(one(db, ADVISE.format(arguments), *values))
    return found


def notices(db: pythiadb.Connection, statement: str) -> list[str]:
    heard: list[str] = []

    def hear(diagnostic: psycopg.errors.Diagnostic) -> None:
        heard.append(str(diagnostic.message_primary))

    db.add_notice_handler(hear)
    try:
        db.execute(statement.encode()).fetchall() if statement.startswith(
            ("SELECT", "EXPLAIN")
        ) else db.execute(statement.encode())
    finally:
        db.remove_notice_handler(hear)
    return heard


# The advisor ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("organization", [GRAPH, PARTITIONS])
def test_the_advisor_knows_what_an_index_will_take(db: pythiadb.Connection, organization: str) -> None:
    """By a table, whether it was analyzed or not, and by numbers."""
    fill(db, "docs", 6_000)
    kind = "HNSW" if organization == GRAPH else "IVF"
    of_table = "NULL, 'docs', 'v', %s, '{\"accuracy\": 95}'"
    unanalyzed = advise(db, of_table, kind)
    db.execute("ANALYZE docs")
    analyzed = advise(db, of_table, kind)
    by_numbers = advise(db, f"%s, 6000, {DIMENSIONS}, 'FLOAT32', NULL", kind)
    create(db, "docs_v", "docs", f"ORGANIZATION {organization}")
    (size,) = status(db, "docs_v", "bytes")
    for said in (unanalyzed, analyzed, by_numbers):
        assert said["total"] == pytest.approx(size, rel=0.1)
        assert said["needed"] > said["total"]


@pytest.mark.parametrize(
    ("kind", "value", "distance"),
    [
        ("bit(256)", "lpad('', 224, '01')::varbit || n::bit(32)", "HAMMING"),
        ("sparsevec(1000)", "format('{%s:1,%s:2.5,900:3}/1000', n % 400 + 1, n % 300 + 401)", "COSINE"),
    ],
)
def test_the_advisor_knows_other_types(db: pythiadb.Connection, kind: str, value: str, distance: str) -> None:
    db.execute(f"CREATE TABLE docs (name text PRIMARY KEY, v {kind})".encode())
    db.execute(
        f"INSERT INTO docs SELECT 'name ' || n, ({value})::{kind} FROM generate_series(1, 6000) AS n".encode()
    )
    said = advise(db, "current_schema()::text, 'docs', 'v', 'IVF', NULL")
    create(db, "docs_v", "docs", f"DISTANCE {distance}")
    (size,) = status(db, "docs_v", "bytes")
    assert said["total"] == pytest.approx(size, rel=0.15)


def test_parameters_count(db: pythiadb.Connection) -> None:
    def total(arguments: str) -> int:
        return int(advise(db, arguments)["structure"])

    thin = total("'HNSW', 100000, 100, 'FLOAT32', '{\"neighbors\": 16}'")
    assert total("'HNSW', 100000, 100, 'FLOAT32', '{\"neighbors\": 32}'") == pytest.approx(2 * thin, rel=0.1)
    assert total("'HNSW', 100000, 100, 'FLOAT32', '{\"accuracy\": 99}'") == thin
    few = total("'IVF', 100000, 100, 'FLOAT32', '{\"neighbor_partitions\": 10}'")
    assert total("'IVF', 100000, 100, 'FLOAT32', '{\"neighbor_partitions\": 1000}'") > few
    assert total("'IVF', 1000, 100, 'FLOAT32', NULL") == 0


def test_the_advisor_in_a_block_of_oracle(oracle: pythiadb.Connection) -> None:
    heard = notices(
        oracle,
        "DECLARE response_json CLOB; BEGIN DBMS_VECTOR.INDEX_VECTOR_MEMORY_ADVISOR(INDEX_TYPE=>'HNSW', NUM_VECTORS=>10000, "
        "DIM_COUNT=>768, DIM_TYPE=>'FLOAT32', PARAMETER_JSON=>'{\"neighbors\":128}', RESPONSE_JSON=>response_json); "
        "DBMS_OUTPUT.PUT_LINE(response_json); END;",
    )
    answer = json.loads(heard[1])
    assert heard[0] == f"Suggested vector memory pool size: {answer['needed']} bytes"
    assert answer["vectors"] == 10_000 * 768 * 4


@pytest.mark.parametrize(
    ("arguments", "state", "text"),
    [
        ("'TREE', 10, 10, 'FLOAT32', NULL", "22023", "unknown type"),
        ("NULL, 10, 10, 'FLOAT32', NULL", "22023", "unknown type"),
        ("'HNSW', 10, 10, 'INT8', NULL", "0A000", "format INT8"),
        ("'HNSW', -1, 10, 'FLOAT32', NULL", "22023", "must not be negative"),
        ("'HNSW', 10, 0, 'FLOAT32', NULL", "22023", "from 1 to 65535"),
        ("'HNSW', NULL, 10, 'FLOAT32', NULL", "22023", "num_vectors"),
        ("'HNSW', 10, 10, 'FLOAT32', '{\"accuracy\": 101}'", "22023", "between 1 and 100"),
        ("'HNSW', 10, 10, 'FLOAT32', '{\"neighbor_partitions\": 4}'", "22023", "does not fit"),
        ("'IVF', 10, 10, 'FLOAT32', '{\"speed\": 4}'", "22023", "unknown parameter"),
        ("NULL, 'nothing', 'v', 'IVF', NULL", "42P01", "does not exist"),
        ("'nobody', 'plain', 'v', 'IVF', NULL", "42P01", "nobody.plain"),
        ("NULL, 'plain', 'nothing', 'IVF', NULL", "42703", "nothing"),
        ("NULL, 'plain', 'id', 'IVF', NULL", "42804", "not a vector type"),
    ],
)
def test_what_the_advisor_refuses(db: pythiadb.Connection, arguments: str, state: str, text: str) -> None:
    db.execute("CREATE TABLE plain (id bigint, v vector(3))")
    with pytest.raises(psycopg.Error, match=text) as refusal:
        advise(db, arguments)
    assert refusal.value.sqlstate == state


def test_the_advisor_reads_a_table_as_the_caller(db: pythiadb.Connection) -> None:
    fill(db, "docs", 10)
    role = f"stranger_{uuid.uuid4().hex[:8]}"
    schema = one(db, "SELECT current_schema()")
    db.execute(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA {schema} TO {role}; SET ROLE {role}".encode())
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            advise(db, "NULL, 'docs', 'v', 'IVF', NULL")
        assert advise(db, "'IVF', 10, 3, 'FLOAT32', NULL")["vectors"] == 120
    finally:
        db.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}".encode())


# The choice -----------------------------------------------------------------------------------------------------------------


def test_an_index_without_organization_gets_the_better_one(db: pythiadb.Connection) -> None:
    fill(db, "docs", 6_000)
    create(db, "docs_v", "docs", "WITH TARGET ACCURACY 95")
    organization, kinds = status(db, "docs_v", "organization, segment_kinds")
    facts = one(db, "SELECT facts FROM pythia.vector_index_newest n JOIN pythia.vector_index i ON i.id = n.index_id WHERE i.name = 'docs_v'")  # fmt: skip
    race = facts["race"]
    assert facts["organization"] == organization
    costs = race["microseconds"]
    assert organization == (GRAPH if costs["graph"] <= 0.8 * costs["partitions"] else PARTITIONS)
    assert {GRAPH: "graph", PARTITIONS: "partitions"}[organization] in kinds
    assert (race["rows"], race["target"]) == (6_000, 95)
    line = f"Organization: {organization}, chosen with {race['sample_rows']} of 6000 rows: graph "
    plan = explained(db, "docs")
    assert any(each.startswith(line) for each in plan)
    assert f"VECTOR INDEX {'HNSW' if organization == GRAPH else 'IVF'} SCAN" in plan[0]
    said = notices(db, "CALL dbms_vector.get_index_status(NULL, 'docs_v')")
    assert any(each.startswith(line) for each in said)
    assert one(db, "SELECT index_organization FROM pythia.v$vector_index WHERE index_name = 'DOCS_V'") == organization  # fmt: skip


def test_the_choice_lasts_until_the_next_build(db: pythiadb.Connection) -> None:
    fill(db, "docs", 6_000)
    create(db, "docs_v", "docs")
    (organization,) = status(db, "docs_v", "organization")
    db.execute(f"UPDATE docs SET v = array_fill(1, ARRAY[{DIMENSIONS}])::vector WHERE id <= 10".encode())
    wait_until(lambda: status(db, "docs_v", "pending_rows") == (0,))
    assert status(db, "docs_v", "organization") == (organization,)
    db.execute("CALL pythia.rebuild_vector_index('docs_v', organization => 'INMEMORY NEIGHBOR GRAPH')")
    race = "SELECT facts -> 'race' FROM pythia.vector_index_newest n JOIN pythia.vector_index i ON i.id = n.index_id WHERE i.name = 'docs_v'"
    assert one(db, race) is None
    assert status(db, "docs_v", "organization") == (GRAPH,)


@pytest.mark.parametrize(
    ("clauses", "organization"),
    [(f"ORGANIZATION {GRAPH}", GRAPH), ("PARAMETERS (NEIGHBORS 8)", GRAPH), (f"ORGANIZATION {PARTITIONS}", PARTITIONS)],
)  # fmt: skip
def test_what_is_written_is_never_overruled(db: pythiadb.Connection, clauses: str, organization: str) -> None:
    fill(db, "docs", 5_000, dimensions=8)
    create(db, "docs_v", "docs", clauses)
    assert status(db, "docs_v", "organization") == (organization,)
    assert not any(
        "chosen" in line for line in notices(db, "CALL dbms_vector.get_index_status(NULL, 'docs_v')")
    )


@pytest.mark.parametrize(
    ("parameters", "organization"),
    [
        ('{"type": "HNSW"}', GRAPH),
        ('{"efConstruction": 50}', GRAPH),
        ('{"type": "IVF"}', PARTITIONS),
        ('{"neighbor partitions": 5}', PARTITIONS),
        ('{"rescore_factor": 2}', None),
    ],
)
def test_parameters_tell_the_organization(
    db: pythiadb.Connection, parameters: str, organization: str | None
) -> None:
    db.execute("CREATE TABLE docs (id bigint PRIMARY KEY, v vector(3))")
    with db.transaction(force_rollback=True):
        number = one(
            db, "SELECT pythia.define_vector_index('docs_v', 'docs', 'v', parameters => %s)", parameters
        )
        assert one(db, "SELECT organization FROM pythia.vector_index WHERE id = %s", number) == organization


def test_small_tables_are_not_raced(db: pythiadb.Connection) -> None:
    fill(db, "docs", 300)
    create(db, "docs_v", "docs")
    assert status(db, "docs_v", "organization, segment_kinds") == (PARTITIONS, "1 flat")


# The budget -----------------------------------------------------------------------------------------------------------------

BUDGET = 6_000_000
ROWS = 5_000


@pytest.fixture(scope="module")
def cramped() -> Iterator[Path]:
    """The directory of a database whose engine has room for two indexes over 5,000 rows."""
    with own_database(vector_memory_bytes=BUDGET, index_measure_seconds=1) as (shop, _):
        yield shop


@pytest.fixture
def small(cramped: Path) -> Iterator[tuple[Path, pythiadb.Connection]]:
    """That database without tables, nothing of the memory taken."""
    with pythiadb.connect(cramped, autocommit=True) as db:
        db.execute("SET search_path = public, pythia")
        yield cramped, db
        db.execute("DROP TABLE IF EXISTS first, second, third, docs")
        if one(db, "SELECT budget FROM pythia.vector_memory()") != BUDGET:
            renew_engine(cramped)
        wait_until(lambda: rows(db, "SELECT budget, used FROM pythia.vector_memory()") == [(BUDGET, 0)])


def restart(shop: Path, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    """Give the engine another budget until the test ends."""
    monkeypatch.setenv("PYTHIA_ENGINE_VECTOR_MEMORY_BYTES", str(budget))
    renew_engine(shop)


def renew_engine(shop: Path) -> None:
    server = Server.at(shop)
    cluster.stop_engine(server.layout)
    cluster.ensure_running(server)


SEARCH = (
    "SELECT id FROM {table} ORDER BY v <=> (SELECT v FROM {table} WHERE id = 7) FETCH {how} FIRST 5 ROWS ONLY"
)


def explained(db: pythiadb.Connection, table: str) -> list[str]:
    return [line.strip() for (line,) in rows(db, "EXPLAIN " + SEARCH.format(table=table, how="APPROX"))]


def nearest(db: pythiadb.Connection, table: str) -> tuple[list[int], list[str]]:
    """The keys of a search through the index, and the warnings that came with it."""
    heard: list[str] = []

    def hear(diagnostic: psycopg.errors.Diagnostic) -> None:
        heard.append(str(diagnostic.message_primary))

    db.add_notice_handler(hear)
    found = rows(db, SEARCH.format(table=table, how="APPROX"))
    db.remove_notice_handler(hear)
    return [key for (key,) in found], heard


def test_an_index_that_does_not_fit_is_refused_before_it_is_built(
    small: tuple[Path, pythiadb.Connection],
) -> None:
    _, db = small
    said = advise(db, f"'IVF', {ROWS}, {DIMENSIONS}, 'FLOAT32', NULL")
    assert said["budget"] == BUDGET
    assert said["used"] == 0
    sizes = []
    for table in ("first", "second"):
        fill(db, table, ROWS)
        create(db, f"{table}_v", table, f"ORGANIZATION {PARTITIONS}")
        sizes += status(db, f"{table}_v", "bytes")
    wait_until(lambda: one(db, "SELECT used FROM pythia.vector_memory()") == sum(sizes))
    fill(db, "third", 2 * ROWS)
    with pytest.raises(
        psycopg.errors.OutOfMemory, match='could not create vector index "third_v"'
    ) as refusal:
        create(db, "third_v", "third", f"ORGANIZATION {PARTITIONS}")
    needed = advise(db, "NULL, 'third', 'v', 'IVF', NULL")
    detail, hint = refusal.value.diag.message_detail, refusal.value.diag.message_hint
    assert detail is not None
    assert f"{needed['total']:,} bytes and {needed['building']:,} more while it is built" in detail
    assert f"{sum(sizes):,} of vector_memory_bytes ({BUDGET:,}) are taken" in detail
    assert hint is not None
    assert f"PYTHIA_ENGINE_VECTOR_MEMORY_BYTES={sum(sizes) + needed['needed']} pythia engine restart" in hint
    assert status(db, "third_v", "1") is None
    db.execute("DROP INDEX first_v")
    db.execute("DROP INDEX second_v")
    create(db, "third_v", "third", f"ORGANIZATION {PARTITIONS}")
    assert status(db, "third_v", "status") == ("VALID",)


def test_an_index_that_is_built_later_tells_why_it_was_not(small: tuple[Path, pythiadb.Connection]) -> None:
    _, db = small
    fill(db, "docs", 4 * ROWS)
    db.execute("SELECT pythia.define_vector_index('docs_v', 'docs', 'v')")
    db.execute("SELECT pythia.watch_vector_indexes()")
    wait_until(lambda: status(db, "docs_v", "status") == ("FAILED",))
    (error,) = status(db, "docs_v", "error")
    assert "not enough vector memory" in error
    pools = rows(db, "SELECT pool, alloc_bytes, used_bytes, populate_status FROM pythia.v$vector_memory_pool")
    assert ("1MB POOL", BUDGET, 0, "OUT OF MEMORY") in pools
    keys, heard = nearest(db, "docs")
    assert keys[0] == 7
    assert heard == []
    db.execute(f"DELETE FROM docs WHERE id > {ROWS}".encode())
    db.execute("ALTER INDEX docs_v REBUILD")
    assert status(db, "docs_v", "status, error") == ("VALID", None)


def test_a_rebuild_that_does_not_fit_leaves_the_index_as_it_is(
    small: tuple[Path, pythiadb.Connection],
) -> None:
    shop, db = small
    fill(db, "docs", ROWS)
    create(db, "docs_v", "docs", f"ORGANIZATION {PARTITIONS}")
    db.execute(f"INSERT INTO docs SELECT id + {ROWS}, v, 0 FROM docs".encode())
    with pytest.raises(psycopg.errors.OutOfMemory, match="could not rebuild"):
        db.execute("ALTER INDEX docs_v REBUILD")
    assert nearest(db, "docs")[0][0] in (7, ROWS + 7)
    with pythiadb.connect(shop) as other:  # which has never seen it in a better state
        assert "SCAN" in explained(other, "docs")[0]


def test_with_less_memory_the_oldest_index_is_used_and_the_others_say_why_not(
    small: tuple[Path, pythiadb.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, db = small
    for table in ("first", "second"):
        fill(db, table, ROWS)
        create(db, f"{table}_v", table, f"ORGANIZATION {PARTITIONS}")
    exact = rows(db, SEARCH.format(table="second", how="EXACT"))
    (size,) = status(db, "first_v", "bytes")
    restart(shop, monkeypatch, size + 1_000)
    wait_until(lambda: status(db, "second_v", "status") == ("UNUSABLE",))
    wait_until(lambda: "not enough vector memory" in str(nearest(db, "second")[1]))
    assert status(db, "first_v", "status, error") == ("VALID", None)
    assert "not enough vector memory" in status(db, "second_v", "error")[0]
    assert nearest(db, "first")[1] == []
    keys, heard = nearest(db, "second")
    assert [(key,) for key in keys] == exact
    assert heard == ['the search is exact: not enough vector memory for an index on table "second"']
    with pythiadb.connect(shop) as other:
        plan = explained(other, "second")
    assert "not used, EXACT" in plan[0]
    assert 'Exact because: not enough vector memory for an index on table "second"' in plan
    assert any(line.startswith("It takes ") and "of vector_memory_bytes" in line for line in plan)
    db.execute("INSERT INTO second SELECT 0, v, 0 FROM second WHERE id = 7")
    assert set(nearest(db, "second")[0][:2]) == {0, 7}
    db.execute("DROP INDEX first_v")
    wait_until(lambda: status(db, "second_v", "status, error") == ("VALID", None))
    wait_until(lambda: nearest(db, "second")[1] == [])
    assert set(nearest(db, "second")[0][:2]) == {0, 7}


def test_a_restart_with_the_same_memory_changes_nothing(
    small: tuple[Path, pythiadb.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where indexes have grown beyond it since."""
    shop, db = small
    fill(db, "docs", ROWS)
    create(db, "docs_v", "docs", f"ORGANIZATION {PARTITIONS}")
    db.execute(
        f"INSERT INTO docs SELECT id + n * {ROWS}, v, 0 FROM docs, generate_series(1, 5) AS n".encode()
    )
    wait_until(lambda: status(db, "docs_v", "pending_rows, rows") == (0, 6 * ROWS))
    wait_until(lambda: one(db, "SELECT used FROM pythia.vector_memory()") > BUDGET)
    restart(shop, monkeypatch, BUDGET)
    assert nearest(db, "docs")[1] == []
    wait_until(lambda: one(db, "SELECT used FROM pythia.vector_memory()") > BUDGET)
    assert status(db, "docs_v", "status") == ("VALID",)


def test_where_a_graph_has_no_room_there_is_no_race(small: tuple[Path, pythiadb.Connection]) -> None:
    _, db = small
    fill(db, "docs", 8_000)
    kinds = {kind: advise(db, f"'{kind}', 8000, {DIMENSIONS}, 'FLOAT32', NULL")["needed"] for kind in ("HNSW", "IVF")}  # fmt: skip
    assert kinds["IVF"] < BUDGET < kinds["HNSW"]
    create(db, "docs_v", "docs")
    assert status(db, "docs_v", "organization") == (PARTITIONS,)
    assert not any(
        "chosen" in line for line in notices(db, "CALL dbms_vector.get_index_status(NULL, 'docs_v')")
    )
