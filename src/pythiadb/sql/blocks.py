"""Query blocks: which SELECT a token belongs to, and where its clauses begin and end.

A *level* is what stands between two parentheses, or the whole statement, named by its opening token (-1). A *block* is one
SELECT of a level with its clauses; the branches of a UNION are blocks of one level.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from pythiadb.sql.scan import Kind
from pythiadb.sql.source import Source, Span

SET_OPERATORS = frozenset(("UNION", "INTERSECT", "EXCEPT"))
TAIL = ("ORDER", "LIMIT", "OFFSET", "FETCH", "FOR")  # in a set operation these belong to the whole of it
_WITH_NEXT = {
    "GROUP": ("BY",),
    "ORDER": ("BY",),
    "FOR": ("UPDATE", "SHARE", "NO", "KEY"),
    "ON": ("CONFLICT",),
    "WITH": ("DATA", "NO"),
}
_CLAUSES = frozenset(
    ("FROM", "INTO", "WHERE", "HAVING", "WINDOW", "LIMIT", "OFFSET", "FETCH", "RETURNING", *_WITH_NEXT)
)
_ENDS = SET_OPERATORS | {"RETURNING", "ON", "WITH"}
_NAMES = (Kind.WORD, Kind.QUOTED)


@dataclass(frozen=True, eq=False)
class Block:
    """One SELECT: the span from its key word to its end, and the spans of its clauses without their key words."""

    source: Source
    level: int
    span: Span
    clauses: dict[str, Span]
    in_set: bool  # a branch of UNION, INTERSECT or EXCEPT

    def clause(self, name: str) -> Span:
        """A clause's content; an empty span if the block has none."""
        return self.clauses.get(name, Span(self.span.end, self.span.end))

    @cached_property
    def is_distinct(self) -> bool:
        """Tell whether duplicates are removed."""
        return self.source.key(self.span.start + 1) == "DISTINCT"

    @cached_property
    def items(self) -> list[Span]:
        """The items of the select list."""
        source, span = self.source, self.clauses["SELECT"]
        start = span.start
        if source.key(start) in ("DISTINCT", "ALL"):
            start += 1
            if source.key(start) == "ON" and source.is_open(start + 1):
                start = source.partner[start + 1] + 1
        return source.split(Span(start, span.end), ",")

    @property
    def is_grouped(self) -> bool:
        """Tell whether rows are grouped by clauses."""
        return "GROUP" in self.clauses or "HAVING" in self.clauses

    @property
    def is_limited(self) -> bool:
        """Tell whether the block itself limits its rows."""
        return any(name in self.clauses for name in ("LIMIT", "OFFSET", "FETCH"))

    def part_of(self, index: int) -> str:
        """The name of the clause that holds a token."""
        return next((name for name, span in self.clauses.items() if span.holds(index)), "")


def block_at(source: Source, index: int) -> Block | None:
    """The innermost block that holds a token; None for a token of VALUES, or outside of every SELECT."""
    level = source.parent[index]
    while True:
        for block in reversed(list(blocks_of(source, level))):
            if block.span.holds(index):
                return block
        if level < 0 or any(
            source.key(i) == "VALUES" for i in source.flat(Span(source.inside(level).start, index))
        ):
            return None
        index, level = level, source.parent[level]


def blocks_of(source: Source, level: int) -> Iterator[Block]:
    """The blocks of a level in the order of the text."""
    inside = source.inside(level)
    flat = list(source.flat(inside))
    in_set = any(source.key(i) in SET_OPERATORS and not _is_name(source, i) for i in flat)
    for index in flat:
        if source.key(index) == "SELECT" and source.key(index - 1) != ".":
            yield _block(source, level, Span(index, inside.end), in_set)


def _block(source: Source, level: int, reach: Span, in_set: bool) -> Block:
    starts = [("SELECT", reach.start, reach.start + 1)]
    end = reach.end
    for index in source.flat(Span(reach.start + 1, reach.end)):
        key = source.key(index)
        if source.at(index).kind is not Kind.WORD or not _begins_clause(source, index):
            continue
        if key in _ENDS or (in_set and key in TAIL):
            end = index
            break
        starts.append((key, index, index + (2 if key in ("GROUP", "ORDER") else 1)))
    stops = [start for _, start, _ in starts[1:]] + [end]
    clauses = {name: Span(begin, stop) for (name, _, begin), stop in zip(starts, stops, strict=True)}
    return Block(source, level, Span(reach.start, end), clauses, in_set)


def _begins_clause(source: Source, index: int) -> bool:
    key = source.key(index)
    if (key not in _CLAUSES and key not in SET_OPERATORS) or _is_name(source, index):
        return False
    if key == "FROM" and source.key(index - 1) == "DISTINCT":
        return source.key(index - 2) not in ("IS", "NOT")
    if key == "WITH" and source.key(index + 1) == "NO":
        return source.key(index + 2) == "DATA"
    if key == "WINDOW":
        return source.key(index + 2) == "AS"
    if key == "ON" and source.key(index + 1) == "CONFLICT":
        return source.key(index + 2) in ("DO", "ON", "(")
    return key not in _WITH_NEXT or source.key(index + 1) in _WITH_NEXT[key]


def _is_name(source: Source, index: int) -> bool:
    """A key word used as a name: `t.limit`, `AS "from"` without the quotes."""
    return source.key(index - 1) in (".", "AS")


def conjuncts(source: Source, span: Span) -> list[Span]:
    """Cut a condition at its top-level ANDs; one with a top-level OR stays whole."""
    cuts: list[int] = []
    cases = betweens = 0
    for index in source.flat(span):
        key = source.key(index)
        cases += (key == "CASE") - (key == "END")
        if cases:
            continue
        if key == "OR":
            return [span]
        if key == "BETWEEN":
            betweens += 1
        elif key == "AND" and betweens:
            betweens -= 1
        elif key == "AND":
            cuts.append(index)
    starts = [span.start, *(cut + 1 for cut in cuts)]
    return [Span(start, end) for start, end in zip(starts, [*cuts, span.end], strict=True) if start < end]


@dataclass(frozen=True, slots=True)
class WithList:
    """A WITH clause: its key word, its CTEs as (name, body's bracket), and the first token behind it."""

    start: int
    recursive: bool
    bodies: tuple[tuple[int, int], ...]
    end: int


def with_list(source: Source, start: int) -> WithList | None:
    """Read the WITH clause that begins at a token; None if none does."""
    if source.key(start) != "WITH":
        return None
    recursive = source.key(start + 1) == "RECURSIVE"
    bodies: list[tuple[int, int]] = []
    index = start + 1 + recursive
    while source.at(index).kind in _NAMES:
        name = index
        index = source.partner[index + 1] + 1 if source.is_open(index + 1) else index + 1
        while source.key(index) in ("AS", "NOT", "MATERIALIZED"):
            index += 1
        if not source.is_open(index):
            return None
        bodies.append((name, index))
        index = _skip_search(source, source.partner[index] + 1)
        if source.key(index) != ",":
            return WithList(start, recursive, tuple(bodies), index)
        index += 1
    return None


def _skip_search(source: Source, index: int) -> int:
    """Behind the SEARCH and CYCLE clauses of a recursive CTE."""
    while source.key(index) in ("SEARCH", "CYCLE"):
        index += 1
        while source.key(index) not in (
            ",",
            "SEARCH",
            "CYCLE",
            "SELECT",
            "INSERT",
            "UPDATE",
            "DELETE",
            "MERGE",
            "(",
            "",
        ):
            index += 1
            if source.key(index) == "," and source.key(index + 2) not in ("AS", "(", "MATERIALIZED"):
                index += 1
    return index
