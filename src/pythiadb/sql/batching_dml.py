"""Batching in UPDATE and MERGE: the inputs are gathered from the changed table, or from the merged source.

An UPDATE joins its own table by primary key to a query that carries each row's input and output. A row that a concurrent
transaction changed is judged again with its new values but the old joined row, so the output is used only while the input
is still the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pythiadb.sql.calling import key_text, single, typed
from pythiadb.sql.checks import guard_reason, input_reason
from pythiadb.sql.from_items import has_join, item_name
from pythiadb.sql.helpers import (
    Helper,
    add_ctes,
    batch_note,
    helper_cte,
    remaining_where,
    rows_first,
)
from pythiadb.sql.references import column_names, folded, has_volatile
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scan import Kind
from pythiadb.sql.scoring import Scoring
from pythiadb.sql.source import Source, Span
from pythiadb.sql.statements import Query, why_not_once

_CLAUSES = ("SET", "FROM", "USING", "ON", "WHERE", "WHEN", "RETURNING")


@dataclass(frozen=True, slots=True)
class Change:
    """An UPDATE or MERGE: its table with alias, and its clauses without their key words."""

    rewrite: Rewrite
    query: Query
    table: Span
    clauses: dict[str, Span]
    calls: tuple[Scoring, ...]  # every call over columns in the statement

    @property
    def source(self) -> Source:
        """The statement."""
        return self.rewrite.source

    @property
    def name(self) -> str:
        """The name by which the table's columns are qualified."""
        return item_name(self.source, self.table)

    def clause(self, name: str) -> Span:
        """A clause's content; an empty span if there is none."""
        return self.clauses.get(name, Span(0, 0))


Group = tuple[Helper, list[Scoring]]


def batch_update(
    rewrite: Rewrite, query: Query, calls: list[Scoring], everything: tuple[Scoring, ...]
) -> None:
    """Rewrite the calls of an UPDATE or DELETE."""
    change = _read(rewrite, query, everything)
    keys: tuple[str, ...] = ()
    reason = _update_reason(change)
    if reason is None:
        keys = rewrite.catalog.primary_key(_table_name(change)) or ()
        reason = None if keys else "no primary key is known"
    groups = _accept(change, calls, reason, _in_set_or_where)
    if groups:
        _write_update(change, keys, groups)


def batch_merge(
    rewrite: Rewrite, query: Query, calls: list[Scoring], everything: tuple[Scoring, ...]
) -> None:
    """Rewrite the calls of a MERGE."""
    change = _read(rewrite, query, everything)
    groups = _accept(change, calls, _merge_reason(change), _only_source_columns)
    if groups:
        _write_merge(change, groups)


def _read(rewrite: Rewrite, query: Query, everything: tuple[Scoring, ...]) -> Change:
    """Find the clauses; of a clause that comes again (WHEN), the last."""
    source = rewrite.source
    end = source.inside(query.level).end
    starts: list[int] = []
    for index in source.flat(Span(query.verb + 1, end)):
        key = source.key(index)
        named = source.key(index - 1) in (".", "AS") or (
            key == "FROM" and source.key(index - 1) == "DISTINCT"
        )
        seen = any(source.key(start) == key for start in starts)
        if key in _CLAUSES and not named and not (seen and key == "SET"):
            starts.append(index)
    clauses = {
        source.key(start): Span(start + 1, stop)
        for start, stop in zip(starts, [*starts[1:], end], strict=False)
    }
    table = Span(query.verb + 1, starts[0] if starts else end)
    if source.key(table.start) == "INTO":
        table = Span(table.start + 1, table.end)
    return Change(rewrite, query, table, clauses, everything)


def _accept(
    change: Change,
    calls: list[Scoring],
    reason: str | None,
    fits: Callable[[Change, Scoring], str | None],
) -> list[Group]:
    """Put calls with the same input together and write those that may not be batched."""
    source = change.source
    groups: dict[tuple[object, ...], list[Scoring]] = {}
    for call in calls:
        groups.setdefault(call.key(source), []).append(call)
    accepted: list[Group] = []
    refused: list[tuple[Scoring, str]] = []
    for group in groups.values():
        others = [call for call in change.calls if call not in group]
        guards = (guard_reason(source, change.query.level, change.query.verb, call) for call in group)
        reasons = (
            reason,
            input_reason(source, group, others),
            *guards,
            *(fits(change, call) for call in group),
        )
        why = next((text for text in reasons if text), None)
        if why is None:
            accepted.append((Helper(change.rewrite.next_cte()), group))
        else:
            refused += [(call, why) for call in group]
    rows_first(change.rewrite, refused)
    return accepted


def _update_reason(change: Change) -> str | None:
    source = change.source
    if source.key(change.query.verb) == "DELETE":
        return "in DELETE"
    if source.key(change.table.start) == "ONLY" or "FROM" in change.clauses or "USING" in change.clauses:
        return "UPDATE with ONLY or FROM"
    where = change.clause("WHERE")
    if source.shape(where)[:2] == ("CURRENT", "OF"):
        return "WHERE CURRENT OF"
    return _shared_reason(change, where)


def _merge_reason(change: Change) -> str | None:
    source, merged = change.source, change.clause("USING")
    name = item_name(source, merged) if merged.end > merged.start else ""
    if not name or has_join(source, merged):
        return "the source of MERGE is no single named table"
    rest = range(merged.end, source.inside(change.query.level).end)
    for index in rest:
        same = source.at(index).kind in (Kind.WORD, Kind.QUOTED) and folded(source, index) == _fold(name)
        whole = source.key(index + 1) != "." or source.key(index + 2) == "*"
        if same and source.key(index - 1) != "." and whole and not _is_input(change, index):
            return "MERGE uses whole rows of its source"
    if any(_is_star(source, item) for item in source.split(change.clause("RETURNING"), ",")):
        return "MERGE with RETURNING *"
    return _shared_reason(change, merged)


def _shared_reason(change: Change, gathered: Span) -> str | None:
    if has_volatile(change.source, gathered):
        return "a volatile function"
    return why_not_once(change.source, change.query.level)


def _is_input(change: Change, index: int) -> bool:
    return any(call.input.holds(index) for call in change.calls)


def _is_star(source: Source, item: Span) -> bool:
    return item.end > item.start and source.key(item.end - 1) == "*" and source.key(item.end - 2) != "."


def _in_set_or_where(change: Change, call: Scoring) -> str | None:
    parts = (change.clause("SET"), change.clause("WHERE"))
    return None if any(part.holds(call.name) for part in parts) else "in RETURNING"


def _only_source_columns(change: Change, call: Scoring) -> str | None:
    source = change.source
    name = _fold(item_name(source, change.clause("USING")))
    columns = list(column_names(source, call.input)) or [
        (call.input.start, call.input.end - call.input.start > 1)
    ]
    fits = all(qualified and folded(source, index) == name for index, qualified in columns)
    return None if fits else "the input is not of the source of MERGE alone"


def _write_update(change: Change, keys: tuple[str, ...], groups: list[Group]) -> None:
    """Join the table to its own inputs and outputs by primary key."""
    rewrite, where = change.rewrite, change.clause("WHERE")
    rest = remaining_where(rewrite, where, change.calls)
    tables = rewrite.text(change.table)
    suffix = f" WHERE {rest}" if rest else ""
    inputs = {helper: key_text(rewrite, group[0]) for helper, group in groups}
    ctes = [
        helper_cte(
            rewrite,
            helper,
            group[0],
            f"SELECT DISTINCT {inputs[helper]} AS __pythia_input FROM {tables}{suffix}",
        )
        for helper, group in groups
    ]
    columns = [f"{change.name}.{key} AS __pythia_key_{n}" for n, key in enumerate(keys, 1)]
    columns += [
        f"{inputs[helper]} AS {helper.input}, {_output(rewrite, helper, group)}" for helper, group in groups
    ]
    joins = "".join(helper.join(key) for helper, key in inputs.items())
    joined = f" FROM (SELECT {', '.join(columns)} FROM {tables}{joins}{suffix}) AS __pythia_u"
    same = " AND ".join(f"{change.name}.{key} = __pythia_u.__pythia_key_{n}" for n, key in enumerate(keys, 1))
    _replace_calls(rewrite, groups, _checked)
    _write_clauses(change, joined, same)
    add_ctes(rewrite, change.query.level, ctes)


def _write_clauses(change: Change, joined: str, same: str) -> None:
    rewrite, where = change.rewrite, change.clause("WHERE")
    last = change.clause("SET").end - 1
    rewrite.after(last, joined)
    if where.end > where.start:
        rewrite.before(where.start, f"{same} AND (")
        rewrite.after(where.end - 1, ")")
    else:
        rewrite.after(last, f" WHERE {same}")
    for item in change.source.split(change.clause("RETURNING"), ","):
        if _is_star(change.source, item):
            rewrite.replace(Span(item.end - 1, item.end), f"{change.name}.*")


def _write_merge(change: Change, groups: list[Group]) -> None:
    """Give the source the outputs as columns."""
    rewrite, merged = change.rewrite, change.clause("USING")
    name, text = item_name(change.source, merged), rewrite.text(merged)
    inputs = {helper: key_text(rewrite, group[0]) for helper, group in groups}
    ctes = [
        helper_cte(
            rewrite, helper, group[0], f"SELECT DISTINCT {inputs[helper]} AS __pythia_input FROM {text}"
        )
        for helper, group in groups
    ]
    outputs = "".join(f", {_output(rewrite, helper, group)}" for helper, group in groups)
    joins = "".join(helper.join(key) for helper, key in inputs.items())
    _replace_calls(rewrite, groups, lambda helper, _, one: f"COALESCE({name}.{helper.output}, {one})")
    rewrite.before(merged.start, f"(SELECT {name}.*{outputs} FROM ")
    rewrite.after(merged.end - 1, f"{joins}) AS {name}")
    add_ctes(rewrite, change.query.level, ctes)


def _output(rewrite: Rewrite, helper: Helper, group: list[Scoring]) -> str:
    """The output of a joined helper as a column of its own type."""
    plain = f"{helper.table}.{helper.output}"
    output = typed(rewrite, group[0], plain)
    return output if output == plain else f"{output} AS {helper.output}"


def _replace_calls(rewrite: Rewrite, groups: list[Group], write: Callable[[Helper, str, str], str]) -> None:
    for helper, group in groups:
        for call in group:
            batch_note(rewrite, call)
            rewrite.replace(call.span, write(helper, key_text(rewrite, call), single(rewrite, call)))


def _checked(helper: Helper, key: str, one: str) -> str:
    """The output while the row's input is the one that was gathered, else computed anew."""
    output = f"COALESCE(__pythia_u.{helper.output}, {one})"
    return f"CASE WHEN {key} IS NOT DISTINCT FROM __pythia_u.{helper.input} THEN {output} ELSE {one} END"


def _table_name(change: Change) -> str:
    """The table as written, with its schema, without its alias."""
    source, index = change.source, change.table.start
    while source.key(index + 1) == ".":
        index += 2
    return "".join(source.at(i).text for i in range(change.table.start, index + 1))


def _fold(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
