"""Batching: the inputs of a query block travel to the engine in arrays, gathered by a CTE in front of the query.

A call over the columns of a block would reach the engine once a row. The CTE computes the distinct inputs of the block's
FROM and WHERE, 256 at a time and sorted by length; the block joins it and takes the output of its row's input. The call
itself stays behind COALESCE, so the CTE is an optimisation and nothing else: a row whose input it missed is computed
singly, and NULL gives NULL.
"""

from __future__ import annotations

from pythiadb.sql.batching_matrix import plan_matrices, write_matrices
from pythiadb.sql.blocks import Block
from pythiadb.sql.calling import key_text
from pythiadb.sql.checks import Candidate, row_limit, uses_limit, why_row_by_row
from pythiadb.sql.from_items import expand_star, join_helper
from pythiadb.sql.helpers import (
    Helper,
    add_ctes,
    answer,
    batch_note,
    helper_cte,
    remaining_where,
    rows_first,
)
from pythiadb.sql.names import keep_column_name
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scoring import Scoring
from pythiadb.sql.source import Source, Span


def batch_blocks(rewrite: Rewrite, calls: list[tuple[Block, Scoring]]) -> None:
    """Rewrite the calls over columns of query blocks: in batches where that is safe, row by row elsewhere."""
    judged = [(candidate, why_row_by_row(candidate)) for candidate in _candidates(calls)]
    refused = [(call, reason) for candidate, reason in judged if reason for call in candidate.calls]
    rows_first(rewrite, refused)
    accepted = [candidate for candidate, reason in judged if reason is None]
    levels = {candidate.block.level for candidate in accepted}
    for level in sorted(levels, key=lambda level: -_depth(rewrite.source, level)):
        here = [candidate for candidate in accepted if candidate.block.level == level]
        blocks = {candidate.block.span: candidate.block for candidate in here}
        planned = [
            plan_matrices(rewrite, block, [one for one in here if one.block.span == span])
            for span, block in blocks.items()
        ]
        _batch_level(rewrite, level, [one for _, left in planned for one in left])
        for matrices in (found for found, _ in planned if found is not None):
            write_matrices(rewrite, matrices)


def _candidates(calls: list[tuple[Block, Scoring]]) -> list[Candidate]:
    """Put calls with the same model and input in the same block together."""
    everything = tuple(call for _, call in calls)
    groups: dict[tuple[object, ...], list[tuple[Block, Scoring]]] = {}
    for block, call in calls:
        groups.setdefault((block.span, *call.key(block.source)), []).append((block, call))
    found = []
    for group in groups.values():
        own = tuple(call for _, call in group)
        others = tuple(call for call in everything if call not in own)
        found.append(Candidate(group[0][0], own, others))
    return found


def _batch_level(rewrite: Rewrite, level: int, candidates: list[Candidate]) -> None:
    """Rewrite the blocks of one level: first read what the CTEs repeat, then edit it."""
    if not candidates:
        return
    planned = [(candidate, Helper(rewrite.next_cte())) for candidate in candidates]
    ctes = [helper_cte(rewrite, helper, c.calls[0], _inputs(rewrite, c)) for c, helper in planned]
    joins = [(c.block, helper.join(key_text(rewrite, c.calls[0]))) for c, helper in planned]
    for candidate, helper in planned:
        for call in candidate.calls:
            batch_note(rewrite, call)
            keep_column_name(rewrite, candidate.block, call)
            rewrite.replace(call.span, answer(rewrite, helper, call))
    for block in {c.block.span: c.block for c in candidates}.values():
        expand_star(rewrite, block)
        join_helper(rewrite, block, "".join(join for owner, join in joins if owner.span == block.span))
    add_ctes(rewrite, level, ctes)


def _inputs(rewrite: Rewrite, candidate: Candidate) -> str:
    """The query for the distinct inputs of a block."""
    block = candidate.block
    where = remaining_where(rewrite, block.clause("WHERE"), (*candidate.calls, *candidate.others))
    tables = rewrite.text(block.clause("FROM")) + (f" WHERE {where}" if where else "")
    key = key_text(rewrite, candidate.calls[0])
    if not uses_limit(candidate):
        return f"SELECT DISTINCT {key} AS __pythia_input FROM {tables}"
    limited = f"SELECT {key} AS __pythia_input FROM {tables} {_limit(rewrite, block)}"
    return f"SELECT DISTINCT l.__pythia_input FROM ({limited}) l"


def _limit(rewrite: Rewrite, block: Block) -> str:
    """ORDER BY and the limit with their key words; PostgreSQL computes the rows that OFFSET passes over, too."""
    counts = row_limit(block) if "OFFSET" in block.clauses else None
    starts = [span.start - _KEYWORDS[name] for name, span in block.clauses.items() if name in _KEYWORDS]
    if counts is None:
        return rewrite.text(Span(min(starts), block.span.end))
    order = block.clause("ORDER")
    ordered = rewrite.text(Span(order.start - 2, order.end)) + " " if order.start < order.end else ""
    limit, offset = (rewrite.text(Span(at, at + 1)) for at in counts)
    return f"{ordered}LIMIT {limit}::bigint + {offset}::bigint"


_KEYWORDS = {"ORDER": 2, "LIMIT": 1, "OFFSET": 1, "FETCH": 1}  # how many words begin the clause


def _depth(source: Source, level: int) -> int:
    depth = 0
    while level >= 0:
        level, depth = source.parent[level], depth + 1
    return depth
