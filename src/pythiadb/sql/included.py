"""The part of a filter that a vector index can judge by itself: comparisons of its INCLUDE columns with values.

The predicate is a JSON value, `["and", ["=", "severity", "1"], ["in", "city", ["x", "y"]]]`, whose values are texts. It may be
weaker than the filter, never stronger: the statement checks every row again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from pythiadb.sql.approx import Indexed
from pythiadb.sql.blocks import conjuncts
from pythiadb.sql.references import folded, has_subquery, has_volatile, is_name
from pythiadb.sql.resolution import Owner
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scan import Kind
from pythiadb.sql.scoring import literal
from pythiadb.sql.source import Source, Span

_COMPARISONS = {"=": "=", "<>": "<>", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_TURNED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_MODIFIERS = re.compile(r"\([^)]*\)")
_TEXTS = ("text", "character varying")
_NUMBERS = ("smallint", "integer", "bigint", "numeric")
_FLOATS = ("real", "double precision")
_LOOSER = ("AND", "OR", "IS", "ISNULL", "NOTNULL", "NOT", "ANY", "ALL", "SOME")
_EQUALITY = ("=", "<>", "in")
_ROUNDED = ("real", "date")  # types whose literals lose what other types' values keep


@dataclass(frozen=True, slots=True)
class Expression:
    """A value that only the statement knows, as an SQL expression that gives a text."""

    text: str


Node = str | Expression | list["Node"]


def predicate_of(rewrite: Rewrite, indexed: Indexed) -> tuple[Node | None, bool]:
    """The predicate for a block's WHERE, None if nothing of it can be judged; and whether it is all that limits the rows."""
    block = indexed.block
    if "WHERE" not in block.clauses or not indexed.index.include:
        return None, False
    reader = _Reader(rewrite, indexed)
    parts = conjuncts(block.source, block.clause("WHERE"))
    found = [reader.condition(part) for part in parts]
    known = [node for node in found if node is not None]
    alone = len(indexed.scope.pieces) == 1
    if not known:
        return None, False
    return (known[0] if len(known) == 1 else ["and", *known]), alone and len(known) == len(parts)


def as_jsonb(rewrite: Rewrite, node: Node) -> str:
    """The expression whose value is a predicate."""
    if not _is_fixed(node):
        return _built(rewrite, node)
    return rewrite.percent(literal(json.dumps(node, ensure_ascii=False))) + "::jsonb"


def _is_fixed(node: Node) -> bool:
    return all(map(_is_fixed, node)) if isinstance(node, list) else isinstance(node, str)


def _built(rewrite: Rewrite, node: Node) -> str:
    if isinstance(node, Expression):
        return node.text
    if isinstance(node, str):
        return rewrite.percent(literal(node))
    return f"jsonb_build_array({', '.join(_built(rewrite, part) for part in node)})"


class _Reader:
    """Reads conditions over the INCLUDE columns of one index."""

    def __init__(self, rewrite: Rewrite, indexed: Indexed) -> None:
        self._rewrite = rewrite
        self._source: Source = rewrite.source
        self._indexed = indexed

    def condition(self, span: Span) -> Node | None:
        """A condition as a predicate; None if the index cannot judge it."""
        source = self._source
        while source.is_open(span.start) and source.partner[span.start] == span.end - 1:
            span = Span(span.start + 1, span.end - 1)
            parts = conjuncts(source, span)
            if len(parts) > 1:
                nodes = [self.condition(part) for part in parts]
                known = [node for node in nodes if node is not None]
                return ["and", *known] if len(known) == len(nodes) else None
        return self._boolean(span) or self._null(span) or self._listed(span) or self._compared(span)

    def _boolean(self, span: Span) -> Node | None:
        """`flag` and `NOT flag`."""
        negated = self._source.key(span.start) == "NOT"
        column = self._column(Span(span.start + negated, span.end))
        fits = column is not None and self._kind(column) == "boolean"
        return ["=", column, "false" if negated else "true"] if fits and column else None

    def _null(self, span: Span) -> Node | None:
        """`column IS NULL`, `column IS NOT NULL`."""
        for words, name in ((("IS", "NULL"), "null"), (("IS", "NOT", "NULL"), "notnull")):
            end = span.end - len(words)
            column = self._column(Span(span.start, end)) if end > span.start else None
            if column is not None and self._source.shape(Span(end, span.end)) == words:
                return [name, column]
        return None

    def _listed(self, span: Span) -> Node | None:
        """`column [NOT] IN (values)` and `column [NOT] BETWEEN a AND b`."""
        source = self._source
        word = next((i for i in source.flat(span) if source.key(i) in ("IN", "BETWEEN")), None)
        if word is None:
            return None
        negated = source.key(word - 1) == "NOT"
        column = self._column(Span(span.start, word - negated))
        if column is None:
            return None
        node = self._in(span, word, column) if source.key(word) == "IN" else self._between(span, word, column)
        return ["not", node] if negated and node is not None else node

    def _in(self, span: Span, word: int, column: str) -> Node | None:
        source = self._source
        if not source.is_open(word + 1) or source.partner[word + 1] != span.end - 1:
            return None
        values = [self._value(item, column, "in") for item in source.split(source.inside(word + 1), ",")]
        known = [value for value in values if value is not None]
        return ["in", column, known] if known and len(known) == len(values) else None

    def _between(self, span: Span, word: int, column: str) -> Node | None:
        source = self._source
        middle = next((i for i in source.flat(Span(word, span.end)) if source.key(i) == "AND"), None)
        if middle is None or source.key(word + 1) == "SYMMETRIC":
            return None
        low = self._value(Span(word + 1, middle), column, "between")
        high = self._value(Span(middle + 1, span.end), column, "between")
        return ["between", column, low, high] if low is not None and high is not None else None

    def _compared(self, span: Span) -> Node | None:
        """`column = value`, or the other way round; no other operator may stand outside of parentheses."""
        source = self._source
        found = [i for i in source.flat(span) if source.key(i) in _COMPARISONS]
        if len(found) != 1:
            return None
        left, right = Span(span.start, found[0]), Span(found[0] + 1, span.end)
        operator = _COMPARISONS[source.key(found[0])]
        column, value = self._column(left), right
        if column is None:
            column, value, operator = self._column(right), left, _TURNED[operator]
        if column is not None and operator == "=" and source.key(value.start) in ("ANY", "SOME"):
            return self._any(value, column)
        written = self._value(value, column, operator) if column is not None else None
        return [operator, column, written] if column is not None and written is not None else None

    def _any(self, span: Span, column: str) -> Node | None:
        """`column = ANY (array)`: the values are known to the statement only."""
        source, form = self._source, _FORMS.get(self._kind(column))
        whole = source.is_open(span.start + 1) and source.partner[span.start + 1] == span.end - 1
        inside = self._bare(Span(span.start + 1, span.end))
        if form is None or not whole or not self._is_value(inside):
            return None
        array = self._rewrite.text(inside)
        if inside.end - inside.start == 1 and self._is_untyped(inside.start):
            array += f"::{self._kind(column)}[]"  # the type that the comparison gives it
        values = f"jsonb_agg({form.format('(e)')}), '[]') FROM unnest({array}) AS e"
        return ["in", column, Expression(f"(SELECT coalesce({values})")]

    def _bare(self, span: Span) -> Span:
        """An expression without the parentheses around all of it."""
        source = self._source
        while source.is_open(span.start) and source.partner[span.start] == span.end - 1:
            span = Span(span.start + 1, span.end - 1)
        return span

    def _is_untyped(self, index: int) -> bool:
        """Tell whether a token is a literal whose type follows from what is around it."""
        return self._source.at(index).kind is Kind.STRING or self._source.key(index) == "NULL"

    def _column(self, span: Span) -> str | None:
        """The INCLUDE column that some tokens name; None for anything else."""
        source, indexed = self._source, self._indexed
        if not is_name(source, span) or indexed.scope.piece_with(span) != indexed.piece:
            return None
        name = folded(source, span.end - 1)
        return name if name in indexed.index.include else None

    def _kind(self, column: str) -> str:
        """The type of a column without its modifiers."""
        return _MODIFIERS.sub("", self._indexed.index.include[column])

    def _is_value(self, span: Span) -> bool:
        """Tell whether an expression is the same for all rows, and binds tighter than a comparison."""
        source = self._source
        if span.start >= span.end or any(source.key(i) in _LOOSER for i in source.flat(span)):
            return False
        if any(source.key(i) == "COLLATE" for i in range(*span)):  # it may call texts equal that differ
            return False
        names = self._indexed.scope.names(span)
        fixed = all(name.owner is Owner.OUTER for name in names)
        return fixed and not has_subquery(source, span) and not has_volatile(source, span)

    def _value(self, span: Span, column: str, operator: str) -> Node | None:
        """A value as text, by the type of its column; None if it is no value, or the type cannot be compared so."""
        kind = self._kind(column)
        ordered = kind not in (*_TEXTS, "uuid")
        if not self._is_value(span) or not (ordered or operator in _EQUALITY):
            return None
        return self._fixed(span, kind) or self._expression(span, kind)

    def _fixed(self, span: Span, kind: str) -> str | None:
        """The text of a bare literal that says the same in every session."""
        source, first = self._source, self._source.at(span.start)
        if source.shape(span) in (("TRUE",), ("FALSE",)) and kind == "boolean":
            return first.text.lower()
        alone = span.end - span.start == 1
        signed = source.key(span.start) == "-" and span.end - span.start == 2
        number = source.at(span.end - 1)
        if kind in (*_NUMBERS, *_FLOATS) and number.kind is Kind.NUMBER and (signed or alone):
            plain = number.text.replace(".", "", 1).isdigit()
            return ("-" if signed else "") + number.text if plain else None
        if kind in _TEXTS and alone and first.kind is Kind.STRING and first.text[0] == "'":
            written = first.text[1:-1].replace("''", "'")
            return written.replace("%%", "%") if self._rewrite.placeholders else written
        return None

    def _expression(self, span: Span, kind: str) -> Expression | None:
        """The value in a type that holds it without loss, as a text that no setting of the session changes."""
        form, value = _FORMS.get(kind), f"({self._rewrite.text(span)})"
        is_literal = span.end - span.start == 1 and self._source.at(span.start).kind is Kind.STRING
        if is_literal and kind in _ROUNDED:
            value += f"::{kind}"  # it takes the column's type
        return Expression(form.format(value)) if form else None


# How a value is written by the type of its column. A time of day beside a date is kept, and so are all digits of a number: the value
# may lie between two of the column's.
_FORMS = {
    **dict.fromkeys(_NUMBERS, "{0}::text"),
    **dict.fromkeys(_FLOATS, "{0}::double precision::text"),
    **dict.fromkeys(_TEXTS, "{0}::text"),
    "boolean": "{0}::boolean::text",
    "uuid": "{0}::uuid::text",
    "timestamp without time zone": "to_jsonb({0}::timestamp)",
    "timestamp with time zone": "to_jsonb({0}::timestamptz)",
    "date": "replace(to_jsonb({0}::timestamp) #>> '{{}}', 'T00:00:00', '')",
}
