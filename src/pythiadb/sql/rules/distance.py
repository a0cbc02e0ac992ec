"""Distances: VECTOR_DISTANCE with its metric as a key word."""

from __future__ import annotations

from pythiadb.errors import FeatureNotSupported, InvalidParameter, SQLSyntaxError
from pythiadb.sql.calls import Call, find_calls, is_literal
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scan import Kind
from pythiadb.sql.source import Span

METRICS = ("COSINE", "DOT", "EUCLIDEAN", "EUCLIDEAN_SQUARED", "L2_SQUARED", "MANHATTAN", "HAMMING", "JACCARD")
_BITWISE = ("HAMMING", "JACCARD")


def rewrite_distance(rewrite: Rewrite) -> None:
    """Turn the metric into a literal and give literals and parameters the type vector.

    Before: SELECT VECTOR_DISTANCE(v, '[1,2]', COSINE), VECTOR_DISTANCE(a, b)
    After: SELECT pythia.vector_distance(v, '[1,2]'::vector, 'COSINE'), pythia.vector_distance(a, b)
    """
    source = rewrite.source
    for call in find_calls(source, ("VECTOR_DISTANCE",)):
        if not 2 <= len(call.arguments) <= 3:
            raise SQLSyntaxError(
                "vector_distance takes two or three arguments", detail=source.where(call.name)
            )
        rewrite.replace(Span(call.name, call.name + 1), "pythia.vector_distance")
        metric = _metric(rewrite, call)
        for operand in call.arguments[:2]:
            if is_literal(source, operand) and metric not in _BITWISE:
                rewrite.after(operand.start, "::vector")


def _metric(rewrite: Rewrite, call: Call) -> str:
    """The metric in upper case, empty if none or computed; a key word becomes a literal."""
    if len(call.arguments) < 3:
        return ""
    source, span = rewrite.source, call.arguments[2]
    shape = source.shape(span)
    if len(shape) != 1 or source.at(span.start).kind is not Kind.WORD:
        return shape[0].strip("'").upper() if len(shape) == 1 else ""
    if shape[0] == "CUSTOM":
        raise FeatureNotSupported("distance metric CUSTOM is not supported", detail=source.where(span.start))
    if shape[0] not in METRICS:
        raise InvalidParameter(
            f'unrecognized distance metric "{source.at(span.start).text}"',
            detail=source.where(span.start),
            hint=f"Use one of {', '.join(METRICS)}.",
        )
    rewrite.replace(span, f"'{shape[0]}'")
    return shape[0]
