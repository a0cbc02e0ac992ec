"""What the engine's keeper reads and writes in a database: definitions, snapshots of tables, journals, versions.

Everything here happens in a few short transactions of the keeper's own; the one long one, a snapshot, only reads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from pythiadb.postgres.index_snapshot import Snapshot, journal

CONNECT_TIMEOUT = 10  # seconds
LOCK_MILLISECONDS = (
    1000  # for which others' locks on tables are waited for: other indexes need looking after too
)
VACUUM_ROWS = 1_000  # journal rows whose removal is worth a VACUUM: readers scan the journal


@dataclass(frozen=True, slots=True)
class StoredIndex:
    """A definition's row, the names looked up, and its newest version if it has one."""

    index_id: int
    schema: str
    table: str
    column: str
    key: str
    key_type: str
    vector_type: str
    dimensions: int | None  # None while neither the column's type nor a row has told
    organization: str | None
    distance: str
    target_accuracy: int
    parameters: dict[str, Any]
    columns: list[list[str]]  # name and type each
    parallel: int
    status: str
    version: int
    token: UUID | None
    current: bool  # the newest version's fingerprint is still the table's
    changed: bool  # the journal has rows that the newest version does not hold
    rows: int
    facts: dict[str, Any]
    restored: bool  # versions and journal are another cluster's: this database was restored from a dump

    @property
    def asked(self) -> tuple[Any, ...]:
        """What a version was made for. REBUILD and renamed columns change it: then the version is not what is wanted any more."""
        names = [name for name, _ in self.columns]
        return self.organization, self.distance, self.target_accuracy, self.parameters, names

    @property
    def lacks_its_table(self) -> bool:
        """Whether the table is not what an index needs, see pythia.follow_table: the change that mends it asks for a build."""
        return self.status == "UNUSABLE" and self.token is None


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What the database is told of a version: its number and name, how many rows it has, facts for the views."""

    number: int
    token: str
    rows: int
    dimensions: int
    built: bool  # by reading the whole table
    facts: dict[str, Any]


class IndexStore:
    """One database, over one connection that is opened when it is needed and again after it was lost."""

    def __init__(self, conninfo: str, dbname: str) -> None:
        self.dbname = dbname
        self._conninfo = make_conninfo(
            conninfo, dbname=dbname, connect_timeout=CONNECT_TIMEOUT, application_name="pythia index keeper",
            options=f"-c DateStyle=ISO -c search_path=pg_catalog,pg_temp -c lock_timeout={LOCK_MILLISECONDS}",
        )  # fmt: skip
        self._connection: psycopg.Connection[Any] | None = None

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """The connection; raises psycopg.OperationalError when the server is not there."""
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._conninfo, autocommit=True)
        return self._connection

    def close(self) -> None:
        """Close the connection, for now or for good."""
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
        self._connection = None

    def indexes(self) -> list[StoredIndex]:
        """Return the definitions that the keeper has to look after."""
        with self.connection.cursor(row_factory=class_row(StoredIndex)) as cursor:
            return cursor.execute("SELECT * FROM pythia.vector_index_work()").fetchall()

    def prepare_build(self, index: StoredIndex) -> None:
        """Bring triggers and names up to the table; start anew where versions and journal are another cluster's."""
        with self.connection.transaction():
            _lock_table(self.connection, index)
            if index.restored:
                self._forget_versions(index)
            self.connection.execute("SELECT pythia.follow_table(%s)", (index.index_id,))
            if index.restored:
                self.connection.execute(sql.SQL("DELETE FROM {}").format(journal(index)))

    @contextmanager
    def snapshot(self, index: StoredIndex) -> Iterator[Snapshot]:
        """A repeatable-read snapshot of an index's table, in a connection of its own: it may take long."""
        with psycopg.connect(self._conninfo, autocommit=False) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            _lock_table(connection, index)
            yield Snapshot(connection, index)
            connection.rollback()

    def set_progress(self, index: StoredIndex, stage: str, share: float) -> bool:
        """Show how far a build is, seen by pythia.vector_index_status; return False if the index is there no more."""
        written = self.connection.execute(
            "UPDATE pythia.vector_index SET progress = %s WHERE id = %s",
            (Jsonb({"stage": stage, "percent": round(100 * share)}), index.index_id),
        )
        return written.rowcount > 0

    def publish(
        self, index: StoredIndex, version: NewVersion, snapshot: Snapshot | None, *, prune: bool
    ) -> bool:
        """Commit a version's row: from here on statements may use it. The snapshot must be older than this call.

        Without a snapshot the rows are those of the version before. In the same transaction older versions go, and what the
        new one contains goes from the journal (with `prune`): whoever does not see the new row still sees the old ones and those of the journal.
        Returns False, and changes nothing, if the table has lost meanwhile what an index needs, or another kind of index was asked for.
        """
        names = {"id": index.index_id, "version": version.number, "token": version.token, "rows": version.rows,
                 "facts": Jsonb(version.facts), "dimensions": version.dimensions, "built": version.built}  # fmt: skip
        if snapshot is None:
            source = "SELECT snapshot, fingerprint FROM pythia.vector_index_version WHERE index_id = %(id)s AND version = %(version)s - 1"
        else:
            source = "VALUES (%(snapshot)s::pg_snapshot, %(fingerprint)s)"
            names |= {"snapshot": snapshot.text, "fingerprint": snapshot.fingerprint}
        with self.connection.transaction():
            if not self._may_publish(index):
                return False
            self.connection.execute(
                "INSERT INTO pythia.vector_index_version (index_id, version, token, rows, facts, snapshot, fingerprint) "
                f"SELECT %(id)s, %(version)s, %(token)s, %(rows)s, %(facts)s, s.* FROM ({source}) AS s",
                names,
            )
            self.connection.execute(
                "DELETE FROM pythia.vector_index_version WHERE index_id = %(id)s AND version < %(version)s",
                names,
            )
            self.connection.execute(
                "UPDATE pythia.vector_index i SET status = 'VALID', error = NULL, error_code = NULL, progress = NULL, "
                "dimensions = CASE WHEN %(rows)s > 0 THEN %(dimensions)s ELSE (SELECT (pythia.vector_column_type(a)).dimensions "
                "FROM pg_attribute a WHERE a.attrelid = i.relation AND a.attname = i.column_name) END, "  # without rows: the column's own
                "system_identifier = (SELECT system_identifier FROM pg_control_system()) "
                "WHERE id = %(id)s AND %(built)s",
                names,
            )
            self.connection.execute(
                "UPDATE pythia.vector_index SET error = NULL WHERE id = %(id)s AND status = 'VALID' AND error IS NOT NULL "
                "AND (starts_with(error, 'refresh: ') OR NOT %(refresh)s)",
                names | {"refresh": snapshot is not None and not version.built},
            )
            removed = self._prune(index, snapshot) if prune and snapshot is not None else 0
        if removed >= VACUUM_ROWS:
            self.connection.execute(sql.SQL("VACUUM {}").format(journal(index)))
        return True

    def _may_publish(self, index: StoredIndex) -> bool:
        """Lock an index's row, for which an ALTER TABLE or a REBUILD may have to end first, and see what has become of it then."""
        asked = self.connection.execute(
            "SELECT organization, distance, target_accuracy, parameters, include_columns::text[] "
            "FROM pythia.vector_index WHERE id = %s FOR NO KEY UPDATE",
            (index.index_id,),
        ).fetchone()
        # Asked by itself: what the first statement had to wait for is seen by the next one only.
        usable = self.connection.execute(
            "SELECT i.status <> 'UNUSABLE' OR EXISTS (SELECT FROM pythia.vector_index_version v WHERE v.index_id = i.id) "
            "FROM pythia.vector_index i WHERE i.id = %s",
            (index.index_id,),
        ).fetchone()
        return asked == index.asked and usable == (True,)

    def _prune(self, index: StoredIndex, snapshot: Snapshot) -> int:
        statement = sql.SQL("DELETE FROM {} WHERE pg_visible_in_snapshot(xid, %s::pg_snapshot)")
        return self.connection.execute(statement.format(journal(index)), (snapshot.text,)).rowcount

    def fail(self, index: StoredIndex, reason: str, sqlstate: str | None) -> None:
        """Note that an index could not be built."""
        self._set_status(index, "FAILED", reason, sqlstate)

    def note_error(self, index: StoredIndex, job: str, reason: str) -> None:
        """Note why a job has failed, beside a version that is still used. It stands there until such a job goes well."""
        self.connection.execute(
            "UPDATE pythia.vector_index SET error = %(error)s WHERE id = %(id)s AND error IS DISTINCT FROM %(error)s",
            {"error": f"{job}: {reason}", "id": index.index_id},
        )

    def suspend(self, index: StoredIndex, reason: str, sqlstate: str | None) -> None:
        """Note that an index has a version that may not be used."""
        self._set_status(index, "UNUSABLE", reason, sqlstate)

    def resume(self, index: StoredIndex) -> None:
        """Take suspend() back."""
        self._set_status(index, "VALID", None, None)

    def _set_status(self, index: StoredIndex, status: str, error: str | None, sqlstate: str | None) -> None:
        self.connection.execute(
            "UPDATE pythia.vector_index SET status = %s, error = %s, error_code = %s, progress = NULL WHERE id = %s",
            (status, error, sqlstate, index.index_id),
        )

    def _forget_versions(self, index: StoredIndex) -> None:
        """Remove what was built of an index, and why it was not used."""
        self.connection.execute(
            "DELETE FROM pythia.vector_index_version WHERE index_id = %s", (index.index_id,)
        )
        self.connection.execute(
            "UPDATE pythia.vector_index SET status = 'BUILDING', error = NULL, error_code = NULL WHERE id = %s",
            (index.index_id,),
        )

    def store_accuracy(self, index: StoredIndex, rows: Sequence[dict[str, Any]]) -> None:
        """Replace what was measured of an index."""
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.execute("DELETE FROM pythia.vector_index_accuracy WHERE index_id = %s", (index.index_id,))
            cursor.executemany(
                "INSERT INTO pythia.vector_index_accuracy (index_id, k, filter, target, effort, mean, p5, queries, microseconds, source) "
                "VALUES (%(index_id)s, %(k)s, %(filter)s, %(target)s, %(effort)s, %(mean)s, %(p5)s, %(queries)s, %(microseconds)s, %(source)s)",
                [row | {"index_id": index.index_id, "effort": Jsonb(row["effort"])} for row in rows],
            )

    def tokens(self) -> set[str]:
        """Return the tokens of all versions that statements may see from now on."""
        return {
            str(token)
            for (token,) in self.connection.execute(
                "SELECT token FROM pythia.vector_index_version"
            ).fetchall()
        }


def databases(conninfo: str) -> list[str]:
    """Return the names of the databases that may be connected to."""
    with psycopg.connect(
        make_conninfo(conninfo, connect_timeout=CONNECT_TIMEOUT, application_name="pythia index keeper"),
        autocommit=True,
    ) as connection:
        rows = connection.execute(
            "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY oid"
        ).fetchall()
    return [name for (name,) in rows]


def _lock_table(connection: psycopg.Connection[Any], index: StoredIndex) -> None:
    """Lock an index's table as readers do, before its journal and its row: who drops the table takes them in that order too."""
    table = sql.Identifier(index.schema, index.table)
    connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(table))
