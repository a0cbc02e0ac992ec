"""Scoring operators: which calls run once, which in batches, which for each row."""

from __future__ import annotations

from pythiadb.errors import FeatureNotSupported
from pythiadb.sql.batching import batch_blocks
from pythiadb.sql.batching_dml import batch_merge, batch_update
from pythiadb.sql.batching_sets import batch_sets, is_from_item
from pythiadb.sql.blocks import Block, block_at, blocks_of
from pythiadb.sql.calling import resolve_stars, single
from pythiadb.sql.from_items import item_name, name_derived_tables, table_names
from pythiadb.sql.helpers import add_ctes, note, row_by_row
from pythiadb.sql.references import has_volatile
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scoring import Scoring, find_scorings
from pythiadb.sql.source import Source, Span
from pythiadb.sql.statements import Query, query_of

_CHANGES = ("UPDATE", "DELETE", "MERGE")
# Never run, but it keeps parallel workers away: a call of the engine ends a subtransaction, which PostgreSQL refuses beside
# workers in a statement that fills a table.
_SERIAL = "__pythia_serial AS (SELECT pg_current_xact_id())"


def rewrite_constant_scoring(rewrite: Rewrite) -> None:
    """Replace scoring operators over no column by function calls that run once a statement.

    Before: SELECT id FROM t ORDER BY v <=> VECTOR_EMBEDDING(minilm USING :q AS data)
    After: SELECT id FROM t ORDER BY v <=> (SELECT pythia.vector_embedding('minilm'::regclass, :q::text))
    """
    source = rewrite.source
    for call in reversed(find_scorings(source)):
        block = block_at(source, call.name)
        if _runs_once(source, block, call):
            change = None if block else change_at(source, call.name)
            _constant(rewrite, call, in_query=block is not None or change is not None)


def _runs_once(source: Source, block: Block | None, call: Scoring) -> bool:
    """Tell whether a call names no column and stands where its answer does not depend on the row."""
    in_from = block is not None and is_from_item(block, call)
    return not in_from and not is_generated(source, call.name) and call.is_constant(source)


def rewrite_scoring(rewrite: Rewrite) -> None:
    """Replace scoring operators over columns by function calls, gathering the inputs of many rows into arrays.

    Before: DELETE FROM t WHERE VECTOR_EMBEDDING(minilm USING d AS data) <=> v > 0.5
    After: DELETE FROM t WHERE pythia.vector_embedding('minilm'::regclass, d) <=> v > 0.5
    """
    source = rewrite.source
    in_blocks: list[tuple[Block, Scoring]] = []
    in_from: list[tuple[Block, Scoring]] = []
    in_changes: dict[Query, list[Scoring]] = {}
    everything = find_scorings(source)
    given = _name_derived_tables(rewrite, everything)
    for found in reversed(everything):
        block = block_at(source, found.name)
        if _runs_once(source, block, found):
            continue
        change = None if block else change_at(source, found.name)
        call = resolve_stars(found, _tables(source, found, block, change, given), source)
        if block and is_from_item(block, call):
            in_from.insert(0, (block, call))
        elif is_generated(source, call.name):
            _generated(rewrite, call)
        elif block:
            in_blocks.insert(0, (block, call))
        elif change:
            in_changes.setdefault(change, []).insert(0, call)
        else:
            row_by_row(rewrite, call, "outside of a query")
    batch_sets(rewrite, in_from, tuple(call for _, call in in_blocks))
    batch_blocks(rewrite, in_blocks)
    for change, calls in in_changes.items():
        others = (*(call for _, call in in_blocks), *calls)
        batch = batch_merge if source.key(change.verb) == "MERGE" else batch_update
        batch(rewrite, change, calls, others)
    asks_engine = everything or any(search.index is not None for search in rewrite.searches)
    if asks_engine and _fills_table(source):
        add_ctes(rewrite, -1, [_SERIAL])


def _fills_table(source: Source) -> bool:
    """Tell whether the rows of a query go into a new table or a materialized view."""
    if source.key(0) == "CREATE":
        return query_of(source, -1) is not None
    return any("INTO" in block.clauses for block in blocks_of(source, -1))


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


def _name_derived_tables(rewrite: Rewrite, calls: list[Scoring]) -> dict[int, str]:
    """The names given to derived tables whose columns a bare `*` means, by opening parenthesis."""
    starred = [
        call
        for call in calls
        if not call.is_embedding and any(a.star and not a.whole for a in call.attributes)
    ]
    blocks = {block.span: block for call in starred if (block := block_at(rewrite.source, call.name))}
    given: dict[int, str] = {}
    for block in blocks.values():
        given |= name_derived_tables(rewrite, block)
    return given


def _tables(
    source: Source, call: Scoring, block: Block | None, change: Query | None, given: dict[int, str]
) -> list[str] | None:
    """The names of the tables whose columns a bare `*` means; None if they cannot be told."""
    if block:  # a set in FROM reads what stands in front of it
        before = call.name if is_from_item(block, call) else None
        return table_names(block, given, before=before)
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
