"""Making and reading vector values: TO_VECTOR, FROM_VECTOR and what describes a vector."""

from __future__ import annotations

from pythiadb.errors import FeatureNotSupported, SQLSyntaxError
from pythiadb.sql.calls import Call, begins_expression, find_calls
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.rules.types import STORAGES, element_format, is_type, word_of
from pythiadb.sql.source import Source, Span

_DESCRIBING = {
    "VECTOR_DIMENSION_COUNT": "pythia.vector_dims",
    "VECTOR_DIMS": "pythia.vector_dims",
    "VECTOR_NORM": "pythia.vector_norm",
    "VECTOR_DIMENSION_FORMAT": "pythia.vector_dimension_format",
}
_RETURNED = ("VARCHAR2", "VARCHAR", "CLOB", "TEXT")


def rewrite_constructors(rewrite: Rewrite) -> None:
    """Replace TO_VECTOR and the constructor VECTOR by the function of the format and storage asked for.

    Before: SELECT TO_VECTOR(a), VECTOR('[1,2]', 2, FLOAT32), TO_VECTOR(b, *, *, SPARSE)
    After: SELECT pythia.to_vector(a), pythia.to_vector('[1,2]', 2), pythia.to_sparse_vector(b)
    """
    source = rewrite.source
    for call in find_calls(source, ("TO_VECTOR", "VECTOR")):
        if source.key(call.name) == "VECTOR" and not _constructs(source, call):
            continue
        if not 1 <= len(call.arguments) <= 4 or call.arguments[0].start >= call.arguments[0].end:
            raise SQLSyntaxError("to_vector takes one to four arguments", detail=source.where(call.name))
        _rename(rewrite, call.name, _constructor(source, call.arguments))
        if len(call.arguments) > 1:
            keep = source.key(call.arguments[1].start) != "*"
            dropped = call.arguments[2 if keep else 1 :]
            if dropped:
                rewrite.replace(Span(dropped[0].start - 1, call.close), "")


def rewrite_serializers(rewrite: Rewrite) -> None:
    """Replace FROM_VECTOR and VECTOR_SERIALIZE; the text type asked for by RETURNING is text.

    Before: SELECT FROM_VECTOR(v RETURNING CLOB), VECTOR_SERIALIZE(v FORMAT SPARSE)
    After: SELECT pythia.from_vector(v), pythia.from_vector_sparse(v)
    """
    source = rewrite.source
    for call in find_calls(source, ("FROM_VECTOR", "VECTOR_SERIALIZE")):
        inside = Span(call.open + 1, call.close)
        options = [i for i in source.flat(inside) if _is_option(source, i, inside)]
        form = _check_options(source, options, call.close)
        _rename(rewrite, call.name, "pythia.from_vector_sparse" if form == "SPARSE" else "pythia.from_vector")
        if options:
            end = source.at(call.close).start
            rewrite.edits.replace(source.at(options[0] - 1).end, end, "")


def rewrite_descriptors(rewrite: Rewrite) -> None:
    """Qualify the functions that describe a vector.

    Before: SELECT VECTOR_DIMENSION_COUNT(v), vector_norm(v), other.vector_norm(v)
    After: SELECT pythia.vector_dims(v), pythia.vector_norm(v), other.vector_norm(v)
    """
    for call in find_calls(rewrite.source, _DESCRIBING):
        _rename(rewrite, call.name, _DESCRIBING[rewrite.source.key(call.name)])


def _rename(rewrite: Rewrite, name: int, text: str) -> None:
    rewrite.replace(Span(name, name + 1), text)


def _constructs(source: Source, call: Call) -> bool:
    if is_type(source, list(call.arguments)) or not begins_expression(source, call.name):
        return False
    return not (
        source.key(call.close + 1) == "AS" and source.key(call.close + 2) in ("(", "MATERIALIZED", "NOT")
    )


def _constructor(source: Source, arguments: tuple[Span, ...]) -> str:
    kind = element_format(source, arguments[2]) if len(arguments) > 2 else "*"
    storage = word_of(source, arguments[3], STORAGES, "storage") if len(arguments) > 3 else "*"
    if kind == "BINARY":
        return "pythia.to_binary_vector"
    return "pythia.to_sparse_vector" if storage == "SPARSE" else "pythia.to_vector"


def _is_option(source: Source, index: int, inside: Span) -> bool:
    """RETURNING or FORMAT with its word behind it, after an expression."""
    if index == inside.start:
        return False
    follows = source.key(index + 1)
    return (source.key(index) == "RETURNING" and index + 1 < inside.end) or (
        source.key(index) == "FORMAT" and follows in ("DENSE", "SPARSE")
    )


def _check_options(source: Source, options: list[int], close: int) -> str:
    """The FORMAT asked for, DENSE if none; raise for a type that text cannot stand for."""
    form = "DENSE"
    for option, end in zip(options, [*options[1:], close][: len(options)], strict=True):
        word = source.key(option + 1)
        if source.key(option) == "FORMAT":
            form = word
        elif word == "BLOB":
            raise FeatureNotSupported(
                "from_vector returning blob is not supported",
                detail=source.where(option),
                hint="Use RETURNING CLOB.",
            )
        elif word not in _RETURNED or not (end == option + 2 or source.is_open(option + 2)):
            raise SQLSyntaxError(f'syntax error at or near "{word.lower()}"', detail=source.where(option + 1))
    return form
