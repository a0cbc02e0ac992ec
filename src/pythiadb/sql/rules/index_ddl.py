"""Statements about vector indexes."""

from __future__ import annotations

from pythiadb.sql.index_ddl import index_statement
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.source import Span


def rewrite_index_ddl(rewrite: Rewrite) -> None:
    """Write CREATE VECTOR INDEX as a call; DROP INDEX and ALTER INDEX too, where the catalog knows a vector index of the name.

    Before: DROP INDEX i
    After: DROP INDEX i
    """
    text = index_statement(rewrite.source, rewrite.catalog)
    if text is not None:
        rewrite.replace(Span(0, len(rewrite.source.tokens)), rewrite.percent(text))
