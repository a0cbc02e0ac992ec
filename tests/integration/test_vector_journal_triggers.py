"""Triggers of the user's that change rows on their way do not get around the journal of a vector index."""

from __future__ import annotations

import pythiadb
from tests.integration.vector_tables import (
    JOURNALED,
    TURNING,
    define,
    fingerprint,
    journal,
    one,
    only_named_columns_count,
)


def test_change_by_a_trigger_before_the_row_counts(db: pythiadb.Connection, journaled: int) -> None:
    """The statement names another column; a BEFORE trigger changes the vector."""
    assert only_named_columns_count(db, journaled)
    db.execute(TURNING.format(table="docs").encode())
    assert not only_named_columns_count(db, journaled)
    db.execute("UPDATE docs SET n = 6")
    assert journal(db, journaled) == []
    db.execute("UPDATE docs SET n = 7 WHERE id = 2")
    assert journal(db, journaled) == ["2"]


def test_versions_stay_good_while_such_triggers_come_and_go(db: pythiadb.Connection, journaled: int) -> None:
    db.execute(
        "INSERT INTO pythia.vector_index_version (index_id, version, token, snapshot, fingerprint, rows) "
        "VALUES (%s, 1, gen_random_uuid(), pg_current_snapshot(), %s, 3)",
        (journaled, fingerprint(db, journaled)),
    )
    before = fingerprint(db, journaled)
    for change, only_named in (
        (TURNING.format(table="docs"), False),
        ("ALTER TABLE docs DISABLE TRIGGER turn", False),
        ("DROP TRIGGER turn ON docs", True),
        ("CREATE TRIGGER after AFTER UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION turn()", True),
        ("CREATE TRIGGER once BEFORE UPDATE ON docs FOR EACH STATEMENT EXECUTE FUNCTION turn()", True),
        ("CREATE TRIGGER new BEFORE INSERT ON docs FOR EACH ROW EXECUTE FUNCTION turn()", True),
    ):
        db.execute(change.encode())
        assert only_named_columns_count(db, journaled) == only_named, change
        kept = one(db, "SELECT fingerprint FROM pythia.vector_index_version WHERE index_id = %s", journaled)
        assert kept == fingerprint(db, journaled) is not None, change
    assert fingerprint(db, journaled) != before


def test_trigger_before_the_row_that_was_there_first(db: pythiadb.Connection) -> None:
    db.execute(JOURNALED.encode())
    db.execute(TURNING.format(table="docs").encode())
    index_id = define(db, "docs_v", "docs")
    db.execute("UPDATE docs SET n = 7 WHERE id = 2")
    assert journal(db, index_id) == ["2"]


def test_trigger_before_the_row_that_is_rolled_back(db: pythiadb.Connection, journaled: int) -> None:
    with db.transaction(force_rollback=True):
        db.execute(TURNING.format(table="docs").encode())
        db.execute("UPDATE docs SET n = 7 WHERE id = 2")
        assert journal(db, journaled) == ["2"]
    assert only_named_columns_count(db, journaled)
    assert journal(db, journaled) == []


def test_trigger_before_the_row_made_with_replication_role_replica(
    db: pythiadb.Connection, journaled: int
) -> None:
    with db.transaction():
        db.execute("SET LOCAL session_replication_role = replica")
        db.execute(TURNING.format(table="docs").encode())
        db.execute("ALTER TABLE docs ENABLE ALWAYS TRIGGER turn")
        db.execute("UPDATE docs SET n = 7 WHERE id = 2")
    assert journal(db, journaled) == ["2"]
