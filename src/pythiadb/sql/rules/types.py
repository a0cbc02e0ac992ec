"""Vector types: Oracle's dimensions, format and storage become pgvector's types."""

from __future__ import annotations

import re

from pythiadb.errors import FeatureNotSupported, InvalidParameter, SQLSyntaxError
from pythiadb.sql.calls import begins_expression
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scan import Kind
from pythiadb.sql.source import Source, Span

FORMATS = ("FLOAT32", "FLOAT64", "INT8", "BINARY", "*")
STORAGES = ("DENSE", "SPARSE", "*")
_MAX_DIMENSIONS = 65535


def rewrite_types(rewrite: Rewrite) -> None:
    """Replace VECTOR(dimensions, format, storage) where a type stands; `vector` and `vector(n)` stay as written.

    Before: CREATE TABLE t (v VECTOR(384, FLOAT32), b VECTOR(64, BINARY), s VECTOR(*, FLOAT32, SPARSE))
    After: CREATE TABLE t (v vector(384), b bit(64), s sparsevec)
    """
    source = rewrite.source
    for index, token in enumerate(source.tokens):
        if token.kind is not Kind.WORD or token.key != "VECTOR" or not source.is_open(index + 1):
            continue
        close = source.partner[index + 1]
        arguments = source.split(Span(index + 2, close), ",")
        if not is_type(source, arguments) or (len(arguments) > 1 and _is_function(source, index, arguments)):
            continue
        if len(arguments) > 1:
            rewrite.replace(Span(index, close + 1), _type(source, arguments))
        elif source.key(index + 2) == "*":
            rewrite.replace(Span(index, close + 1), "vector")


def is_type(source: Source, arguments: list[Span]) -> bool:
    """Tell the arguments of the type VECTOR from those of the constructor: first a bare count or a star."""
    if not arguments or arguments[0].end - arguments[0].start != 1:
        return False
    first = source.at(arguments[0].start)
    return first.kind is Kind.NUMBER or first.text == "*"


def word_of(source: Source, span: Span, allowed: tuple[str, ...], what: str) -> str:
    """The key word in an argument; raise InvalidParameter for any other."""
    shape = source.shape(span)
    if len(shape) != 1 or shape[0] not in allowed:
        raise InvalidParameter(
            f'invalid vector {what} "{" ".join(shape).lower()}"',
            detail=source.where(span.start),
            hint=f"Use one of {', '.join(allowed)}.",
        )
    return shape[0]


def element_format(source: Source, span: Span) -> str:
    """The format named by an argument; raise FeatureNotSupported for those that are not stored."""
    name = word_of(source, span, FORMATS, "format")
    if name in ("INT8", "FLOAT64"):
        raise FeatureNotSupported(
            f"vector format {name} is not supported", detail=source.where(span.start), hint="Use FLOAT32."
        )
    return name


def dimensions(source: Source, span: Span, *, binary: bool) -> str:
    """The count of dimensions as text, empty for a star; raise InvalidParameter outside the limits."""
    text = source.key(span.start)
    if text == "*":
        return ""
    if not re.fullmatch(r"\d+", text) or not 1 <= int(text) <= _MAX_DIMENSIONS:
        raise InvalidParameter(
            f"vector dimensions must be between 1 and {_MAX_DIMENSIONS}, not {text}",
            detail=source.where(span.start),
        )
    if binary and int(text) % 8:
        raise InvalidParameter(
            f"dimensions of a binary vector must be a multiple of 8, not {text}",
            detail=source.where(span.start),
        )
    return text


def _is_function(source: Source, index: int, arguments: list[Span]) -> bool:
    """A function of that name, called with numbers: no format follows, and a value may stand here."""
    return source.shape(arguments[1]) not in {(name,) for name in FORMATS} and (
        begins_expression(source, index) or source.key(index - 1) in ("FROM", "JOIN", ".")
    )


def _type(source: Source, arguments: list[Span]) -> str:
    if len(arguments) > 3:
        raise SQLSyntaxError("too many arguments of type vector", detail=source.where(arguments[3].start))
    kind = element_format(source, arguments[1])
    storage = word_of(source, arguments[2], STORAGES, "storage") if len(arguments) > 2 else "DENSE"
    count = dimensions(source, arguments[0], binary=kind == "BINARY")
    if kind == "BINARY" and storage == "SPARSE":
        raise InvalidParameter("a binary vector cannot be sparse", detail=source.where(arguments[2].start))
    if kind == "BINARY":
        return f"bit({count})" if count else "varbit"
    name = "sparsevec" if storage == "SPARSE" else "vector"
    return f"{name}({count})" if count else name
