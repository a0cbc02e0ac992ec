"""Finding AI functions among the tokens: a name, its parentheses, its arguments."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pythiadb.errors import SQLSyntaxError
from pythiadb.sql.scan import Kind, words
from pythiadb.sql.source import Source, Span

# After one of these words a name with parentheses is being defined or named, not called.
_NAMING = words(
    "FUNCTION PROCEDURE ROUTINE AGGREGATE TABLE INTO EXISTS REFERENCES WITH RECURSIVE VIEW UPDATE COPY ONLY ANALYZE"
)
_NAMERS = ("DROP", "COMMENT", "GRANT", "REVOKE")  # statements that only name functions
# After one of these words, or an operator, or ( [ , an expression begins.
_LEADS = words(
    "SELECT DISTINCT ALL WHERE AND OR NOT ON WHEN THEN ELSE CASE BY HAVING RETURNING BETWEEN LIKE ILIKE IN USING RETURN "
    "LIMIT OFFSET DEFAULT SET"
)
METERED = (Kind.STRING, Kind.BIND, Kind.PLACEHOLDER, Kind.PARAM)


@dataclass(frozen=True, slots=True)
class Call:
    """A call `name(arguments)`: the tokens of its name, its parentheses and its arguments."""

    name: int
    open: int
    close: int
    arguments: tuple[Span, ...]


def find_calls(source: Source, names: Collection[str]) -> Iterator[Call]:
    """Give the calls of unqualified functions in the order of the text; `names` are in upper case."""
    for index, token in enumerate(source.tokens):
        if (
            token.kind is Kind.WORD
            and token.key in names
            and source.is_open(index + 1)
            and _is_called(source, index)
        ):
            yield _call(source, index)


def begins_expression(source: Source, index: int) -> bool:
    """Tell whether a token stands where an expression begins, rather than a type or a table."""
    before = source.at(index - 1)
    return before.kind is Kind.OPERATOR or before.text in ("(", "[", ",") or before.key in _LEADS


def is_literal(source: Source, span: Span) -> bool:
    """Tell whether an argument is exactly one literal, bind or placeholder, whose type PostgreSQL cannot know."""
    return span.end - span.start == 1 and source.at(span.start).kind in METERED


def _is_called(source: Source, index: int) -> bool:
    if source.key(0) in _NAMERS:
        return False
    before = source.key(index - 1)
    if before == "." or before in _NAMING:
        return False
    return not (before == "ON" and source.key(0) == "CREATE" and "INDEX" in (source.key(1), source.key(2)))


def _call(source: Source, name: int) -> Call:
    opened = name + 1
    close = source.partner[opened]
    if close >= len(source.tokens):
        raise SQLSyntaxError(
            "unterminated argument list of " + source.at(name).text.lower(), detail=source.where(name)
        )
    return Call(name, opened, close, tuple(source.split(Span(opened + 1, close), ",")))
