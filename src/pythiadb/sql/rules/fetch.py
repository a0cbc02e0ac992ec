"""The row-limiting clause: EXACT, APPROX and TARGET ACCURACY."""

from __future__ import annotations

from pythiadb.errors import InvalidParameter, SQLSyntaxError
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scan import Kind
from pythiadb.sql.source import Source, Span

_MODES = ("EXACT", "APPROX", "APPROXIMATE")


def rewrite_fetch(rewrite: Rewrite) -> None:
    """Drop the search mode and the accuracy: exact results satisfy every accuracy.

    Before: SELECT id FROM t ORDER BY d FETCH APPROX FIRST 10 ROWS ONLY WITH TARGET ACCURACY 90
    After: SELECT id FROM t ORDER BY d FETCH FIRST 10 ROWS ONLY
    """
    source = rewrite.source
    for index in range(len(source.tokens)):
        has_mode = source.key(index + 1) in _MODES
        first = index + 1 + has_mode
        if (
            source.key(index) != "FETCH"
            or source.key(index - 1) == "."
            or source.key(first) not in ("FIRST", "NEXT")
        ):
            continue
        end = _end_of_fetch(source, first)
        if end is None and has_mode:
            raise SQLSyntaxError("fetch clause without ONLY or WITH TIES", detail=source.where(first))
        if has_mode:
            rewrite.edits.replace(source.at(index).end, source.at(index + 1).end, "")
        if end is not None:
            _drop_accuracy(rewrite, end)


def _drop_accuracy(rewrite: Rewrite, end: int) -> None:
    source = rewrite.source
    accuracy = _accuracy(source, end)
    if accuracy.end > accuracy.start:
        rewrite.edits.replace(source.at(end - 1).end, source.at(accuracy.end - 1).end, "")


def _end_of_fetch(source: Source, index: int) -> int | None:
    """The token behind ONLY or WITH TIES; None if there is neither."""
    level = source.parent[index]
    for at in source.flat(Span(index, source.inside(level).end)):
        if source.key(at) == "ONLY":
            return at + 1
        if source.key(at) == "WITH" and source.key(at + 1) == "TIES":
            return at + 2
    return None


def _accuracy(source: Source, start: int) -> Span:
    """The tokens of `[WITH] [TARGET] ACCURACY ...`; an empty span if there are none."""
    at = start
    while source.key(at) in ("WITH", "TARGET") and source.key(at + 1) in ("TARGET", "ACCURACY", "PARAMETERS"):
        at += 1
    if source.key(at) == "ACCURACY":
        at += 1
    if at == start:
        return Span(start, start)
    if source.key(at) == "PARAMETERS" and source.is_open(at + 1):
        return Span(start, source.partner[at + 1] + 1)
    token = source.at(at)
    if token.kind is Kind.NUMBER and not 1 <= float(token.text) <= 100:
        raise InvalidParameter(
            f"target accuracy must be between 1 and 100, not {token.text}", detail=source.where(at)
        )
    if token.kind in (Kind.NUMBER, Kind.BIND, Kind.PLACEHOLDER, Kind.PARAM):
        at += 1
        at += source.key(at) == "PERCENT"
    return Span(start, at)
