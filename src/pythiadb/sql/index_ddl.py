"""Statements about vector indexes, written as calls of procedures; other indexes are PostgreSQL's business."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pythiadb.errors import FeatureNotSupported
from pythiadb.sql.fetch_clause import near
from pythiadb.sql.index_clauses import CREATION, NAMES, REBUILDING, Clauses, column_name, read_clauses
from pythiadb.sql.references import folded
from pythiadb.sql.rewrite import Catalog
from pythiadb.sql.scan import Kind
from pythiadb.sql.scoring import literal
from pythiadb.sql.source import Source, Span

_CREATE = ("CREATE", "VECTOR", "INDEX")
_DROP_BEHIND = ("CASCADE", "RESTRICT", "FORCE", "ONLINE", "IMMEDIATE", "DEFERRED", "INVALIDATION")
_NOT_EXISTS = ("IF", "NOT", "EXISTS")


def index_statement(source: Source, catalog: Catalog) -> str | None:
    """The call that a statement about a vector index stands for; None for any other statement."""
    if source.shape(Span(0, min(3, len(source.tokens)))) == _CREATE:
        return _create(source)
    if source.key(1) == "INDEX" and source.key(0) == "DROP":
        return _drop(source, catalog)
    if source.key(1) == "INDEX" and source.key(0) == "ALTER":
        return _alter(source, catalog)
    return None


def _create(source: Source) -> str:
    """CREATE VECTOR INDEX [IF NOT EXISTS] name ON table (column) clauses."""
    optional = source.shape(Span(3, min(6, len(source.tokens)))) == _NOT_EXISTS
    name = _name(source, 6 if optional else 3)
    if source.key(name.end) != "ON":
        raise near(source, name.end)
    table = _name(source, name.end + 1)
    column = _column(source, table.end)
    clauses = read_clauses(source, source.partner[table.end] + 1, allowed=CREATION)
    return _call("create", _creation(source, name, table, column, clauses, optional=optional))


def _creation(
    source: Source, name: Span, table: Span, column: str, clauses: Clauses, *, optional: bool
) -> dict[str, str]:
    include = clauses.include and ", ".join(literal(item) for item in clauses.include)
    return {
        "index_name": literal(_written(source, name)),
        "table_name": literal(_written(source, table)),
        "vector_column": literal(column),
        "include_columns": f"ARRAY[{include}]" if include else "NULL",
        "organization": literal(clauses.organization) if clauses.organization else "NULL",
        "distance": literal(clauses.distance) if clauses.distance else "NULL",
        "target_accuracy": str(clauses.accuracy or 90),
        "parameters": _json(clauses.parameters),
        "parallel": str(clauses.parallel or 1),
        "if_not_exists": str(optional).lower(),
    }


def _column(source: Source, bracket: int) -> str:
    """The one column between the parentheses behind the table."""
    if not source.is_open(bracket) or source.partner[bracket] >= len(source.tokens):
        raise near(source, bracket if not source.is_open(bracket) else len(source.tokens))
    columns = source.split(source.inside(bracket), ",")
    if not columns:
        raise near(source, source.partner[bracket])
    if len(columns) > 1:
        raise FeatureNotSupported(
            "a vector index on several columns is not supported",
            detail=source.where(columns[1].start),
            hint="Create an index for each column.",
        )
    (only,) = columns
    if only.end - only.start > 1 and any(
        source.at(i).kind is Kind.OPERATOR or source.key(i) in ("(", "::", ".") for i in range(*only)
    ):
        raise FeatureNotSupported(
            "a vector index on an expression is not supported",
            detail=source.where(only.start),
            hint="Add a generated column with the expression and index it.",
        )
    return column_name(source, only)


def _drop(source: Source, catalog: Catalog) -> str | None:
    """DROP INDEX [CONCURRENTLY] [IF EXISTS] name [CASCADE | RESTRICT]."""
    at = 2 + (source.key(2) == "CONCURRENTLY" and source.at(3).kind in NAMES)
    optional = source.shape(Span(at, min(at + 2, len(source.tokens)))) == ("IF", "EXISTS")
    at += 2 * optional
    names = _names(source, at)
    if not names or not any(_is_vector_index(source, name, catalog) for name in names):
        return None
    if len(names) > 1:
        raise FeatureNotSupported(
            "dropping a vector index together with others is not supported",
            detail=source.where(names[1].start),
            hint="Drop each index by a statement of its own.",
        )
    for index in range(names[0].end, len(source.tokens)):
        if source.key(index) not in _DROP_BEHIND:
            raise near(source, index)
    return _call(
        "drop", {"index_name": literal(_written(source, names[0])), "if_exists": str(optional).lower()}
    )


def _names(source: Source, index: int) -> list[Span]:
    """Names with commas between them; empty if none stands there."""
    found = []
    while source.at(index).kind in NAMES:
        found.append(_name(source, index))
        if source.key(found[-1].end) != ",":
            break
        index = found[-1].end + 1
    return found


def _alter(source: Source, catalog: Catalog) -> str | None:
    """ALTER INDEX [IF EXISTS] name {REBUILD clauses | RENAME TO name}; REBUILD of an index that is none is told that it is none."""
    optional = source.shape(Span(2, min(4, len(source.tokens)))) == ("IF", "EXISTS")
    names = _names(source, 4 if optional else 2)
    if len(names) != 1 or _is_escaped(source, names[0]):
        return None
    name, at = {"index_name": literal(_written(source, names[0]))}, names[0].end
    # PostgreSQL has no REBUILD: for an index that is not there its answer would be a syntax error.
    if source.key(at) != "REBUILD" and not _is_vector_index(source, names[0], catalog):
        return None
    if source.key(at) == "REBUILD":
        clauses = read_clauses(source, at + 1, allowed=REBUILDING)
        parameters = clauses.parameters | ({"type": clauses.type} if clauses.type else {})
        facts = {
            "parameters": _json(parameters) if parameters else "NULL",
            "parallel": str(clauses.parallel) if clauses.parallel else "NULL",
        }
        return _call("rebuild", name | facts)
    if source.key(at) == "RENAME" and source.key(at + 1) == "TO":
        if source.at(at + 2).kind not in NAMES or at + 3 < len(source.tokens):
            raise near(source, at + 3 if source.at(at + 2).kind in NAMES else at + 2)
        return _call("rename", name | {"new_name": literal(folded(source, at + 2))})
    raise FeatureNotSupported(
        f"ALTER INDEX with {source.key(at)} is not supported for a vector index",
        detail=source.where(at),
        hint="Use REBUILD, RENAME TO, or DROP INDEX and CREATE VECTOR INDEX.",
    )


def _is_vector_index(source: Source, name: Span, catalog: Catalog) -> bool:
    return not _is_escaped(source, name) and catalog.vector_index(_written(source, name)) is not None


def _is_escaped(source: Source, name: Span) -> bool:
    """Whether a name is written in a way that a catalog does not read."""
    return any(source.at(i).text[:2] in ("U&", "u&") for i in range(*name))


def _name(source: Source, index: int) -> Span:
    """The tokens of `[schema.]name`."""
    if source.at(index).kind not in NAMES:
        raise near(source, index)
    if source.key(index + 1) != ".":
        return Span(index, index + 1)
    if source.at(index + 2).kind not in NAMES:
        raise near(source, index + 2)
    return Span(index, index + 3)


def _written(source: Source, name: Span) -> str:
    return "".join(source.at(i).text for i in range(*name))


def _json(parameters: Mapping[str, int | str]) -> str:
    return literal(json.dumps(parameters)) + "::jsonb"


def _call(verb: str, arguments: dict[str, str]) -> str:
    written = ", ".join(f"{name} => {value}" for name, value in arguments.items())
    return f"CALL pythia.{verb}_vector_index({written})"
