"""Whether a block reads one stored table and nothing else, and which of its columns."""

from __future__ import annotations

from dataclasses import dataclass

from pythiadb.sql.blocks import Block, with_list
from pythiadb.sql.from_items import from_items, item_name
from pythiadb.sql.references import folded
from pythiadb.sql.rewrite import Rewrite, Table
from pythiadb.sql.scan import Kind
from pythiadb.sql.scoring import Scoring
from pythiadb.sql.source import Source, Span

_NAMES = (Kind.WORD, Kind.QUOTED)
_SYSTEM = ("CTID", "TABLEOID", "XMIN", "XMAX", "CMIN", "CMAX")


@dataclass(frozen=True, slots=True)
class Stored:
    """The only table of a block: as written with its schema, the name that qualifies its columns, what is known of it."""

    written: str
    name: str
    facts: Table

    @property
    def item(self) -> str:
        """The table as an item of FROM."""
        return f"{self.written} AS {self.name}"


def stored_table(rewrite: Rewrite, block: Block) -> Stored | None:
    """The table that is all that a block reads; None if it reads anything else."""
    source, items = block.source, from_items(block)
    if len(items) != 1:
        return None
    start, end = items[0]
    last = start
    while source.key(last + 1) == "." and last + 2 < end:
        last += 2
    alias = Span(last + 1 + (source.key(last + 1) == "AS"), end)
    plain = all(source.at(i).kind in _NAMES for i in range(start, last + 1, 2))
    if not plain or source.key(start) in ("ONLY", "LATERAL") or alias.end - alias.start > 1:
        return None
    if start == last and _is_cte(source, folded(source, start)):
        return None
    written = "".join(source.at(i).text for i in range(start, last + 1))
    name = item_name(source, items[0])
    facts = rewrite.catalog.table(written) if name else None
    return Stored(written, name, facts) if facts else None


def needed_columns(block: Block, calls: list[Scoring], table: Stored) -> list[str] | None:
    """The columns that a block reads outside of its calls; None if it reads rows as a whole, or long columns."""
    source = block.source
    tables = block.clause("FROM")
    found: dict[str, None] = {}
    for index in range(*block.span):
        token = source.at(index)
        if tables.holds(index) or any(call.span.holds(index) for call in calls):
            continue
        if token.text == "*" and source.key(index - 1) in ("SELECT", ",", ".", "DISTINCT", "ALL"):
            return None
        if token.kind not in _NAMES:
            continue
        name = folded(source, index)
        whole = name == _fold(table.name) and (source.key(index + 1) != "." or source.key(index - 1) == ".")
        if whole or token.key in _SYSTEM:
            return None
        if name in table.facts.columns:
            found[name] = None
    return list(found) if all(table.facts.columns[name].is_short for name in found) else None


def _is_cte(source: Source, name: str) -> bool:
    """Tell whether the statement has a CTE of a name, which may hide a table."""
    lists = (with_list(source, i) for i in range(len(source.tokens)) if source.key(i) == "WITH")
    return any(folded(source, cte) == name for found in lists if found for cte, _ in found.bodies)


def _fold(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
