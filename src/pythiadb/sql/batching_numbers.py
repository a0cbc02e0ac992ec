"""Batches of numbers where several tables are read: rows find their answers by their numbers, an array.

It is the form of texts with another key: NULL equals NULL in an array, so that no row misses its answer for that. PostgreSQL, which
knows nothing of how the arrays are distributed, would sort them; it sorts their hashes several times as fast.
"""

from __future__ import annotations

from pythiadb.sql.batching_matrix import joined_answer
from pythiadb.sql.helpers import Helper
from pythiadb.sql.matrix_rows import ROWS, Gathered, scored_matrix
from pythiadb.sql.matrix_values import Inputs
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scoring import Scoring


def number_join(helper: Helper, inputs: Inputs) -> str:
    """The join of a row to the output for its input."""
    key, name = f"ARRAY[{', '.join(inputs.expressions)}]", helper.table
    same = f"{name}.{helper.input} IS NOT DISTINCT FROM {key}"  # not =, by which it might sort
    return f" LEFT JOIN {name} ON {name}.{_hash(helper)} = hash_array_extended({key}, 0) AND {same}"


def number_cte(rewrite: Rewrite, helper: Helper, call: Scoring, inputs: Inputs, rows: str) -> str:
    """The CTE that scores the distinct inputs of some rows, given as what stands behind FROM."""
    names = [f"c{number}" for number in range(1, len(inputs.columns) + 1)]
    given = ", ".join(f"{text} AS {name}" for text, name in zip(inputs.expressions, names, strict=True))
    arrays = ", ".join(f"array_agg(d.{name}) AS {name}" for name in names)
    shown = ", ".join(f"unnest(b.{name}) AS {name}" for name in names)
    matrix = Gathered(inputs.expressions, inputs.type).aggregate([f"d.{name}" for name in names])
    scored = scored_matrix(rewrite, call, inputs, "b.matrix")
    key = f"ARRAY[{', '.join(f'r.{name}' for name in names)}]"
    return (
        f"{helper.table} AS MATERIALIZED (SELECT hash_array_extended({key}, 0) AS {_hash(helper)}, {key} AS {helper.input}, "
        f"r.{helper.output} FROM (SELECT {shown}, unnest({scored}) AS {helper.output} "
        f"FROM (SELECT {arrays}, {matrix} AS matrix, NULL::bigint AS total "
        f"FROM (SELECT q.*, row_number() OVER () AS n FROM (SELECT DISTINCT {given} FROM {rows}) q) d "
        f"GROUP BY (d.n - 1) / {ROWS}) b) r)"
    )


def number_answer(rewrite: Rewrite, helper: Helper, call: Scoring, inputs: Inputs) -> str:
    """The answer for a row of a query that joins the helper."""
    name = helper.table
    return joined_answer(rewrite, call, inputs, f"{name}.{helper.input}", f"{name}.{helper.output}")


def _hash(helper: Helper) -> str:
    return f"__pythia_hash_{helper.number}"
