"""Reading the first key of ORDER BY: a distance between a column and an expression, in whichever way it is written."""

from __future__ import annotations

from dataclasses import dataclass

from pythiadb.sql.blocks import Block
from pythiadb.sql.references import folded
from pythiadb.sql.scan import Kind, words
from pythiadb.sql.source import Source, Span

OPERATORS = {
    "<=>": "COSINE",
    "<->": "EUCLIDEAN",
    "<#>": "DOT",
    "<+>": "MANHATTAN",
    "<~>": "HAMMING",
    "<%>": "JACCARD",
}
FUNCTIONS = {
    "COSINE_DISTANCE": "COSINE",
    "L2_DISTANCE": "EUCLIDEAN",
    "L1_DISTANCE": "MANHATTAN",
    "HAMMING_DISTANCE": "HAMMING",
    "JACCARD_DISTANCE": "JACCARD",
}
_NAMES = (Kind.WORD, Kind.QUOTED)
# Words that join expressions: with one of them outside of parentheses a key is more than one distance.
_JOINING = words("AND OR NOT IS IN LIKE ILIKE SIMILAR BETWEEN COLLATE AT CASE ISNULL NOTNULL OVERLAPS")


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance: its metric, empty if none is named, and its two operands."""

    metric: str
    operands: tuple[Span, Span]
    span: Span


def ordered_distance(block: Block) -> Distance | str:
    """The distance by which a block is ordered first, ascending; else the reason why there is none."""
    source = block.source
    keys = source.split(block.clause("ORDER"), ",")
    if not keys or keys[0].start >= keys[0].end:
        return "there is no ORDER BY"
    key = _ascending(source, keys[0])
    if key is None:
        return "the order is not ascending"
    return distance_in(source, _selected(block, key)) or "the first ORDER BY key is not a distance"


def distance_in(source: Source, span: Span) -> Distance | None:
    """The distance that an expression consists of."""
    if source.is_open(span.start) and source.partner[span.start] == span.end - 1:
        return distance_in(source, Span(span.start + 1, span.end - 1))
    return _called(source, span) or _operated(source, span)


def _ascending(source: Source, key: Span) -> Span | None:
    """A key without ASC and NULLS LAST; None for any other order."""
    start, end = key
    if source.shape(Span(max(end - 2, start), end)) == ("NULLS", "LAST"):
        end -= 2
    end -= source.key(end - 1) == "ASC"
    other = source.key(end - 1) == "DESC" or source.key(end - 2) == "NULLS"
    return None if other or any(source.key(i) == "USING" for i in source.flat(key)) else Span(start, end)


def _selected(block: Block, key: Span) -> Span:
    """The select item that a key names by number or alias; else the key itself."""
    source, first = block.source, block.source.at(key.start)
    if key.end - key.start != 1:
        return key
    if first.kind is Kind.NUMBER and first.text.isdigit() and 0 < int(first.text) <= len(block.items):
        return _without_alias(source, block.items[int(first.text) - 1])
    if first.kind in _NAMES:
        for item in block.items:
            bare = _without_alias(source, item)
            if bare != item and folded(source, item.end - 1) == folded(source, key.start):
                return bare
    return key


def _without_alias(source: Source, item: Span) -> Span:
    last = item.end - 1
    if item.end - item.start < 2 or source.at(last).kind not in _NAMES:
        return item
    if source.key(last - 1) == "AS":
        return Span(item.start, last - 1)
    before = source.at(last - 1)
    return item if before.kind is Kind.OPERATOR or before.text in (".", "::") else Span(item.start, last)


def _called(source: Source, span: Span) -> Distance | None:
    """VECTOR_DISTANCE(a, b, metric), or a function that is named after its metric."""
    name = span.start
    if source.shape(Span(name, name + 2)) == ("PYTHIA", "."):
        name += 2
    known = source.key(name) == "VECTOR_DISTANCE" or (name == span.start and source.key(name) in FUNCTIONS)
    if not known or not source.is_open(name + 1) or source.partner[name + 1] != span.end - 1:
        return None
    arguments = source.split(source.inside(name + 1), ",")
    metric = FUNCTIONS.get(source.key(name), "")
    if len(arguments) == 3 and not metric and arguments[2].end - arguments[2].start == 1:
        metric = source.key(arguments[2].start).strip("'").upper()
    elif len(arguments) != 2:
        return None
    metric = "EUCLIDEAN_SQUARED" if metric == "L2_SQUARED" else metric
    return Distance(metric, (arguments[0], arguments[1]), span)


def _operated(source: Source, span: Span) -> Distance | None:
    """One of pgvector's operators between two operands that hold no other outside of parentheses."""
    found = None
    for index in source.flat(span):
        if source.at(index).kind is Kind.OPERATOR:
            if found is not None or source.key(index) not in OPERATORS:
                return None
            found = index
        elif source.key(index) in _JOINING and source.key(index - 1) != ".":
            return None
    if found is None or found in (span.start, span.end - 1):
        return None
    return Distance(OPERATORS[source.key(found)], (Span(span.start, found), Span(found + 1, span.end)), span)
