"""The errors that Pythia raises itself, one tree keyed by SQLSTATE.

Every class derives from the psycopg class of the same SQLSTATE where there is one, so `except psycopg.errors.UndefinedTable`
and `except pythiadb.OperationalError` both work, whether PostgreSQL, the engine or the client noticed the fault. Texts
follow PostgreSQL's rules: the primary message is one lower-case line without a full stop, detail and hint are sentences.
"""

from __future__ import annotations

# DB-API 2.0 names, re-exported by the package.
from psycopg import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Warning,
)
from psycopg import errors as pg


class PythiaError(Error):
    """Base of Pythia's own errors: a primary message, an optional detail and an optional hint.

    `sqlstate` is the five-character code that a client in another language would see.
    """

    sqlstate: str = "XX000"

    def __init__(self, message: str, *, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message]
        if self.detail:
            lines.append(f"DETAIL:  {self.detail}")
        if self.hint:
            lines.append(f"HINT:  {self.hint}")
        return "\n".join(lines)


class SQLSyntaxError(PythiaError, pg.SyntaxError):
    """AI SQL that the translator cannot read; the message names the position."""

    sqlstate = "42601"


class FeatureNotSupported(PythiaError, pg.FeatureNotSupported):
    """A construct that Pythia knows and does not serve."""

    sqlstate = "0A000"


class InvalidParameter(PythiaError, pg.InvalidParameterValue):
    """A value outside what an argument allows: a format, a metric, a metadata key."""

    sqlstate = "22023"


class InvalidModel(PythiaError, pg.DataException):
    """A model file that is refused: not ONNX, truncated, custom operators, paths that leave its folder."""

    sqlstate = "22X01"


class InvalidVector(PythiaError, pg.DataException):
    """A vector value that cannot be stored: NaN, infinity, no dimensions."""

    sqlstate = "22000"


class UndefinedModel(PythiaError, pg.UndefinedObject):
    """The named model does not exist, or the engine does not see it yet."""

    sqlstate = "42704"


class EngineUnavailable(PythiaError, pg.OperationalError):
    """The engine cannot be reached, or it stopped during a call."""

    sqlstate = "58X01"


class LimitExceeded(PythiaError, pg.ProgramLimitExceeded):
    """A bound of the engine: length of an input, length of a queue, memory, time."""

    sqlstate = "54000"


class EngineFault(PythiaError, pg.OperationalError):
    """The engine failed in a way that it did not foresee; its log tells more."""

    sqlstate = "58X02"


class ClusterError(PythiaError, pg.OperationalError):
    """The embedded server cannot be used: permissions, another major version, a failed start."""

    sqlstate = "58000"


class SchemaVersionError(PythiaError, pg.OperationalError):
    """The installed schema and this package do not fit together."""

    sqlstate = "55000"


__all__ = [
    "ClusterError",
    "DataError",
    "DatabaseError",
    "EngineFault",
    "EngineUnavailable",
    "Error",
    "FeatureNotSupported",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "InvalidModel",
    "InvalidParameter",
    "InvalidVector",
    "LimitExceeded",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "PythiaError",
    "SQLSyntaxError",
    "SchemaVersionError",
    "UndefinedModel",
    "Warning",
]
