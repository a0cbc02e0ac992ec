"""The row-limiting clause: `FETCH APPROX FIRST n ROWS ONLY WITH TARGET ACCURACY 90`, which no other parser reads whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pythiadb.errors import InvalidParameter, SQLSyntaxError
from pythiadb.sql.index_hints import Hint, hints_for
from pythiadb.sql.scan import Kind
from pythiadb.sql.source import Source, Span

_MODES = ("EXACT", "APPROX", "APPROXIMATE")
_VALUES = (Kind.NUMBER, Kind.BIND, Kind.PLACEHOLDER, Kind.PARAM)
MOST = 4_294_967_295  # the greatest value of a search parameter
# Words of a search parameter -> the name by which the search knows it.
_PARAMETERS = (
    (("EFSEARCH",), "efsearch"),
    (("NEIGHBOR", "PARTITION", "PROBES"), "probes"),
    (("RESCORE", "FACTOR"), "rescore_factor"),
)


@dataclass(frozen=True, slots=True)
class Fetch:
    """One clause: its tokens up to ONLY or WITH TIES, and what AI SQL adds to PostgreSQL's.

    `mode` is EXACT, APPROX or empty; a hint that asks for an index stands for APPROX. `count` is an empty span for one row.
    `accuracy` holds the tokens from WITH to the end. `wanted` maps "accuracy", "efsearch", "probes" or "rescore_factor" to a
    number or to the token of a parameter. `hints` are those of its query block.
    """

    start: int
    mode: str
    first: int  # FIRST or NEXT
    count: Span
    end: int
    has_ties: bool
    accuracy: Span
    wanted: dict[str, int | float | Span]
    hints: tuple[Hint, ...] = ()


def find_fetches(source: Source) -> Iterator[Fetch]:
    """Read the clauses of a statement; cursors' FETCH is left alone. Raises SQLSyntaxError, InvalidParameter."""
    for index in range(len(source.tokens)):
        has_mode = source.key(index + 1) in _MODES
        first = index + 1 + has_mode
        begins = source.key(index) == "FETCH" and source.key(index - 1) != "."
        if not begins or source.key(first) not in ("FIRST", "NEXT"):
            continue
        end = _end_of_fetch(source, first)
        if end is not None:
            yield _read(source, index, first, end)
        elif has_mode:
            raise SQLSyntaxError("fetch clause without ONLY or WITH TIES", detail=source.where(first))


def _read(source: Source, start: int, first: int, end: int) -> Fetch:
    mode = "" if first == start + 1 else source.key(start + 1).removesuffix("IMATE")
    hints = hints_for(source, start)
    if not mode and any(not hint.forbids for hint in hints):
        mode = "APPROX"
    rows = next((i for i in range(first + 1, end) if source.key(i) in ("ROW", "ROWS")), end)
    accuracy, wanted = _accuracy(source, end)
    ties = source.key(end - 1) == "TIES"
    return Fetch(start, mode, first, Span(first + 1, rows), end, ties, accuracy, wanted, hints)


def _end_of_fetch(source: Source, index: int) -> int | None:
    """The token behind ONLY or WITH TIES; None if there is neither."""
    level = source.parent[index]
    for at in source.flat(Span(index, source.inside(level).end)):
        if source.key(at) == "ONLY":
            return at + 1
        if source.key(at) == "WITH" and source.key(at + 1) == "TIES":
            return at + 2
    return None


def _accuracy(source: Source, start: int) -> tuple[Span, dict[str, int | float | Span]]:
    """The tokens of `[WITH] [TARGET] ACCURACY ...`, an empty span if there are none, and what they ask for."""
    at = start
    while source.key(at) in ("WITH", "TARGET") and source.key(at + 1) in ("TARGET", "ACCURACY", "PARAMETERS"):
        at += 1
    at += source.key(at) == "ACCURACY"
    if at == start:
        return Span(start, start), {}
    if source.key(at) == "PARAMETERS" and source.is_open(at + 1):
        return Span(start, source.partner[at + 1] + 1), search_parameters(source, at + 1)
    if source.at(at).kind not in _VALUES:
        raise near(source, at)
    value = accuracy_at(source, at)
    behind = at + 1 + (source.key(at + 1) == "PERCENT")
    return Span(start, behind), {"accuracy": value}


def accuracy_at(source: Source, index: int) -> int | float | Span:
    """An accuracy in percent, or the token of the parameter that gives it. Raises InvalidParameter outside 1 to 100."""
    token = source.at(index)
    if token.kind is not Kind.NUMBER:
        return Span(index, index + 1)
    value = float(token.text)
    if not 1 <= value <= 100:
        raise InvalidParameter(
            f"target accuracy must be between 1 and 100, not {token.text}", detail=source.where(index)
        )
    return int(value) if value.is_integer() else value


def search_parameters(source: Source, bracket: int) -> dict[str, int | float | Span]:
    """Read `(EFSEARCH n, NEIGHBOR PARTITION PROBES n, RESCORE FACTOR n)`; of a repeated one the last counts."""
    items = source.split(source.inside(bracket), ",")
    if not items:
        raise near(source, source.partner[bracket])
    return dict(_parameter(source, item) for item in items)


def _parameter(source: Source, item: Span) -> tuple[str, int]:
    shape = source.shape(item)
    for words, name in _PARAMETERS:
        if shape[: len(words)] == words and len(shape) == len(words) + 1:
            return name, whole_number(source, item.end - 1, " ".join(words).lower(), 1, MOST)
    raise near(source, item.start)


def whole_number(
    source: Source, index: int, name: str, low: int, high: int | None, *, hint: str | None = None
) -> int:
    """The number at a token. Raises InvalidParameter for one outside the range, SQLSyntaxError for anything else."""
    token = source.at(index)
    if token.kind is not Kind.NUMBER:
        raise near(source, index)
    fits = token.text.isdigit() and low <= int(token.text) and (high is None or int(token.text) <= high)
    if not fits:
        allowed = f"at least {low}" if high is None else f"between {low} and {high}"
        raise InvalidParameter(
            f"{name} must be a whole number {allowed}, not {token.text}",
            detail=source.where(index),
            hint=hint,
        )
    return int(token.text)


def near(source: Source, index: int, *, hint: str | None = None) -> SQLSyntaxError:
    """The error for a token that does not belong where it is, in PostgreSQL's words."""
    at_end = index >= len(source.tokens)
    place = "at end of input" if at_end else f'at or near "{source.at(index).text}"'
    return SQLSyntaxError(f"syntax error {place}", detail=source.where(index), hint=hint)
