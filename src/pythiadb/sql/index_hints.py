"""Oracle's hints about vector indexes, in the comment behind a SELECT: whether an index is used, and how a filter is applied.

    SELECT /*+ VECTOR_INDEX_TRANSFORM(t t_v POST_FILTER_WITHOUT_JOIN_BACK) */ id FROM t WHERE … FETCH APPROX FIRST 5 ROWS ONLY

Other hints in the comment stay where they are: extensions of PostgreSQL may read them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pythiadb.errors import InvalidParameter, SQLSyntaxError
from pythiadb.sql.blocks import block_at
from pythiadb.sql.edits import Edits
from pythiadb.sql.scan import Kind, scan
from pythiadb.sql.source import Source, position

_HINT = re.compile(
    r'\b(?P<name>(?:NO_)?VECTOR_INDEX_(?:SCAN|TRANSFORM))\s*\((?P<arguments>(?:"[^"]*"|[^()"])*)\)',
    re.IGNORECASE,
)
_ARGUMENT = re.compile(r'(?P<block>@\s*)?(?P<name>"(?:[^"]|"")+"|[\w$#]+)|(?P<other>[^\s,])')
_OPENINGS = ("/*+", "--+")
# Which columns are read again from the table is for PostgreSQL to plan, with a join back or without.
_FILTER_TYPES = {
    "PRE_FILTER_WITH_JOIN_BACK": "pre",
    "PRE_FILTER_WITHOUT_JOIN_BACK": "pre",
    "IN_FILTER_WITH_JOIN_BACK": "in",
    "IN_FILTER_WITHOUT_JOIN_BACK": "in",
    "POST_FILTER_WITHOUT_JOIN_BACK": "post",
}


@dataclass(frozen=True, slots=True)
class Hint:
    """One hint: its name, the table in FROM by its name or alias, the index (may be empty), both folded.

    `filter` is pre, in, post or empty; `text` the hint as written, `place` says where, for errors.
    """

    name: str
    table: str
    index: str
    filter: str
    text: str
    place: str

    @property
    def forbids(self) -> bool:
        """Tell whether the hint forbids the index rather than asks for it."""
        return self.name.startswith("NO_")


def hints_for(source: Source, clause: int) -> tuple[Hint, ...]:
    """Read the hints of the query block that a clause belongs to. Raises SQLSyntaxError, InvalidParameter."""
    return tuple(
        _hint(source, match, start)
        for start, comment in _comments(source, clause)
        for match in _HINT.finditer(comment)
    )


def drop_hints(source: Source, edits: Edits, clause: int) -> None:
    """Take the hints of a block out of its statement, and comments that hold nothing else."""
    for start, comment in _comments(source, clause):
        rest = _HINT.sub("", comment)
        if rest == comment:
            continue
        end = start + len(comment)
        if not rest.removesuffix("*/")[3:].strip(" \t\r\n,"):
            rest, end = "", end + source.text[end : end + 1].isspace()
        edits.replace(start, end, rest)


def _comments(source: Source, clause: int) -> list[tuple[int, str]]:
    """The comments that hold hints, right behind the SELECT of a clause's block, each with its offset."""
    if not any(opening in source.text for opening in _OPENINGS):
        return []
    block = block_at(source, clause)
    if block is None or block.level != source.parent[clause]:
        return []
    start, end = source.at(block.span.start).end, source.at(block.span.start + 1).start
    tokens = scan(source.text[start:end]) if end > start else []
    found = [token for token in tokens if token.kind is Kind.COMMENT]
    return [(start + token.start, token.text) for token in found if token.text.startswith(_OPENINGS)]


def _hint(source: Source, match: re.Match[str], start: int) -> Hint:
    name = match["name"].upper()
    place = position(source.text, start + match.start())
    found = list(_ARGUMENT.finditer(match["arguments"]))
    wrong = next((argument for argument in found if argument["other"]), None)
    if wrong:
        raise SQLSyntaxError(f'hint {name}: syntax error at or near "{wrong[0]}"', detail=place)
    names = [argument["name"] for argument in found if argument["block"] is None]
    most = 3 if name == "VECTOR_INDEX_TRANSFORM" else 2
    if not 1 <= len(names) <= most:
        raise SQLSyntaxError(f"hint {name} takes 1 to {most} names, not {len(names)}", detail=place)
    table, index, *filters = [*names, ""][: max(len(names), 2)]
    return Hint(name, _folded(table), _folded(index), _filter(filters, place), match[0], place)


def _filter(written: list[str], place: str) -> str:
    if not written:
        return ""
    found = _FILTER_TYPES.get(written[0].upper())
    if found is None:
        raise InvalidParameter(
            f'unrecognized filter type "{written[0]}"',
            detail=place,
            hint=f"It is one of {', '.join(_FILTER_TYPES)}.",
        )
    return found


def _folded(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
