"""Calls of procedures, which Oracle writes as EXECUTE p(...) or, in a block, as p(...)."""

from __future__ import annotations

from pythiadb.errors import SQLSyntaxError
from pythiadb.sql.oracle_hiding import translate_span
from pythiadb.sql.scan import Kind
from pythiadb.sql.source import Source, Span

_NAMES = (Kind.WORD, Kind.QUOTED)


def procedure_name(source: Source, span: Span) -> Span | None:
    """The tokens of the name, if the span is `a.b.c` or `a.b.c(...)` and nothing else."""
    index = span.start
    while source.at(index).kind in _NAMES and source.key(index + 1) == "." and index + 2 < span.end:
        index += 2
    if source.at(index).kind not in _NAMES or index >= span.end:
        return None
    bare = index + 1 == span.end
    called = source.is_open(index + 1) and source.partner[index + 1] + 1 == span.end
    return Span(span.start, index + 1) if bare or called else None


def procedure_call(source: Source, span: Span) -> str:
    """Write a call as CALL. Raises SQLSyntaxError for anything else."""
    named = procedure_name(source, span)
    if named is None:
        at = min(span.start, len(source.tokens) - 1)
        raise SQLSyntaxError(f'syntax error at or near "{source.at(at).text}"', detail=source.where(at))
    name = "".join(source.at(i).text for i in range(*named))
    return f"CALL {name}({arguments(source, Span(named.end, span.end))})"


def arguments(source: Source, span: Span) -> str:
    """The arguments between parentheses, translated; empty for no parentheses or none between them."""
    inside = source.inside(span.start) if source.is_open(span.start) and span.start < span.end else span
    if inside.start >= inside.end:
        return ""
    call = translate_span(source, inside, before="SELECT __pythia_call(", behind=")")
    return call.removeprefix("SELECT __pythia_call(")[:-1]
