"""Which query block a name belongs to: the rows of this block, of a subquery in the expression, or of a query around it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from pythiadb.sql.blocks import Block, block_at
from pythiadb.sql.fetch_clause import find_fetches
from pythiadb.sql.references import column_names, folded
from pythiadb.sql.rewrite import Catalog
from pythiadb.sql.scan import Kind, words
from pythiadb.sql.scoring import Scoring, find_scorings
from pythiadb.sql.source import Source, Span
from pythiadb.sql.tables import Piece, inner_blocks, pieces_of

# Words of queries, which are no names where subqueries stand in an expression.
_QUERY_WORDS = words(
    "SELECT WHERE GROUP HAVING WINDOW LIMIT OFFSET FETCH FIRST NEXT ROWS ONLY TIES WITH UNION INTERSECT EXCEPT JOIN LEFT "
    "RIGHT FULL INNER OUTER CROSS NATURAL LATERAL VALUES TABLE OVER PARTITION FILTER NULLS LAST UNBOUNDED PRECEDING "
    "FOLLOWING RANGE GROUPS RECURSIVE MATERIALIZED"
)


class Owner(Enum):
    """Where a name is from."""

    ROW = "the rows of the block"
    INNER = "a subquery of the expression"
    OUTER = "a query, or a block of statements, around it"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Name:
    """A column's name in an expression: its tokens and its owner."""

    span: Span
    owner: Owner

    @property
    def is_qualified(self) -> bool:
        """Tell whether a table stands in front of the column."""
        return self.span.end - self.span.start > 1


class Scope:
    """One query block with what it reads."""

    def __init__(self, block: Block, catalog: Catalog) -> None:
        self.block = block
        self.source = block.source
        self.pieces = pieces_of(block, catalog)
        self._catalog = catalog
        self._no_columns = [*map(_model, find_scorings(block.source)), *_fetch_words(block.source)]

    def names(self, span: Span) -> Iterator[Name]:
        """The columns that an expression of the block, or its FROM clause, names."""
        inner = [(block, pieces_of(block, self._catalog)) for block in inner_blocks(self.source, span)]
        named = [piece for _, pieces in ((self.block, self.pieces), *inner) for piece in pieces]
        for start, _ in column_names(self.source, span):
            other = any(words.holds(start) for words in self._no_columns)
            if other or _is_word(self.source, start) or _names_table(self.source, named, start):
                continue
            end = start + 1
            while self.source.key(end) == "." and end + 1 < span.end:
                end += 2
            yield Name(Span(start, end), self._owner(Span(start, end), inner))

    def piece_with(self, name: Span) -> Piece | None:
        """The one piece of FROM that a column belongs to; None if there is none, or it cannot be told."""
        found = [piece for piece in self.pieces if _holds(self.source, piece, name)]
        if not found and len(self.pieces) == 1 and not self.pieces[0].is_complete:
            found = self.pieces
        return found[0] if len(found) == 1 else None

    def _owner(self, name: Span, inner: list[tuple[Block, list[Piece]]]) -> Owner:
        complete = True
        around = [(block, pieces) for block, pieces in inner if block.span.holds(name.start)]
        for _, pieces in reversed(around):
            if any(_holds(self.source, piece, name) for piece in pieces):
                return Owner.INNER
            complete = complete and all(piece.is_complete for piece in pieces)
        if any(_holds(self.source, piece, name) for piece in self.pieces):
            return Owner.ROW
        complete = complete and all(piece.is_complete for piece in self.pieces)
        return Owner.OUTER if complete or name.end - name.start > 1 else Owner.UNKNOWN


def _model(call: Scoring) -> Span:
    """The tokens of the name of a call's model."""
    return Span(call.head.start, call.arguments[0].start if call.arguments else call.head.end)


def _fetch_words(source: Source) -> Iterator[Span]:
    """The words of FETCH APPROX that are not PostgreSQL's."""
    for fetch in find_fetches(source):
        yield Span(fetch.start, fetch.first + 1)
        yield fetch.accuracy


def block_of(source: Source, index: int) -> Block | None:
    """The block of a clause's key word; None for a clause that belongs to a set operation."""
    block = block_at(source, index)
    return block if block and block.level == source.parent[index] else None


def _holds(source: Source, piece: Piece, name: Span) -> bool:
    """Tell whether a name is a column of a piece, or the piece itself as a whole row."""
    first = folded(source, name.start)
    if name.end - name.start == 1:
        return piece.has(first) or piece.name == first
    if piece.name == first:
        return True
    return name.end - name.start > 3 and _holds_with_schema(source, piece, name)


def _holds_with_schema(source: Source, piece: Piece, name: Span) -> bool:
    """Tell whether `schema.table.column` may be a column of a piece: FROM may name the table without its schema."""
    schema, table = folded(source, name.end - 5), folded(source, name.end - 3)
    written = [_folded_part(part) for part in _NAME_PARTS.findall(piece.table)]
    has_alias = bool(written) and written[-1] != piece.name
    return piece.name == table and not has_alias and (len(written) < 2 or written[-2] == schema)


def _folded_part(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part.lower()


_NAME_PARTS = re.compile(r'"(?:[^"]|"")*"|[^".]+')


def _names_table(source: Source, named: list[Piece], index: int) -> bool:
    """Tell whether a token names a table of FROM, its alias or the columns behind that, rather than a column."""
    for piece in named:
        if not piece.span.holds(index):
            continue
        brackets = (i for i in range(*piece.span) if source.is_open(i))
        if piece.renamed.holds(index) or not any(Span(i, source.partner[i]).holds(index) for i in brackets):
            return True
    return False


def _is_word(source: Source, index: int) -> bool:
    """Tell key words that stand where a name may stand: of queries, of EXTRACT, of intervals, behind IS."""
    if source.at(index).kind is not Kind.WORD:
        return False
    before, behind = source.at(index - 1), source.at(index + 1)
    if behind.text == ".":
        return before.text == "(" and source.key(index - 2) == "OPERATOR"
    extracts = before.text == "(" and source.key(index - 2) == "EXTRACT" and behind.key == "FROM"
    follows = before.kind is Kind.STRING or before.key in ("IS", "TO")
    return source.key(index) in _QUERY_WORDS or extracts or follows
