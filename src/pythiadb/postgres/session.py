"""Connections for applications: psycopg's, with AI SQL, vectors, and an embedded server behind them when asked for."""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Self

import psycopg
from psycopg import Copy, sql
from psycopg.abc import Params, Query
from psycopg.conninfo import conninfo_to_dict
from psycopg.copy import Writer
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from pythiadb.errors import ClusterError, DroppedIndex, EngineUnavailable, InterfaceError, InvalidParameter
from pythiadb.postgres import adapt, cluster, install
from pythiadb.postgres.catalog import SessionCatalog
from pythiadb.postgres.server import SUPERUSER, Server
from pythiadb.sql import DIALECTS, Dialect, Translation, body_of, do_statement, translate

_URL = re.compile(r"postgres(ql)?://")
_KEYWORD = re.compile(r"\s*\w+\s*=")  # how libpq's keyword/value strings begin
# What PostgreSQL says when a statement was made for a table or a model that is no longer what it was.
_STALE = (
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.InvalidTextRepresentation,
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.WrongObjectType,
    psycopg.errors.DatatypeMismatch,
)


class Cursor(psycopg.Cursor[Any]):
    """A psycopg cursor that reads AI SQL; everything else is psycopg's."""

    connection: Connection  # psycopg makes cursors for their connection only

    def execute(
        self,
        query: Query,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
    ) -> Self:
        """Run a statement, after translating its AI SQL.

        `params` may be a mapping (for `:name` or `%(name)s`), a sequence (for `:1` or `%s`), or None. When the embedded engine
        has died, it is started again; a statement outside a transaction is then repeated once.
        """
        idle = self.connection.info.transaction_status == TransactionStatus.IDLE
        translation = self.connection.translate(query, with_parameters=params is not None)
        values = bind_values(translation, params)
        try:
            self._run(translation, values, prepare=prepare, binary=binary)
        except _STALE as error:
            self.connection.catalog.forget()  # another session may have changed the table or the model
            if not (idle and translation.batched):
                _explain_dropped_index(error)
                raise
            self.connection.rollback()
            fresh = self.connection.translate(query, with_parameters=params is not None)
            if fresh == translation:
                raise
            self._run(fresh, values, prepare=prepare, binary=binary)
        except psycopg.OperationalError as error:
            if (
                error.sqlstate != EngineUnavailable.sqlstate
                or not self.connection.revive_engine()
                or not idle
            ):
                raise
            self.connection.rollback()
            self._run(translation, values, prepare=prepare, binary=binary)
        if self.connection.engine_missed:  # a search was exact without it; the next ones shall have it
            with suppress(ClusterError):
                self.connection.revive_engine()
        return self

    def _run(
        self, translation: Translation, values: Params | None, *, prepare: bool | None, binary: bool | None
    ) -> None:
        for written in translation.statements:
            inline = translation.inline and values is not None
            statement = self._with_values(written, values) if inline else written
            super().execute(statement.encode(), None if inline else values, prepare=prepare, binary=binary)
        if translation.defines:
            self.connection.catalog.forget()

    def _with_values(self, statement: str, values: Params | None) -> str:
        """Write values into a DO statement, which takes no parameters, as literals."""
        with psycopg.ClientCursor(self.connection) as client:
            return do_statement(client.mogrify(body_of(statement).encode(), values))

    def executemany(self, query: Query, params_seq: Iterable[Params], *, returning: bool = False) -> None:
        """Run a statement for every set of parameters, in one pipeline."""
        translation = self.connection.translate(query, with_parameters=True)
        values = (v for v in (bind_values(translation, p) for p in params_seq) if v is not None)
        super().executemany(only_statement(translation), values, returning=returning)

    def stream(
        self, query: Query, params: Params | None = None, *, binary: bool | None = None, size: int = 1
    ) -> Iterator[Any]:
        """Yield the rows of a statement as they come."""
        translation = self.connection.translate(query, with_parameters=params is not None)
        return super().stream(
            only_statement(translation), bind_values(translation, params), binary=binary, size=size
        )

    @contextmanager
    def copy(
        self, statement: Query, params: Params | None = None, *, writer: Writer | None = None
    ) -> Iterator[Copy]:
        """Begin a COPY, whose query may be AI SQL."""
        translation = self.connection.translate(statement, with_parameters=params is not None)
        values = bind_values(translation, params)
        with super().copy(only_statement(translation), values, writer=writer) as copy:
            yield copy


def _explain_dropped_index(error: psycopg.Error) -> None:
    """Raise DroppedIndex if an index' own function is missing: its statement asks for a dropped index."""
    message = error.diag.message_primary or ""
    if isinstance(error, psycopg.errors.UndefinedFunction) and message.startswith("function vecsys."):
        raise DroppedIndex(
            "the vector index that the statement was made for does not exist any more",
            detail=f"PostgreSQL says: {message}.",
            hint="Run the statement again; one that was prepared by PREPARE: DEALLOCATE it, and PREPARE it again.",
        ) from error


class ServerCursor(psycopg.ServerCursor[Any]):
    """psycopg's cursor for results that stay on the server, made by `connection.cursor(name)`; reads AI SQL too."""

    connection: Connection

    def execute(
        self, query: Query, params: Params | None = None, *, binary: bool | None = None, **kwargs: Any
    ) -> Self:
        """Open the cursor for a query, after translating its AI SQL."""
        translation = self.connection.translate(query, with_parameters=params is not None)
        values = bind_values(translation, params)
        return super().execute(only_statement(translation), values, binary=binary, **kwargs)


def only_statement(translation: Translation) -> bytes:
    """Return the one statement of a translation. Raises InterfaceError when there are more, or values belong into it."""
    if translation.inline:
        raise InterfaceError("a block with bind variables must be run with execute()")
    if len(translation.statements) != 1:
        raise InterfaceError(f"expected one statement, not {len(translation.statements)}")
    return translation.statements[0].encode()


def bind_values(translation: Translation, params: Params | None) -> Params | None:
    """Return the parameters as the translated text names them. Raises InterfaceError when some are missing."""
    if params is None or not translation.binds:
        return params
    if isinstance(params, Mapping):
        missing = [name for name in translation.binds if name not in params]
        if missing:
            raise InterfaceError(f'no value for bind variable ":{missing[0]}"')
        return {name: params[name] for name in translation.binds}
    if all(name.isdigit() for name in translation.binds):
        return _by_number(translation.binds, params)
    if len(params) != len(translation.binds):
        raise InterfaceError(
            f"the statement has {len(translation.binds)} bind variables, {len(params)} values were given"
        )
    return dict(zip(translation.binds, params, strict=True))


def _by_number(binds: tuple[str, ...], params: Sequence[Any]) -> dict[str, Any]:
    if max(map(int, binds)) > len(params):
        raise InterfaceError(f'no value for bind variable ":{max(binds, key=int)}"')
    return {name: params[int(name) - 1] for name in binds}


class Connection(psycopg.Connection[Any]):
    """A psycopg connection whose cursors read AI SQL. Made by `pythiadb.connect`."""

    dialect: Dialect = "postgres"
    server: Server | None = None
    catalog: SessionCatalog
    engine_missed: bool = False  # a statement has warned that it had to do without the engine

    @classmethod
    def open(
        cls, conninfo: str, *, dialect: str, autocommit: bool, server: Server | None, **options: Any
    ) -> Connection:
        """Connect, check the schema, learn the vector types."""
        if dialect not in DIALECTS:
            raise InvalidParameter(f'unrecognized dialect "{dialect}"', hint='Use "postgres" or "oracle".')
        row_factory = options.pop("row_factory", tuple_row)  # not before our own queries are done
        connection = cls.connect(conninfo, autocommit=True, cursor_factory=Cursor, **options)
        try:
            connection.dialect = dialect  # type: ignore[assignment]  # checked above
            connection.server_cursor_factory = ServerCursor
            connection.catalog = SessionCatalog(connection)
            connection.add_notice_handler(connection._notice)
            install.check(connection)
            adapt.register(connection)
            connection.autocommit = autocommit
            connection.row_factory = row_factory
        except BaseException:
            connection.close()
            raise
        connection.server = server
        if server is not None:
            connection._leave = weakref.finalize(connection, cluster.leave, server)
        return connection

    _leave: weakref.finalize[Any, Any] | None = None

    def close(self) -> None:
        """Close the connection; the embedded server stops soon after its last user has left."""
        super().close()
        if self._leave is not None:
            self._leave()

    def translate(self, query: Query, *, with_parameters: bool = False) -> Translation:
        """Return the PostgreSQL statements that AI SQL stands for, without running them."""
        if isinstance(query, bytes):
            text = query.decode(self.info.encoding)
        elif isinstance(query, sql.Composable):
            text = query.as_string(self)
        else:
            text = str(query)
        return translate(text, dialect=self.dialect, catalog=self.catalog, with_parameters=with_parameters)

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        self.engine_missed |= diagnostic.sqlstate == EngineUnavailable.sqlstate

    def revive_engine(self) -> bool:
        """Start an embedded engine that has died; return False when the server is not ours."""
        self.engine_missed = False
        if self.server is None:
            return False
        cluster.ensure_running(self.server)
        return True


def connect(
    database: str | os.PathLike[str],
    *,
    dialect: str = "postgres",
    autocommit: bool = False,
    keep_running: bool = False,
    dbname: str = SUPERUSER,
    **options: Any,
) -> Connection:
    """Open a database: a directory (embedded, created when missing) or a server that `pythia install` has prepared.

    Args:
        database: the directory; or, as a str, the server's `postgresql://` URL or libpq string of keywords and values, as in
            `"host=/run/postgresql dbname=shop"`. A directory whose name begins like that is meant by a Path or by `"./a=b"`.
        dialect: "postgres", or "oracle" to read the rest of each statement as Oracle SQL too.
        autocommit: as in psycopg; off by default, as DB-API 2.0 asks.
        keep_running: the embedded server stays after the last process has left, until `pythia stop`.
        dbname: which database of the embedded server.
        options: passed to psycopg, for example row_factory.

    Raises:
        ClusterError: the embedded server cannot be created or started.
        SchemaVersionError: the database is not prepared, or by another version.
        InvalidParameter: the string of keywords and values is none.
        psycopg.OperationalError: no connection.
    """
    if isinstance(database, str) and is_connection_string(database):
        _check_keywords(database)
        return Connection.open(database, dialect=dialect, autocommit=autocommit, server=None, **options)
    server = cluster.join(database, keep_running=keep_running)
    arguments: dict[str, Any] = {"dialect": dialect, "autocommit": autocommit, "server": server, **options}
    try:
        try:
            return Connection.open(server.conninfo(dbname), **arguments)
        except psycopg.OperationalError:  # the server may have died while this process held it
            cluster.ensure_running(server)
            return Connection.open(server.conninfo(dbname), **arguments)
    except BaseException:
        cluster.leave(server)
        raise


def is_connection_string(text: str) -> bool:
    """Tell a server's URL or libpq's keywords and values from the name of a directory."""
    return bool(_URL.match(text) or _KEYWORD.match(text))


def _check_keywords(text: str) -> None:
    if _URL.match(text):
        return
    try:
        conninfo_to_dict(text)
    except psycopg.ProgrammingError as error:
        raise InvalidParameter(
            "invalid connection string",
            detail=str(error).strip(),
            hint='A directory with "=" in its name is given as a Path, or with "./" before it.',
        ) from None
