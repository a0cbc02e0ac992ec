"""Which rows a correlated search is made for, and whether they can be read beforehand, once more than the query reads them.

    SELECT q.id, n.id FROM queries q CROSS JOIN LATERAL (SELECT t.id FROM t ORDER BY t.v <=> q.v FETCH APPROX FIRST 5 ROWS ONLY) n

The rows are those of `queries q`, under the conditions that name nothing else. Where reading them might do much more work than
the query, or be other than what it reads, each row searches by itself; the first reason for that is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pythiadb.sql.approx import Indexed
from pythiadb.sql.blocks import Block, block_at, conjuncts
from pythiadb.sql.fetch_clause import find_fetches
from pythiadb.sql.functions import changes_from_call_to_call
from pythiadb.sql.narrowing import narrows
from pythiadb.sql.references import folded, has_volatile, is_name
from pythiadb.sql.resolution import Name, Owner, Scope
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scoring import find_scorings
from pythiadb.sql.source import Source, Span
from pythiadb.sql.statements import why_not_once
from pythiadb.sql.tables import Piece


@dataclass(frozen=True, slots=True)
class OuterRows:
    """The rows of an outer query: its block, what of its FROM gives them, and those of its conditions that name them only."""

    block: Block
    tables: Span
    conditions: tuple[Span, ...]

    @property
    def spans(self) -> tuple[Span, ...]:
        """All tokens that are read once more."""
        return (self.tables, *self.conditions)


def outer_rows(rewrite: Rewrite, indexed: Indexed, filtered: Iterable[Span]) -> OuterRows | str | None:
    """The rows that give a search its vector, the first reason against reading them; None if no row gives it.

    `filtered` are the names of outer queries in the search's own filter.
    """
    filtered = list(filtered)
    query = [name.span for name in indexed.scope.names(indexed.query) if name.owner is Owner.OUTER]
    owner = _owner(rewrite, indexed, query)
    if not isinstance(owner, Scope):
        return owner
    tables, followed = _tables(owner.block)
    conditions, unknown = _conditions(owner, tables)
    reasons = (
        _place_reason(owner.block, indexed),
        "other tables are joined behind it" if followed else None,
        _names_reason(owner, tables, [*query, *filtered]),
        _filter_reason(owner, indexed, filtered),
        unknown,
        _limit_reason(owner, tables),
        _repeat_reason(rewrite, indexed, (tables, *conditions)),
        "the number of rows may differ from row to row" if _counts_by_row(indexed) else None,
    )
    return next((reason for reason in reasons if reason), None) or OuterRows(
        owner.block, tables, tuple(conditions)
    )


def _owner(rewrite: Rewrite, indexed: Indexed, names: list[Span]) -> Scope | str | None:
    """The block around a search that the vector's columns belong to; None for variables of a block of statements."""
    source, level = rewrite.source, indexed.block.level
    while level >= 0 and names:
        block = block_at(source, level)
        if block is None:
            return None
        scope = Scope(block, rewrite.catalog)
        if any(_piece(scope, name) for name in names):
            return scope
        if not all(piece.is_complete for piece in scope.pieces):
            return "it is not known which query the vector belongs to"
        level = block.level
    return None


def _piece(scope: Scope, name: Span) -> Piece | None:
    """The piece of FROM that surely has a column, named `column` or `piece.column`."""
    source, first = scope.source, folded(scope.source, name.start)
    if name.end - name.start == 1:
        found = [piece for piece in scope.pieces if piece.has(first)]
    else:
        found = [piece for piece in scope.pieces if piece.name == first and name.end - name.start == 3]
    return found[0] if len(found) == 1 and source.key(name.end - 1) != "*" else None


def _tables(block: Block) -> tuple[Span, bool]:
    """What stands in front of the first LATERAL in FROM, or all of it; and whether others than LATERAL follow."""
    source, clause = block.source, block.clause("FROM")
    first = next((i for i in source.flat(clause) if source.key(i) == "LATERAL"), None)
    if first is None:
        return clause, False
    end = first - 1
    while source.key(end) == "JOIN" and source.key(end - 1) in ("INNER", "LEFT", "OUTER", "CROSS"):
        end -= 1
        if source.key(end) != "OUTER":
            break
    joints = (i for i in source.flat(Span(first, clause.end)) if source.key(i) in (",", "JOIN"))
    return Span(clause.start, max(end, clause.start)), any(source.key(i + 1) != "LATERAL" for i in joints)


def _conditions(scope: Scope, tables: Span) -> tuple[list[Span], str | None]:
    """The conditions of WHERE that name nothing but some tables; and a reason if one cannot be read."""
    kept = []
    for part in conjuncts(scope.source, scope.block.clause("WHERE")):
        names = list(scope.names(part))
        unsure = next((name for name in names if name.owner is Owner.UNKNOWN), None)
        if unsure is not None:
            return [], f'it is not known what "{folded(scope.source, unsure.span.start)}" is'
        if all(_is_of(scope, tables, name) for name in names):
            kept.append(part)
    return kept, None


def _is_of(scope: Scope, tables: Span, name: Name) -> bool:
    """Tell whether a name in a condition is not of the block's other tables."""
    if name.owner is not Owner.ROW:
        return True
    piece = _piece(scope, name.span)
    return piece is not None and tables.holds(piece.span.start)


def _place_reason(block: Block, indexed: Indexed) -> str | None:
    """Judge where the search stands in the outer query, and where that stands."""
    source, top = block.source, _outermost(block, indexed.block.level)
    lateral = source.key(top - 1) == "LATERAL"
    reasons = (
        "EXACT looks at all rows" if indexed.fetch.mode == "EXACT" else None,
        "a hint says how to filter" if indexed.hint and indexed.hint.filter else None,
        why_not_once(source, block.level),
        "in a set operation" if block.in_set else None,
        "neither LATERAL nor in the select list" if not lateral and block.part_of(top) != "SELECT" else None,
        "in CASE or COALESCE" if _is_guarded(block, indexed.block.level) else None,
        "rows are locked" if "FOR" in block.clauses else None,
        "rows are grouped" if block.is_grouped else None,
        "a cursor may need only some rows" if source.key(0) == "DECLARE" else None,
        "the outer query may need only some rows" if narrows(block, ()) else None,
    )
    return next((reason for reason in reasons if reason), None)


def _outermost(block: Block, bracket: int) -> int:
    """The bracket around a search that stands in the block itself."""
    while block.source.parent[bracket] != block.level:
        bracket = block.source.parent[bracket]
    return bracket


def _is_guarded(block: Block, bracket: int) -> bool:
    """Tell whether CASE or COALESCE may skip what a bracket holds."""
    source = block.source
    while bracket != block.level:
        around = source.parent[bracket]
        before = Span(max(block.span.start, source.inside(around).start), bracket)
        cases = [i for i in source.flat(before) if source.key(i - 1) != "."]
        open_cases = sum((source.key(i) == "CASE") - (source.key(i) == "END") for i in cases)
        if open_cases > 0 or source.key(bracket - 1) == "COALESCE":
            return True
        bracket = around
    return False


def _names_reason(scope: Scope, tables: Span, names: Iterable[Span]) -> str | None:
    """A name that other tables of the outer query give is known only when the query runs."""
    for name in names:
        piece = _piece(scope, name)
        if piece is not None and not tables.holds(piece.span.start):
            return f"it depends on {piece.name}"
        if piece is None and name.end - name.start > 1:
            return f'it is not known what "{folded(scope.source, name.start)}" is'
    return None


def _filter_reason(scope: Scope, indexed: Indexed, filtered: list[Span]) -> str | None:
    """A filter by the row may ask another number of candidates for each; not so `key <> column`, a row without itself."""
    parts = conjuncts(scope.source, indexed.block.clause("WHERE"))
    for name in filtered:
        part = next((part for part in parts if part.holds(name.start)), None)
        is_variable = _piece(scope, name) is None
        if not is_variable and (part is None or not _excludes(indexed, part, name)):
            return "the filter depends on the row"
    return None


def _excludes(indexed: Indexed, part: Span, name: Span) -> bool:
    """Tell whether a condition is `key <> name`, and PostgreSQL's alone to judge."""
    source, index = indexed.scope.source, indexed.index
    operators = [i for i in source.flat(part) if source.key(i) in ("<>", "!=")]
    if len(operators) != 1:
        return False
    sides = [Span(part.start, operators[0]), Span(operators[0] + 1, part.end)]
    key = next((side for side in sides if side != name), sides[0])
    if name not in sides or not is_name(source, key) or indexed.scope.piece_with(key) != indexed.piece:
        return False
    column = folded(source, key.end - 1)
    return index.key in (column, '"' + column.replace('"', '""') + '"') and column not in index.include


def _limit_reason(scope: Scope, tables: Span) -> str | None:
    """A limit leaves rows out, unless they are put in order by what the search finds."""
    block, source = scope.block, scope.source
    if not block.is_limited:
        return None
    first = next(iter(source.split(block.clause("ORDER"), ",")), Span(0, 0))
    found = (name for name in scope.names(first) if name.owner is Owner.ROW)
    ordered = any(not _is_of(scope, tables, name) for name in found)
    return None if ordered else "the outer query is limited"


def _repeat_reason(rewrite: Rewrite, indexed: Indexed, spans: Iterable[Span]) -> str | None:
    """The first reason why some tokens cannot be read twice, or not yet."""
    source = rewrite.source
    for span in spans:
        if span.start >= span.end:
            return "there are no tables in front of it"
        if changes_from_call_to_call(source, span, rewrite.catalog):
            return "a volatile function in the outer query"
        if any(span.holds(call.name) and not call.is_constant(source) for call in find_scorings(source)):
            return "a score is computed in the outer query"
        if any(span.holds(start) and start > indexed.fetch.start for start in _searches(source)):
            return "the outer query searches an index"
    return None


def _searches(source: Source) -> Iterator[int]:
    return (fetch.start for fetch in find_fetches(source) if fetch.mode)


def _counts_by_row(indexed: Indexed) -> bool:
    """Tell whether the clause itself names columns or variables, or changes from call to call."""
    wanted = [value for value in indexed.fetch.wanted.values() if isinstance(value, Span)]
    spans = [indexed.fetch.count, indexed.block.clause("OFFSET"), *wanted]
    return any(
        has_volatile(indexed.scope.source, span) or any(True for _ in indexed.scope.names(span))
        for span in spans
    )
