"""A trained recommender into a database: the model, its maps from ids to indexes, and the vectors beside an application's items."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pythiadb.errors import InvalidParameter
from pythiadb.models.loading import load_model
from pythiadb.postgres.item_table import ItemTable, column_name
from pythiadb.postgres.recommender_store import RecommenderStore, Scale, Side
from pythiadb.recommend.export import METADATA, onnx_model

if TYPE_CHECKING:
    from pythiadb.postgres.session import Connection
    from pythiadb.recommend.training import Trained


@dataclass(frozen=True, slots=True)
class Deployed:
    """What deploy() made: names as SQL text with their schema, and how many rows the tables have.

    `updated` is the number of rows of the item table that have got a vector, None where there was no item table.
    """

    model: str
    users_table: str
    items_table: str
    users: int
    items: int
    updated: int | None


def deploy(
    connection: Connection,
    trained: Trained,
    name: str = "cf_recommender",
    *,
    table: str | None = None,
    key: str | None = None,
    column: str = "cf_embedding",
    replace: bool = False,
) -> Deployed:
    """Put a trained recommender into a database, in the connection's transaction or in one of its own.

    Makes the model `name` for `PREDICTION(name USING … AS "USER_IDX", … AS "MOVIE_IDX")`, and the tables `name`_users and `name`_items
    with id, idx (the index in the model), bias and embedding. All three belong to the caller. Names follow SQL's rules for
    identifiers and may name a schema.

    Args:
        table: a table with a row for each item. Its column `column`, which is added when it is missing, gets the items' vectors.
        key: the column with the items' ids; without it, that of the table's primary key. The type of the ids in `name`_items follows it.
        replace: exchange the recommender of this name for this one. Other sessions use the old one until the transaction commits, and
            the new one after that: model, maps and vectors of one statement always belong together. Grants stay. Users that were folded
            in are deleted, as their vectors say nothing about the new items' vectors.

    Ids are bigint, uuid (where all are UUIDs) or text. An index of -1 stands for a user or an item that the model does not know: the
    prediction then is the mean rating plus the bias of the other side, and the mean alone if both are unknown.

    Raises:
        InvalidParameter: something of that name is there and `replace` is not given; the ids do not fit the key; no item is in the
            table; the column holds something else.
        psycopg.errors.UndefinedTable, InsufficientPrivilege and others, as PostgreSQL raises them.
    """
    with connection.transaction():
        store = RecommenderStore.place(connection, name, anywhere=replace)
        old = _old_version(store, replace=replace)
        target = ItemTable.find(connection, table, key) if table is not None else None
        sides = _sides(trained, target)
        model = store.name() if store.names.model not in old else store.beside(secrets.token_hex(8))
        _load(connection, trained, model)
        store.write(sides)
        updated = None if target is None else _write_vectors(store, target, column, sides["items"], replace)
        if model != store.name():
            # Last, as other sessions that look the model up wait from here to the commit.
            connection.execute("CALL pythia.switch_model(%s, %s)", (store.name(), model))
            connection.execute("CALL dbms_vector.drop_onnx_model(%s)", (model,))
        connection.catalog.forget()
        tables = store.name("users"), store.name("items")
    return Deployed(store.name(), *tables, len(trained.user_ids), len(trained.item_ids), updated)


def _old_version(store: RecommenderStore, *, replace: bool) -> list[str]:
    """Return the names that are there already. Raises InvalidParameter when they may not be replaced."""
    present = store.present()
    if present and not replace:
        raise InvalidParameter(
            f'"{present[0]}" exists already',
            hint="Give replace=True (--replace) to put another version in its place, or deploy under another name.",
        )
    return present


def _load(connection: Connection, trained: Trained, name: str) -> None:
    factors, settings = trained.factors, trained.settings
    scale = Scale(
        factors.mean, factors.lowest, factors.highest,
        settings.regularization, trained.user_weight, settings.dropout,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="pythia-recommender-") as folder:
        path = Path(folder) / "recommender.onnx"
        path.write_bytes(onnx_model(factors))
        load_model(connection, path, name, metadata={**METADATA, "modelDescription": asdict(scale)})


def _sides(trained: Trained, target: ItemTable | None) -> dict[str, Side]:
    factors = trained.factors
    users, items = trained.user_ids.to_pylist(), trained.item_ids.to_pylist()
    item_type = _id_type(items) if target is None else target.id_type(items)
    return {
        "users": Side(_id_type(users), users, factors.user_bias, factors.user_vectors),
        "items": Side(item_type, _as(items, item_type), factors.item_bias, factors.item_vectors),
    }


def _write_vectors(
    store: RecommenderStore, target: ItemTable, column: str, items: Side, replace: bool
) -> int:
    name = column_name(store.connection, column)
    dimensions = items.vectors.shape[1]
    target.check_vectors(name, dimensions, replace=replace)
    updated = target.write_vectors(name, store.names.table("items"), dimensions)
    if not updated:
        raise InvalidParameter(
            f'no item is in table "{target.table.name}"',
            detail=f'None of the {len(items.ids)} ids of the items, like {items.ids[0]!r}, is in column "{target.key.name}".',
            hint="Name the column that holds the items' ids as key.",
        )
    return updated


def _as(ids: list[Any], id_type: str) -> list[Any]:
    """Return ids as values of a type. Raises InvalidParameter for a string that is no UUID."""
    if id_type == "text":
        return list(map(str, ids))
    if id_type == "uuid" and (other := next((text for text in ids if not _is_uuid(text)), None)):
        raise InvalidParameter(
            f'item id "{other}" is not a UUID', detail="The key of the items' table is of type uuid."
        )
    return ids


def _id_type(ids: Sequence[Any]) -> str:
    if isinstance(ids[0], int):
        return "bigint"
    different = len({text.lower() for text in ids}) == len(
        ids
    )  # PostgreSQL does not tell letters of UUIDs apart
    return "uuid" if different and all(map(_is_uuid, ids)) else "text"


def _is_uuid(text: str) -> bool:
    """Tell the usual form of a UUID: other texts that the uuid library reads shall stay texts."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
