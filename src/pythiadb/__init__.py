"""PythiaDB: ONNX models, embeddings and vector search inside PostgreSQL, called from SQL.

    import pythiadb

    with pythiadb.connect("./shop") as db:
        pythiadb.load_model(db, "all-MiniLM-L6-v2", "minilm")
        db.execute("SELECT VECTOR_EMBEDDING(minilm USING 'hello' AS data)").fetchone()

The module follows DB-API 2.0 (PEP 249); connections and cursors are psycopg's, with AI SQL.
"""

from __future__ import annotations

from psycopg import BINARY, DATETIME, NUMBER, ROWID, STRING, Binary, Date, DateFromTicks, Time, TimeFromTicks, Timestamp, TimestampFromTicks

from pythiadb.errors import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Warning,  # noqa: A004  (PEP 249 asks for the name)
)
from pythiadb.models.loading import load_model
from pythiadb.postgres.session import Connection, Cursor, connect
from pythiadb.vectors.codec import SparseVector

apilevel = "2.0"
threadsafety = 2  # threads may share the module and connections
paramstyle = "pyformat"  # and :name, :1

__version__ = "0.1.0"

__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "SparseVector",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Warning",
    "apilevel",
    "connect",
    "load_model",
    "paramstyle",
    "threadsafety",
]
