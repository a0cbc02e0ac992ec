"""PREDICTION_SET and CLUSTER_SET as items of a FROM clause: one row of the query becomes a row for each class.

    Before: SELECT s.* FROM t c, TABLE(PREDICTION_SET(m, 2 USING c.age AS age)) s
    After: WITH (outputs by input) SELECT s.* FROM t c LEFT JOIN (outputs) CROSS JOIN LATERAL jsonb_to_recordset(...) AS s

The outputs are gathered from the items in front of the set and from the conditions that do not name the set's columns.
"""

from __future__ import annotations

from dataclasses import dataclass

from pythiadb.sql.blocks import Block, conjuncts
from pythiadb.sql.calling import function_call, key_text, single
from pythiadb.sql.checks import input_reason
from pythiadb.sql.from_items import from_items, has_join, table_names
from pythiadb.sql.helpers import Helper, add_ctes, batch_note, helper_cte, note
from pythiadb.sql.narrowing import narrows
from pythiadb.sql.operators import SET_COLUMNS
from pythiadb.sql.references import has_volatile, mentions
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scoring import Scoring
from pythiadb.sql.set_columns import alias_behind, column_definitions
from pythiadb.sql.source import Source, Span
from pythiadb.sql.statements import why_not_once


@dataclass(frozen=True, slots=True)
class Item:
    """A set in FROM: the tokens from LATERAL or TABLE up to its alias, and the alias as written."""

    block: Block
    call: Scoring
    function: Span
    alias: str
    has_columns: bool  # behind the alias, columns are named


def is_from_item(block: Block, call: Scoring) -> bool:
    """Tell whether a set stands where a table stands."""
    if not call.operator.is_set or block.part_of(call.name) != "FROM":
        return False
    source, start = block.source, _function(block.source, call).start
    return source.parent[start] == block.level and source.key(start - 1) in ("FROM", ",", "JOIN")


def batch_sets(rewrite: Rewrite, calls: list[tuple[Block, Scoring]], others: tuple[Scoring, ...]) -> None:
    """Rewrite the sets in FROM clauses: in batches where that is safe, row by row elsewhere."""
    items = [_item(block, call) for block, call in calls]
    levels = {item.block.level for item in items}
    for level in sorted(levels, key=rewrite.source.depth, reverse=True):  # what a set reads comes before it
        ctes: list[str] = []
        for item in reversed([item for item in items if item.block.level == level]):
            own = [other for other in items if other.block.span == item.block.span]
            reason = _why_row_by_row(item, own, others)
            if reason:
                note(rewrite, item.call, f"row by row: {reason}")
                _write_function(rewrite, item)
            else:
                ctes.insert(0, _write_join(rewrite, item))
        if ctes:
            add_ctes(rewrite, level, ctes)


def _function(source: Source, call: Scoring) -> Span:
    """The call with TABLE( ) around it and LATERAL in front of it."""
    start, end = call.span
    if source.key(start - 1) == "(" and source.key(start - 2) == "TABLE" and source.partner[start - 1] == end:
        start, end = start - 2, end + 1
    return Span(start - (source.key(start - 1) == "LATERAL"), end)


def alias_of(block: Block, call: Scoring) -> int | None:
    """The token of the alias of a set in FROM; None if it has none."""
    return alias_behind(block, _function(block.source, call).end)


def _item(block: Block, call: Scoring) -> Item:
    source, at = block.source, alias_of(block, call)
    function = _function(source, call)
    if at is None:
        return Item(block, call, function, "", has_columns=False)
    return Item(block, call, function, source.at(at).text, source.is_open(at + 1))


def _why_row_by_row(item: Item, own: list[Item], others: tuple[Scoring, ...]) -> str | None:
    """The first reason against batching; None if there is none."""
    block, call = item.block, item.call
    source, tables = block.source, from_items(block)
    at = next(n for n, table in enumerate(tables) if table.holds(call.name))
    behind = [table for table in tables[at:] if not any(table.holds(one.call.name) for one in own)]
    where = block.clause("WHERE")
    reasons = (
        "it names no column" if call.is_constant(source) else None,
        "in a join" if has_join(source, tables[at]) or behind or at == 0 else None,
        "a bare * over joined columns" if _merges_columns(block) else None,
        "several sets in one FROM clause" if len(own) > 1 else None,
        "the set has no name" if not item.alias else None,
        "the set's columns are renamed" if item.has_columns else None,
        "rows are locked" if "FOR" in block.clauses else None,
        why_not_once(source, block.level),
        input_reason(source, [call], others),
        "a volatile function" if has_volatile(source, Span(block.clause("FROM").start, where.end)) else None,
        "other scores in the block" if any(block.span.holds(other.name) for other in others) else None,
        "the query may need only some rows" if block.is_limited and not _ordered_by(item) else None,
        "the outer query may need only some rows" if narrows(block, [call]) else None,
    )
    return next((reason for reason in reasons if reason), None)


def _merges_columns(block: Block) -> bool:
    """Tell whether a bare `*` gives some columns of joined tables once, or those of a table without a name."""
    source, stars = block.source, any(block.source.shape(item) == ("*",) for item in block.items)
    joined = any(source.key(i) in ("NATURAL", "USING") for i in source.flat(block.clause("FROM")))
    return stars and (joined or table_names(block) is None)


def _ordered_by(item: Item) -> bool:
    """Tell whether the rows are put in order by the set's columns, so that all of them are needed."""
    return _names_set(item, item.block.clause("ORDER"))


def _names_set(item: Item, span: Span) -> bool:
    names = (*SET_COLUMNS, _fold(item.alias))
    return any(mentions(item.block.source, span, name) for name in names)


def _write_function(rewrite: Rewrite, item: Item) -> None:
    text = function_call(rewrite, item.call)
    alias = "" if item.alias else f" AS {item.call.operator.name}"
    rewrite.replace(item.function, f"LATERAL {text}{alias}")


def _write_join(rewrite: Rewrite, item: Item) -> str:
    """Join the outputs in front of the set, and read the set from them; give the CTE."""
    block, call, source = item.block, item.call, rewrite.source
    helper = Helper(rewrite.next_cte())
    tables = from_items(block)
    before = Span(tables[0].start, item.function.start - 1)
    key = key_text(rewrite, call)
    kept = [part for part in conjuncts(source, block.clause("WHERE")) if not _names_set(item, part)]
    where = " AND ".join(rewrite.text(part) for part in kept)
    inputs = f"SELECT DISTINCT {key} AS __pythia_input FROM {rewrite.text(before)}"
    for star in block.items:
        if source.shape(star) == ("*",):  # without the helper's columns
            rewrite.replace(star, ", ".join(f"{name}.*" for name in table_names(block) or ()))
    cte = helper_cte(rewrite, helper, call, inputs + (f" WHERE {where}" if where else ""))
    batch_note(rewrite, call)
    rows = (
        f"CASE WHEN {helper.table}.{helper.input} IS NULL THEN {single(rewrite, call)} "
        f"ELSE {helper.table}.{helper.output}::jsonb END"
    )
    comma = item.function.start - 1
    rewrite.replace(Span(comma, comma + 1), "")
    for index, table in enumerate(tables):
        if table.end > before.end:
            break
        if index:
            _cross_join(rewrite, table)
    behind = source.at(item.function.end)
    column_list = f" AS {item.alias}({column_definitions(rewrite, call)})"
    end = item.function.end + 1 + (behind.key == "AS")
    rewrite.replace(
        Span(item.function.start, end),
        f"{helper.join(key)[1:]} CROSS JOIN LATERAL jsonb_to_recordset({rows}){column_list}",
    )
    return cte


def _cross_join(rewrite: Rewrite, table: Span) -> None:
    """A comma binds weaker than the join that follows."""
    comma = table.start - 1
    rewrite.replace(Span(comma, comma + 1), " CROSS JOIN")
    if has_join(rewrite.source, table):
        rewrite.before(table.start, "(")
        rewrite.after(table.end - 1, ")")


def _fold(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
