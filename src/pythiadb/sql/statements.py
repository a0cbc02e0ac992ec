"""Statements around query blocks: what kind of statement it is, where a WITH clause may stand, what surrounds a subquery."""

from __future__ import annotations

from dataclasses import dataclass

from pythiadb.sql.blocks import WithList, block_at, blocks_of, with_list
from pythiadb.sql.references import folded, mentions
from pythiadb.sql.source import Source, Span

PLAN_FOR = ("EXPLAIN", "PLAN", "FOR")
QUERY_STARTS = ("SELECT", "WITH", "(", "VALUES", "TABLE")
_DATA_VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "VALUES", "TABLE", "(")
_SET_WORDS = ("UNION", "INTERSECT", "EXCEPT")


@dataclass(frozen=True, slots=True)
class Query:
    """The query or data change of a level: its verb's token and the WITH clause in front of the verb."""

    level: int
    verb: int
    with_list: WithList | None


def query_of(source: Source, level: int) -> Query | None:
    """Find the query that a level consists of; None if it is an expression, or a statement that stores expressions."""
    start = _skip_prefix(source) if level < 0 else level + 1
    if start is None:
        return None
    found = with_list(source, start)
    verb = found.end if found else start
    return Query(level, verb, found) if source.key(verb) in _DATA_VERBS else None


def select_of(source: Source, query: Query) -> Query:
    """The query behind INSERT, where a WITH clause may stand in front of SELECT; any other query is its own."""
    if source.key(query.verb) != "INSERT":
        return query
    for index in source.flat(Span(query.verb + 1, source.inside(query.level).end)):
        key = source.key(index)
        opens_query = key == "(" and source.key(index + 1) in ("SELECT", "WITH", "(")
        if key == "SELECT" or opens_query:
            return Query(query.level, index, None)
        if key == "WITH":
            found = with_list(source, index)
            return Query(query.level, found.end, found) if found else query
    return query


def why_not_once(source: Source, level: int) -> str | None:
    """Say why a subquery may run more than once, or be stored, so that no array can be formed; None if it runs once."""
    while level >= 0:
        reason = _recursion(source, level) or _standing(source, level)
        if reason:
            return reason
        level = source.parent[level]
    if query_of(source, -1) is None and source.key(0) != "COPY":
        return "the statement stores the expression"
    return None


def _skip_prefix(source: Source) -> int | None:
    """The token where the query of a statement begins, behind EXPLAIN, PREPARE, DECLARE and CREATE TABLE AS."""
    index = explained(source)
    key = source.key(index)
    if key == "PREPARE":
        return _behind(source, index, "AS")
    if key == "DECLARE":
        return _behind(source, index, "FOR")
    if key == "CREATE":
        start = _behind(source, index, "AS")
        words = source.shape(Span(index, start or index))
        creates = "TABLE" in words[:5] or ("MATERIALIZED" in words[:4] and "VIEW" in words[:5])
        return start if creates else None
    return index


def explained(source: Source) -> int:
    """The token where the statement begins that EXPLAIN is about; 0 for any other statement."""
    return _skip_explain(source, 1) if source.key(0) == "EXPLAIN" else 0


def _skip_explain(source: Source, index: int) -> int:
    if source.shape(Span(index - 1, min(index + 2, len(source.tokens)))) == PLAN_FOR:
        return index + 2
    if source.is_open(index) and source.key(index + 1) not in QUERY_STARTS:
        return source.partner[index] + 1
    while source.key(index) in ("ANALYZE", "ANALYSE", "VERBOSE"):
        index += 1
    return index


def _behind(source: Source, start: int, word: str) -> int | None:
    for index in source.flat(Span(start, len(source.tokens))):
        if source.key(index) == word and source.key(index + 1) in (
            *QUERY_STARTS,
            "INSERT",
            "UPDATE",
            "DELETE",
            "MERGE",
        ):
            return index + 1
    return None


def _recursion(source: Source, level: int) -> str | None:
    """A CTE that reads itself may not be read by a helper CTE of its own."""
    for index in source.flat(source.inside(source.parent[level])):
        found = with_list(source, index) if source.key(index) == "WITH" else None
        for name, body in found.bodies if found and found.recursive else ():
            if body == level and mentions(source, source.inside(level), folded(source, name)):
                return "in a recursive query"
    return None


def _standing(source: Source, level: int) -> str | None:
    """Judge one pair of parentheses by what stands in front of it; None if its content runs once a statement."""
    before, parent = source.key(level - 1), source.parent[level]
    if before == "LATERAL":
        return "in a LATERAL subquery"
    if before in ("AS", "MATERIALIZED", "JOIN", "USING", "COPY") or level - 1 == parent:
        return None
    if before in _SET_WORDS or (before in ("ALL", "DISTINCT") and source.key(level - 2) in _SET_WORDS):
        return None
    if _in_from(source, level) or _is_main(source, level):
        return None
    return "in a subquery of an expression"


def _in_from(source: Source, level: int) -> bool:
    """Tell whether parentheses are an item of a FROM clause."""
    before = source.key(level - 1)
    if before not in ("FROM", ","):
        return False
    block = block_at(source, level)
    if block is not None and block.level == source.parent[level]:
        return block.part_of(level) == "FROM"
    query = query_of(source, source.parent[level])
    return before == "FROM" and query is not None and source.key(query.verb) == "UPDATE"


def _is_main(source: Source, level: int) -> bool:
    """Tell whether parentheses hold the statement's query itself: `(SELECT ...)`, `INSERT INTO t (SELECT ...)`."""
    parent = source.parent[level]
    query = query_of(source, parent)
    if query is None or any(block.span.start < level for block in blocks_of(source, parent)):
        return False
    return level in (query.verb, select_of(source, query).verb)
