"""AI SQL: PostgreSQL's SQL, or Oracle's, with vector types, embeddings and distances, turned into PostgreSQL's SQL.

Text in, text out: nothing here reads a file or speaks to a server. Follow a statement through `translate`: `scan` cuts it
into tokens, `rules` edit the AI constructs in place, `batching` gathers the inputs of many rows into arrays. Statements in
Oracle's dialect pass through `oracle` first, the only user of sqlglot.
"""

from __future__ import annotations

from pythiadb.sql.rewrite import NO_CATALOG, Catalog
from pythiadb.sql.translate import (
    DIALECTS,
    Dialect,
    Translation,
    body_of,
    do_statement,
    split_statements,
    translate,
)

__all__ = [
    "DIALECTS",
    "NO_CATALOG",
    "Catalog",
    "Dialect",
    "Translation",
    "body_of",
    "do_statement",
    "split_statements",
    "translate",
]
