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


class UnsupportedPredicate(FeatureNotSupported):
    """A filter that the columns of a vector index cannot answer exactly as PostgreSQL would."""


class InvalidParameter(PythiaError, pg.InvalidParameterValue):
    """A value outside what an argument allows: a format, a metric, a metadata key."""

    sqlstate = "22023"


class WrongObjectType(PythiaError, pg.WrongObjectType):
    """An operator that the model's function does not serve, like CLUSTER_ID of a regression model."""

    sqlstate = "42809"


class InvalidModel(PythiaError, pg.DataException):
    """A model file that is refused: not ONNX, truncated, custom operators, paths that leave its folder."""

    sqlstate = "22X01"


class InvalidRatings(PythiaError, pg.DataException):
    """Ratings that nothing can be learned from: a missing column, no number, no id, none at all."""

    sqlstate = "22000"


class InvalidVector(PythiaError, pg.DataException):
    """A vector value that cannot be stored: NaN, infinity, no dimensions."""

    sqlstate = "22000"


class UndefinedModel(PythiaError, pg.UndefinedObject):
    """The named model does not exist, or the engine does not see it yet."""

    sqlstate = "42704"


class DroppedIndex(PythiaError, pg.UndefinedFunction):
    """A statement was translated, or prepared, for a vector index that was dropped since."""

    sqlstate = "42883"


class RunStopped(PythiaError, pg.QueryCanceled):
    """A model in the middle of a run was told to stop: its time was up, or nobody waits for it any more."""

    sqlstate = "57014"


class UndefinedFile(PythiaError, pg.UndefinedFile):
    """A file, of a model or of ratings, that is not where it was said to be."""

    sqlstate = "58P01"


class UnwritableFile(PythiaError, pg.IoError):
    """A file that the system does not let us write: a full disk, a missing right."""

    sqlstate = "58030"


class TransferFailed(PythiaError, pg.IoError):
    """A model file that could not be fetched: no connection, a refusal, a transfer that broke off."""

    sqlstate = "58030"


class EngineUnavailable(PythiaError, pg.OperationalError):
    """The engine cannot be reached, or it stopped during a call."""

    sqlstate = "58X01"


class LimitExceeded(PythiaError, pg.ProgramLimitExceeded):
    """A bound of the engine: length of an input, length of a queue, memory, time."""

    sqlstate = "54000"


class CorruptedIndex(PythiaError, pg.IndexCorrupted):
    """Files of a vector index that are truncated, changed, half-written or of another format; they are built anew."""

    sqlstate = "XX002"


class OutOfMemory(PythiaError, pg.OutOfMemory):
    """A run of a model needed more memory than its worker may have, or a vector index more than is left for all of them."""

    sqlstate = "53200"


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
    "CorruptedIndex",
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
    "InvalidRatings",
    "InvalidVector",
    "LimitExceeded",
    "NotSupportedError",
    "OperationalError",
    "OutOfMemory",
    "ProgrammingError",
    "PythiaError",
    "RunStopped",
    "SQLSyntaxError",
    "SchemaVersionError",
    "TransferFailed",
    "UndefinedFile",
    "UndefinedModel",
    "UnwritableFile",
    "Warning",
    "WrongObjectType",
]
