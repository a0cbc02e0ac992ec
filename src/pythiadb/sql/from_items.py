"""The FROM clause: its items, their names, and joining a helper to all of them."""

from __future__ import annotations

from pythiadb.sql.blocks import Block
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scan import Kind
from pythiadb.sql.source import Source, Span

_NAMES = (Kind.WORD, Kind.QUOTED)


def from_items(block: Block) -> list[Span]:
    """The items of the FROM clause, parted by its commas."""
    return block.source.split(block.clause("FROM"), ",")


def star_text(block: Block) -> str | None:
    """What a bare `*` stands for when one table is read, as `alias.*`; None if that cannot be said."""
    items = from_items(block)
    if len(items) != 1 or has_join(block.source, items[0]):
        return None
    name = item_name(block.source, items[0])
    return f"{name}.*" if name else None


def has_join(source: Source, item: Span) -> bool:
    """Tell whether an item joins tables."""
    return any(source.key(index) == "JOIN" for index in source.flat(item))


def item_name(source: Source, item: Span) -> str:
    """The name by which columns of a FROM item are qualified, as written; empty if it has none or it is not plain."""
    index = item.start
    while source.key(index) in ("LATERAL", "ONLY"):
        index += 1
    last = index
    if source.is_open(index):
        index = source.partner[index] + 1
        last = -1
    else:
        while source.key(index + 1) == ".":
            index += 2
        last, index = index, index + 1
        if source.is_open(index):
            index = source.partner[index] + 1
    return _alias(source, index, item.end, last)


def _alias(source: Source, index: int, end: int, default: int) -> str:
    while index < end and source.key(index) in ("*", "WITH", "ORDINALITY"):
        index += 1
    if index < end and source.key(index) == "AS":
        index += 1
    if index >= end or source.key(index) == "TABLESAMPLE":
        index = default
    token = source.at(index)
    return token.text if token.kind in _NAMES else ""


def join_helper(rewrite: Rewrite, block: Block, text: str) -> None:
    """Append a join to the whole FROM clause: commas become CROSS JOIN, for they bind weaker than JOIN."""
    source, items = block.source, from_items(block)
    for item in items[1:]:
        comma = item.start - 1
        gap = "" if source.at(comma).end < source.at(item.start).start else " "
        rewrite.edits.replace(source.at(comma).start, source.at(comma).end, " CROSS JOIN" + gap)
        if has_join(source, item):
            rewrite.before(item.start, "(")
            rewrite.after(item.end - 1, ")")
    rewrite.after(block.clause("FROM").end - 1, text)


def table_names(block: Block) -> list[str] | None:
    """The names of everything that FROM reads, in order; None if something has no name."""
    source, names = block.source, []
    for item in from_items(block):
        starts = [item.start, *(i + 1 for i in source.flat(item) if source.key(i) == "JOIN")]
        for start, stop in zip(starts, [*starts[1:], item.end], strict=True):
            end = next((i for i in source.flat(Span(start, stop)) if source.key(i) in _BEHIND_NAME), stop)
            names.append(item_name(source, Span(start, end)))
    return names if names and all(names) else None


_BEHIND_NAME = ("ON", "USING", "LEFT", "RIGHT", "FULL", "INNER", "CROSS", "NATURAL", "JOIN")


def expand_star(rewrite: Rewrite, block: Block) -> None:
    """Keep a helper's columns out of a bare `*`."""
    for item in block.items:
        if rewrite.source.shape(item) == ("*",):
            rewrite.replace(item, star_text(block) or "*")
