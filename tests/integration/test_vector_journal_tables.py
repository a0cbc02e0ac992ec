"""The journal of a vector index on partitions and inheritance children, and the changes that no trigger sees."""

from __future__ import annotations

import pytest

import pythiadb
from tests.integration.vector_tables import (
    TURNING,
    clear,
    define,
    fingerprint,
    journal,
    one,
    only_named_columns_count,
    rows,
)


@pytest.fixture
def parts(db: pythiadb.Connection) -> int:
    db.execute(
        "CREATE TABLE parts (id int PRIMARY KEY, v vector(2), n int) PARTITION BY RANGE (id);"
        "CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (100);"
        "CREATE TABLE high PARTITION OF parts FOR VALUES FROM (100) TO (200) PARTITION BY LIST (id);"
        "CREATE TABLE rest PARTITION OF high DEFAULT;"
        "INSERT INTO parts VALUES (1, '[1,1]'), (2, NULL), (101, '[1,1]')"
    )
    return define(db, "parts_v", "parts")


def test_partitioned_table_through_its_root_and_its_leaves(db: pythiadb.Connection, parts: int) -> None:
    db.execute("INSERT INTO parts VALUES (3, '[1,1]'), (103, '[1,1]'), (4, NULL)")
    db.execute("INSERT INTO low VALUES (5, '[1,1]')")
    db.execute("UPDATE parts SET n = 1")
    db.execute("DELETE FROM rest WHERE id = 101")
    assert journal(db, parts) == ["3", "5", "101", "103"]
    clear(db, parts)
    db.execute("UPDATE parts SET id = 150 WHERE id = 1")  # moves to another partition
    assert set(journal(db, parts)) == {"1", "150"}
    with db.transaction():
        clear(db, parts)
        db.execute("SET LOCAL session_replication_role = replica")
        db.execute("INSERT INTO parts VALUES (7, '[1,1]')")
    assert journal(db, parts) == ["7"]


def test_partitions_that_come_and_go_change_the_fingerprint(db: pythiadb.Connection, parts: int) -> None:
    seen = [fingerprint(db, parts)]
    for change in (
        "CREATE TABLE more PARTITION OF parts FOR VALUES FROM (200) TO (300)",
        "CREATE TABLE late (id int PRIMARY KEY, v vector(2), n int); INSERT INTO late VALUES (300, '[1,1]'); "
        "ALTER TABLE parts ATTACH PARTITION late FOR VALUES FROM (300) TO (400)",
        "ALTER TABLE parts DETACH PARTITION more",
        "TRUNCATE low",
        "DROP TABLE late",
    ):
        db.execute(change.encode())
        seen.append(fingerprint(db, parts))
    assert None not in seen
    assert len(set(seen)) == len(seen)
    db.execute("INSERT INTO parts VALUES (9, '[1,1]')")
    assert journal(db, parts) == ["9"]


def test_trigger_before_the_row_in_one_partition(db: pythiadb.Connection, parts: int) -> None:
    assert only_named_columns_count(db, parts)
    db.execute(TURNING.format(table="low").encode())
    assert not only_named_columns_count(db, parts)
    db.execute("UPDATE parts SET n = 7")
    assert journal(db, parts) == ["1", "2"]
    db.execute("DROP TRIGGER turn ON low")
    assert only_named_columns_count(db, parts)


def test_journal_switched_off_in_one_partition(db: pythiadb.Connection, parts: int) -> None:
    db.execute("ALTER TABLE low DISABLE TRIGGER ALL")
    assert fingerprint(db, parts) is None
    assert one(db, "SELECT status FROM pythia.vector_index WHERE id = %s", parts) == "UNUSABLE"
    db.execute("ALTER TABLE low ENABLE TRIGGER ALL")
    assert fingerprint(db, parts) is not None
    with db.transaction():
        db.execute("SET LOCAL session_replication_role = replica")
        db.execute("INSERT INTO low VALUES (11, '[1,1]')")
    assert journal(db, parts) == ["11"]


def test_table_that_becomes_a_partition_and_a_table_again(db: pythiadb.Connection, journaled: int) -> None:
    """Rows that come by way of the root fire no statement triggers of the partition."""
    db.execute(
        "CREATE TABLE root (id bigint PRIMARY KEY, v vector(2), kind text, n int) PARTITION BY RANGE (id)"
    )
    before = fingerprint(db, journaled)
    db.execute("ALTER TABLE root ATTACH PARTITION docs DEFAULT")
    db.execute("INSERT INTO root VALUES (70, '[1,1]')")
    db.execute("DELETE FROM root WHERE id = 1")
    assert journal(db, journaled) == ["1", "70"]
    attached = fingerprint(db, journaled)
    db.execute("ALTER TABLE root DETACH PARTITION docs")
    clear(db, journaled)
    db.execute("INSERT INTO docs VALUES (71, '[1,1]')")
    assert journal(db, journaled) == ["71"]
    assert len({before, attached, fingerprint(db, journaled)} - {None}) == 3


def test_inheritance_child_is_changed_through_its_parent(db: pythiadb.Connection) -> None:
    db.execute(
        "CREATE TABLE parent (id int, v vector(2), n int); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);"
        "INSERT INTO child VALUES (1, '[1,1]'), (2, '[1,1]')"
    )
    index_id = define(db, "child_v", "child")
    db.execute("DELETE FROM parent WHERE id = 1")
    db.execute("INSERT INTO child VALUES (3, '[1,1]')")
    assert journal(db, index_id) == ["1", "3"]


def test_table_that_gets_inheritance_children_is_not_used(db: pythiadb.Connection, journaled: int) -> None:
    db.execute("CREATE TABLE heir () INHERITS (docs)")
    assert fingerprint(db, journaled) is None
    assert rows(db, "SELECT status, error FROM pythia.vector_index WHERE id = %s", journaled) == [
        ("UNUSABLE", 'table "docs" has inheritance children')
    ]
    db.execute("DROP TABLE heir")
    db.execute("ALTER TABLE docs SET (fillfactor = 90)")
    assert fingerprint(db, journaled) is not None


# What triggers do not see -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "TRUNCATE docs",
        "ALTER TABLE docs ALTER n TYPE bigint",
        "VACUUM FULL docs",
        "CLUSTER docs USING docs_pkey",
    ],
)
def test_rewritten_table_has_another_fingerprint(
    db: pythiadb.Connection, journaled: int, change: str
) -> None:
    before = fingerprint(db, journaled)
    db.execute("UPDATE docs SET v = '[9,9]'")
    db.execute("VACUUM docs")
    db.execute("ANALYZE docs")
    assert fingerprint(db, journaled) == before is not None
    db.execute(change.encode())
    assert fingerprint(db, journaled) not in (before, None)


def test_truncation_that_is_rolled_back_leaves_the_fingerprint(
    db: pythiadb.Connection, journaled: int
) -> None:
    before = fingerprint(db, journaled)
    with db.transaction(force_rollback=True):
        db.execute("TRUNCATE docs")
        assert fingerprint(db, journaled) != before
    assert fingerprint(db, journaled) == before


@pytest.mark.parametrize("which", ["ALL", "USER", "vector_index_{}_delete", "vector_index_{}_update"])
def test_triggers_switched_off_make_the_index_unusable_until_they_are_on(
    db: pythiadb.Connection, journaled: int, which: str
) -> None:
    before = fingerprint(db, journaled)
    db.execute(f"ALTER TABLE docs DISABLE TRIGGER {which.format(journaled)}".encode())
    assert fingerprint(db, journaled) is None
    db.execute("DELETE FROM docs WHERE id = 1")
    db.execute(f"ALTER TABLE docs ENABLE TRIGGER {which.format(journaled)}".encode())
    assert fingerprint(db, journaled) not in (before, None)
    assert one(db, "SELECT status FROM pythia.vector_index WHERE id = %s", journaled) == "BUILDING"
    with db.transaction():  # as the update trigger fired before: always
        db.execute("SET LOCAL session_replication_role = replica")
        db.execute("UPDATE docs SET v = '[1,1]' WHERE id = 2")
    assert "2" in journal(db, journaled)


def test_trigger_that_is_dropped_or_renamed_comes_back(db: pythiadb.Connection, journaled: int) -> None:
    before = fingerprint(db, journaled)
    db.execute(f"DROP TRIGGER vector_index_{journaled}_insert ON docs".encode())
    dropped = fingerprint(db, journaled)
    db.execute(f"ALTER TRIGGER vector_index_{journaled}_update ON docs RENAME TO mine".encode())
    renamed = fingerprint(db, journaled)
    assert len({before, dropped, renamed} - {None}) == 3
    db.execute("INSERT INTO docs VALUES (10, '[1,1]')")
    db.execute("UPDATE docs SET v = '[1,1]' WHERE id = 2")
    assert set(journal(db, journaled)) == {"2", "10"}
