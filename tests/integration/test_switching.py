"""Models under change while they are used: renamed, switched, dropped, taken back. No caller gets a wrong or unclear answer."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import psycopg
import pytest
from onnx import TensorProto, helper

import pythiadb
from tests.integration import shop_models
from tests.unit.models.small_models import string_graph

DEFAULT = '{"function":"embedding","embeddingOutput":"embedding","input":{"input":["DATA"]}}'
OLD, NEW = "[1,0,0]", "[-1,0,0]"  # what the two versions say of a cat
CLEAR = {"42704", "42P01"}  # undefined object, undefined table: what a caller may hear of a dropped model


def version(sign: int) -> bytes:
    """1 for each of the categories cat, dog and fish, with a sign."""
    model = string_graph(output="kind")
    model.graph.initializer.append(helper.make_tensor("sign", TensorProto.FLOAT, [1], [float(sign)]))
    model.graph.node.append(helper.make_node("Mul", ["kind", "sign"], ["embedding"]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 3]))
    return bytes(model.SerializeToString())


def load(db: pythiadb.Connection, name: str, graph: bytes, metadata: str = DEFAULT) -> None:
    db.execute("CALL dbms_vector.load_onnx_model(%s, %s::bytea, %s::jsonb)", (name, graph, metadata))


def score(db: psycopg.Connection[Any], model: str) -> str:
    row = db.execute("SELECT vector_embedding(%s::regclass, 'cat')::text", (model,)).fetchone()
    assert row is not None
    return str(row[0]).replace("-0", "0")


def rows(db: pythiadb.Connection, query: str) -> list[tuple[Any, ...]]:
    return db.execute(query.encode()).fetchall()


@pytest.fixture
def versions(db: pythiadb.Connection) -> pythiadb.Connection:
    """The models animals and animals_2, the second with the opposite sign."""
    load(db, "animals", version(1))
    load(db, "animals_2", version(-1), DEFAULT[:-1] + ',"note":"second"}')
    return db


@pytest.fixture
def role(db: pythiadb.Connection) -> Iterator[str]:
    name = f"reader_{uuid.uuid4().hex[:8]}"
    db.execute(
        f"CREATE ROLE {name}; GRANT USAGE ON SCHEMA {rows(db, 'SELECT current_schema()')[0][0]} TO {name}".encode()
    )
    yield name
    db.rollback()
    db.execute(f"RESET ROLE; DROP OWNED BY {name}; DROP ROLE {name}".encode())


class Callers:
    """Sessions that score again and again, and what they were told: answers and SQLSTATEs of errors."""

    def __init__(
        self, db: pythiadb.Connection, call: Callable[[psycopg.Connection[Any]], str], count: int
    ) -> None:
        assert db.server is not None
        self._conninfo = db.server.conninfo()
        self._path = rows(db, "SHOW search_path")[0][0]
        self._call = call
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        self._calls: list[tuple[float, str]] = []  # when they began, what they heard

    @property
    def heard(self) -> list[str]:
        return [answer for _, answer in self._calls]

    def _run(self) -> None:
        with psycopg.connect(self._conninfo, autocommit=True) as session:
            session.execute(f"SET search_path = {self._path}".encode())
            while not self._stopped.is_set():
                began = time.monotonic()
                try:
                    self._calls.append((began, self._call(session)))
                except psycopg.Error as error:
                    self._calls.append((began, str(error.sqlstate)))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int) -> set[str]:
        """Wait for so many calls that begin from now on; return what they heard."""
        now, place = time.monotonic(), len(self._calls)
        deadline = now + 60
        while True:
            found = [answer for began, answer in self._calls[place:] if began >= now]
            if len(found) >= count:
                return set(found)
            assert time.monotonic() < deadline, "callers hang"
            time.sleep(0.005)


@contextmanager
def callers(
    db: pythiadb.Connection, call: Callable[[psycopg.Connection[Any]], str], count: int = 5
) -> Iterator[Callers]:
    crowd = Callers(db, call, count)
    crowd.start()
    try:
        yield crowd
    finally:
        crowd.stop()


# Renaming -----------------------------------------------------------------------------------------------------------------


def test_rename_takes_everything_along(versions: pythiadb.Connection, role: str) -> None:
    """Grants, comment, dependents and detail views."""
    db = versions
    db.execute(f"GRANT SELECT ON animals TO {role}; COMMENT ON VIEW animals IS 'three of them'".encode())
    db.execute("CREATE VIEW pets AS SELECT VECTOR_EMBEDDING(animals USING 'cat' AS data)::text AS v")
    db.execute("CALL dbms_data_mining.rename_model('animals', 'beasts')")
    assert score(db, "beasts") == OLD
    assert rows(db, "SELECT v FROM pets") == [(OLD,)]
    assert rows(
        db, "SELECT model_name, comments FROM user_mining_models WHERE comments = 'three of them'"
    ) == [("BEASTS", "three of them")]
    found = rows(db, "SELECT view_name FROM user_mining_model_views WHERE model_name = 'BEASTS' ORDER BY 1")
    assert found == [("DM$VJBEASTS",), ("DM$VMBEASTS",), ("DM$VPBEASTS",)]
    assert rows(db, "SELECT to_regclass('animals'), to_regclass('\"dm$vmanimals\"')") == [(None, None)]
    assert len(rows(db, 'SELECT * FROM "dm$vmbeasts"')) > 3
    db.execute(f"SET ROLE {role}".encode())
    assert score(db, "beasts") == OLD
    db.execute("RESET ROLE; CALL dbms_data_mining.rename_model('beasts', '\"The Beasts\"')")
    assert score(db, '"The Beasts"') == OLD
    assert len(rows(db, 'SELECT * FROM "DM$VMThe Beasts"')) > 3


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("animals_2", psycopg.errors.DuplicateTable, "already exists"),
        ("elsewhere.animals", psycopg.errors.InvalidName, "invalid model name"),
        ("a.b.c", psycopg.errors.InvalidName, "invalid model name"),
        ("a" * 59, psycopg.errors.NameTooLong, "is too long"),
    ],
)
def test_names_that_a_model_cannot_get(
    versions: pythiadb.Connection, name: str, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        versions.execute("CALL dbms_data_mining.rename_model('animals', %s)", (name,))
    with pytest.raises(psycopg.errors.UndefinedObject, match='model "nosuch" does not exist'):
        versions.execute("CALL dbms_data_mining.rename_model('nosuch', 'x')")
    assert score(versions, "animals") == OLD


def test_rename_after_alter_view_brings_the_detail_views_along(versions: pythiadb.Connection) -> None:
    """ALTER VIEW leaves them alone; a new model of the old name gets names of its own."""
    db = versions
    db.execute("ALTER VIEW animals RENAME TO beasts")
    load(db, "animals", version(-1))
    assert score(db, "beasts") == OLD
    assert score(db, "animals") == NEW
    names = rows(
        db,
        "SELECT model_name, view_name FROM user_mining_model_views WHERE view_name ~ '^DM.VM(BEASTS|ANIMALS)$' ORDER BY 1",
    )
    assert names == [("ANIMALS", "DM$VMANIMALS"), ("BEASTS", "DM$VMBEASTS")]
    db.execute("CALL dbms_vector.drop_onnx_model('beasts')")
    assert rows(db, "SELECT to_regclass('\"dm$vmbeasts\"')") == [(None,)]


def test_rename_after_a_move_takes_the_detail_views_to_the_models_schema(
    versions: pythiadb.Connection, role: str
) -> None:
    db = versions
    db.execute(f"CREATE SCHEMA {role}".encode())
    try:
        db.execute(f"ALTER VIEW animals SET SCHEMA {role}".encode())
        assert score(db, f"{role}.animals") == OLD
        db.execute(f"CALL dbms_data_mining.rename_model('{role}.animals', '{role}.beasts')".encode())
        assert len(rows(db, f'SELECT * FROM {role}."dm$vmbeasts"')) > 3
        assert rows(db, "SELECT to_regclass('\"dm$vmanimals\"'), to_regclass('\"dm$vmbeasts\"')") == [
            (None, None)
        ]
    finally:
        db.execute(f"DROP SCHEMA {role} CASCADE".encode())


def test_callers_of_a_renamed_model_get_an_answer_or_a_clear_error(versions: pythiadb.Connection) -> None:
    with callers(versions, lambda session: score(session, "animals")) as crowd:
        assert crowd.more(10) == {OLD}
        versions.execute("CALL dbms_data_mining.rename_model('animals', 'beasts')")
        assert crowd.more(10) == {"42P01"}
        versions.execute("CALL dbms_data_mining.rename_model('beasts', 'animals')")
        assert crowd.more(10) == {OLD}
    assert set(crowd.heard) == {OLD, "42P01"}


# Switching ----------------------------------------------------------------------------------------------------------------


def test_switch_under_callers_fails_no_call(versions: pythiadb.Connection) -> None:
    """There and back forty times; every call gets one or the other answer, and after a switch the new one."""
    db = versions
    with callers(db, lambda session: score(session, "animals")) as crowd:
        assert crowd.more(20) == {OLD}
        for _ in range(20):
            db.execute("CALL pythia.switch_model('animals', 'animals_2')")
            assert score(db, "animals") == NEW
            assert crowd.more(10) == {NEW}
            db.execute("CALL pythia.switch_model('animals', 'animals_2')")
            assert score(db, "animals") == OLD
            assert crowd.more(10) == {OLD}
    counted = Counter(crowd.heard)
    assert set(counted) == {OLD, NEW}
    assert min(counted.values()) >= 200


def test_switch_while_batches_run(versions: pythiadb.Connection) -> None:
    """A statement of many batches may see both versions, each batch only one; none fails."""
    db = versions
    db.execute("CREATE TABLE kinds AS SELECT 'cat' AS kind FROM generate_series(1, 300)")

    def call(session: psycopg.Connection[Any]) -> str:
        row = session.execute(
            "SELECT string_agg(DISTINCT embedding::text, ' ') FROM vector_embedding_batch('animals', ARRAY(SELECT kind FROM kinds))"
        ).fetchone()
        assert row is not None
        return str(row[0]).replace("-0", "0")

    with callers(db, call, 3) as crowd:
        for _ in range(10):
            db.execute("CALL pythia.switch_model('animals', 'animals_2')")
            crowd.more(3)
    assert set(crowd.heard) == {OLD, NEW}


def test_names_keep_what_was_said_of_them(versions: pythiadb.Connection, role: str) -> None:
    """Grants, comments, dependents; the detail views show the model that the name has now."""
    db = versions
    db.execute(f"GRANT SELECT ON animals TO {role}; COMMENT ON VIEW animals IS 'current'".encode())
    db.execute("CREATE VIEW pets AS SELECT VECTOR_EMBEDDING(animals USING 'cat' AS data)::text AS v")
    db.execute('CREATE VIEW facts AS SELECT metadata FROM "dm$vjanimals"')
    noted = "SELECT (SELECT metadata ->> 'note' FROM \"dm$vjanimals\"), (SELECT metadata ->> 'note' FROM \"dm$vjanimals_2\")"
    assert rows(db, noted) == [(None, "second")]
    db.execute("CALL pythia.switch_model('animals', 'animals_2')")
    assert rows(db, noted) == [("second", None)]
    assert rows(db, "SELECT metadata ->> 'note' FROM facts") == [("second",)]
    assert rows(
        db, "SELECT (SELECT metadata ->> 'note' FROM animals), (SELECT metadata ->> 'note' FROM animals_2)"
    ) == [("second", None)]
    assert rows(db, "SELECT replace(v, '-0', '0') FROM pets") == [(NEW,)]
    assert rows(
        db,
        "SELECT comments FROM user_mining_models WHERE model_name IN ('ANIMALS', 'ANIMALS_2') ORDER BY model_name",
    ) == [("current",), (None,)]
    db.execute(f"SET ROLE {role}".encode())
    assert score(db, "animals") == NEW
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        score(db, "animals_2")
    db.execute("RESET ROLE; CALL dbms_vector.drop_onnx_model('animals_2')")
    assert score(db, "animals") == NEW
    assert rows(db, "SELECT to_regclass('\"dm$vmanimals_2\"'), to_regclass('\"dm$vmanimals\"') IS NULL") == [
        (None, False)
    ]


def test_switch_is_rolled_back_with_its_transaction(versions: pythiadb.Connection) -> None:
    db = versions
    with pytest.raises(ZeroDivisionError), db.transaction():
        db.execute("CALL pythia.switch_model('animals', 'animals_2')")
        assert score(db, "animals") == NEW
        raise ZeroDivisionError
    assert score(db, "animals") == OLD
    assert score(db, "animals_2") == NEW


def test_two_switches_at_once_take_turns(versions: pythiadb.Connection, shop: Path) -> None:
    """An even number of them changes nothing."""
    path = rows(versions, "SHOW search_path")[0][0]
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with pythiadb.connect(shop, autocommit=True) as session:
                session.execute(f"SET search_path = {path}".encode())
                for _ in range(10):
                    session.execute("CALL pythia.switch_model('animals', 'animals_2')")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert (score(versions, "animals"), score(versions, "animals_2")) == (OLD, NEW)


def other_dimensions() -> bytes:
    model = onnx.load_from_string(version(1))
    model.graph.node.append(helper.make_node("Concat", ["embedding", "embedding"], ["twice"], axis=1))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("twice", TensorProto.FLOAT, ["batch", 6]))
    return bytes(model.SerializeToString())


def test_models_that_cannot_stand_in_for_each_other(versions: pythiadb.Connection) -> None:
    db = versions
    churn = shop_models.churn()
    load(db, "churn", churn.graph, churn.metadata_text)
    load(db, "wide", other_dimensions(), '{"function":"embedding","input":{"input":["DATA"]}}')
    load(db, "named", version(1), '{"function":"embedding","input":{"input":["BODY"]}}')
    for other, detail in (
        ("churn", "The function of the one is embedding, of the other classification."),
        ("wide", "The number of dimensions of the one is 3, of the other 6."),
        ("named", "The list of attributes of the one is DATA text, of the other BODY text."),
    ):
        with pytest.raises(psycopg.errors.WrongObjectType, match="cannot stand in for each other") as caught:
            db.execute("CALL pythia.switch_model('animals', %s)", (other,))
        assert caught.value.diag.message_detail == detail
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="cannot be exchanged with itself"):
        db.execute("CALL pythia.switch_model('animals', 'ANIMALS')")
    with pytest.raises(psycopg.errors.UndefinedObject, match='model "nosuch" does not exist'):
        db.execute("CALL pythia.switch_model('animals', 'nosuch')")
    assert score(db, "animals") == OLD


def test_switch_is_for_the_owner_of_both(versions: pythiadb.Connection, role: str) -> None:
    db = versions
    db.execute(f"GRANT SELECT ON animals, animals_2 TO {role}; SET ROLE {role}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.execute("CALL pythia.switch_model('animals', 'animals_2')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner of models"):
        db.execute("SELECT pythia.exchange_models('animals', 'animals_2')")
    db.execute(f"RESET ROLE; ALTER VIEW animals OWNER TO {role}; SET ROLE {role}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.execute("CALL pythia.switch_model('animals', 'animals_2')")
    db.execute("RESET ROLE; ALTER VIEW animals OWNER TO CURRENT_USER")
    assert score(db, "animals") == OLD


# Dropping -----------------------------------------------------------------------------------------------------------------


def test_drop_under_callers_and_a_new_model_of_the_name(versions: pythiadb.Connection) -> None:
    """Calls end with an answer or a clear error; a new model of the same name answers at once."""
    db = versions
    with callers(db, lambda session: score(session, "animals")) as crowd:
        for _ in range(5):
            assert crowd.more(10) == {OLD}
            db.execute("CALL dbms_vector.drop_onnx_model('animals')")
            assert crowd.more(10) <= CLEAR
            with db.transaction():
                load(db, "animals", version(1))
    assert set(crowd.heard) <= {OLD, *CLEAR}
    assert score(db, "animals_2") == NEW


def test_long_call_outlives_its_model(versions: pythiadb.Connection) -> None:
    db = versions
    answers: list[Any] = []
    assert db.server is not None
    conninfo, path = db.server.conninfo(), rows(db, "SHOW search_path")[0][0]
    pid: list[int] = []

    def work() -> None:
        with psycopg.connect(conninfo, autocommit=True) as session:
            session.execute(f"SET search_path = {path}".encode())
            pid.append(session.info.backend_pid)
            row = session.execute(
                "SELECT count(*), sum(embedding <#> '[1,0,0]') FROM vector_embedding_batch('animals', "
                "ARRAY(SELECT CASE i % 2 WHEN 0 THEN 'cat' ELSE repeat('x', 900) END FROM generate_series(1, 10000) AS i))"
            ).fetchone()
            answers.append(row)

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 20
    while not pid or rows(db, f"SELECT wait_event FROM pg_stat_activity WHERE pid = {pid[0]}") != [
        ("DblinkGetResult",)
    ]:
        assert time.monotonic() < deadline, "the call does not begin"
    db.execute("CALL dbms_vector.drop_onnx_model('animals')")
    dropped_before_the_end = not answers
    thread.join()
    assert answers == [(10000, -5000.0)]
    assert dropped_before_the_end


def test_dropped_and_renamed_models_come_back_with_a_rollback(versions: pythiadb.Connection) -> None:
    db = versions
    before = rows(
        db,
        "SELECT relation::text, id FROM pythia.model WHERE relation IN ('animals'::regclass, 'animals_2'::regclass) ORDER BY 1",
    )
    for statement in (
        "CALL dbms_vector.drop_onnx_model('animals')",
        "CALL dbms_data_mining.rename_model('animals', 'beasts')",
        "DROP VIEW animals; SELECT pythia.remove_orphaned_models()",
    ):
        with pytest.raises(ZeroDivisionError), db.transaction():
            db.execute(statement.encode())
            assert rows(db, "SELECT to_regclass('animals')") == [(None,)]
            raise ZeroDivisionError
        assert score(db, "animals") == OLD
        assert len(rows(db, 'SELECT * FROM "dm$vmanimals"')) > 3
    after = rows(
        db,
        "SELECT relation::text, id FROM pythia.model WHERE relation IN ('animals'::regclass, 'animals_2'::regclass) ORDER BY 1",
    )
    assert after == before


def test_load_that_is_rolled_back_is_seen_by_nobody(versions: pythiadb.Connection) -> None:
    """Other sessions never find it; the loading one scores with it until the end. The same file loads again afterwards."""
    db = versions
    graph = version(7)
    with callers(db, lambda session: score(session, "later"), 2) as crowd:
        with pytest.raises(ZeroDivisionError), db.transaction():
            load(db, "later", graph)
            assert score(db, "later") == "[7,0,0]"
            crowd.more(6)
            raise ZeroDivisionError
        crowd.more(6)
        assert set(crowd.heard) <= CLEAR
        load(db, "later", graph)
        assert crowd.more(4) == {"[7,0,0]"}
    assert set(crowd.heard) <= {"[7,0,0]", *CLEAR}
