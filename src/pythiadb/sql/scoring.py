"""Reading the calls of scoring operators: `PREDICTION(model, arguments USING expression AS attribute, ...)`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pythiadb.errors import FeatureNotSupported, SQLSyntaxError
from pythiadb.sql.calls import Call, find_calls
from pythiadb.sql.operators import EMBEDDING, OPERATORS, Operator
from pythiadb.sql.references import folded, is_column_free
from pythiadb.sql.scan import Kind
from pythiadb.sql.source import Source, Span

_NAMES = (Kind.WORD, Kind.QUOTED)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One item behind USING: an expression and the attribute's name, or, as `t.*`, every column of a table.

    `name` is empty for the model's only attribute. `whole` holds the tables whose columns are meant, each as `t.*`; for a
    bare `*` it is empty until the tables of the query are known.
    """

    value: Span
    name: str
    star: bool = False
    whole: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scoring:
    """One call: the tokens of the whole of it, the model as a regclass literal, its arguments and attributes."""

    span: Span
    operator: Operator
    model: str  # with its quotes, as a literal: 'app.minilm'
    shown: str  # the model as it is written, which is how a note shows it
    arguments: tuple[Span, ...]
    attributes: tuple[Attribute, ...]
    head: Span  # the tokens of the model and the arguments
    input: Span  # the tokens of the attributes

    @property
    def name(self) -> int:
        """The token that names the operator."""
        return self.span.start

    @property
    def is_embedding(self) -> bool:
        """Tell whether the call is VECTOR_EMBEDDING."""
        return self.operator.name == EMBEDDING

    @property
    def has_star(self) -> bool:
        """Tell whether attributes are picked by column name."""
        return any(attribute.star for attribute in self.attributes)

    def key(self, source: Source) -> tuple[object, ...]:
        """Equal for calls that give the same answer for the same row."""
        attributes = tuple((a.name.upper() or "DATA", source.shape(a.value)) for a in self.attributes)
        return (self.operator.name, source.shape(self.head), attributes)

    def is_constant(self, source: Source) -> bool:
        """Tell whether neither arguments nor attributes name a column."""
        return self.has_fixed_arguments(source) and not self.has_star and is_column_free(source, self.input)

    def has_fixed_arguments(self, source: Source) -> bool:
        """Tell whether the arguments name no column."""
        return all(is_column_free(source, argument) for argument in self.arguments)


def find_scorings(source: Source) -> list[Scoring]:
    """Read the calls that have a USING part, in the order of the text; plain functions are left alone.

    Raises SQLSyntaxError for a call that cannot be read, FeatureNotSupported for forms that models in ONNX do not have.
    """
    return list(_read_all(source))


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _read_all(source: Source) -> Iterator[Scoring]:
    for call in find_calls(source, OPERATORS):
        using = next((i for i in source.flat(Span(call.open + 1, call.close)) if _is_using(source, i)), None)
        if using is not None:
            yield _read(source, call, using)


def _is_using(source: Source, index: int) -> bool:
    return source.key(index) == "USING" and source.key(index - 1) != "."


def _read(source: Source, call: Call, using: int) -> Scoring:
    _refuse_native_forms(source, call, using)
    head = Span(call.open + 1, using)
    parts = source.split(head, ",") or [head]
    _check_model(source, parts[0])
    operator = OPERATORS[source.key(call.name)]
    arguments = tuple(parts[1:])
    if len(arguments) > len(operator.arguments):
        raise SQLSyntaxError(
            f"too many arguments of {operator.name}",
            detail=source.where(arguments[len(operator.arguments)].start),
        )
    empty = next((argument for argument in arguments if argument.start >= argument.end), None)
    if empty is not None:
        raise _near(source, empty.end)
    written = Span(using + 1, call.close)
    attributes = _attributes(source, operator, written)
    name = "".join(source.at(i).text for i in range(parts[0].start, parts[0].end))
    span = Span(call.name, call.close + 1)
    return Scoring(span, operator, literal(name), name, arguments, attributes, head, written)


def _refuse_native_forms(source: Source, call: Call, using: int) -> None:
    """Forms that exist for models that were trained inside Oracle only."""
    name, first = source.key(call.name), source.key(call.open + 1)
    if source.key(call.close + 1) == "OVER" or (first in ("OF", "FOR") and call.open + 2 < using):
        _refuse(source, call.name, f"{name} as an analytic function", "Load a trained model and name it.")
    if first == "ORDERED" and source.at(call.open + 2).kind in _NAMES and call.open + 2 < using:
        _refuse(source, call.open + 1, f"{name} with ORDERED", None)
    for index in source.flat(Span(call.open + 2, using)):
        if source.key(index) == "COST" and source.key(index - 1) not in (".", ","):
            _refuse(source, index, f"{name} with a cost matrix", None)


def _refuse(source: Source, index: int, what: str, hint: str | None) -> None:
    raise FeatureNotSupported(f"{what} is not supported", detail=source.where(index), hint=hint)


def _check_model(source: Source, span: Span) -> None:
    for index in range(span.start, max(span.end, span.start + 1)):
        fits = source.key(index) == "." if (index - span.start) % 2 else source.at(index).kind in _NAMES
        if not fits or index >= span.end:
            raise _near(source, index)
    if (span.end - span.start) % 2 == 0:
        raise _near(source, span.end)


def _attributes(source: Source, operator: Operator, span: Span) -> tuple[Attribute, ...]:
    if span.start >= span.end:
        raise _near(source, span.end)
    items = source.split(span, ",")
    if operator.name == EMBEDDING and len(items) > 1:
        raise SQLSyntaxError("an embedding model takes one attribute", detail=source.where(items[1].start))
    return tuple(_attribute(source, item, needs_name=operator.name != EMBEDDING) for item in items)


def _attribute(source: Source, item: Span, *, needs_name: bool) -> Attribute:
    if item.start >= item.end:
        raise _near(source, item.end)
    if source.key(item.end - 1) == "*" and (item.end - item.start == 1 or source.key(item.end - 2) == "."):
        table = source.at(item.end - 3).text
        return Attribute(item, "", star=True, whole=(f"{table}.*",) if item.end - item.start > 1 else ())
    value, name = _split_alias(source, item)
    if needs_name and not name:
        name = _column_name(source, value)
    return Attribute(value, name)


def _split_alias(source: Source, span: Span) -> tuple[Span, str]:
    """Part an expression from the name of its attribute; the name is empty for none."""
    for index in source.flat(span):
        if source.key(index) != "AS" or index == span.start:
            continue
        if index + 2 != span.end or source.at(index + 1).kind not in _NAMES:
            raise _near(source, min(index + 2, span.end))
        written = source.at(index + 1)
        return Span(span.start, index), folded(
            source, index + 1
        ) if written.kind is Kind.QUOTED else written.text
    return span, ""


def _column_name(source: Source, value: Span) -> str:
    """The name of an attribute that is a column: the column's."""
    keys = range(value.start, value.end)
    chain = all(
        (source.key(i) == ".") if (i - value.start) % 2 else source.at(i).kind in _NAMES for i in keys
    )
    if not chain or len(keys) % 2 == 0:
        raise SQLSyntaxError(
            "attribute without a name",
            detail=source.where(value.start),
            hint="Write expression AS attribute.",
        )
    return folded(source, value.end - 1)


def _near(source: Source, index: int) -> SQLSyntaxError:
    return SQLSyntaxError(f'syntax error at or near "{source.at(index).text}"', detail=source.where(index))
