"""The row-limiting clause: EXACT, APPROX and TARGET ACCURACY are not PostgreSQL's."""

from __future__ import annotations

from pythiadb.sql.fetch_clause import Fetch, find_fetches
from pythiadb.sql.index_hints import drop_hints
from pythiadb.sql.rewrite import Rewrite


def rewrite_fetch(rewrite: Rewrite) -> None:
    """Drop the accuracy of clauses without EXACT or APPROX, for they are exact; `rewrite_approx` reads the others.

    Before: SELECT id FROM t ORDER BY d FETCH FIRST 10 ROWS ONLY WITH TARGET ACCURACY 90
    After: SELECT id FROM t ORDER BY d FETCH FIRST 10 ROWS ONLY
    """
    for fetch in find_fetches(rewrite.source):
        if not fetch.mode:
            drop_words(rewrite, fetch)


def drop_words(rewrite: Rewrite, fetch: Fetch) -> None:
    """Leave of a clause what PostgreSQL has."""
    source = rewrite.source
    if fetch.first > fetch.start + 1:
        rewrite.edits.replace(source.at(fetch.start).end, source.at(fetch.start + 1).end, "")
    if fetch.accuracy.end > fetch.accuracy.start:
        end = source.at(fetch.accuracy.end - 1).end
        rewrite.edits.replace(source.at(fetch.end - 1).end, end, "")
    if fetch.hints:
        drop_hints(source, rewrite.edits, fetch.start)
