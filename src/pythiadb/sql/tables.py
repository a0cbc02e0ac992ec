"""What a FROM clause reads, piece by piece: each table or subquery with its name and, as far as it is known, its columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pythiadb.sql.blocks import Block, blocks_of, with_list
from pythiadb.sql.from_items import from_items
from pythiadb.sql.references import folded
from pythiadb.sql.rewrite import Catalog
from pythiadb.sql.scan import Kind
from pythiadb.sql.source import Source, Span

_NAMES = (Kind.WORD, Kind.QUOTED)
_NOTHING = Span(0, 0)
_BEHIND = ("ON", "USING", "LEFT", "RIGHT", "FULL", "INNER", "CROSS", "NATURAL", "JOIN")


@dataclass(frozen=True, slots=True)
class Piece:
    """A table, view, subquery or function in FROM.

    `name` is folded and qualifies its columns, empty if there is none; `shown` is the same as written. `table` is the name
    of a plain table or view as written, else empty. `columns` are folded; more may exist unless `is_complete`.
    `is_optional`: an outer join may fill its columns with NULL. `renamed` holds the names of columns behind an alias.
    """

    span: Span
    name: str
    shown: str
    table: str
    columns: frozenset[str]
    is_complete: bool
    is_optional: bool = False
    renamed: Span = _NOTHING
    table_name: str = ""  # folded, of a table, view or CTE without a schema

    def has(self, column: str) -> bool:
        """Tell whether a column of a folded name is known."""
        return column in self.columns


def pieces_of(block: Block, catalog: Catalog) -> list[Piece]:
    """The pieces of a block's FROM clause, those in the parentheses around a join too."""
    return [piece for item in from_items(block) for piece in _pieces(block.source, item, catalog)]


def outer_ctes(source: Source, span: Span) -> set[str]:
    """The folded names of all CTEs that are not defined within a span."""
    lists = (with_list(source, i) for i in range(len(source.tokens)) if source.key(i) == "WITH")
    return {
        folded(source, name)
        for found in lists
        if found and not span.holds(found.start)
        for name, _ in found.bodies
    }


def inner_blocks(source: Source, span: Span) -> Iterator[Block]:
    """The query blocks of the subqueries in some tokens."""
    for index in range(*span):
        if source.is_open(index):
            yield from blocks_of(source, index)


def _pieces(source: Source, item: Span, catalog: Catalog) -> Iterator[Piece]:
    """The pieces of one item of FROM, which may join several."""
    joins = [i for i in source.flat(item) if source.key(i) == "JOIN"]
    found: list[Piece] = []
    for start, stop in zip([item.start, *(i + 1 for i in joins)], [*joins, item.end], strict=True):
        kind = _join_kind(source, start)
        if kind in ("RIGHT", "FULL"):
            found = [replace(piece, is_optional=True) for piece in found]
        end = next((i for i in source.flat(Span(start, stop)) if source.key(i) in _BEHIND), stop)
        optional = kind in ("LEFT", "FULL")
        new = list(_piece(source, Span(start, end), catalog))
        found += [replace(piece, is_optional=piece.is_optional or optional) for piece in new]
        found += _joined_columns(source, Span(end, stop))
    yield from found


def _joined_columns(source: Source, span: Span) -> Iterator[Piece]:
    """The piece that `USING (a, b) AS name` makes of a join's columns; they are told by their qualifier only."""
    using = next((i for i in source.flat(span) if source.key(i) == "USING" and source.is_open(i + 1)), None)
    if using is None:
        return
    alias = source.partner[using + 1] + 2
    if alias < span.end and source.key(alias - 1) == "AS":
        shown = source.at(alias).text
        yield Piece(Span(alias, alias + 1), _fold(shown), shown, "", frozenset(), is_complete=True)


def _join_kind(source: Source, start: int) -> str:
    """LEFT, RIGHT or FULL in front of `[OUTER] JOIN`."""
    if source.key(start - 1) != "JOIN":
        return ""
    return source.key(start - 3 if source.key(start - 2) == "OUTER" else start - 2)


def _piece(source: Source, span: Span, catalog: Catalog) -> Iterator[Piece]:
    index = span.start
    plain = source.key(index) not in ("LATERAL", "ONLY")
    index += not plain
    if source.is_open(index):
        yield from _bracketed(source, span, index, catalog)
        return
    last = index
    while source.key(last + 1) == "." and last + 2 < span.end:
        last += 2
    behind = last + 1
    if source.is_open(behind):  # a function, whose alias names its column too
        alias, rest = _alias(source, source.partner[behind] + 1, span.end)
        shown = source.at(alias if alias is not None else last).text
        names, renamed = _renamed(source, rest, span.end)
        yield Piece(span, _fold(shown), shown, "", names, is_complete=bool(names), renamed=renamed)
        return
    alias, rest = _alias(source, behind, span.end)
    shown = source.at(alias if alias is not None else last).text
    written = "".join(source.at(i).text for i in range(index, last + 1))
    is_cte = last == index and _fold(written) in outer_ctes(source, _NOTHING)
    if 'U&"' in written.upper():  # no name that a catalog reads
        yield Piece(span, "", "", "", frozenset(), is_complete=False)
        return
    known = _cte_columns(source, _fold(written)) if is_cte else catalog.columns(written)
    names, renamed = _renamed(source, rest, span.end)
    columns, complete = (names, False) if names else (known or frozenset(), known is not None)
    table = written if plain and rest == span.end and not is_cte else ""
    bare = _fold(written) if last == index else ""
    yield Piece(
        span, _fold(shown), shown, table, columns, is_complete=complete, renamed=renamed, table_name=bare
    )


def _bracketed(source: Source, span: Span, bracket: int, catalog: Catalog) -> Iterator[Piece]:
    """A subquery, or joins in parentheses."""
    alias, rest = _alias(source, source.partner[bracket] + 1, span.end)
    shown = source.at(alias).text if alias is not None else ""
    blocks = list(blocks_of(source, bracket))
    if not blocks and alias is None and source.key(bracket + 1) != "VALUES":
        yield from _pieces(source, source.inside(bracket), catalog)
        return
    names, renamed = _renamed(source, rest, span.end)
    outputs = _outputs(source, bracket) if not names else list(names)
    columns = frozenset(name for name in outputs if name)
    yield Piece(span, _fold(shown), shown, "", columns, is_complete=None not in outputs, renamed=renamed)


def _renamed(source: Source, index: int, end: int) -> tuple[frozenset[str], Span]:
    """The names that an alias gives to columns, and their tokens; empty if it gives none."""
    if index >= end or not source.is_open(index):
        return frozenset(), _NOTHING
    inside = source.inside(index)
    return frozenset(folded(source, item.start) for item in source.split(inside, ",")), inside


def _cte_columns(source: Source, name: str) -> frozenset[str] | None:
    """The columns of a CTE; None if they cannot be told, or several are called so."""
    lists = (with_list(source, i) for i in range(len(source.tokens)) if source.key(i) == "WITH")
    found = [cte for one in lists if one for cte in one.bodies if folded(source, cte[0]) == name]
    if len(found) != 1:
        return None
    token, body = found[0]
    named = source.is_open(token + 1) and token + 1 != body
    names: list[str | None] = _outputs(source, body)
    if named:
        names = [folded(source, item.start) for item in source.split(source.inside(token + 1), ",")]
    return None if None in names else frozenset(name for name in names if name)


def _outputs(source: Source, bracket: int) -> list[str | None]:
    """The names of the columns of a subquery, None in the place of one that cannot be said."""
    blocks = list(blocks_of(source, bracket))
    return [_output(source, item) for item in blocks[0].items] if blocks else [None]


def _output(source: Source, item: Span) -> str | None:
    """The folded name of an output column; None if it cannot be said."""
    last = item.end - 1
    if source.at(last).kind not in _NAMES:
        return None
    named = source.key(last - 1) in ("AS", ".") or last == item.start
    bare = source.at(last - 1).kind in (*_NAMES, Kind.NUMBER, Kind.STRING) or source.key(last - 1) == ")"
    return folded(source, last) if named or (bare and source.key(last) != "END") else None


def _alias(source: Source, index: int, end: int) -> tuple[int | None, int]:
    """The token of an alias, and what stands behind it."""
    while index < end and source.key(index) in ("WITH", "ORDINALITY"):
        index += 1
    index += index < end and source.key(index) == "AS"
    if index >= end or source.at(index).kind not in _NAMES or source.key(index) == "TABLESAMPLE":
        return None, index
    return index, index + 1


def _fold(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
