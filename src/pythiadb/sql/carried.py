"""SQL text that is carried inside a statement as a value: parameters and names of outer queries are written into it by format().

Before: t.a = :x AND t.b = o.c
After: format('t.a = %1$L::%2$s AND t.b = %3$L::%4$s', :x, pg_typeof(:x), o.c, pg_typeof(o.c))
"""

from __future__ import annotations

from collections.abc import Iterable

from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scan import Kind, scan
from pythiadb.sql.scoring import literal
from pythiadb.sql.source import Span

_VALUES = (Kind.PLACEHOLDER, Kind.BIND, Kind.PARAM)
_OUTER = ":__pythia_outer_"


def text_with_outer(rewrite: Rewrite, span: Span, outer: Iterable[Span]) -> str:
    """The text of some tokens with the edits made so far, and marks in the place of names of outer queries."""
    edits = rewrite.edits.copy()
    for name in outer:
        edits.replace(*rewrite.source.offsets(name), f"{_OUTER}{name.start}_{name.end}")
    return edits.render(*rewrite.source.offsets(span)) if span.start < span.end else ""


def carried(rewrite: Rewrite, text: str, *, typed: bool) -> str:
    """The expression whose value is the text; `typed` gives each value the type that it has in the statement.

    Without types, values are written as PostgreSQL reads unknown literals: what they are follows from what is around them.
    """
    values: dict[str, int] = {}
    pieces = []
    tokens = scan(text, placeholders=rewrite.placeholders)
    for token, behind in zip(tokens, [*tokens[1:], None], strict=True):
        if token.kind not in _VALUES:
            plain = token.text.replace("%%", "%") if rewrite.placeholders else token.text
            pieces.append(plain.replace("%", "%%"))
            continue
        number = values.setdefault(_value(rewrite, token.text), len(values))
        casts = typed and (behind is None or behind.text != "::")
        step = 2 if typed else 1
        pieces.append(f"%{number * step + 1}$L" + (f"::%{number * step + 2}$s" if casts else ""))
    whole = "".join(pieces)
    if not values:
        return rewrite.percent(literal(whole.replace("%%", "%")))
    given = [f"{value}, pg_typeof({value})" if typed else f"({value})::text" for value in values]
    return f"format({rewrite.percent(literal(whole))}, {', '.join(given)})"


def _value(rewrite: Rewrite, text: str) -> str:
    """A parameter as it is, or the name that a mark stands for."""
    if not text.startswith(_OUTER):
        return text
    start, end = map(int, text.removeprefix(_OUTER).split("_"))
    return rewrite.text(Span(start, end))
