"""What a user would like: the items in the order of the ratings that he would give, without those that he has seen.

The same as one statement, scored by the model instead of by the vectors (users who were folded in are unknown to it):

    SELECT m.title, PREDICTION(cf_recommender USING coalesce(u.idx, -1) AS "USER_IDX", i.idx AS "MOVIE_IDX") AS rating
    FROM cf_recommender_items i
    JOIN movies m ON m.movieid = i.id
    LEFT JOIN cf_recommender_users u ON u.id = :user
    WHERE m.genres LIKE '%Comedy%' AND m.year BETWEEN 1990 AND 1999
      AND NOT EXISTS (SELECT FROM ratings r WHERE r.userid = :user AND r.movieid = i.id)
    ORDER BY rating DESC FETCH FIRST 10 ROWS ONLY

For thousands of items it is quicker over one table and with the user's idx as a number, as the rows then travel as arrays:

    SELECT i.id, PREDICTION(cf_recommender USING 17 AS "USER_IDX", i.idx AS "MOVIE_IDX") AS rating
    FROM cf_recommender_items i
    ORDER BY rating DESC FETCH FIRST 10 ROWS ONLY
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pythiadb.errors import InvalidParameter
from pythiadb.postgres.item_table import Column, ItemTable, Table
from pythiadb.postgres.recommender_store import RecommenderStore
from pythiadb.recommend.choosing import USUAL

if TYPE_CHECKING:
    from pythiadb.postgres.session import Connection

_OWN = "recommend_"  # how binds of the query itself begin


@dataclass(frozen=True, slots=True)
class Recommendation:
    """An item, the rating that its user would give, and the columns of the item table that were asked for."""

    id: Any
    rating: float
    values: dict[str, Any]


def for_user(
    connection: Connection,
    name: str,
    user_id: Any,
    *,
    count: int = 10,
    table: str | None = None,
    key: str | None = None,
    columns: Sequence[str] = (),
    where: str | None = None,
    params: Mapping[str, Any] | None = None,
    seen: str | None = None,
    seen_columns: Mapping[str, str] | None = None,
    exclude: Collection[Any] = (),
) -> list[Recommendation]:
    """Return the `count` items of recommender `name` that a user would rate highest, by one query over its tables.

    rating = mean + bias of the user + bias of the item + dot product of their vectors, clipped to the range of the training
    ratings; items are in the order of what it is before that. A user who is neither known nor folded in gets the items that are
    liked best in general: mean + bias of the item.

    Args:
        table: the table with a row for each item; only items that are in it are returned.
        key: its column with the items' ids; without it, that of its primary key.
        columns: columns of the table to return beside.
        where: a condition in PostgreSQL's dialect, in which `item` is the table, and with binds out of `params`:
            "item.genres LIKE '%Comedy%' AND item.year >= :year".
        seen: a table of ratings, views or purchases; items that it has for the user are left out.
        seen_columns: its columns, as in {"user": "who", "item": "what"}; found by their usual names (see read_ratings()) without it.
        exclude: ids of more items to leave out.

    Raise InvalidParameter for arguments that do not go together, an id that is None, and columns that are not there; PostgreSQL's errors for the rest.
    """
    _check_ids(user_id, exclude, columns)
    if count < 1:
        raise InvalidParameter(f"count must be at least 1, not {count}")
    if table is None and (where or columns or key):
        raise InvalidParameter("where, columns and key need the table of the items", hint="Name it as table.")
    if own := next((bind for bind in params or () if bind.startswith(_OWN)), None):
        raise InvalidParameter(f'a bind cannot be called "{own}"', hint=f"Names with {_OWN} are the query's.")
    store = RecommenderStore.find(connection, name)
    item = None if table is None else ItemTable.find(connection, table, key)
    chosen = [item.table.column(column) for column in columns] if item else []
    conditions = [*_unseen(store, seen, seen_columns), *_not_excluded(store, exclude)]
    if where:
        conditions.append(f"({where}\n)")  # it may end in a comment
    binds = {
        "recommend_user": str(user_id),
        "recommend_seen_by": str(user_id),
        "recommend_excluded": [str(other) for other in exclude],
        "recommend_count": count,
    }
    store.scale()  # says what is wrong where the query would give NULL
    rows = store.query(_query(store, item, chosen, conditions), {**binds, **(params or {})})
    titles = [column.name for column in chosen]
    return [Recommendation(row[0], row[1], dict(zip(titles, row[2:], strict=True))) for row in rows]


def knows(connection: Connection, name: str, user_id: Any) -> bool:
    """Tell whether recommender `name` has learned a user or folded him in; for_user() gives all others the same list."""
    store = RecommenderStore.find(connection, name)
    found = store.query(
        f"SELECT 1 FROM {store.name('users')} WHERE id = :recommend_user", {"recommend_user": str(user_id)}
    )
    return bool(found)


def check_user_id(user_id: Any) -> None:
    """Raise InvalidParameter for None, which would be taken for the text."""
    if user_id is None:
        raise InvalidParameter("a user's id cannot be None")


def _check_ids(user_id: Any, exclude: Collection[Any], columns: Sequence[str]) -> None:
    """Raise for what would be taken as ids or names, though it is none: no value, and the letters of one text."""
    check_user_id(user_id)
    for name, given in (("exclude", exclude), ("columns", columns)):
        if isinstance(given, (str, bytes)):
            raise InvalidParameter(f"{name} is a list, not the text {given!r}", hint=f"Give [{given!r}].")


def _query(
    store: RecommenderStore, item: ItemTable | None, chosen: Sequence[Column], conditions: Sequence[str]
) -> str:
    selected = join = ""
    if item is not None:
        selected = "".join(f", {item.table.text(column, 'item')}" for column in chosen)
        join = f"JOIN {item.table.text()} AS item ON {item.table.text(item.key, 'item')} = i.id"
    return f"""
        SELECT i.id, least(greatest(s.score, f.lowest), f.highest){selected}
        FROM {store.scale_query()} AS f
        CROSS JOIN {store.name("items")} AS i
        {join}
        LEFT JOIN {store.name("users")} AS u ON u.id = :recommend_user
        CROSS JOIN LATERAL (
            SELECT f.mean + i.bias + coalesce(u.bias - (i.embedding <#> u.embedding), 0)) AS s(score)
        WHERE {" AND ".join(conditions) or "true"}
        ORDER BY s.score DESC, i.id LIMIT :recommend_count"""


def _not_excluded(store: RecommenderStore, exclude: Collection[Any]) -> list[str]:
    if not exclude:
        return []
    return [f"i.id <> ALL (CAST(:recommend_excluded AS text[])::{store.id_type('items')}[])"]


def _unseen(store: RecommenderStore, seen: str | None, given: Mapping[str, str] | None) -> list[str]:
    """Return the condition that the user has no row for the item in the table `seen`."""
    if seen is None:
        return []
    table, given = Table.find(store.connection, seen), given or {}
    if unknown := set(given) - {"user", "item"}:
        raise InvalidParameter(f'unrecognized kind of column "{unknown.pop()}"', hint="Use user and item.")
    user, item = (
        table.column(given[kind]) if kind in given else table.usual(USUAL[kind]) for kind in ("user", "item")
    )
    if user is None or item is None:
        raise InvalidParameter(
            f'table "{table.name}" has no column that is known to hold {"users" if user is None else "items"}',
            hint='Name them: seen_columns={"user": …, "item": …}.',
        )
    same = f"{table.text(user, 'v')} = :recommend_seen_by AND {table.text(item, 'v')} = i.id"
    return [f"NOT EXISTS (SELECT FROM {table.text()} AS v WHERE {same})"]
