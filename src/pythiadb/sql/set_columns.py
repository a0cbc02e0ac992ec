"""A set that a query computed as a column, and that a FROM clause reads as rows: Oracle's `TABLE(t.pset)`.

The column holds jsonb, as every set in a select list; the columns of its rows follow from the call that computed it. So the
column is followed from the FROM clause to that call, through derived tables, WITH queries, stars and other names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pythiadb.sql.blocks import Block, block_at, blocks_of, with_list
from pythiadb.sql.calling import result_type
from pythiadb.sql.operators import SET_COLUMNS
from pythiadb.sql.references import folded, is_name, mentions
from pythiadb.sql.rewrite import NO_CATALOG, Rewrite
from pythiadb.sql.scan import Kind
from pythiadb.sql.scoring import Scoring, find_scorings
from pythiadb.sql.source import Source, Span
from pythiadb.sql.tables import Piece, pieces_of

_NAMES = (Kind.WORD, Kind.QUOTED)
_BEFORE_ITEM = ("FROM", ",", "JOIN", "LATERAL")
_BEHIND = ("JOIN", "LEFT", "RIGHT", "FULL", "INNER", "CROSS", "NATURAL", "ON", "USING", "WITH", "TABLESAMPLE")


@dataclass(frozen=True, slots=True)
class TableItem:
    """TABLE( ) in a FROM clause around anything but a call: its tokens with LATERAL in front, what it holds, its alias."""

    block: Block
    span: Span
    inside: Span
    alias: int | None  # the token


def table_items(source: Source) -> Iterator[TableItem]:
    """Find every TABLE( ) in a FROM clause; one around a set that is computed right there is a call's own."""
    places = [i for i, token in enumerate(source.tokens) if token.key == "TABLE" and source.is_open(i + 1)]
    calls = {call.name for call in find_scorings(source)} if places else set()
    for index in places:
        block = block_at(source, index)
        if block is None or source.key(index - 1) not in _BEFORE_ITEM or index + 2 in calls:
            continue
        if source.partner[index + 1] == len(source.tokens):  # never closed, of which PostgreSQL tells
            continue
        if block.part_of(index) == "FROM":
            start, end = index - (source.key(index - 1) == "LATERAL"), source.partner[index + 1] + 1
            yield TableItem(block, Span(start, end), source.inside(index + 1), alias_behind(block, end))


def names_of_rows(reader: Block, columns: Collection[str]) -> set[str]:
    """The folded names by which a block may speak of the rows of sets that it reads from columns of these names."""
    source, names = reader.source, set[str]()
    for item in table_items(source):
        if item.block.span == reader.span and any(mentions(source, item.inside, name) for name in columns):
            names.update(SET_COLUMNS if item.alias is None else (*SET_COLUMNS, folded(source, item.alias)))
    return names


def alias_behind(block: Block, end: int) -> int | None:
    """The token of the alias of a FROM item that ends here; None if it has none."""
    source = block.source
    at = end + (source.key(end) == "AS")
    named = source.at(at).kind in _NAMES and block.part_of(at) == "FROM" and source.key(at) not in _BEHIND
    return at if named else None


def set_behind(item: TableItem) -> Scoring | None:
    """The call that computed the column between the parentheses; None if it is no set of this statement."""
    source = item.block.source
    if not is_name(source, item.inside):
        return None
    calls = {call.name: call for call in find_scorings(source) if call.operator.is_set}
    reader = _Reader(source, calls)
    block: Block | None = item.block
    before = item.span.start
    while block is not None:
        if found := reader.follow(block, item.inside, before):
            return found
        level = block.level
        block = block_at(source, level) if level >= 0 else None
        if (
            block is not None
        ):  # LATERAL sees what stands in front of it, any other subquery the whole FROM clause
            before = level if block.part_of(level) == "FROM" else block.span.end
    return None


def column_definitions(rewrite: Rewrite, call: Scoring) -> str:
    """The columns of a set's rows with their types."""
    assert call.operator.columns is not None
    counted, probability = call.operator.columns
    return f"{counted} {result_type(rewrite, call)}, {probability} double precision"


class _Reader:
    """Follows names of columns to what computed them."""

    def __init__(self, source: Source, calls: dict[int, Scoring]) -> None:
        self._source = source
        self._calls = calls
        self._seen: set[tuple[int, str]] = set()  # a recursive query leads back to itself

    def follow(self, block: Block, name: Span, before: int) -> Scoring | None:
        """The set behind `column` or `table.column`, among the FROM items that begin in front of a token."""
        source = self._source
        parts = [folded(source, i) for i in range(name.start, name.end, 2)]
        table = parts[-2] if len(parts) == 2 else ""
        if len(parts) > 2:
            return None
        pieces = [piece for piece in pieces_of(block, NO_CATALOG) if piece.span.start < before]
        found = (self._column(block, piece, parts[-1]) for piece in pieces if table in ("", piece.name))
        return next((call for call in found if call), None)

    def _column(self, block: Block, piece: Piece, column: str) -> Scoring | None:
        """The set behind a column of a FROM item."""
        source, start = self._source, piece.span.start
        start += source.key(start) == "LATERAL"
        if source.is_open(start):
            return self._output(start, self._names(piece.renamed), column)
        body = _cte(source, block, piece.table_name) if piece.table_name else None
        if body is None:
            return None
        renamed = piece.renamed
        if renamed.start == renamed.end and source.is_open(body.name + 1) and body.name + 1 != body.bracket:
            renamed = source.inside(body.name + 1)
        return self._output(body.bracket, self._names(renamed), column)

    def _names(self, renamed: Span) -> list[str]:
        return [folded(self._source, name.start) for name in self._source.split(renamed, ",")]

    def _output(self, bracket: int, names: list[str], column: str) -> Scoring | None:
        """The set behind an output column of a subquery, whose columns may have been given names."""
        source = self._source
        if (bracket, column) in self._seen:
            return None
        self._seen.add((bracket, column))
        while source.is_open(bracket + 1):  # the first branch of a set operation names the columns
            bracket += 1
        block = next(blocks_of(source, bracket), None)
        if block is None:
            return None
        if column in names:
            place = names.index(column)
            plain = all(source.key(item.end - 1) != "*" for item in block.items[: place + 1])
            return self._item(block, block.items[place]) if plain and place < len(block.items) else None
        found = (self._item(block, item) for item in block.items if self._is_named(item, column))
        return next(found, None) or self._starred(block, column)

    def _is_named(self, item: Span, column: str) -> bool:
        last = item.end - 1
        named = self._source.at(last).kind in _NAMES and folded(self._source, last) == column
        return named or (self._is_call(item) and self._calls[item.start].operator.name == column)

    def _item(self, block: Block, item: Span) -> Scoring | None:
        """The set that an output column is, or passes on."""
        source, last = self._source, item.end - 1
        alias = source.key(last - 1) == "AS" or (
            last > item.start and source.key(last - 1) != "." and source.at(last).kind in _NAMES
        )
        value = Span(item.start, last - (source.key(last - 1) == "AS")) if alias else item
        if self._is_call(value):
            return self._calls[value.start]
        return self.follow(block, value, block.span.end) if is_name(source, value) else None

    def _is_call(self, value: Span) -> bool:
        return value.start in self._calls and self._calls[value.start].span == value

    def _starred(self, block: Block, column: str) -> Scoring | None:
        """The set behind a column that `*` or `t.*` passes on."""
        source = self._source
        for piece in pieces_of(block, NO_CATALOG):
            stars = (item for item in block.items if source.key(item.end - 1) == "*")
            whole = (
                source.shape(star) == ("*",) or folded(source, star.end - 3) == piece.name for star in stars
            )
            found = self._column(block, piece, column) if any(whole) else None
            if found:
                return found
        return None


@dataclass(frozen=True, slots=True)
class _Body:
    """A WITH query: the token of its name, and the bracket around it."""

    name: int
    bracket: int


def _cte(source: Source, block: Block, table: str) -> _Body | None:
    """The WITH query of a name that a block reads: that of the nearest WITH clause around it."""
    level = block.level
    while True:
        for index in source.flat(source.inside(level)):
            found = with_list(source, index) if source.key(index) == "WITH" else None
            for name, bracket in found.bodies if found else ():
                inside = source.inside(bracket).holds(block.span.start)  # a query does not read itself
                if folded(source, name) == table and not inside:
                    return _Body(name, bracket)
        if level < 0:
            return None
        level = source.parent[level]
