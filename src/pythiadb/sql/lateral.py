"""Searches for the vectors of many outer rows in a few calls of the engine: a CTE gathers them and asks, each row looks its own up.

    Before: … FROM queries q, LATERAL (SELECT … FROM t WHERE t.id = ANY ((SELECT <search by q.v>)::bigint[]) …) n
    After: WITH __pythia_1 AS (<search by all q.v of queries q>)
           … WHERE t.id = ANY ((SELECT coalesce(<keys found in __pythia_1 for q.v>, <search by q.v>))::bigint[]) …

The single search stays behind it: a row whose vector was not gathered, or for which too little was found, is searched for by
itself. So the CTE is an optimisation and nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from pythiadb.sql.approx import Indexed
from pythiadb.sql.helpers import add_ctes
from pythiadb.sql.outer_rows import OuterRows
from pythiadb.sql.references import folded
from pythiadb.sql.rewrite import Rewrite, Search
from pythiadb.sql.scan import Kind
from pythiadb.sql.scoring import literal
from pythiadb.sql.source import Source, Span
from pythiadb.sql.tables import outer_ctes

QUERIES = 512  # that travel in one call
MOST_QUERIES = 100_000  # that are kept in memory; rows with others search by themselves
_NAMES = (Kind.WORD, Kind.QUOTED)


@dataclass(frozen=True, slots=True)
class Together:
    """A search for many rows.

    `search` says what one of them asks; `vector` is its vector as it was written, in the column's type. `depends`: the filter
    names the outer row, or variables. `checked`: the filter decides among what the index names.
    """

    indexed: Indexed
    rows: OuterRows
    search: Search
    vector: str
    depends: bool
    checked: bool

    @property
    def is_fixed(self) -> bool:
        """Tell whether the filter is a text without parameters."""
        return self.search.source.startswith("'")


def search_together(rewrite: Rewrite, together: Together, single: str) -> str:
    """Add the CTE; give the expression for the keys of one row, `single` being that which searches for them."""
    search, table = together.search, f"__pythia_{rewrite.next_cte()}"
    found = f"(SELECT {table}.gathered FROM {table}), pythia.query_key({search.query})"
    keys = f"pythia.gathered_keys({found})"
    expression = f"coalesce({keys}, {single})"
    if together.checked:
        enough = f"{_survivors(rewrite, together.indexed, found)} >= {search.rows}"
        expression = f"CASE WHEN {enough} THEN {keys} ELSE {single} END"
    add_ctes(
        rewrite, together.rows.block.level, [f"{table} AS MATERIALIZED ({_gathered(rewrite, together)})"]
    )
    return expression


def of_table(indexed: Indexed) -> str:
    """The argument that says which table the statement means: it may have got its name after the translation was made."""
    return f"of_table => {literal(indexed.piece.table)}::regclass"


def together_options(rewrite: Rewrite, together: Together) -> str:
    """The options of a search as EXPLAIN is told them: with the number of queries, NULL where counting them needs a CTE."""
    source, rows = rewrite.source, together.rows
    ctes = outer_ctes(source, Span(0, 0))
    reads_cte = any(_mentions(source, span, ctes) for span in (*rows.spans, together.indexed.query))
    count = f"(SELECT count(*) FROM ({_queries(rewrite, together)}) q WHERE q.query IS NOT NULL)"
    return _with(
        together.search.options,
        f"jsonb_build_object('queries', {'NULL' if reads_cte else count}, 'together', {QUERIES})",
    )


def alone_options(rewrite: Rewrite, options: str, reason: str) -> str:
    """The options of a search that each outer row makes by itself, as EXPLAIN is told them."""
    return _with(options, rewrite.percent(literal(json.dumps({"alone": reason}))) + "::jsonb")


def _with(options: str, added: str) -> str:
    return added if options == "NULL" else f"{options} || {added}"


def _mentions(source: Source, span: Span, names: set[str]) -> bool:
    return any(source.at(i).kind in _NAMES and folded(source, i) in names for i in range(*span))


def _gathered(rewrite: Rewrite, together: Together) -> str:
    """The query for what is found for all vectors of the outer rows, as one jsonb object."""
    search, first, filtered = together.search, "", ""
    if together.is_fixed:
        filtered = f", {search.source}, {search.predicate}"
    elif search.source != "NULL":
        first, filtered = f"({_filter(rewrite, together)}) f CROSS JOIN ", ", f.source, f.predicate"
    given = f"{search.rows}, {search.options}{filtered}, {of_table(together.indexed)}"
    call = f"vecsys.nearest_many_{search.index}(b.queries, {given})"
    numbered = (
        f"SELECT q.query, row_number() OVER () AS n FROM ({_queries(rewrite, together)}) q "
        f"WHERE q.query IS NOT NULL LIMIT {MOST_QUERIES}"
    )
    slices = f"SELECT array_agg(d.query) AS queries FROM ({numbered}) d GROUP BY (d.n - 1) / {QUERIES}"
    tables = f"{first}({slices}) b CROSS JOIN LATERAL {call} AS e"
    return f"SELECT jsonb_object_agg(e.key, e.value) AS gathered FROM {tables}"


def _filter(rewrite: Rewrite, together: Together) -> str:
    """The query for the filter's text and predicate, where they hold parameters or values of the outer row.

    PostgreSQL takes a parameter's type from where it reads it first. That must be the filter itself, which is joined for
    nothing else. The text of some row stands for those of all: only the estimate is asked for, and that is the same.
    """
    search, block, where = together.search, together.indexed.block, ""
    tables, last = rewrite.text(together.rows.tables), _where(rewrite, together.rows) + " LIMIT 1"
    if not together.depends:
        tables, last = "(SELECT) o", ""
    if "WHERE" in block.clauses:
        where = f" WHERE {rewrite.text(block.clause('WHERE'))}"
    typed = f"LEFT JOIN LATERAL (SELECT FROM {rewrite.text(block.clause('FROM'))}{where}) t ON false"
    columns = f"{search.source} AS source, ({search.predicate})::jsonb AS predicate"
    return f"SELECT {columns} FROM {tables} {typed}{last}"


def _queries(rewrite: Rewrite, together: Together) -> str:
    return f"SELECT DISTINCT {together.vector} AS query FROM {_rows(rewrite, together.rows)}"


def _rows(rewrite: Rewrite, rows: OuterRows) -> str:
    """FROM and WHERE of the outer rows, without the first word."""
    return rewrite.text(rows.tables) + _where(rewrite, rows)


def _where(rewrite: Rewrite, rows: OuterRows) -> str:
    conditions = [rewrite.text(part) for part in rows.conditions]
    if len(conditions) > 1:
        conditions = [f"({condition})" for condition in conditions]
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _survivors(rewrite: Rewrite, indexed: Indexed, found: str) -> str:
    """The expression that counts those of the keys found whose rows fulfil the search's own conditions."""
    block, index = indexed.block, indexed.index
    key = f"{indexed.piece.shown}.{index.key}"
    where = block.clause("WHERE")
    conditions = f"({rewrite.text(where)}) AND " if where.start < where.end else ""
    candidates = f"(SELECT pythia.gathered_candidates({found}))::{index.key_type}[]"
    return (
        f"(SELECT count(DISTINCT {key}) FROM {rewrite.text(block.clause('FROM'))} "
        f"WHERE {conditions}{key} = ANY ({candidates}))"
    )
