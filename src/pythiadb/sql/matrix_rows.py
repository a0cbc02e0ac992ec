"""The query behind a matrix: a row for each row of a table, with its key, columns to carry, and the answers of models.

The table's rows are aggregated into arrays of about `ROWS` rows, scored, and taken apart again. A matrix is one array, column
after column: aggregating numbers is cheaper than making an array of each row. A table that is read whole is
cut by ranges of its pages, which parallel workers can share; any other selection is cut by counting rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pythiadb.sql.calling import arguments_array, result_type
from pythiadb.sql.checks import Candidate
from pythiadb.sql.matrix import Stored
from pythiadb.sql.matrix_values import Inputs, quoted
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scoring import Scoring, literal
from pythiadb.sql.source import Source

ROWS = 8192  # of a matrix
_SHARES = 8  # parts of a large table: more than a plan has workers as a rule, so that the last to end is not much behind
_LARGE = 1024  # pages; min_parallel_table_scan_size unless it is changed
# Where another session gave a table of one file a second one, ctid tells rows apart no longer: an error of conversion, after
# which the session translates anew.
_CHANGED = (
    "c.relkind NOT IN ('r', 'm') OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid) "
    "THEN ('table ' || c.relname || ' has changed')::bigint"
)


@dataclass(frozen=True, slots=True)
class Part:
    """The calls of a block that have one answer, their attributes, and a number of its own."""

    candidate: Candidate
    inputs: Inputs
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
    def matrix(self) -> Gathered:
        """The matrix of the attributes."""
        return Gathered(self.inputs.expressions, self.inputs.type)


@dataclass(frozen=True, slots=True)
class Gathered:
    """An array of the values of some expressions in some rows, those of the first expression in front."""

    expressions: tuple[str, ...]
    type: str

    def aggregate(self, inputs: Sequence[str]) -> str:
        """The array as an aggregate over the expressions, or what stands for them."""
        if len(inputs) == 1:
            return f"array_agg({inputs[0]})"
        half = len(inputs) // 2  # each || copies both sides
        return f"({self.aggregate(inputs[:half])} || {self.aggregate(inputs[half:])})"


@dataclass(frozen=True, slots=True)
class Rows:
    """What the query shall read: the table, its key under the names given, the columns to carry, a condition."""

    table: Stored
    keys: list[str]
    carried: list[str]
    where: str

    @property
    def names(self) -> list[str]:
        """The columns of the result that are not answers."""
        return [*self.keys, *map(quoted, self.carried)]

    @property
    def columns(self) -> list[Gathered]:
        """Their arrays."""
        table = self.table
        kinds = {"ctid": "tid", "tableoid": "oid"}
        found = [Gathered((f"{table.name}.{key}",), kinds[key]) for key in table.facts.row_key if self.keys]
        return found + [
            Gathered((f"{table.name}.{quoted(name)}",), table.facts.columns[name].type)
            for name in self.carried
        ]

    @property
    def casts(self) -> list[str]:
        """What gives them back the modifiers of their types, which arrays lose."""
        carried = [self.table.facts.columns[name] for name in self.carried]
        modified = [f"::{c.full_type}" if c.full_type != c.type else "" for c in carried]
        return [""] * len(self.keys) + modified


def scored_rows(rewrite: Rewrite, rows: Rows, parts: list[Part], *, in_parallel: bool) -> str:
    """Return the query. `in_parallel` lets workers share a large table, for rows that are asked for once."""
    matrices = list(dict.fromkeys(part.matrix for part in parts))
    columns = [*rows.columns, *matrices]
    names = rows.names
    shown = [
        f"unnest(b.a{number}){cast} AS {name}"
        for number, (name, cast) in enumerate(zip(names, rows.casts, strict=True), 1)
    ]
    for part in parts:
        matrix = f"b.a{len(names) + 1 + matrices.index(part.matrix)}"
        shown.append(f"unnest({scored_matrix(rewrite, part.call, part.inputs, matrix)}) AS {part.output}")
    pages = None if rows.where or _is_stored(rewrite.source) else rows.table.facts.pages
    if pages is None:
        return f"SELECT {', '.join(shown)} FROM {_counted(rows, columns)}"
    shares = _SHARES if in_parallel and pages >= _LARGE else 1
    ranges = (_ranges(rows.table, columns, share, shares) for share in range(shares))
    return " UNION ALL ".join(f"SELECT {', '.join(shown)} FROM {item}" for item in ranges)


def _is_stored(source: Source) -> bool:
    """Tell whether the statement stores its query, for which PostgreSQL must know tables otherwise than by a text."""
    return source.key(0) == "CREATE" and any(source.key(index) == "VIEW" for index in range(1, 6))


def scored_matrix(rewrite: Rewrite, call: Scoring, inputs: Inputs, matrix: str) -> str:
    """The array of the answers for a matrix in a FROM item b, whose `total` is how many rows there are, or NULL."""
    attributes = ", ".join(map(literal, inputs.columns))
    result = "text" if call.operator.is_set else result_type(rewrite, call)
    constants = inputs.object(rewrite, call)
    return (
        f"pythia.scoring_columns({call.model}::regclass, '{call.operator.name}', {arguments_array(rewrite, call)}, "
        f"ARRAY[{attributes}], {matrix}, b.total, NULL::{result}{f', {constants}' if constants else ''})"
    )


def _ranges(table: Stored, columns: list[Gathered], share: int, shares: int) -> str:
    """The rows of a share of a table in arrays a1, a2 ... as the FROM item b; total is about how many rows the table has."""
    arrays = ", ".join(column.aggregate(column.expressions) for column in columns)
    types = ", ".join(f"a{number} {column.type}[]" for number, column in enumerate(columns, 1))
    names = ", ".join(f"a.a{number}" for number in range(1, len(columns) + 1))
    query = f"SELECT {arrays} FROM {table.item} WHERE {table.name}.ctid >= $1 AND {table.name}.ctid < $2"
    return (
        f"(SELECT {names}, r.total FROM pythia.table_ranges({literal(table.written)}::regclass, {ROWS}, {share}, {shares}) r "
        f"CROSS JOIN LATERAL pythia.range_arrays({literal(query)}, r.first, r.past) AS a({types})) b"
    )


def _counted(rows: Rows, columns: list[Gathered]) -> str:
    """The rows of any selection in the same form; how many there are is not known."""
    expressions = dict.fromkeys(text for column in columns for text in column.expressions)
    aliases = {text: f"c{number}" for number, text in enumerate(expressions, 1)}
    selected = ", ".join(f"{text} AS {alias}" for text, alias in aliases.items())
    arrays = ", ".join(
        f"{column.aggregate([f'r.{aliases[text]}' for text in column.expressions])} AS a{number}"
        for number, column in enumerate(columns, 1)
    )
    query = f"SELECT {selected}, row_number() OVER () AS n FROM {rows.table.item}"
    total = "NULL::bigint"
    if rows.table.facts.is_one_file:
        relation = f"{literal(rows.table.written)}::regclass"
        total = f"(SELECT CASE WHEN {_CHANGED} END FROM pg_class c WHERE c.oid = {relation})"
    return (
        f"(SELECT {arrays}, {total} AS total FROM ({query}{f' WHERE {rows.where}' if rows.where else ''}) r "
        f"GROUP BY (r.n - 1) / {ROWS}) b"
    )
