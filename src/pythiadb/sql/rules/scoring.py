"""Scoring operators: which calls run once, which in batches, which for each row."""

from __future__ import annotations

from pythiadb.errors import FeatureNotSupported
from pythiadb.sql.batching import batch_blocks
from pythiadb.sql.batching_dml import batch_merge, batch_update
from pythiadb.sql.batching_sets import batch_sets, is_from_item
from pythiadb.sql.blocks import Block, block_at
from pythiadb.sql.calling import resolve_stars, single
from pythiadb.sql.from_items import item_name, table_names
from pythiadb.sql.helpers import note, row_by_row
from pythiadb.sql.references import has_volatile
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scoring import Scoring, find_scorings
from pythiadb.sql.source import Source, Span
from pythiadb.sql.statements import Query, query_of

_CHANGES = ("UPDATE", "DELETE", "MERGE")


def rewrite_scoring(rewrite: Rewrite) -> None:
    """Replace scoring operators with USING by function calls, gathering the inputs of many rows into arrays.

    Before: SELECT id FROM t ORDER BY v <=> VECTOR_EMBEDDING(minilm USING :q AS data)
    After: SELECT id FROM t ORDER BY v <=> (SELECT pythia.vector_embedding('minilm'::regclass, :q::text))
    """
    source = rewrite.source
    in_blocks: list[tuple[Block, Scoring]] = []
    in_from: list[tuple[Block, Scoring]] = []
    in_changes: dict[Query, list[Scoring]] = {}
    for found in reversed(find_scorings(source)):
        block = block_at(source, found.name)
        change = None if block else change_at(source, found.name)
        call = resolve_stars(found, _tables(source, block, change), source)
        if block and is_from_item(block, call):
            in_from.insert(0, (block, call))
        elif is_generated(source, call.name):
            _generated(rewrite, call)
        elif call.is_constant(source):
            _constant(rewrite, call, in_query=block is not None or change is not None)
        elif block:
            in_blocks.insert(0, (block, call))
        elif change:
            in_changes.setdefault(change, []).insert(0, call)
        else:
            row_by_row(rewrite, call, "outside of a query")
    batch_sets(rewrite, in_from, tuple(call for _, call in in_blocks))
    batch_blocks(rewrite, in_blocks)
    for change, calls in in_changes.items():
        everything = (*(call for _, call in in_blocks), *calls)
        batch = batch_merge if source.key(change.verb) == "MERGE" else batch_update
        batch(rewrite, change, calls, everything)


def is_generated(source: Source, index: int) -> bool:
    """Tell whether a token lies in the expression of a generated column, which needs an immutable function."""
    bracket = source.parent[index]
    while bracket >= 0:
        if (source.key(bracket - 2), source.key(bracket - 1)) == ("ALWAYS", "AS"):
            return True
        bracket = source.parent[bracket]
    return False


def change_at(source: Source, index: int) -> Query | None:
    """The UPDATE, DELETE or MERGE around a token that is in no query block; None in VALUES as a table."""
    level = index
    while level >= 0:
        level = source.parent[level]
        if level >= 0 and source.key(level + 1) == "VALUES":
            return None
        query = query_of(source, level)
        if query and source.key(query.verb) in _CHANGES and query.verb < index:
            return query
    return None


def _tables(source: Source, block: Block | None, change: Query | None) -> list[str] | None:
    """The names of the tables whose columns a bare `*` means; None if they cannot be told."""
    if block:
        return table_names(block)
    if change is None or source.key(change.verb) == "MERGE":
        return None
    start = change.verb + 1 + (source.key(change.verb + 1) == "FROM")
    end = next(
        (i for i in source.flat(Span(start, len(source.tokens))) if source.key(i) in _BEHIND_TABLE), start
    )
    name = item_name(source, Span(start, end))
    return [name] if name else None


_BEHIND_TABLE = ("SET", "FROM", "USING", "WHERE", "RETURNING")


def _generated(rewrite: Rewrite, call: Scoring) -> None:
    if not call.is_embedding:
        raise FeatureNotSupported(
            f"{call.operator.name} in a generated column is not supported",
            detail=rewrite.source.where(call.name),
            hint="Compute it in a view, or in a trigger.",
        )
    note(rewrite, call, "row by row: in a generated column")
    rewrite.replace(call.span, single(rewrite, call, immutable=True))


def _constant(rewrite: Rewrite, call: Scoring, *, in_query: bool) -> None:
    """A scalar subquery makes PostgreSQL compute the call once a statement instead of once a row."""
    once = in_query and not has_volatile(rewrite.source, Span(call.head.start, call.input.end))
    note(rewrite, call, "once" if once else "as it stands")
    text = single(rewrite, call)
    wrapped = text.startswith("(SELECT ")  # a set is a subquery already
    rewrite.replace(call.span, f"(SELECT {text})" if once and not wrapped else text)
