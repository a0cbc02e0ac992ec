"""Whether the query around a subquery may need only some of its rows.

PostgreSQL pushes the conditions and the LIMIT of an outer query into a subquery; the CTE that gathers inputs stands in
front of that and would score every row for the sake of a few.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pythiadb.sql.blocks import Block, block_at, blocks_of, conjuncts, with_list
from pythiadb.sql.references import folded, mentions
from pythiadb.sql.scan import Kind
from pythiadb.sql.scoring import Scoring
from pythiadb.sql.set_columns import names_of_rows
from pythiadb.sql.source import Source


def narrows(block: Block, calls: Iterable[Scoring]) -> bool:
    """Tell whether a reader of the block filters or limits its rows, and not by the outputs of the calls."""
    names = {name for call in calls if (name := output_name(block, call))}
    return any(_filters(reader, names) for reader in _readers(block))


def output_name(block: Block, call: Scoring) -> str:
    """The folded name of the output column that holds a call; empty if it has none."""
    source = block.source
    item = next((item for item in block.items if item.holds(call.name)), None)
    if item is None:
        return ""
    if item.end == call.span.end:
        return call.operator.name
    last = item.end - 1
    return folded(source, last) if source.at(last).kind in (Kind.WORD, Kind.QUOTED) else ""


def _filters(reader: Block, names: set[str]) -> bool:
    source, where, order = reader.source, reader.clause("WHERE"), reader.clause("ORDER")
    rows = names_of_rows(reader, names)
    if where.start < where.end:
        if any(mentions(source, where, name) for name in names):
            return False
        return not all(any(mentions(source, part, n) for n in rows) for part in conjuncts(source, where))
    return reader.is_limited and not any(mentions(source, order, name) for name in names | rows)


def _readers(block: Block) -> Iterator[Block]:
    """The blocks that read a block as a table: the one around it, or those that name its CTE."""
    source, level = block.source, block.level
    while level >= 0:
        cte = _cte_name(source, level)
        around = block_at(source, level)
        if cte:
            blocks = blocks_of(source, source.parent[level])
            yield from (one for one in blocks if mentions(source, one.clause("FROM"), cte))
        elif around and around.level == source.parent[level]:
            yield around
        level = source.parent[level]


def _cte_name(source: Source, level: int) -> str:
    """The folded name of the CTE that a pair of parentheses is the body of; empty if it is none."""
    for index in source.flat(source.inside(source.parent[level])):
        found = with_list(source, index) if source.key(index) == "WITH" else None
        for name, body in found.bodies if found else ():
            if body == level:
                return folded(source, name)
    return ""
