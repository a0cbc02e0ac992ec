"""EXPLAIN of statements with FETCH APPROX: what the search of the index does, and PostgreSQL's plan of the rewritten statement."""

from __future__ import annotations

import json

from pythiadb.sql.carried import carried
from pythiadb.sql.rewrite import Rewrite, Search
from pythiadb.sql.scoring import literal
from pythiadb.sql.source import Source, Span
from pythiadb.sql.statements import PLAN_FOR


def rewrite_explain(rewrite: Rewrite) -> None:
    """Ask for the searches' plans and the statement's in one function; other statements are explained by PostgreSQL alone.

    Before: EXPLAIN ANALYZE SELECT id FROM t FETCH FIRST 3 ROWS ONLY
    After: EXPLAIN ANALYZE SELECT id FROM t FETCH FIRST 3 ROWS ONLY
    """
    source = rewrite.source
    if source.key(0) != "EXPLAIN" or not rewrite.searches or _is_for_machines(source):
        return
    whole = Span(0, len(source.tokens))
    text = rewrite.text(whole)
    if source.shape(Span(0, min(3, whole.end))) == PLAN_FOR:
        text = "EXPLAIN " + rewrite.text(Span(3, whole.end))
    statement = carried(rewrite, text, typed=False)
    calls = [_call(rewrite, search, "NULL") for search in rewrite.searches[:-1]]
    calls.append(_call(rewrite, rewrite.searches[-1], statement))
    rewrite.replace(whole, " UNION ALL ".join(f"SELECT * FROM {call}" for call in calls))


def _is_for_machines(source: Source) -> bool:
    """Tell whether a plan is wanted in a format that lines of text would spoil."""
    options = source.split(source.inside(1), ",") if source.is_open(1) else []
    formats = [source.key(option.end - 1) for option in options if source.key(option.start) == "FORMAT"]
    return any(name.strip("'").upper() != "TEXT" for name in formats)


def _call(rewrite: Rewrite, search: Search, statement: str) -> str:
    index = "NULL" if search.index is None else str(search.index)
    options = search.options
    if search.reason:
        options = rewrite.percent(literal(json.dumps({"reason": search.reason}))) + "::jsonb"
    facts = (index, search.query, search.rows, options, search.source, search.predicate, statement)
    return f"pythia.explain_vector_search({', '.join(facts)})"
