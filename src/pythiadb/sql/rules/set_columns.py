"""Sets that stand in a FROM clause as columns of another query, and the names of their columns."""

from __future__ import annotations

from pythiadb.errors import FeatureNotSupported
from pythiadb.sql.batching_sets import alias_of, is_from_item
from pythiadb.sql.blocks import Block, block_at
from pythiadb.sql.references import folded
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scan import Kind
from pythiadb.sql.scoring import Scoring, find_scorings
from pythiadb.sql.set_columns import TableItem, column_definitions, set_behind, table_items
from pythiadb.sql.source import Span


def rewrite_set_columns(rewrite: Rewrite) -> None:
    """Read the rows of a set that a derived table or a WITH query computed.

    Before: SELECT s.* FROM (SELECT CLUSTER_SET(m USING 1 AS a) AS c) q, TABLE(q.c) s
    After: SELECT s.* FROM (SELECT (SELECT jsonb_agg(to_jsonb(__pythia_s)) AS cluster_set FROM pythia.cluster_set('m'::regclass, jsonb_build_object('a', 1)) AS __pythia_s) AS c) q, LATERAL ROWS FROM (jsonb_to_recordset(q.c) AS (cluster_id numeric, probability double precision)) s
    """
    source = rewrite.source
    for call in find_scorings(source):
        block = block_at(source, call.name)
        if block is not None and is_from_item(block, call):
            _refuse_cost(block, call, alias_of(block, call))
    for item in table_items(source):
        found = set_behind(item)
        if found is None:
            raise _not_a_set(rewrite, item)
        _refuse_cost(item.block, found, item.alias)
        _write(rewrite, item, found)


def _write(rewrite: Rewrite, item: TableItem, call: Scoring) -> None:
    columns = column_definitions(rewrite, call)
    alias = f" AS {call.operator.name}" if item.alias is None else ""
    rows = f"jsonb_to_recordset({rewrite.text(item.inside)}) AS ({columns})"
    rewrite.replace(item.span, f"LATERAL ROWS FROM ({rows}){alias}")


def _not_a_set(rewrite: Rewrite, item: TableItem) -> FeatureNotSupported:
    """TABLE( ) around anything else; the rows of a stored set need their types written out."""
    source = rewrite.source
    table = item.span.start + (source.key(item.span.start) == "LATERAL")
    return FeatureNotSupported(
        f"TABLE({rewrite.text(item.inside)}) is not a set that this statement computes",
        detail=source.where(table),
        hint="TABLE( ) takes PREDICTION_SET or CLUSTER_SET, or the column of a derived table or WITH query that holds "
        "one. The rows of a set in a table or view: jsonb_to_recordset(column) AS s(prediction text, probability "
        "double precision).",
    )


def _refuse_cost(block: Block, call: Scoring, alias: int | None) -> None:
    """Oracle's sets have a column COST beside a cost matrix, which models in ONNX do not have."""
    if alias is None or not call.operator.columns:
        return
    source, name = block.source, folded(block.source, alias)
    for index in range(*block.span):
        if source.shape(Span(index, index + 2)) != (".", "COST") or source.key(index - 2) == ".":
            continue
        named = source.at(index - 1).kind in (Kind.WORD, Kind.QUOTED) and folded(source, index - 1) == name
        if named and _owner(block, index):
            raise FeatureNotSupported(
                f"column cost of {call.operator.name} is not supported",
                detail=source.where(index - 1),
                hint="A cost comes from a cost matrix, which models in ONNX do not have; the columns are "
                f"{' and '.join(call.operator.columns)}.",
            )


def _owner(block: Block, index: int) -> bool:
    """Tell whether a token belongs to a block itself, and not to a query inside, where the name may mean another table."""
    found = block_at(block.source, index)
    return found is not None and found.span == block.span
