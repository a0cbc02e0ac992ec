"""FETCH APPROX and EXACT over a vector index: one condition more, which says which keys may be among the nearest."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from pythiadb.errors import FeatureNotSupported
from pythiadb.sql.approx import Indexed, judge
from pythiadb.sql.fetch_clause import find_fetches
from pythiadb.sql.filter_source import Filter
from pythiadb.sql.hoisting import hoist_query
from pythiadb.sql.included import Node, as_jsonb, predicate_of
from pythiadb.sql.index_hints import Hint
from pythiadb.sql.lateral import Together, alone_options, of_table, search_together, together_options
from pythiadb.sql.outer_rows import OuterRows, outer_rows
from pythiadb.sql.references import folded
from pythiadb.sql.resolution import Owner
from pythiadb.sql.rewrite import Rewrite, Search
from pythiadb.sql.rules.fetch import drop_words
from pythiadb.sql.scan import Kind
from pythiadb.sql.scoring import find_scorings, literal
from pythiadb.sql.source import Span
from pythiadb.sql.tables import outer_ctes

# A cast to bit would cut a vector to one dimension.
_CASTS = {"bit": "varbit"}
# A literal or a parameter, which needs no parentheses.
_VALUE = re.compile(r"'(?:[^']|'')*'|:\w+|\$\d+|%\(\w+\)[sbt]|[\w.]+")
_NAMES = (Kind.WORD, Kind.QUOTED)
_ROW_WORDS = ("ROW", "ROWS")
_MOST_ROWS = 1_000_000_000  # more are all that there are, and no integer


def rewrite_approx(rewrite: Rewrite) -> None:
    """Ask the vector index for the keys of the nearest rows; the statement itself decides among them.

    Before: SELECT id FROM t ORDER BY v <=> '[1,2]' FETCH APPROX FIRST 10 ROWS ONLY
    After: SELECT id FROM t ORDER BY v <=> '[1,2]' FETCH FIRST 10 ROWS ONLY
    """
    fetches = [fetch for fetch in find_fetches(rewrite.source) if fetch.mode]
    for fetch in sorted(fetches, key=lambda one: -rewrite.source.depth(rewrite.source.parent[one.start])):
        indexed = judge(rewrite.source, fetch, rewrite.catalog)
        reason = indexed if isinstance(indexed, str) else _reason(rewrite, indexed)
        if isinstance(indexed, Indexed) and reason is None:
            _search(rewrite, indexed)
        elif fetch.mode == "APPROX":
            rewrite.notes[fetch.start] = f"no vector index: {reason}"
            rewrite.searches.append(Search(None, str(reason)))
        drop_words(rewrite, fetch)


def _reason(rewrite: Rewrite, indexed: Indexed) -> str | None:
    """The first reason against an index in the vector searched for and the filter."""
    scored = (call for call in find_scorings(rewrite.source) if indexed.query.holds(call.name))
    if any(not call.is_constant(rewrite.source) for call in scored):
        return "the vector searched for is computed from columns"
    if indexed.is_plain:
        return None
    return "rows are filtered" if indexed.fetch.mode == "EXACT" else Filter(rewrite, indexed).reason


def _search(rewrite: Rewrite, indexed: Indexed) -> None:
    """Add the condition, and remember for EXPLAIN what it does."""
    asked = hoist_query(rewrite, indexed)
    condition = None if indexed.is_plain else Filter(rewrite, indexed)
    hint = indexed.hint if condition and indexed.fetch.mode == "APPROX" else None
    node, whole = _judged_inside(rewrite, indexed, hint)
    search = Search(
        indexed.index.id,
        query=_typed(rewrite.text(indexed.query), indexed),
        rows=_rows(rewrite, indexed),
        options=_options(rewrite, indexed, whole=whole, filter_type=hint.filter if hint else ""),
        source=condition.query(typed=True) if condition else "NULL",
        predicate="NULL" if node is None else as_jsonb(rewrite, node),
    )
    arguments = [search.query, search.rows, search.options]
    arguments += [search.source, search.predicate] if condition else []
    arguments.append(of_table(indexed))
    call = f"vecsys.nearest_{indexed.index.id}({', '.join(arguments)})"
    rows = outer_rows(rewrite, indexed, condition.outer if condition else [])
    if isinstance(rows, OuterRows) and hint and hint.filter:
        rows = "a hint says how the filter is applied"
    together = None
    if isinstance(rows, OuterRows):
        together = Together(
            indexed,
            rows,
            search,
            vector=_typed(asked, indexed),
            depends=bool(condition and condition.outer),
            checked=condition is not None and not whole,
        )
        call = search_together(rewrite, together, call)
    if rewrite.source.key(0) == "EXPLAIN":
        untyped = condition.query(typed=False) if condition else "NULL"
        known = not _depends(indexed) and not (condition and condition.outer)
        search = replace(
            search,
            query=_typed(asked, indexed) if known else "NULL",
            source=untyped if known else "NULL",
            predicate=search.predicate if known else "NULL",
            options=_explained(rewrite, search.options, together or rows),
        )
    rewrite.searches.append(search)
    _add_condition(rewrite, indexed, call)
    how = ", filtered" if condition else ""
    how += " by INCLUDE columns" if node is not None else ""
    how += " in part" if node is not None and not whole else ""
    how += f", {hint.filter}-filter by hint" if hint and hint.filter else ""
    how += ", for all outer rows together" if together else ""
    how += f", once for each outer row: {rows}" if isinstance(rows, str) else ""
    rewrite.notes[indexed.fetch.start] = f"vector index {indexed.index.name}{how}"


def _explained(rewrite: Rewrite, options: str, rows: Together | OuterRows | str | None) -> str:
    """The options, with what EXPLAIN says about outer rows."""
    if isinstance(rows, Together):
        return together_options(rewrite, rows)
    return alone_options(rewrite, options, rows) if isinstance(rows, str) else options


def _judged_inside(rewrite: Rewrite, indexed: Indexed, hint: Hint | None) -> tuple[Node | None, bool]:
    """What of the filter the index judges, and whether that is all of it. Raises FeatureNotSupported where a hint asks for more."""
    if hint and hint.filter in ("pre", "post"):
        return None, False
    node, whole = predicate_of(rewrite, indexed)
    if node is None and hint and hint.filter == "in":
        raise FeatureNotSupported(
            f"vector index {indexed.index.name} cannot judge anything of the filter",
            detail=f"The hint {hint.name} asks for that. {hint.place}",
            hint="It judges comparisons of INCLUDE columns with values, joined by AND.",
        )
    return node, whole


def _depends(indexed: Indexed) -> bool:
    """Tell whether the vector searched for reads a query around the block, or a CTE."""
    source, query = indexed.block.source, indexed.query
    ctes = outer_ctes(source, query)
    reads_cte = any(source.at(i).kind in _NAMES and folded(source, i) in ctes for i in range(*query))
    return reads_cte or any(name.owner is Owner.OUTER for name in indexed.scope.names(query))


def _cast(indexed: Indexed) -> str:
    return _CASTS.get(indexed.index.vector_type, indexed.index.vector_type)


def _typed(text: str, indexed: Indexed) -> str:
    """An expression for the vector that is searched for, in the type of the column."""
    cast = f"::{_cast(indexed)}"
    if _VALUE.fullmatch(text.removesuffix(cast)):
        return text.removesuffix(cast) + cast
    return (text if text.startswith("(SELECT __pythia_") else f"({text})") + cast


def _rows(rewrite: Rewrite, indexed: Indexed) -> str:
    """How many rows are wanted, those that OFFSET passes over too."""
    source, block = rewrite.source, indexed.block
    offset = block.clause("OFFSET")
    if offset.end > offset.start and source.key(offset.end - 1) in _ROW_WORDS:
        offset = Span(offset.start, offset.end - 1)
    spans = [span for span in (indexed.fetch.count, offset) if span.start < span.end]
    known, terms = int(indexed.fetch.count.start >= indexed.fetch.count.end), []
    for span in spans:
        if span.end - span.start == 1 and source.at(span.start).text.isdigit():
            known += int(source.at(span.start).text)
        else:
            value = f"({rewrite.text(span)})::integer"
            terms.append(f"coalesce({value}, 0)" if span == offset else value)
    return " + ".join(terms + ([str(min(known, _MOST_ROWS))] if known or not terms else []))


def _options(rewrite: Rewrite, indexed: Indexed, *, whole: bool, filter_type: str) -> str:
    """What the clause asks of the search, as jsonb."""
    wanted: dict[str, object] = dict(indexed.fetch.wanted)
    if indexed.fetch.mode == "EXACT":
        wanted = {"exact": True}
    if whole:
        wanted["whole"] = True
    if filter_type:
        wanted["filter"] = filter_type
    if not wanted:
        return "NULL"
    if not any(isinstance(value, Span) for value in wanted.values()):
        return literal(json.dumps(wanted)) + "::jsonb"
    pairs = [
        f"{literal(name)}, "
        + (f"({rewrite.text(value)})::numeric" if isinstance(value, Span) else _json(value))
        for name, value in wanted.items()
    ]
    return f"jsonb_build_object({', '.join(pairs)})"


def _json(value: object) -> str:
    """A value of a jsonb object that is built."""
    return f"{literal(value)}::text" if isinstance(value, str) else json.dumps(value)


def _add_condition(rewrite: Rewrite, indexed: Indexed, call: str) -> None:
    """Put the condition between WHERE, or FROM, and the clause behind it."""
    source, block, index = rewrite.source, indexed.block, indexed.index
    key = f"{indexed.piece.shown}.{index.key}"
    condition = f"{key} = ANY ((SELECT {call})::{index.key_type}[])"
    where = block.clause("WHERE")
    if where.start < where.end:
        if any(source.key(i) == "OR" for i in source.flat(where)):
            rewrite.before(where.start, "(")
            rewrite.after(where.end - 1, ")")
        added, behind = f"AND {condition}", where.end
    else:
        added, behind = f"WHERE {condition}", block.clause("FROM").end
    rewrite.before(behind, f"{added} ")
    rewrite.conditions[block.span.start] = added
