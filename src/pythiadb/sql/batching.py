"""Batching: the inputs of a query block travel to the engine in arrays, gathered by a CTE in front of the query.

A call over the columns of a block would reach the engine once a row. The CTE computes the distinct inputs of the block's
FROM and WHERE, 256 at a time and sorted by length; the block joins it and takes the output of its row's input. The call
itself stays behind COALESCE, so the CTE is an optimisation and nothing else: a row whose input it missed is computed
singly, and NULL gives NULL.
"""

from __future__ import annotations

from dataclasses import dataclass

from pythiadb.sql.batching_matrix import plan_matrices, write_matrices
from pythiadb.sql.batching_numbers import number_answer, number_cte, number_join
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
    note,
    remaining_where,
    rows_first,
)
from pythiadb.sql.matrix_rows import ROWS
from pythiadb.sql.matrix_values import Inputs, inputs_of
from pythiadb.sql.names import keep_column_name
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scoring import Scoring
from pythiadb.sql.source import Span


@dataclass(frozen=True, eq=False)
class _Planned:
    """A candidate, its helper, and the numbers that it is joined by; without those, by its input as a text."""

    candidate: Candidate
    helper: Helper
    numbers: Inputs | None

    @property
    def call(self) -> Scoring:
        """One of the calls."""
        return self.candidate.calls[0]


def batch_blocks(rewrite: Rewrite, calls: list[tuple[Block, Scoring]]) -> None:
    """Rewrite the calls over columns of query blocks: in batches where that is safe, row by row elsewhere."""
    judged = [(candidate, why_row_by_row(candidate)) for candidate in _candidates(calls)]
    refused = [(call, reason) for candidate, reason in judged if reason for call in candidate.calls]
    rows_first(rewrite, refused)
    accepted = [candidate for candidate, reason in judged if reason is None]
    levels = {candidate.block.level for candidate in accepted}
    for level in sorted(levels, key=rewrite.source.depth, reverse=True):
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
    planned = [_Planned(c, Helper(rewrite.next_cte()), inputs_of(rewrite, c)) for c in candidates]
    ctes = [_cte(rewrite, one) for one in planned]
    joins = [(one.candidate.block, _join(rewrite, one)) for one in planned]
    for one in planned:
        for call in one.candidate.calls:
            keep_column_name(rewrite, one.candidate.block, call)
            rewrite.replace(call.span, _answer(rewrite, one, call))
    for block in {c.block.span: c.block for c in candidates}.values():
        expand_star(rewrite, block)
        join_helper(rewrite, block, "".join(join for owner, join in joins if owner.span == block.span))
    add_ctes(rewrite, level, ctes)


def _join(rewrite: Rewrite, planned: _Planned) -> str:
    if planned.numbers:
        return number_join(planned.helper, planned.numbers)
    return planned.helper.join(key_text(rewrite, planned.call))


def _cte(rewrite: Rewrite, planned: _Planned) -> str:
    helper, candidate = planned.helper, planned.candidate
    if planned.numbers:
        return number_cte(rewrite, helper, planned.call, planned.numbers, _rows(rewrite, candidate))
    return helper_cte(rewrite, helper, planned.call, _inputs(rewrite, candidate))


def _answer(rewrite: Rewrite, planned: _Planned, call: Scoring) -> str:
    """The answer for a row, after a note of how it comes."""
    if planned.numbers:
        note(rewrite, call, f"in arrays of {ROWS} rows")
        return number_answer(rewrite, planned.helper, call, planned.numbers)
    batch_note(rewrite, call)
    return answer(rewrite, planned.helper, call)


def _inputs(rewrite: Rewrite, candidate: Candidate) -> str:
    """The query for the distinct inputs of a block."""
    key, rows = key_text(rewrite, candidate.calls[0]), _rows(rewrite, candidate)
    if not uses_limit(candidate):
        return f"SELECT DISTINCT {key} AS __pythia_input FROM {rows}"
    return f"SELECT DISTINCT l.__pythia_input FROM (SELECT {key} AS __pythia_input FROM {rows}) l"


def _rows(rewrite: Rewrite, candidate: Candidate) -> str:
    """The rows of a block that need the calls: what stands behind FROM."""
    block = candidate.block
    where = remaining_where(rewrite, block.clause("WHERE"), (*candidate.calls, *candidate.others))
    tables = rewrite.text(block.clause("FROM")) + (f" WHERE {where}" if where else "")
    added = rewrite.conditions.get(block.span.start, "")
    return f"{tables} {_limit(rewrite, block) if uses_limit(candidate) else added}".rstrip()


def _limit(rewrite: Rewrite, block: Block) -> str:
    """ORDER BY and the limit with their key words, behind a condition that was put there; PostgreSQL computes the rows that OFFSET passes over, too."""
    counts = row_limit(block) if "OFFSET" in block.clauses else None
    starts = [span.start - _KEYWORDS[name] for name, span in block.clauses.items() if name in _KEYWORDS]
    if counts is None:
        return rewrite.text(Span(min(starts), block.span.end))
    order = block.clause("ORDER")
    ordered = rewrite.text(Span(order.start - 2, order.end)) + " " if order.start < order.end else ""
    limit, offset = (rewrite.text(Span(at, at + 1)) for at in counts)
    return f"{ordered}LIMIT {limit}::bigint + {offset}::bigint"


_KEYWORDS = {"ORDER": 2, "LIMIT": 1, "OFFSET": 1, "FETCH": 1}  # how many words begin the clause
