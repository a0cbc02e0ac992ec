"""The rules in the order in which they run; each is a function that edits one statement."""

from __future__ import annotations

from pythiadb.sql.rewrite import Rule
from pythiadb.sql.rules.distance import rewrite_distance
from pythiadb.sql.rules.embedding import rewrite_embedding
from pythiadb.sql.rules.fetch import rewrite_fetch
from pythiadb.sql.rules.refusals import refuse_unserved
from pythiadb.sql.rules.types import rewrite_types
from pythiadb.sql.rules.values import rewrite_constructors, rewrite_descriptors, rewrite_serializers

# Rules that read nothing but the construct itself; an Oracle statement passes through them before it is parsed.
LOCAL_RULES: tuple[Rule, ...] = (
    refuse_unserved,
    rewrite_types,
    rewrite_constructors,
    rewrite_serializers,
    rewrite_descriptors,
    rewrite_distance,
    rewrite_fetch,
)
RULES: tuple[Rule, ...] = (*LOCAL_RULES, rewrite_embedding)

__all__ = ["LOCAL_RULES", "RULES"]
