"""Whether FETCH APPROX, or EXACT, may ask a vector index: the rules for it, each with the reason against.

An index is asked where the first key of ORDER BY is a distance, ascending, in the index's metric, between the indexed column and an
expression that does not depend on the row, and where the block's rows are the table's: not grouped, not distinct. Anything
else runs as it is written, which is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pythiadb.errors import InvalidParameter
from pythiadb.sql.blocks import Block
from pythiadb.sql.distance_key import Distance, ordered_distance
from pythiadb.sql.fetch_clause import Fetch
from pythiadb.sql.functions import changes_from_call_to_call, makes_rows
from pythiadb.sql.index_hints import Hint
from pythiadb.sql.references import folded, has_aggregate, is_name
from pythiadb.sql.resolution import Owner, Scope, block_of
from pythiadb.sql.rewrite import Catalog, VectorIndex
from pythiadb.sql.source import Source, Span
from pythiadb.sql.statements import query_of
from pythiadb.sql.tables import Piece

_EXACT = 100  # percent


@dataclass(frozen=True, slots=True)
class Indexed:
    """A clause that an index serves: the block, the column and the operand that is searched for, table and index."""

    fetch: Fetch
    scope: Scope
    column: Span
    query: Span
    piece: Piece
    index: VectorIndex

    @property
    def block(self) -> Block:
        """The query block."""
        return self.scope.block

    @property
    def is_plain(self) -> bool:
        """Tell whether every row of one table may be an answer."""
        block = self.block
        return len(self.scope.pieces) == 1 and "WHERE" not in block.clauses

    @property
    def hint(self) -> Hint | None:
        """The hint about the table; of several the last counts."""
        return _hint_for(self.fetch, self.piece)


def judge(source: Source, fetch: Fetch, catalog: Catalog) -> Indexed | str:
    """What an index may do for a clause; else the first reason against it."""
    block = block_of(source, fetch.start)
    if block is None or block.in_set or block.clause("FETCH").start != fetch.start + 1:
        return "the clause limits a set operation"
    reason = _shape_reason(block, fetch, catalog)
    if reason:
        return reason
    distance = ordered_distance(block)
    return distance if isinstance(distance, str) else _match(Scope(block, catalog), fetch, distance, catalog)


def _shape_reason(block: Block, fetch: Fetch, catalog: Catalog) -> str | None:
    """The first reason in the kind of query."""
    source = block.source
    shown = [*_outside(source, block.clause("SELECT")), *_outside(source, block.clause("ORDER"))]
    reasons = (
        "rows are taken WITH TIES" if fetch.has_ties else None,
        "there is no FROM clause" if "FROM" not in block.clauses else None,
        "rows are grouped" if block.is_grouped else None,
        "an aggregate or a window reads all rows"
        if any(has_aggregate(source, Span(i, i + 1)) for i in shown)
        else None,
        "rows are DISTINCT" if block.is_distinct else None,
        # Another row takes the place of one that is gone when its lock is got.
        "rows are locked" if "FOR" in block.clauses else None,
        "all rows of equal distance have to be put in order" if _orders_equals(block, fetch) else None,
        "a function makes rows" if makes_rows(source, shown, catalog) else None,
        "the statement is stored" if _is_stored(source) else None,
    )
    return next((reason for reason in reasons if reason), None)


def _orders_equals(block: Block, fetch: Fetch) -> bool:
    """Tell whether an exact answer depends on keys behind the distance, which the index does not know."""
    is_exact = fetch.mode == "EXACT" or fetch.wanted.get("accuracy") == _EXACT
    return is_exact and len(block.source.split(block.clause("ORDER"), ",")) > 1


def _outside(source: Source, span: Span) -> Iterator[int]:
    """The tokens that stand outside of the subqueries in a clause."""
    index = span.start
    while index < span.end:
        if source.is_open(index) and source.key(index + 1) in ("SELECT", "WITH", "VALUES"):
            index = source.partner[index]
        yield index
        index += 1


def _is_stored(source: Source) -> bool:
    """Tell whether the statement is kept as text, or as a tree, that would outlive the index."""
    if source.key(0) == "CREATE":
        head = source.shape(Span(1, min(4, len(source.tokens))))
        return query_of(source, -1) is None or "MATERIALIZED" in head
    return source.key(0) == "ALTER"


def _match(scope: Scope, fetch: Fetch, distance: Distance, catalog: Catalog) -> Indexed | str:
    """Find the index for a distance."""
    found = [
        (piece, index, column, query)
        for column, query in (distance.operands, distance.operands[::-1])
        if (piece := _table_of(scope, column)) is not None
        for index in catalog.vector_indexes(piece.table)
        if index.column == folded(scope.source, column.end - 1)
    ]
    if len(found) != 1:
        return _no_index(scope, distance, several=bool(found))
    piece, index, column, query = found[0]
    reason = (
        _metric_reason(distance, index) or _table_reason(piece, index) or _query_reason(scope, query, catalog)
    )
    return (
        reason
        or _hint_reason(scope, fetch, piece, index)
        or Indexed(fetch, scope, column, query, piece, index)
    )


def _hint_for(fetch: Fetch, piece: Piece) -> Hint | None:
    return next((hint for hint in reversed(fetch.hints) if hint.table == piece.name), None)


def _hint_reason(scope: Scope, fetch: Fetch, piece: Piece, index: VectorIndex) -> str | None:
    """What a hint has against the index. Raises InvalidParameter for one that names another table or index."""
    names = {one.name for one in scope.pieces}
    for hint in fetch.hints:
        if hint.table not in names:
            raise InvalidParameter(
                f'hint {hint.name} names "{hint.table}", which the query block does not read',
                detail=hint.place,
                hint="A table that has an alias is named by it.",
            )
    found = _hint_for(fetch, piece)
    if found and found.index not in ("", index.name):
        raise InvalidParameter(
            f'hint {found.name} names vector index "{found.index}", but {piece.name} has "{index.name}"',
            detail=found.place,
        )
    return f"the hint {found.name}" if found and found.forbids and fetch.mode == "APPROX" else None


def _table_of(scope: Scope, column: Span) -> Piece | None:
    """The plain table of a plain column."""
    piece = scope.piece_with(column) if is_name(scope.source, column) else None
    return piece if piece and piece.table else None


def _no_index(scope: Scope, distance: Distance, *, several: bool) -> str:
    if several:
        return "the distance is between two indexed columns"
    tables = [
        (folded(scope.source, column.end - 1), piece)
        for column in distance.operands
        if (piece := _table_of(scope, column)) is not None
    ]
    if not tables:
        return "no plain column of a table is compared"
    column, piece = tables[0]
    return f"there is none on {piece.name}.{column}"


def _metric_reason(distance: Distance, index: VectorIndex) -> str | None:
    default = "HAMMING" if index.vector_type == "bit" else "COSINE"
    metric = distance.metric or default
    if metric == index.distance:
        return None
    said = metric if distance.metric else f"{default}, for none is named,"
    return f"metric {said} differs from {index.distance} of {index.name}"


def _table_reason(piece: Piece, index: VectorIndex) -> str | None:
    if index.status != "VALID":
        return f"{index.name} is {index.status}"
    return f"an outer join may leave {piece.name} empty" if piece.is_optional else None


def _query_reason(scope: Scope, query: Span, catalog: Catalog) -> str | None:
    """Judge the operand that is searched for."""
    source = scope.source
    if changes_from_call_to_call(source, query, catalog):
        return "a volatile function in the vector searched for"
    for name in scope.names(query):
        if name.owner is Owner.ROW:
            return "the vector searched for depends on the row"
        if name.owner is Owner.UNKNOWN:
            return f'it is not known what "{folded(source, name.span.start)}" is'
    return None
