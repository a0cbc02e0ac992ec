"""The query for the keys and vectors of the rows that a filter leaves: FROM and WHERE of a block, carried as text to the search.

The text runs by itself, so it must mean there what it means here: every column in it must be known, and a computed score is
not part of it. CTEs of the block's own WITH clause go with it, those of others cannot.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from pythiadb.sql.approx import Indexed
from pythiadb.sql.blocks import WithList
from pythiadb.sql.carried import carried, text_with_outer
from pythiadb.sql.functions import changes_from_call_to_call
from pythiadb.sql.references import folded
from pythiadb.sql.resolution import Name, Owner
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scoring import find_scorings
from pythiadb.sql.source import Span
from pythiadb.sql.statements import query_of
from pythiadb.sql.tables import Piece, inner_blocks, outer_ctes, pieces_of

_CHANGES = ("INSERT", "UPDATE", "DELETE", "MERGE")
_COMPARISONS = ("=", "<", ">", "<=", ">=", "<>", "!=")


class Filter:
    """The FROM and WHERE of a block that an index serves."""

    def __init__(self, rewrite: Rewrite, indexed: Indexed) -> None:
        self._rewrite = rewrite
        self._indexed = indexed
        self._source = rewrite.source
        self._spans = (indexed.block.clause("FROM"), indexed.block.clause("WHERE"))

    @property
    def reason(self) -> str | None:
        """The first reason why the text cannot be carried; None if it can."""
        source, spans = self._source, self._spans
        scored = [call for call in find_scorings(source) if any(span.holds(call.name) for span in spans)]
        computed = any("__pythia_" in self._rewrite.text(span) for span in spans)
        reasons = (
            "a volatile function in the filter"
            if any(changes_from_call_to_call(source, span, self._rewrite.catalog) for span in spans)
            else None,
            "a score is computed in the filter" if any(not c.is_constant(source) for c in scored) else None,
            "the filter searches by a computed vector" if computed else None,
            self._cte_reason(),
            self._name_reason(),
        )
        return next((reason for reason in reasons if reason), None)

    @cached_property
    def outer(self) -> list[Span]:
        """The names of outer queries, or of variables around the statement, whose values are written into the text."""
        return [name.span for name in self._names if name.owner is Owner.OUTER]

    def query(self, *, typed: bool) -> str:
        """The expression whose value is the query; without types where the parameters stand nowhere else."""
        tables, where = (text_with_outer(self._rewrite, span, self.outer) for span in self._spans)
        table, key = self._indexed.piece.shown, self._indexed.index.key
        vector = self._source.at(self._indexed.column.end - 1).text
        rows = f"SELECT {table}.{key}, {table}.{vector} FROM {tables}" + (f" WHERE {where}" if where else "")
        return carried(self._rewrite, self._with_clause() + rows, typed=typed)

    @cached_property
    def _names(self) -> list[Name]:
        return [name for span in self._spans for name in self._indexed.scope.names(span)]

    @cached_property
    def _ctes(self) -> set[str]:
        """The names of the statement's CTEs that the text reads."""
        ctes = outer_ctes(self._source, Span(self._spans[0].start, max(span.end for span in self._spans)))
        pieces = [*self._indexed.scope.pieces, *self._pieces_in(self._spans)]
        return {piece.table_name for piece in pieces} & ctes

    @cached_property
    def _own(self) -> WithList | None:
        """The WITH clause in front of the block."""
        query = query_of(self._source, self._indexed.block.level)
        return query.with_list if query else None

    def _pieces_in(self, spans: Iterable[Span]) -> list[Piece]:
        """What the subqueries in some tokens read."""
        blocks = [block for span in spans for block in inner_blocks(self._source, span)]
        return [piece for block in blocks for piece in pieces_of(block, self._rewrite.catalog)]

    def _with_clause(self) -> str:
        if not self._ctes or self._own is None:
            return ""
        return self._rewrite.text(Span(self._own.start, self._own.end)) + " "

    def _cte_reason(self) -> str | None:
        """CTEs of the block's own WITH clause can be carried; those of queries around it cannot."""
        if not self._ctes:
            return None
        own = self._own
        foreign = sorted(
            self._ctes - ({folded(self._source, name) for name, _ in own.bodies} if own else set())
        )
        if foreign or own is None:
            return f"the filter reads the CTE {foreign[0]}"
        return None if self._is_closed(own) else "a CTE of the filter cannot be carried"

    def _is_closed(self, own: WithList) -> bool:
        """Tell whether a WITH clause only reads, computes no scores, and reads nothing of the queries around it."""
        source, clause = self._source, Span(own.start, own.end)
        if changes_from_call_to_call(source, clause, self._rewrite.catalog):
            return False
        if any(source.key(i) in _CHANGES for i in range(*clause)):
            return False
        if any(clause.holds(call.name) for call in find_scorings(source)):
            return False
        bodies = [Span(body, source.partner[body] + 1) for _, body in own.bodies]
        inside = {folded(source, name) for name, _ in own.bodies}
        around = outer_ctes(source, clause) - inside
        names = [name for body in bodies for name in self._indexed.scope.names(body)]
        reads = {piece.table_name for piece in self._pieces_in(bodies)}
        return all(name.owner is Owner.INNER for name in names) and not reads & around

    def _name_reason(self) -> str | None:
        for name in self._names:
            unsure = name.owner is Owner.UNKNOWN or (name.owner is Owner.OUTER and not name.is_qualified)
            if unsure and not self._is_value(name):
                return f'it is not known what "{folded(self._source, name.span.start)}" is'
        return None

    def _is_value(self, name: Name) -> bool:
        """Tell whether a name is surely a value, such as a variable of a block: it stands behind a comparison."""
        return name.owner is Owner.OUTER and self._source.key(name.span.start - 1) in _COMPARISONS
