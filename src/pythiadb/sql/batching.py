"""Batching: the inputs of a query block travel to the engine in arrays, gathered by a CTE in front of the query.

A call over the columns of a block would reach the engine once a row. The CTE computes the distinct inputs of the block's
FROM and WHERE, 256 at a time and sorted by length; the block joins it and takes the output of its row's input. The call
itself stays behind COALESCE, so the CTE is an optimisation and nothing else: a row whose input it missed is computed
singly, and NULL gives NULL.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pythiadb.sql.blocks import Block, conjuncts
from pythiadb.sql.checks import Candidate, row_limit, uses_limit, why_row_by_row
from pythiadb.sql.embeddings import Embedding, input_text, single
from pythiadb.sql.from_items import join_helper, star_text
from pythiadb.sql.names import keep_column_name
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.source import Source, Span
from pythiadb.sql.statements import query_of, select_of

BATCH = 256  # inputs per engine call: enough to fill a model's matrix products, small enough to answer soon


@dataclass(frozen=True, slots=True)
class Helper:
    """The names of one helper CTE and its columns."""

    number: int

    @property
    def table(self) -> str:
        return f"__pythia_{self.number}"

    @property
    def input(self) -> str:
        return f"__pythia_input_{self.number}"

    @property
    def output(self) -> str:
        return f"__pythia_output_{self.number}"

    def join(self, key: str) -> str:
        """The join of a row to the output for its input."""
        return f" LEFT JOIN {self.table} ON {self.table}.{self.input} = {key}"


def batch_blocks(rewrite: Rewrite, calls: list[tuple[Block, Embedding]]) -> None:
    """Rewrite the calls over columns of query blocks: in batches where that is safe, row by row elsewhere."""
    judged = [(candidate, why_row_by_row(candidate)) for candidate in _candidates(calls)]
    refused = [(call, reason) for candidate, reason in judged if reason for call in candidate.calls]
    rows_first(rewrite, refused)
    accepted = [candidate for candidate, reason in judged if reason is None]
    levels = {candidate.block.level for candidate in accepted}
    for level in sorted(levels, key=lambda level: -_depth(rewrite.source, level)):
        _batch_level(rewrite, level, [candidate for candidate in accepted if candidate.block.level == level])


def rows_first(rewrite: Rewrite, refused: Iterable[tuple[Embedding, str]]) -> None:
    """Write calls as the function that embeds one value, inner ones before the calls around them."""
    for call, reason in sorted(refused, key=lambda pair: -pair[0].name):
        row_by_row(rewrite, call, reason)


def row_by_row(rewrite: Rewrite, call: Embedding, reason: str) -> None:
    """Write a call as the function that embeds one value."""
    rewrite.notes[call.name] = f"vector_embedding({call.shown}) row by row: {reason}"
    rewrite.replace(call.span, single(rewrite, call))


def batch_note(rewrite: Rewrite, call: Embedding) -> None:
    """Tell that a call is batched."""
    rewrite.notes[call.name] = f"vector_embedding({call.shown}) in batches of {BATCH}"


def key_text(rewrite: Rewrite, call: Embedding) -> str:
    """The input of a row as it is compared: as text, byte by byte."""
    return f'({input_text(rewrite, call)})::text COLLATE "C"'


def helper_cte(helper: Helper, call: Embedding, inputs: str) -> str:
    """The CTE that embeds the inputs, given as a query with the one column __pythia_input."""
    alias = f", {call.alias}" if call.alias else ""
    return (
        f"{helper.table} AS MATERIALIZED (SELECT e.{helper.input}, e.{helper.output} "
        "FROM (SELECT array_agg(d.i ORDER BY d.n) AS inputs, max(d.total) AS total "
        "FROM (SELECT q.__pythia_input AS i, row_number() OVER (ORDER BY octet_length(q.__pythia_input)) AS n, "
        f"count(*) OVER () AS total FROM ({inputs}) q WHERE q.__pythia_input IS NOT NULL) d "
        f"GROUP BY (d.n - 1) / {BATCH}) b "
        f"CROSS JOIN LATERAL pythia.vector_embedding_batch({call.model}::regclass, b.inputs, b.total{alias}) "
        f"AS e({helper.input}, {helper.output}))"
    )


def add_ctes(rewrite: Rewrite, level: int, ctes: list[str]) -> None:
    """Put CTEs in front of the query of a level: behind those of its own WITH clause, which they may read."""
    query = query_of(rewrite.source, level)
    assert query is not None
    query = select_of(rewrite.source, query)
    if query.with_list:
        rewrite.after(query.with_list.end - 1, "".join(f", {cte}" for cte in ctes))
    else:
        rewrite.before(query.verb, f"WITH {', '.join(ctes)} ")


def remaining_where(rewrite: Rewrite, where: Span, calls: Iterable[Embedding]) -> str:
    """The conditions that hold no call over columns, with AND between them; empty if there are none."""
    kept = [
        part for part in conjuncts(rewrite.source, where) if not any(part.holds(call.name) for call in calls)
    ]
    if len(kept) == 1:
        return rewrite.text(kept[0])
    return " AND ".join(rewrite.text(part) for part in kept)


def _candidates(calls: list[tuple[Block, Embedding]]) -> list[Candidate]:
    """Put calls with the same model and input in the same block together."""
    everything = tuple(call for _, call in calls)
    groups: dict[tuple[object, ...], list[tuple[Block, Embedding]]] = {}
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
    planned = [(candidate, Helper(rewrite.next_cte())) for candidate in candidates]
    ctes = [helper_cte(helper, c.calls[0], _inputs(rewrite, c)) for c, helper in planned]
    joins = [(c.block, helper.join(key_text(rewrite, c.calls[0]))) for c, helper in planned]
    for candidate, helper in planned:
        for call in candidate.calls:
            batch_note(rewrite, call)
            keep_column_name(rewrite, candidate.block, call)
            rewrite.replace(call.span, f"COALESCE({helper.table}.{helper.output}, {single(rewrite, call)})")
    for block in {c.block.span: c.block for c in candidates}.values():
        _expand_star(rewrite, block)
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


def _expand_star(rewrite: Rewrite, block: Block) -> None:
    """Keep the helper's columns out of a bare `*`."""
    for item in block.items:
        if rewrite.source.shape(item) == ("*",):
            rewrite.replace(item, star_text(block) or "*")


def _depth(source: Source, level: int) -> int:
    depth = 0
    while level >= 0:
        level, depth = source.parent[level], depth + 1
    return depth
