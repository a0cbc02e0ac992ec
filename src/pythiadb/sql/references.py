"""What an expression refers to: columns, subqueries, aggregates, functions that change from call to call.

Without a catalog a name cannot be looked up, so the answers lean to the safe side: what is not known to be something else
is a column.
"""

from __future__ import annotations

from collections.abc import Iterator

from pythiadb.sql.scan import Kind, words
from pythiadb.sql.source import Source, Span

AGGREGATES = words(
    "ANY_VALUE ARRAY_AGG AVG BIT_AND BIT_OR BIT_XOR BOOL_AND BOOL_OR COUNT CORR COVAR_POP COVAR_SAMP CUME_DIST DENSE_RANK "
    "EVERY GROUPING JSON_AGG JSON_ARRAYAGG JSON_OBJECTAGG JSON_OBJECT_AGG JSONB_AGG JSONB_OBJECT_AGG LISTAGG MAX MIN MODE "
    "PERCENT_RANK PERCENTILE_CONT PERCENTILE_DISC RANGE_AGG RANGE_INTERSECT_AGG RANK REGR_AVGX REGR_AVGY REGR_COUNT "
    "REGR_INTERCEPT REGR_R2 REGR_SLOPE REGR_SXX REGR_SXY REGR_SYY STDDEV STDDEV_POP STDDEV_SAMP STRING_AGG SUM VAR_POP "
    "VAR_SAMP VARIANCE XMLAGG"
)
_VOLATILE = words(
    "RANDOM RANDOM_NORMAL SETSEED CLOCK_TIMESTAMP TIMEOFDAY NEXTVAL SETVAL CURRVAL LASTVAL GEN_RANDOM_UUID "
    "GEN_RANDOM_BYTES UUIDV4 UUIDV7 UUID_GENERATE_V1 UUID_GENERATE_V1MC UUID_GENERATE_V4 PG_SLEEP PG_SLEEP_FOR "
    "PG_SLEEP_UNTIL TABLESAMPLE PG_ADVISORY_LOCK PG_ADVISORY_XACT_LOCK PG_TRY_ADVISORY_LOCK "
    "PG_TRY_ADVISORY_XACT_LOCK DBLINK DBLINK_EXEC"
)
# Words of expressions that are no columns. Key words with which a type begins are found by what follows them.
_KEYWORDS = words(
    "ALL AND ANY ARRAY AS ASC AT BETWEEN BOTH BY CASE CAST COLLATE CURRENT_CATALOG CURRENT_DATE CURRENT_ROLE CURRENT_SCHEMA "
    "CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER DESC DISTINCT ELSE END ESCAPE FALSE FOR FROM ILIKE IN IS ISNULL LEADING "
    "LIKE LOCALTIME LOCALTIMESTAMP NOT NOTNULL NULL ON OR ORDER PLACING ROW SESSION_USER SIMILAR SOME SYMMETRIC THEN TIME TO "
    "TRAILING TRUE UNKNOWN USER USING VARIADIC WHEN ZONE"
)
_TYPE_WORDS = words("PRECISION VARYING WITH WITHOUT TIME ZONE")


def is_column_free(source: Source, span: Span) -> bool:
    """Tell whether an expression is surely the same for every row of a query, volatile functions aside."""
    return not has_subquery(source, span) and not any(True for _ in column_names(source, span))


def column_names(source: Source, span: Span) -> Iterator[tuple[int, bool]]:
    """Give the first token of every name that may be a column, and whether the name is qualified."""
    index = span.start
    while index < span.end:
        token = source.at(index)
        if token.key in ("::", "AS", "COLLATE"):
            index = _after_type(source, index + 1, span.end)
        elif token.kind in (Kind.WORD, Kind.QUOTED):
            end = _end_of_name(source, index, span.end)
            if _is_column(source, index, end):
                yield index, end - index > 1
            index = end
        else:
            index += 1


def is_name(source: Source, span: Span) -> bool:
    """Tell whether some tokens are a plain name: `a`, `a.b` or `a.b.c`."""
    places = range(span.start, span.end)
    fits = (
        source.key(i) == "." if (i - span.start) % 2 else source.at(i).kind in (Kind.WORD, Kind.QUOTED)
        for i in places
    )
    return len(places) % 2 == 1 and all(fits)


def has_subquery(source: Source, span: Span) -> bool:
    """Tell whether an expression holds a subquery."""
    return any(source.key(index) in ("SELECT", "VALUES", "TABLE") for index in range(span.start, span.end))


def has_aggregate(source: Source, span: Span) -> bool:
    """Tell whether an expression calls a known aggregate or a window function."""
    keys = range(span.start, span.end)
    return any(
        source.key(i) in ("OVER", "WITHIN") or (source.key(i) in AGGREGATES and source.is_open(i + 1))
        for i in keys
    )


def has_volatile(source: Source, span: Span) -> bool:
    """Tell whether some tokens name a function, or a sample, that gives another answer each time."""
    return any(source.key(index) in _VOLATILE for index in range(span.start, span.end))


def folded(source: Source, index: int) -> str:
    """An identifier as PostgreSQL folds it, so that a quoted and a plain spelling compare equal."""
    token = source.at(index)
    return token.text[1:-1].replace('""', '"') if token.kind is Kind.QUOTED else token.text.lower()


def mentions(source: Source, span: Span, name: str) -> bool:
    """Tell whether a folded identifier occurs in a span."""
    return any(
        source.at(index).kind in (Kind.WORD, Kind.QUOTED) and folded(source, index) == name
        for index in range(span.start, span.end)
    )


def _end_of_name(source: Source, index: int, end: int) -> int:
    """Behind `a`, `a.b` or `a.b.*`."""
    while source.key(index + 1) == "." and index + 2 < end:
        index += 2
    return index + 1


def _is_column(source: Source, start: int, end: int) -> bool:
    follows = source.at(end)
    if source.is_open(end) or follows.text == "=>" or (follows.kind is Kind.STRING and end == start + 1):
        return False
    if source.key(start) == "INTERVAL" and follows.kind is Kind.STRING:
        return False
    return end - start > 1 or source.at(start).kind is Kind.QUOTED or source.key(start) not in _KEYWORDS


def _after_type(source: Source, index: int, end: int) -> int:
    """Behind the name of a type or collation: `a.b`, `double precision`, `numeric(3,1)[]`, `timestamp(0) with time zone`."""
    if index >= end or source.at(index).kind not in (Kind.WORD, Kind.QUOTED):
        return index
    index = _end_of_name(source, index, end)
    while index < end:
        if source.key(index) in _TYPE_WORDS:
            index += 1
        elif source.at(index).text in ("(", "[") and index in source.partner:
            index = source.partner[index] + 1
        else:
            break
    return index
