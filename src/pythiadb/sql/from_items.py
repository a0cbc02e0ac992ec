"""The FROM clause: its items, their names, and joining a helper to all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pythiadb.sql.blocks import Block, blocks_of
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scan import Kind
from pythiadb.sql.source import Source, Span

_NAMES = (Kind.WORD, Kind.QUOTED)
_NO_NAMES: Mapping[int, str] = {}


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


def item_name(source: Source, item: Span, given: Mapping[int, str] = _NO_NAMES) -> str:
    """The name by which columns of a FROM item are qualified, as written; empty if it has none or it is not plain.

    `given` are the names that derived tables were given in the translation, by their opening parentheses.
    """
    index = item.start
    while source.key(index) in ("LATERAL", "ONLY"):
        index += 1
    last = index
    if index in given:
        return given[index]
    if source.is_open(index):
        index = source.partner[index] + 1
        last = -1
    else:
        while source.key(index + 1) == ".":
            index += 2
        last, index = (index if source.key(index) != "TABLE" else -1), index + 1
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


def table_names(
    block: Block, given: Mapping[int, str] = _NO_NAMES, *, before: int | None = None
) -> list[str] | None:
    """The names of everything that FROM reads, up to a token, in order; None if something has no name."""
    spans = [span for span in _joined(block) if before is None or span.end <= before]
    names = [item_name(block.source, span, given) for span in spans]
    return names if names and all(names) else None


def name_derived_tables(rewrite: Rewrite, block: Block) -> dict[int, str]:
    """Give subqueries of FROM that have no name one, so that their columns can be picked; names by opening parenthesis.

    Before: SELECT PREDICTION(m USING *) FROM (SELECT 20 AS age)
    After: SELECT ... FROM (SELECT 20 AS age) AS __pythia_t8
    """
    source, given = block.source, dict[int, str]()
    for span in _joined(block):
        bracket = span.start + (source.key(span.start) == "LATERAL")
        is_query = source.is_open(bracket) and any(True for _ in blocks_of(source, bracket))
        if is_query and not item_name(source, span):
            given[bracket] = f"__pythia_t{bracket}"
            rewrite.after(source.partner[bracket], f" AS {given[bracket]}")
    return given


def _joined(block: Block) -> Iterator[Span]:
    """What FROM reads, as it is written between the words of joins."""
    source = block.source
    for item in from_items(block):
        starts = [item.start, *(i + 1 for i in source.flat(item) if source.key(i) == "JOIN")]
        for start, stop in zip(starts, [*starts[1:], item.end], strict=True):
            end = next((i for i in source.flat(Span(start, stop)) if source.key(i) in _BEHIND_NAME), stop)
            yield Span(start, end)


_BEHIND_NAME = ("ON", "USING", "LEFT", "RIGHT", "FULL", "INNER", "CROSS", "NATURAL", "JOIN")


def expand_star(rewrite: Rewrite, block: Block) -> None:
    """Keep a helper's columns out of a bare `*`."""
    for item in block.items:
        if rewrite.source.shape(item) == ("*",):
            rewrite.replace(item, star_text(block) or "*")
