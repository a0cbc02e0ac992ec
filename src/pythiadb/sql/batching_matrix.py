"""Batches of numbers: rows travel as arrays of float8, and answers find their rows by ctid instead of by their input.

Two forms. A block that needs short columns only, or none, reads them from the CTE that scores, in the table's place: one
pass over the table and no join. Any other block joins the answers to its rows. A table that is
read whole is cut by ranges of pages, any other selection by counting rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from pythiadb.sql.blocks import Block
from pythiadb.sql.calling import arguments_array, single, typed
from pythiadb.sql.checks import Candidate
from pythiadb.sql.from_items import expand_star, join_helper
from pythiadb.sql.helpers import add_ctes, note, remaining_where
from pythiadb.sql.matrix import Stored, columns_of, needed_columns, quoted, stored_table
from pythiadb.sql.names import keep_column_name
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scoring import Scoring, literal

ROWS = 8192  # of a matrix
_PAGES = (
    28,
    2048,
)  # bounds of a matrix in pages of the table; 28 full pages of the shortest rows hold about ROWS
_UNKNOWN = 64  # pages of a matrix of a table that was never analyzed
_SAFE = 2147483647  # a tensor of whole numbers may not hold what is larger


@dataclass(frozen=True, slots=True)
class Part:
    """The calls of a block that have one answer, the expressions of their attributes, and a number of its own."""

    candidate: Candidate
    columns: dict[str, str]
    number: int

    @property
    def call(self) -> Scoring:
        """One of the calls."""
        return self.candidate.calls[0]

    @property
    def output(self) -> str:
        """The column of the answers."""
        return f"__pythia_output_{self.number}"

    @property
    def values(self) -> str:
        """The attributes of a row as an array."""
        return f"ARRAY[{', '.join(f'({text})::double precision' for text in self.columns.values())}]"


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
    found = [(candidate, columns_of(rewrite, candidate, table)) for candidate in candidates]
    parts = [Part(candidate, columns, rewrite.next_cte()) for candidate, columns in found if columns]
    left = [candidate for candidate, columns in found if not columns]
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
    cte = f"{name} AS MATERIALIZED ({_scored(rewrite, keys, planned, carried or [], where)})"
    answers = [_answer(rewrite, table, part, keys, name, joined=carried is None) for part in parts]
    for part, answer in zip(parts, answers, strict=True):
        for call in part.candidate.calls:
            note(rewrite, call, f"in arrays of {ROWS} rows")
            keep_column_name(rewrite, block, call)
            rewrite.replace(call.span, answer)
    if carried is None:
        expand_star(rewrite, block)
        pairs = zip(keys, table.facts.row_key, strict=True)
        same = " AND ".join(f"{name}.{key} = {table.name}.{column}" for key, column in pairs)
        join_helper(rewrite, block, f" LEFT JOIN {name} ON {same}")
    else:
        rewrite.replace(block.clause("FROM"), f"{name} AS {table.name}")
    add_ctes(rewrite, block.level, [cte])


def _scored(rewrite: Rewrite, keys: list[str], planned: Matrices, carried: list[str], where: str) -> str:
    """A row for each row of the table, with its key, the columns to carry, and the answers."""
    table, parts = planned.table, planned.parts
    values = list(dict.fromkeys(part.values for part in parts))
    columns = [f"{table.name}.{column}" for column in table.facts.row_key]
    columns += [f"{table.name}.{quoted(column)}" for column in carried]
    chunks = _chunks(table, [*columns, *values], where)
    names = [*keys, *map(quoted, carried)]
    shown = [f"unnest(b.a{number}) AS {column}" for number, column in enumerate(names, 1)]
    for part in parts:
        rows = f"b.a{len(names) + 1 + values.index(part.values)}"
        attributes = ", ".join(map(literal, part.columns))
        call, arguments = part.call, arguments_array(rewrite, part.call)
        shown.append(
            f"unnest(pythia.scoring_matrix({call.model}::regclass, '{call.operator.name}', {arguments}, "
            f"ARRAY[{attributes}], {rows}, b.total)) AS {part.output}"
        )
    return f"SELECT {', '.join(shown)} FROM {chunks}"


def _chunks(table: Stored, columns: list[str], where: str) -> str:
    """The rows of a table in arrays a1, a2 ..., one a column, as the FROM item b; total is about how many rows there
    are, if that is known."""
    if table.facts.is_one_file and not where:
        return _page_ranges(table, columns)
    aliases = [f"c{number}" for number in range(1, len(columns) + 1)]
    selected = ", ".join(f"{column} AS {alias}" for column, alias in zip(columns, aliases, strict=True))
    arrays = ", ".join(f"array_agg(r.{alias}) AS a{alias[1:]}" for alias in aliases)
    rows = f"SELECT {selected}, row_number() OVER () AS n FROM {table.item}"
    return (
        f"(SELECT {arrays}, NULL::bigint AS total FROM ({rows}{f' WHERE {where}' if where else ''}) r "
        f"GROUP BY (r.n - 1) / {ROWS}) b"
    )


def _page_ranges(table: Stored, columns: list[str]) -> str:
    """Ranges of ctid, as many pages each as hold about ROWS rows."""
    arrays = ", ".join(f"array_agg({column}) AS a{number}" for number, column in enumerate(columns, 1))
    relation = f"{literal(table.written)}::regclass"
    low, high = _PAGES
    return (
        "(SELECT r.*, g.total FROM (SELECT p.step, p.total, generate_series(0, p.size, p.step) AS page "
        f"FROM (SELECT CASE WHEN c.reltuples > 0 THEN least(greatest({ROWS} * c.relpages / c.reltuples, {low}), {high}) "
        f"ELSE {_UNKNOWN} END::bigint AS step, greatest(c.reltuples, 1)::bigint AS total, "
        f"pg_relation_size({relation}) / current_setting('block_size')::bigint AS size "
        f"FROM pg_class c WHERE c.oid = {relation}) p) g "
        f"CROSS JOIN LATERAL (SELECT {arrays} FROM {table.item} WHERE {table.name}.ctid >= "
        f"('(' || g.page || ',0)')::tid AND {table.name}.ctid < ('(' || g.page + g.step || ',0)')::tid) r) b"
    )


def _answer(rewrite: Rewrite, table: Stored, part: Part, keys: list[str], name: str, *, joined: bool) -> str:
    """The answer for a row. One that a matrix could not hold is scored singly, unless it has NULL for an answer anyway."""
    one = single(rewrite, part.call)
    lost = f"(SELECT count(v) = count(*) OR max(abs(v)) > {_SAFE} FROM unnest({part.values}) AS v)"
    if joined:
        missed = f"{name}.{keys[0]} IS NULL OR ({name}.{part.output} IS NULL AND {lost})"
        return f"CASE WHEN {missed} THEN {one} ELSE {typed(rewrite, part.call, f'{name}.{part.output}')} END"
    output = f"{table.name}.{part.output}"
    same = " AND ".join(
        f"{table.name}.{column} = {key}" for key, column in zip(keys, table.facts.row_key, strict=True)
    )
    again = f"(SELECT CASE WHEN {lost} THEN {one} END FROM {table.item} WHERE {same})"
    return f"CASE WHEN {output} IS NULL THEN {again} ELSE {typed(rewrite, part.call, output)} END"
