"""PythiaDB: ONNX models, embeddings and vector search inside PostgreSQL, called from SQL.

    import pythiadb

    with pythiadb.connect("./shop") as db:
        pythiadb.load_model(db, "all-MiniLM-L6-v2", "minilm")
        db.execute("SELECT VECTOR_EMBEDDING(minilm USING 'hello' AS data)").fetchone()

The module follows DB-API 2.0 (PEP 249); connections and cursors are psycopg's, with AI SQL.

Names are imported when they are first used (PEP 562): the engine's processes, which start often, need few of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psycopg import BINARY as BINARY
    from psycopg import DATETIME as DATETIME
    from psycopg import NUMBER as NUMBER
    from psycopg import ROWID as ROWID
    from psycopg import STRING as STRING
    from psycopg import Binary as Binary
    from psycopg import Date as Date
    from psycopg import DateFromTicks as DateFromTicks
    from psycopg import Time as Time
    from psycopg import TimeFromTicks as TimeFromTicks
    from psycopg import Timestamp as Timestamp
    from psycopg import TimestampFromTicks as TimestampFromTicks

    from pythiadb import recommend as recommend
    from pythiadb.errors import DatabaseError as DatabaseError
    from pythiadb.errors import DataError as DataError
    from pythiadb.errors import Error as Error
    from pythiadb.errors import IntegrityError as IntegrityError
    from pythiadb.errors import InterfaceError as InterfaceError
    from pythiadb.errors import InternalError as InternalError
    from pythiadb.errors import NotSupportedError as NotSupportedError
    from pythiadb.errors import OperationalError as OperationalError
    from pythiadb.errors import ProgrammingError as ProgrammingError
    from pythiadb.errors import Warning as Warning
    from pythiadb.models.loading import load_model as load_model
    from pythiadb.postgres.session import Connection as Connection
    from pythiadb.postgres.session import Cursor as Cursor
    from pythiadb.postgres.session import connect as connect
    from pythiadb.vectors.codec import SparseVector as SparseVector

__version__ = "0.1.0"

apilevel = "2.0"
threadsafety = 2  # threads may share the module and connections
paramstyle = "pyformat"  # and :name, :1

_HOMES = {
    "psycopg": (
        "BINARY", "DATETIME", "NUMBER", "ROWID", "STRING", "Binary", "Date", "DateFromTicks", "Time", "TimeFromTicks",
        "Timestamp", "TimestampFromTicks",
    ),
    "pythiadb.errors": (
        "DataError", "DatabaseError", "Error", "IntegrityError", "InterfaceError", "InternalError", "NotSupportedError",
        "OperationalError", "ProgrammingError", "Warning",
    ),
    "pythiadb.models.loading": ("load_model",),
    "pythiadb.postgres.session": ("Connection", "Cursor", "connect"),
    "pythiadb.vectors.codec": ("SparseVector",),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*_HOME, "apilevel", "paramstyle", "threadsafety"]  # noqa: PLE0604  (names from the table above)


def __getattr__(name: str) -> Any:
    if name == "recommend":
        return importlib.import_module("pythiadb.recommend")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOME, "recommend"]
