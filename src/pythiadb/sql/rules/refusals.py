"""Constructs that are known and not served yet: a clear answer instead of PostgreSQL's syntax error."""

from __future__ import annotations

from pythiadb.errors import FeatureNotSupported
from pythiadb.sql.calls import find_calls
from pythiadb.sql.fetch_clause import find_fetches
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scan import words
from pythiadb.sql.source import Source, Span
from pythiadb.sql.statements import PLAN_FOR

_SCORING = words(
    "PREDICTION_COST PREDICTION_DETAILS PREDICTION_BOUNDS CLUSTER_DETAILS FEATURE_ID FEATURE_SET FEATURE_VALUE "
    "FEATURE_DETAILS FEATURE_COMPARE"
)
_CHUNKING = words("BY MAX OVERLAP SPLIT LANGUAGE NORMALIZE EXTENDED")
_PLAIN = "Write CREATE VECTOR INDEX: a vector index is neither unique nor a bitmap."
_PARTITIONS = (
    "Number the rows of each group with row_number() OVER (PARTITION BY ... ORDER BY ...), and limit that."
)
_STATEMENTS = (
    (
        ("CREATE", "HYBRID", "VECTOR", "INDEX"),
        "CREATE HYBRID VECTOR INDEX",
        "Create a vector index on the vectors, and an index of PostgreSQL's for the words of the text.",
    ),
    (("CREATE", "UNIQUE", "VECTOR", "INDEX"), "CREATE UNIQUE VECTOR INDEX", _PLAIN),
    (("CREATE", "BITMAP", "VECTOR", "INDEX"), "CREATE BITMAP VECTOR INDEX", _PLAIN),
    (PLAN_FOR, "EXPLAIN PLAN FOR", "Use EXPLAIN."),
)


def refuse_unserved(rewrite: Rewrite) -> None:
    """Raise FeatureNotSupported that names the construct and its place; plain functions of the same names pass.

    Before: SELECT prediction(a, b), cluster_id FROM t
    After: SELECT prediction(a, b), cluster_id FROM t
    """
    source = rewrite.source
    for prefix, name, hint in _STATEMENTS:
        begins = source.shape(Span(0, min(len(prefix), len(source.tokens)))) == prefix
        if begins and not (prefix == PLAN_FOR and any(fetch.mode for fetch in find_fetches(source))):
            _refuse(source, 0, name, hint)
    for call in find_calls(source, _SCORING):
        if any(source.key(i) == "USING" for i in source.flat(Span(call.open + 1, call.close))):
            _refuse(source, call.name, f"{source.key(call.name)} with USING")
    for call in find_calls(source, ("VECTOR_CHUNKS",)):
        inside = Span(call.open + 2, call.close)
        if any(
            source.key(i) in _CHUNKING for i in source.flat(inside) if source.key(i - 1) not in (",", ".")
        ):
            _refuse(source, call.name, "VECTOR_CHUNKS")
    _refuse_counts(source)
    _refuse_inmemory(source)


def _refuse_counts(source: Source) -> None:
    """Rows counted in percent, or by the values of columns."""
    for fetch in find_fetches(source):
        for index in source.flat(fetch.count):
            if source.key(index) == "PERCENT":
                _refuse(source, index, "FETCH with PERCENT", "Give the number of rows.")
            if source.key(index) in ("PARTITION", "PARTITIONS"):
                _refuse(source, index, "FETCH with PARTITIONS BY", _PARTITIONS)


def _refuse_inmemory(source: Source) -> None:
    """INMEMORY as a property of a table: after its name in ALTER TABLE, after its columns in CREATE TABLE."""
    if source.key(0) not in ("ALTER", "CREATE") or source.key(1) != "TABLE":
        return
    for index in source.flat(source.inside(-1)):
        previous = source.key(index - 1)
        if source.key(index) != "INMEMORY" or previous in (".", "TABLE", "EXISTS", "TO", "COLUMN", "RENAME"):
            continue
        if previous == ")" or (
            source.key(0) == "ALTER" and index <= 5 and "COLUMN" not in source.shape(Span(0, index))
        ):
            _refuse(source, index, "INMEMORY")


def _refuse(source: Source, index: int, name: str, hint: str | None = None) -> None:
    raise FeatureNotSupported(f"{name} is not supported yet", detail=source.where(index), hint=hint)
