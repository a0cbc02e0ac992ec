"""The rules in the order in which they run; each is a function that edits one statement."""

from __future__ import annotations

from pythiadb.sql.rewrite import Rule
from pythiadb.sql.rules.approx import rewrite_approx
from pythiadb.sql.rules.distance import rewrite_distance
from pythiadb.sql.rules.explain import rewrite_explain
from pythiadb.sql.rules.fetch import rewrite_fetch
from pythiadb.sql.rules.index_ddl import rewrite_index_ddl
from pythiadb.sql.rules.refusals import refuse_unserved
from pythiadb.sql.rules.scoring import rewrite_constant_scoring, rewrite_scoring
from pythiadb.sql.rules.set_columns import rewrite_set_columns
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
)
RULES: tuple[Rule, ...] = (
    *LOCAL_RULES,
    rewrite_fetch,
    rewrite_index_ddl,
    rewrite_set_columns,
    rewrite_constant_scoring,
    rewrite_approx,  # knows the vectors that are computed once; batches copy the tables that it limits
    rewrite_scoring,
    rewrite_explain,
)

__all__ = ["LOCAL_RULES", "RULES"]
