"""Batches of numbers: rows travel as arrays of numbers, and answers find their rows by ctid instead of by their input.

Two forms. A block that needs short columns only, or none, reads them from the query that scores, in the table's place: one
pass over the table and no join. Any other block joins the answers, kept in a CTE, to its rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from pythiadb.sql.blocks import Block
from pythiadb.sql.calling import single, typed
from pythiadb.sql.checks import Candidate
from pythiadb.sql.from_items import expand_star, join_helper
from pythiadb.sql.helpers import add_ctes, note, remaining_where
from pythiadb.sql.matrix import Stored, needed_columns, stored_table
from pythiadb.sql.matrix_rows import ROWS, Part, Rows, scored_rows
from pythiadb.sql.matrix_values import Inputs, inputs_of
from pythiadb.sql.names import keep_column_name
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scoring import Scoring


@dataclass(frozen=True, slots=True)
class Matrices:
    """The calls of a block that take their rows as a matrix; `alone`: it has no others."""

    block: Block
    table: Stored
    parts: list[Part]
    alone: bool


def plan_matrices(
    rewrite: Rewrite, block: Block, candidates: list[Candidate]
) -> tuple[Matrices | None, list[Candidate]]:
    """Part the calls of a block that can take their rows as a matrix from those that cannot."""
    table = stored_table(rewrite, block)
    if table is None:
        return None, candidates
    found = [(candidate, inputs_of(rewrite, candidate)) for candidate in candidates]
    parts = [Part(candidate, inputs, rewrite.next_cte()) for candidate, inputs in found if inputs]
    left = [candidate for candidate, inputs in found if not inputs]
    if not parts:
        return None, left
    calls = [call for part in parts for call in part.candidate.calls]
    strangers = [other for other in parts[0].candidate.others if other not in calls]
    alone = not any(block.span.holds(other.name) for other in strangers)
    return Matrices(block, table, parts, alone), left


def write_matrices(rewrite: Rewrite, planned: Matrices) -> None:
    """Rewrite the calls that were planned."""
    block, table, parts = planned.block, planned.table, planned.parts
    calls = [call for part in parts for call in part.candidate.calls]
    carried = needed_columns(block, calls, table) if planned.alone else None
    if carried and block.is_grouped:
        carried = None  # other columns may depend on the key that rows are grouped by
    where = remaining_where(rewrite, block.clause("WHERE"), [*calls, *parts[0].candidate.others])
    name = f"__pythia_{parts[0].number}"
    keys = [f"__pythia_{key}_{parts[0].number}" for key in table.facts.row_key]
    if carried is not None and all(part.inputs.exact for part in parts):
        keys = []
    once = carried is not None and _is_read_once(block)
    scored = scored_rows(rewrite, Rows(table, keys, carried or [], where), parts, in_parallel=once)
    answers = [_answer(rewrite, table, part, keys, name, joined=carried is None) for part in parts]
    for part, answer in zip(parts, answers, strict=True):
        for call in part.candidate.calls:
            note(rewrite, call, f"in arrays of {ROWS} rows")
            keep_column_name(rewrite, block, call)
            rewrite.replace(call.span, answer)
    if once:
        rewrite.replace(block.clause("FROM"), f"({scored}) AS {table.name}")
        return
    if carried is None:
        expand_star(rewrite, block)
        pairs = zip(keys, table.facts.row_key, strict=True)
        same = " AND ".join(f"{name}.{key} = {table.name}.{column}" for key, column in pairs)
        join_helper(rewrite, block, f" LEFT JOIN {name} ON {same}")
    else:
        rewrite.replace(block.clause("FROM"), f"{name} AS {table.name}")
    add_ctes(rewrite, block.level, [f"{name} AS MATERIALIZED ({scored})"])


def _answer(rewrite: Rewrite, table: Stored, part: Part, keys: list[str], name: str, *, joined: bool) -> str:
    """The answer for a row. One that a matrix could not hold is scored singly, unless it has NULL for an answer anyway."""
    if joined:
        return joined_answer(rewrite, part.call, part.inputs, f"{name}.{keys[0]}", f"{name}.{part.output}")
    output = f"{table.name}.{part.output}"
    if part.inputs.exact:
        return _typed(rewrite, part.call, output)
    same = " AND ".join(
        f"{table.name}.{column} = {key}" for key, column in zip(keys, table.facts.row_key, strict=True)
    )
    one = single(rewrite, part.call)
    again = f"(SELECT CASE WHEN {part.inputs.lost(rewrite)} THEN {one} END FROM {table.item} WHERE {same})"
    return f"CASE WHEN {output} IS NULL THEN {again} ELSE {_typed(rewrite, part.call, output)} END"


def joined_answer(rewrite: Rewrite, call: Scoring, inputs: Inputs, key: str, output: str) -> str:
    """The same for a row that is joined to its answer, if any, with the answer's key."""
    missed = f"{key} IS NULL OR ({output} IS NULL AND {inputs.lost(rewrite)})"
    return f"CASE WHEN {missed} THEN {single(rewrite, call)} ELSE {_typed(rewrite, call, output)} END"


def _is_read_once(block: Block) -> bool:
    """Tell whether the rows of a block are surely asked for once: the statement itself, or the first item of a FROM of it."""
    level = block.level
    while level >= 0 and block.source.key(level - 1) == "FROM":
        level = block.source.parent[level]
    return level < 0


def _typed(rewrite: Rewrite, call: Scoring, output: str) -> str:
    return typed(rewrite, call, output) if call.operator.is_set else output
