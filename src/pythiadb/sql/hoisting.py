"""A vector that takes work to find is computed once: in a CTE, which the order and the search of the index both read."""

from __future__ import annotations

from pythiadb.sql.approx import Indexed
from pythiadb.sql.blocks import with_list
from pythiadb.sql.helpers import add_ctes
from pythiadb.sql.resolution import Owner
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scan import Kind, words
from pythiadb.sql.source import Source, Span
from pythiadb.sql.statements import query_of

_CHEAP = words("TO_VECTOR VECTOR CAST BIT SPARSEVEC HALFVEC")


def hoist_query(rewrite: Rewrite, indexed: Indexed) -> str:
    """Move the vector searched for into a CTE unless it is at hand; give the expression as it was."""
    source, query = rewrite.source, indexed.query
    text = rewrite.text(query)
    if _is_at_hand(source, query):
        return text
    places = _same(source, indexed)
    number = rewrite.next_cte()
    table, column = f"__pythia_{number}", f"__pythia_vector_{number}"
    for place in places:
        rewrite.replace(place, f"(SELECT {table}.{column} FROM {table})")
    vector = _unwrapped(source, query, text)
    add_ctes(rewrite, _home(indexed), [f"{table} AS MATERIALIZED (SELECT {vector} AS {column})"])
    return text


def _unwrapped(source: Source, query: Span, text: str) -> str:
    """Without the scalar subquery around a call that makes PostgreSQL compute it once, as the CTE does."""
    is_call = source.is_open(query.start + 1) and source.partner[query.start + 1] == query.end - 1
    return text.removeprefix("(SELECT ")[:-1] if is_call and text.startswith("(SELECT pythia.") else text


def _is_at_hand(source: Source, span: Span) -> bool:
    """Tell whether an expression is a literal, a parameter or a column, cast or converted to a vector."""
    if any(source.key(i) in ("SELECT", "USING") for i in range(*span)):
        return False
    return all(
        source.key(i - 1) in _CHEAP
        for i in range(*span)
        if source.is_open(i) and source.at(i - 1).kind in (Kind.WORD, Kind.QUOTED) and i > span.start
    )


def _same(source: Source, indexed: Indexed) -> list[Span]:
    """The places in the block's select list and order where the expression stands."""
    block, shape = indexed.block, source.shape(indexed.query)
    found: list[Span] = []
    for clause in (block.clause("SELECT"), block.clause("ORDER")):
        for start in range(clause.start, clause.end - len(shape) + 1):
            if source.shape(Span(start, start + len(shape))) == shape:
                found.append(Span(start, start + len(shape)))
    return found


def _home(indexed: Indexed) -> int:
    """The level whose WITH clause takes the CTE: the statement's own if the vector is the same for all of it.

    A CTE of that clause does not see those behind it.
    """
    source, block = indexed.block.source, indexed.block
    top = query_of(source, -1)
    fixed = all(name.owner is not Owner.OUTER for name in indexed.scope.names(indexed.query))
    reads_tables = any(source.key(i) == "SELECT" for i in range(*indexed.query))
    leads = top is not None and source.key(top.verb) in ("SELECT", "UPDATE", "DELETE", "MERGE")
    return -1 if fixed and leads and not reads_tables and not _is_in_cte(source, block.level) else block.level


def _is_in_cte(source: Source, level: int) -> bool:
    """Tell whether a level is, or lies in, the body of a CTE."""
    lists = (with_list(source, i) for i in range(len(source.tokens)) if source.key(i) == "WITH")
    bodies = {body for found in lists if found for _, body in found.bodies}
    while level >= 0:
        if level in bodies:
            return True
        level = source.parent[level]
    return False
