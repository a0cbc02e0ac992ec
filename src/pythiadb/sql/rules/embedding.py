"""VECTOR_EMBEDDING: which calls run once, which in batches, which for each row."""

from __future__ import annotations

from pythiadb.sql.batching import batch_blocks, row_by_row
from pythiadb.sql.batching_dml import batch_merge, batch_update
from pythiadb.sql.blocks import Block, block_at
from pythiadb.sql.embeddings import Embedding, find_embeddings, single
from pythiadb.sql.references import has_volatile
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.source import Source
from pythiadb.sql.statements import Query, query_of

_CHANGES = ("UPDATE", "DELETE", "MERGE")


def rewrite_embedding(rewrite: Rewrite) -> None:
    """Replace VECTOR_EMBEDDING with USING by function calls, gathering the inputs of many rows into arrays.

    Before: SELECT id FROM t ORDER BY v <=> VECTOR_EMBEDDING(minilm USING :q AS data)
    After: SELECT id FROM t ORDER BY v <=> (SELECT pythia.vector_embedding('minilm'::regclass, :q::text))
    """
    in_blocks: list[tuple[Block, Embedding]] = []
    in_changes: dict[Query, list[Embedding]] = {}
    for call in reversed(find_embeddings(rewrite.source)):
        block = block_at(rewrite.source, call.name)
        change = None if block else change_at(rewrite.source, call.name)
        if is_generated(rewrite.source, call.name):
            rewrite.notes[call.name] = f"vector_embedding({call.shown}) row by row: in a generated column"
            rewrite.replace(call.span, single(rewrite, call, function="pythia.vector_embedding_immutable"))
        elif call.is_constant(rewrite.source):
            _constant(rewrite, call, in_query=block is not None or change is not None)
        elif block:
            in_blocks.insert(0, (block, call))
        elif change:
            in_changes.setdefault(change, []).insert(0, call)
        else:
            row_by_row(rewrite, call, "outside of a query")
    batch_blocks(rewrite, in_blocks)
    for change, calls in in_changes.items():
        everything = (*(call for _, call in in_blocks), *calls)
        batch = batch_merge if rewrite.source.key(change.verb) == "MERGE" else batch_update
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


def _constant(rewrite: Rewrite, call: Embedding, *, in_query: bool) -> None:
    """A scalar subquery makes PostgreSQL compute the call once a statement instead of once a row."""
    once = in_query and not has_volatile(rewrite.source, call.input)
    rewrite.notes[call.name] = f"vector_embedding({call.shown}) {'once' if once else 'as it stands'}"
    text = single(rewrite, call)
    rewrite.replace(call.span, f"(SELECT {text})" if once else text)
