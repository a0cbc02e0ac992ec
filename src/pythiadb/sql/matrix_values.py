"""What the attributes of a call are to a matrix: numbers out of stored tables, or values that are the same for all rows.

Numbers are numeric columns, arithmetic and COALESCE over them; their types must be known, for they travel without. What no row changes
(a parameter, a literal, a subquery that names nothing around it) travels once, as in a record, whatever its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pythiadb.sql.blocks import Block
from pythiadb.sql.calling import attribute_value, attributes_object, model_of
from pythiadb.sql.checks import Candidate, uses_limit
from pythiadb.sql.references import folded, has_subquery, is_column_free
from pythiadb.sql.resolution import Owner, Scope
from pythiadb.sql.rewrite import Column, Rewrite, Table
from pythiadb.sql.scan import Kind, words
from pythiadb.sql.scoring import Attribute, Scoring
from pythiadb.sql.source import Source, Span
from pythiadb.sql.tables import pieces_of

_NAMES = (Kind.WORD, Kind.QUOTED)
_ARITHMETIC = ("+", "-", "*", "/", "(", ")")
_SMALL_DIGITS = 10  # an integer with fewer fits into 32 bits
_SAFE = 2147483647  # a tensor of whole numbers may not hold what is larger


@dataclass(frozen=True, slots=True)
class Value:
    """The expression of an attribute for arrays of its `type`: integer or real where it surely is one, else double precision.

    `array` has no cast to integer or real: where another session has changed a column, the types of the arrays shall differ
    rather than the numbers.
    """

    text: str
    type: str
    array: str

    @property
    def wide(self) -> str:
        """The expression in double precision."""
        return f"({self.text})::double precision"


@dataclass(frozen=True, slots=True)
class Inputs:
    """The attributes of a call that its model takes: numbers by attribute, at least one, and those that no row changes."""

    columns: Mapping[str, Value]
    constants: tuple[Attribute, ...]

    @property
    def type(self) -> str:
        """The type of the numbers in the matrix."""
        types = {value.type for value in self.columns.values()}
        return types.pop() if len(types) == 1 else "double precision"

    @property
    def expressions(self) -> tuple[str, ...]:
        """The numbers of a row as expressions of that type."""
        narrow = self.type != "double precision"
        return tuple(value.array if narrow else value.wide for value in self.columns.values())

    @property
    def exact(self) -> bool:
        """Tell whether a matrix loses nothing, so that NULL is the model's own answer."""
        return self.type == "integer"

    def lost(self, rewrite: Rewrite) -> str:
        """The condition that a row whose answer is NULL may have held a number that the matrix could not hold."""
        values = f"ARRAY[{', '.join(value.wide for value in self.columns.values())}]"
        constants = ", ".join(attribute_value(rewrite, attribute) for attribute in self.constants)
        whole = f"count(v) = count(*){f' AND num_nulls({constants}) = 0' if constants else ''}"
        return f"(SELECT {whole} OR max(abs(v)) > {_SAFE} FROM unnest({values}) AS v)"

    def object(self, rewrite: Rewrite, call: Scoring) -> str:
        """The constants as one jsonb value; empty if there are none."""
        return attributes_object(rewrite, replace(call, attributes=self.constants)) if self.constants else ""


@dataclass(frozen=True, slots=True)
class Tables:
    """The stored tables that a block reads, by the folded names that qualify their columns.

    `optional`: those that an outer join may leave out. `is_whole`: the block reads nothing else, so that a bare name that one of
    them has can be no other column.
    """

    known: Mapping[str, Table]
    optional: frozenset[str]
    is_whole: bool

    @classmethod
    def of(cls, rewrite: Rewrite, block: Block) -> Tables:
        """Find them."""
        pieces = pieces_of(block, rewrite.catalog)
        found = [(piece.name, rewrite.catalog.table(piece.table)) for piece in pieces if piece.table]
        known = {name: table for name, table in found if table is not None}
        optional = frozenset(piece.name for piece in pieces if piece.is_optional)
        return cls(known, optional, len(known) == len(pieces))

    def column(self, source: Source, name: Span) -> Column | None:
        """The column that `column` or `table.column` names; None if that is not known."""
        last = folded(source, name.end - 1)
        owners = [table for table in self.known if last in self.known[table].columns and self.is_whole]
        if name.end - name.start > 1:
            owners = [folded(source, name.start)]
        table = self.known.get(owners[0]) if len(owners) == 1 else None
        return table.columns.get(last) if table else None


def inputs_of(rewrite: Rewrite, candidate: Candidate) -> Inputs | None:
    """The attributes of a call for a matrix; None if one is not surely a number, or no row changes any."""
    call, block = candidate.calls[0], candidate.block
    model = model_of(rewrite, call)
    if model is None or set(model.attributes.values()) != {"number"}:
        return None
    if call.is_embedding or uses_limit(candidate):
        return None
    tables = Tables.of(rewrite, block)
    if call.has_star:
        found = _by_name(call, model.attributes, tables)
        return Inputs(found, ()) if found else None
    names = [attribute.name.upper() for attribute in call.attributes]
    if len(set(names)) < len(names):
        return None
    changing = [one for one in call.attributes if not _is_fixed(rewrite, block, one.value)]
    if not all(_is_number(block.source, one.value, tables) for one in changing):
        return None
    taken = [one for one in call.attributes if one.name.upper() in model.attributes]
    columns = {one.name.upper(): _value(rewrite, one.value, tables) for one in taken if one in changing}
    constants = tuple(one for one in taken if one not in changing)
    return Inputs(columns, constants) if columns else None


def _is_fixed(rewrite: Rewrite, block: Block, span: Span) -> bool:
    """Tell whether an expression has one value for all rows; a function might have another one for each."""
    source = block.source
    if any(
        source.at(i).kind in _NAMES and source.is_open(i + 1) and source.key(i) not in _BEFORE_BRACKETS
        for i in range(*span)
    ):
        return False
    if not has_subquery(source, span):
        return is_column_free(source, span)
    return all(name.owner is Owner.INNER for name in Scope(block, rewrite.catalog).names(span))


# What may stand in front of a bracket and is no function.
_BEFORE_BRACKETS = words("AND CAST COALESCE EXISTS FROM IN NOT ON OR SELECT WHERE")


def _by_name(call: Scoring, attributes: Mapping[str, str], tables: Tables) -> dict[str, Value] | None:
    """The columns of the table of a star that are called like attributes.

    A row that an outer join leaves out is NULL as a whole, which has no answer; that cannot be told from its columns.
    """
    whole = call.attributes[0].whole
    shown = whole[0].removesuffix(".*") if len(call.attributes) == len(whole) == 1 else ""
    table = tables.known.get(_fold(shown))
    if table is None or _fold(shown) in tables.optional:
        return None
    found = {}
    for name in attributes:
        alike = [column for column in table.columns if column.upper() == name]
        if len(alike) > 1 or (alike and not table.columns[alike[0]].is_number):
            return None
        if alike:
            found[name] = _column(f"{shown}.{quoted(alike[0])}", table.columns[alike[0]])
    return found


def _is_number(source: Source, span: Span, tables: Tables) -> bool:
    """Tell whether an expression is made of numeric columns of tables, numbers, arithmetic and COALESCE."""
    index = span.start
    while index < span.end:
        token = source.at(index)
        if token.kind in _NAMES and not _is_coalesce(source, index):
            name = _name_at(source, index)
            column = tables.column(source, name)
            if column is None or not column.is_number or source.is_open(name.end):
                return False
            index = name.end - 1
        elif not _is_arithmetic(source, index):
            return False
        index += 1
    return True


def _is_arithmetic(source: Source, index: int) -> bool:
    """Tell whether a token is a number, an operator or a bracket of arithmetic, or COALESCE with its commas."""
    if source.key(index) == ",":
        return _is_coalesce(source, source.parent[index] - 1)
    known = source.at(index).kind is Kind.NUMBER or source.key(index) in _ARITHMETIC
    return known or _is_coalesce(source, index)


def _is_coalesce(source: Source, index: int) -> bool:
    return source.key(index) == "COALESCE" and source.is_open(index + 1)


def _name_at(source: Source, index: int) -> Span:
    """The tokens of `column` or `table.column`."""
    return Span(index, index + (3 if source.key(index + 1) == "." else 1))


def _value(rewrite: Rewrite, span: Span, tables: Tables) -> Value:
    """The value of an expression of numbers."""
    source, text = rewrite.source, rewrite.text(span)
    if source.at(span.start).kind in _NAMES and _name_at(source, span.start) == span:
        column = tables.column(source, span)
        assert column is not None
        return _column(text, column)
    return _integer(text) if _is_small(source, span, tables) else _double(text)


def _column(text: str, column: Column) -> Value:
    """The value of a column as it is."""
    if column.type in ("integer", "real"):
        return Value(text, column.type, text)
    return _integer(text) if column.is_small else _double(text)


def _integer(text: str) -> Value:
    """The value of an expression of integers of 32 bits, or of 16, which the sum with zero widens."""
    return Value(text, "integer", f"({text}) + 0")


def _double(text: str) -> Value:
    return Value(text, "double precision", f"({text})::double precision")


def _is_small(source: Source, span: Span, tables: Tables) -> bool:
    """Tell whether an expression of numbers is made of small columns: their arithmetic stays small, or fails."""
    names = [i for i in range(*span) if source.at(i).kind in _NAMES and source.key(i - 1) != "."]
    columns = [tables.column(source, _name_at(source, i)) for i in names if not _is_coalesce(source, i)]
    literals = [source.at(i).text for i in range(*span) if source.at(i).kind is Kind.NUMBER]
    small = all(column is not None and column.is_small for column in columns)
    return small and all(text.isdigit() and len(text) < _SMALL_DIGITS for text in literals)


def quoted(name: str) -> str:
    """A column's name as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def _fold(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
