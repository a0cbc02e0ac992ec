"""Column names: an output column that PostgreSQL names after the call keeps that name when the call is replaced."""

from __future__ import annotations

import re

from pythiadb.sql.blocks import Block
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scoring import Scoring
from pythiadb.sql.source import Span

# What may follow the call in an item that is still named after it: closing parentheses, casts, collations.
_TYPE = r'[\w."]+(?: [\w"]+)*?(?: \( \d+(?: , \d+)* \))?(?: \[ \d* \])*'
_REST = re.compile(rf"(?: \)| :: {_TYPE}| AS {_TYPE}(?= \))| COLLATE [\w.\"]+)*")


def keep_column_name(rewrite: Rewrite, block: Block, call: Scoring) -> None:
    """Add the operator's name as an alias to a select item without one that consists of the call, casts aside."""
    source = rewrite.source
    item = next((item for item in block.items if item.holds(call.name)), None)
    if item is None or block.part_of(call.name) != "SELECT":
        return
    before = source.shape(Span(item.start, call.span.start))
    rest = "".join(f" {key}" for key in source.shape(Span(call.span.end, item.end)))
    if set(before) <= {"(", "CAST"} and _REST.fullmatch(rest):
        rewrite.after(item.end - 1, f" AS {call.operator.name}")
