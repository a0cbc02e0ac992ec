"""Functions called by name, judged by the database's catalog: lists of words know PostgreSQL's own, not those that users define."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pythiadb.sql.references import has_volatile
from pythiadb.sql.rewrite import Catalog, Function
from pythiadb.sql.scan import Kind, words
from pythiadb.sql.scoring import find_scorings
from pythiadb.sql.source import Source, Span

# Functions that give other than one row for a row.
_ROW_SETS = words(
    "UNNEST GENERATE_SERIES GENERATE_SUBSCRIPTS JSON_ARRAY_ELEMENTS JSONB_ARRAY_ELEMENTS JSON_ARRAY_ELEMENTS_TEXT "
    "JSONB_ARRAY_ELEMENTS_TEXT JSON_EACH JSONB_EACH JSON_EACH_TEXT JSONB_EACH_TEXT JSON_OBJECT_KEYS JSONB_OBJECT_KEYS "
    "JSONB_PATH_QUERY JSONB_POPULATE_RECORDSET JSON_POPULATE_RECORDSET REGEXP_MATCHES REGEXP_SPLIT_TO_TABLE STRING_TO_TABLE"
)
# Words in front of a parenthesis that call no function, and AI SQL's own functions.
_NO_FUNCTIONS = words(
    "ALL AND ANY ARRAY AS BETWEEN BY CASE CAST COALESCE CUBE DISTINCT ELSE EXCEPT EXISTS EXTRACT FILTER FROM GREATEST GROUP "
    "GROUPING HAVING IN INTERSECT IS JOIN LATERAL LEAST LIKE ILIKE LIMIT MATERIALIZED NOT NULLIF OFFSET ON OR ORDER OVER "
    "PARTITION ROLLUP ROW SELECT SETS SOME THEN UNION USING VALUES WHEN WHERE WITH WITHIN VECTOR_DISTANCE TO_VECTOR VECTOR"
)
_NAMES = (Kind.WORD, Kind.QUOTED)


def changes_from_call_to_call(source: Source, span: Span, catalog: Catalog) -> bool:
    """Tell whether some tokens call a volatile function, of PostgreSQL or of a user."""
    found = _called(source, range(*span), catalog)
    return has_volatile(source, span) or any(function.is_volatile for function in found)


def makes_rows(source: Source, tokens: Iterable[int], catalog: Catalog) -> bool:
    """Tell whether one of some tokens calls a function that gives other than one row for a row."""
    tokens = list(tokens)
    own = (source.key(i) in _ROW_SETS and source.is_open(i + 1) for i in tokens)
    return any(own) or any(function.makes_rows for function in _called(source, tokens, catalog))


def _called(source: Source, tokens: Iterable[int], catalog: Catalog) -> Iterator[Function]:
    """The functions that some tokens call, as far as the catalog knows them; calls of models are none."""
    scored = {call.name for call in find_scorings(source)}
    for index in tokens:
        called = source.at(index).kind in _NAMES and source.is_open(index + 1)
        if not called or source.key(index) in _NO_FUNCTIONS or index in scored:
            continue
        name = _name(source, index)
        found = None if 'U&"' in name.upper() else catalog.function(name)  # no name that a catalog reads
        if found is not None:
            yield found


def _name(source: Source, last: int) -> str:
    """A function's name as written, with its schema."""
    first = last
    while source.key(first - 1) == "." and source.at(first - 2).kind in _NAMES:
        first -= 2
    return "".join(source.at(i).text for i in range(first, last + 1))
