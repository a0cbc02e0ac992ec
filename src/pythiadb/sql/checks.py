"""Whether the inputs of a call can be gathered before the query runs, and if not, why: each check gives the reason.

A call may be batched when every row that needs it can be found beforehand by the block's own FROM and WHERE, and when
gathering neither computes far more than the query would nor raises an error that the query would not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pythiadb.sql.blocks import Block
from pythiadb.sql.calls import METERED
from pythiadb.sql.from_items import star_text
from pythiadb.sql.narrowing import narrows
from pythiadb.sql.operators import OPERATORS
from pythiadb.sql.references import AGGREGATES, has_aggregate, has_subquery, has_volatile
from pythiadb.sql.scan import Kind, words
from pythiadb.sql.scoring import Scoring
from pythiadb.sql.source import Source, Span
from pythiadb.sql.statements import why_not_once


@dataclass(frozen=True, eq=False)
class Candidate:
    """The calls of a block that have the same model and input; `others` are the statement's other calls over columns."""

    block: Block
    calls: tuple[Scoring, ...]
    others: tuple[Scoring, ...]

    @property
    def source(self) -> Source:
        """The statement."""
        return self.block.source

    @property
    def input(self) -> Span:
        """The tokens of the input, as first written."""
        return self.calls[0].input


def why_row_by_row(candidate: Candidate) -> str | None:
    """The first reason against batching; None if there is none."""
    return next((reason for check in _CHECKS if (reason := check(candidate))), None)


def uses_limit(candidate: Candidate) -> bool:
    """Tell whether only the rows within the block's LIMIT need the call: it stands in the select list and nowhere else."""
    block = candidate.block
    if not {"LIMIT", "FETCH"} & block.clauses.keys() or block.is_distinct or block.is_grouped:
        return False
    return not any(_needs_all_rows(block, call) for call in candidate.calls)


def row_limit(block: Block) -> tuple[int, int] | None:
    """The tokens of the LIMIT and the OFFSET if each is one number or parameter; rows passed over are computed as well."""
    source, found = block.source, []
    for name in ("FETCH" if "FETCH" in block.clauses else "LIMIT", "OFFSET"):
        words = [i for i in range(*block.clause(name)) if source.key(i) not in _ROW_WORDS]
        if len(words) != 1 or source.at(words[0]).kind not in (Kind.NUMBER, *METERED):
            return None
        found.append(words[0])
    return found[0], found[1]


def named_by_order(block: Block, calls: tuple[Scoring, ...]) -> bool:
    """Tell whether ORDER BY names, by alias or number, a select item that holds one of the calls."""
    return any(
        item is not None and any(item.holds(call.name) for call in calls) for item in _ordered_items(block)
    )


def _needs_all_rows(block: Block, call: Scoring) -> bool:
    if block.part_of(call.name) != "SELECT" or named_by_order(block, (call,)):
        return True
    return any(
        _is_aggregate(block.source, bracket) or _is_window(block.source, bracket)
        for bracket in around(block.source, block.level, call)
    )


def _place(candidate: Candidate) -> str | None:
    return why_not_once(candidate.source, candidate.block.level)


def _clause(candidate: Candidate) -> str | None:
    block = candidate.block
    if "FROM" not in block.clauses:
        return "no FROM clause"
    if "FOR" in block.clauses:
        return "rows are locked"
    parts = {block.part_of(call.name) for call in candidate.calls}
    if "FROM" in parts:
        return "in a join condition"
    return "in a row limit" if parts & {"LIMIT", "OFFSET", "FETCH", "INTO"} else None


def _star(candidate: Candidate) -> str | None:
    block = candidate.block
    stars = any(candidate.source.shape(item) == ("*",) for item in block.items)
    return "a bare * with several tables" if stars and star_text(block) is None else None


def input_reason(
    source: Source, calls: Iterable[Scoring], others: Iterable[Scoring], *, may_query: bool = False
) -> str | None:
    """The first reason in the arguments and the input itself of calls that share them.

    `may_query`: subqueries may be in the input, but for searches of vector indexes.
    """
    calls = tuple(calls)
    written = Span(calls[0].head.start, calls[0].input.end)
    if not calls[0].has_fixed_arguments(source):
        return "an argument depends on the row"
    if has_subquery(source, written) and not (may_query and _is_plain(source, written)):
        return "the input holds a subquery"
    if has_aggregate(source, written):
        return "the input holds an aggregate"
    if has_volatile(source, written):
        return "a volatile function"
    nested = any(_within(call.span, outer.span) for call in calls for outer in others)
    inner = any(source.key(i) in OPERATORS and source.is_open(i + 1) for i in range(*written))
    return "calls are nested" if nested or inner else None


def _is_plain(source: Source, span: Span) -> bool:
    """Tell whether no subquery ends in FETCH, with which an index is searched."""
    return all(source.key(index) != "FETCH" for index in range(*span))


def guard_reason(source: Source, level: int, start: int, call: Scoring) -> str | None:
    """Gathering would compute what CASE, COALESCE or FILTER may skip, between the token `start` and the call."""
    inner = call.name
    for bracket in (*around(source, level, call), level):
        flat = source.flat(Span(max(start, source.inside(bracket).start), inner))
        if (
            sum(
                (source.key(i) == "CASE") - (source.key(i) == "END") for i in flat if source.key(i - 1) != "."
            )
            > 0
        ):
            return "in CASE"
        if bracket != level and source.key(bracket - 1) == "COALESCE":
            return "in COALESCE"
        if bracket != level and source.key(source.partner[bracket] + 1) == "FILTER":
            return "in an aggregate with FILTER"
        inner = bracket
    return None


def _expression(candidate: Candidate) -> str | None:
    return input_reason(candidate.source, candidate.calls, candidate.others, may_query=True)


def _volatile(candidate: Candidate) -> str | None:
    block = candidate.block
    spans = (block.clause("FROM"), block.clause("WHERE"))
    return "a volatile function" if any(has_volatile(candidate.source, span) for span in spans) else None


def _from_computes(candidate: Candidate) -> str | None:
    tables = candidate.block.clause("FROM")
    return "the FROM clause computes scores" if any(tables.holds(c.name) for c in candidate.others) else None


def _narrowed(candidate: Candidate) -> str | None:
    block = candidate.block
    if block.is_distinct or block.is_grouped or block.is_limited:
        return None
    lazy = all(not _needs_all_rows(block, call) for call in candidate.calls)
    return "the outer query may need only some rows" if lazy and narrows(block, candidate.calls) else None


def _guarded(candidate: Candidate) -> str | None:
    block = candidate.block
    reasons = (
        guard_reason(candidate.source, block.level, block.span.start, call) for call in candidate.calls
    )
    return next((reason for reason in reasons if reason), None)


def _grouped(candidate: Candidate) -> str | None:
    """In a grouped block a call must be an aggregate's argument, or a grouping item as a whole."""
    block, source = candidate.block, candidate.source
    if not block.is_grouped:
        return None
    items = {source.shape(item) for item in source.split(block.clause("GROUP"), ",")}
    for call in candidate.calls:
        aggregated = any(
            _is_aggregate(source, bracket) for bracket in around(block.source, block.level, call)
        )
        if block.part_of(call.name) != "WHERE" and not aggregated and source.shape(call.span) not in items:
            return "not in GROUP BY"
    return None


def _limited(candidate: Candidate) -> str | None:
    """The rows within LIMIT can be found beforehand only if ORDER BY can be repeated without the select list."""
    block = candidate.block
    if not uses_limit(candidate):
        return None
    if "WINDOW" in block.clauses or has_volatile(candidate.source, block.clause("ORDER")):
        return "LIMIT in a block with WINDOW or volatile order"
    order = block.clause("ORDER")
    where = block.clause("WHERE")
    if any(order.holds(call.name) or where.holds(call.name) for call in candidate.others):
        return "LIMIT over rows that another score selects"
    if "OFFSET" in block.clauses and row_limit(block) is None:
        return "OFFSET with a computed LIMIT"
    if any(item is not None for item in _ordered_items(block)):
        return "LIMIT ordered by a column number or alias"
    return None


def _ordered_items(block: Block) -> Iterator[Span | None]:
    """For each ORDER BY item, the select item that it names by number or alias; None if it is an expression of its own."""
    source = block.source
    for item in source.split(block.clause("ORDER"), ","):
        words = [
            i for i in source.flat(item) if source.key(i) not in ("ASC", "DESC", "NULLS", "FIRST", "LAST")
        ]
        first = source.at(item.start)
        if len(words) == 1 and first.kind is Kind.NUMBER:
            number = int(first.text) if first.text.isdigit() else 0
            yield block.items[number - 1] if 0 < number <= len(block.items) else item
        elif len(words) == 1 and first.kind in (Kind.WORD, Kind.QUOTED):
            yield _item_named(block, item.start)
        else:
            yield None


def _item_named(block: Block, name: int) -> Span | None:
    """The select item that may have this output name; None if the name is surely a column of the tables."""
    source, key = block.source, block.source.key(name)
    for item in block.items:
        plain = all(
            source.at(i).kind in (Kind.WORD, Kind.QUOTED) or source.key(i) == "." for i in range(*item)
        )
        chain = plain and all((source.key(i) == ".") == bool((i - item.start) % 2) for i in range(*item))
        if chain:
            continue
        if any(
            source.key(i) == key or source.at(i).text.strip('"').upper() == key.strip('"').upper()
            for i in range(*item)
        ):
            return item
    known = key in _TYPE_NAMES or source.at(name).kind is Kind.QUOTED
    return block.items[0] if known and block.items else None


_ROW_WORDS = ("FIRST", "NEXT", "ROW", "ROWS", "ONLY")
# Output columns that PostgreSQL names after a type, such as int4 for '1'::int, without that word in the text.
_TYPE_NAMES = words("BOOL BPCHAR FLOAT4 FLOAT8 INT2 INT4 INT8 NUMERIC TIMESTAMPTZ TIMETZ VARBIT VARCHAR")


def around(source: Source, level: int, call: Scoring) -> Iterator[int]:
    """The brackets around a call inside its level, from the innermost."""
    bracket = source.parent[call.name]
    while bracket != level:
        yield bracket
        bracket = source.parent[bracket]


def _is_aggregate(source: Source, bracket: int) -> bool:
    return source.key(bracket - 1) in AGGREGATES and source.key(source.partner[bracket] + 1) != "OVER"


def _is_window(source: Source, bracket: int) -> bool:
    return source.key(bracket - 1) == "OVER" or source.key(source.partner[bracket] + 1) == "OVER"


def _within(inner: Span, outer: Span) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end


_CHECKS: tuple[Callable[[Candidate], str | None], ...] = (
    _clause,
    _place,
    _star,
    _expression,
    _volatile,
    _from_computes,
    _guarded,
    _grouped,
    _narrowed,
    _limited,
)
