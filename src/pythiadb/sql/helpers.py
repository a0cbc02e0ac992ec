"""Helper CTEs, which score the inputs of many rows in arrays, and the notes that say how a call is computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pythiadb.sql.blocks import conjuncts
from pythiadb.sql.calling import (
    arguments_array,
    batch_size,
    embedding_attribute,
    is_text_embedding,
    single,
    typed,
)
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scoring import Scoring, literal
from pythiadb.sql.source import Span
from pythiadb.sql.statements import query_of, select_of


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


def rows_first(rewrite: Rewrite, refused: Iterable[tuple[Scoring, str]]) -> None:
    """Write calls as the function that scores one row, inner ones before the calls around them."""
    for call, reason in sorted(refused, key=lambda pair: -pair[0].name):
        row_by_row(rewrite, call, reason)


def row_by_row(rewrite: Rewrite, call: Scoring, reason: str) -> None:
    """Write a call as the function that scores one row."""
    note(rewrite, call, f"row by row: {reason}")
    rewrite.replace(call.span, single(rewrite, call))


def batch_note(rewrite: Rewrite, call: Scoring) -> None:
    """Tell that a call is batched."""
    note(rewrite, call, f"in batches of {batch_size(rewrite, call)}")


def note(rewrite: Rewrite, call: Scoring, how: str) -> None:
    """Tell how a call is computed."""
    rewrite.notes[call.name] = f"{call.operator.name}({call.shown}) {how}"


def helper_cte(rewrite: Rewrite, helper: Helper, call: Scoring, inputs: str) -> str:
    """The CTE that scores the inputs, given as a query with the one column __pythia_input."""
    return (
        f"{helper.table} AS MATERIALIZED (SELECT e.{helper.input}, e.{helper.output} "
        "FROM (SELECT array_agg(d.i ORDER BY d.n) AS inputs, max(d.total) AS total "
        "FROM (SELECT q.__pythia_input AS i, row_number() OVER (ORDER BY octet_length(q.__pythia_input)) AS n, "
        f"count(*) OVER () AS total FROM ({inputs}) q WHERE q.__pythia_input IS NOT NULL) d "
        f"GROUP BY (d.n - 1) / {batch_size(rewrite, call)}) b "
        f"CROSS JOIN LATERAL {_batch_function(rewrite, call)} AS e({helper.input}, {helper.output}))"
    )


def _batch_function(rewrite: Rewrite, call: Scoring) -> str:
    if is_text_embedding(rewrite, call):
        name = embedding_attribute(rewrite, call)
        attribute = f", {literal(name)}" if name else ""
        return f"pythia.vector_embedding_batch({call.model}::regclass, b.inputs, b.total{attribute})"
    arguments = arguments_array(rewrite, call)
    return f"pythia.scoring_batch({call.model}::regclass, '{call.operator.name}', {arguments}, b.inputs, b.total)"


def answer(rewrite: Rewrite, helper: Helper, call: Scoring) -> str:
    """The answer for a row of a query that joins the helper."""
    one = single(rewrite, call)
    output = typed(rewrite, call, f"{helper.table}.{helper.output}")
    if is_text_embedding(rewrite, call):
        return f"COALESCE({output}, {one})"  # an embedding is NULL for NULL only
    return f"CASE WHEN {helper.table}.{helper.input} IS NULL THEN {one} ELSE {output} END"


def add_ctes(rewrite: Rewrite, level: int, ctes: list[str]) -> None:
    """Put CTEs in front of the query of a level: behind those of its own WITH clause, which they may read."""
    query = query_of(rewrite.source, level)
    assert query is not None
    query = select_of(rewrite.source, query)
    if query.with_list:
        rewrite.after(query.with_list.end - 1, "".join(f", {cte}" for cte in ctes))
    else:
        word = "," if level in rewrite.with_clauses else "WITH"
        rewrite.before(query.verb, f"{word} {', '.join(ctes)} ")
        rewrite.with_clauses.add(level)


def remaining_where(rewrite: Rewrite, where: Span, calls: Iterable[Scoring]) -> str:
    """The conditions that hold no call over columns, with AND between them; empty if there are none."""
    kept = [
        part for part in conjuncts(rewrite.source, where) if not any(part.holds(call.name) for call in calls)
    ]
    if len(kept) == 1:
        return rewrite.text(kept[0])
    return " AND ".join(rewrite.text(part) for part in kept)
