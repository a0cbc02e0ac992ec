"""Which columns of a table are the users, the items, the ratings and their times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pythiadb.errors import InvalidParameter, InvalidRatings

# What the columns are usually called, in any case; where a table has several, the first of these counts.
USUAL = {
    "user": ("userId", "user_id", "user"),
    "item": ("movieId", "movie_id", "itemId", "item_id", "item"),
    "rating": ("rating", "value", "score"),
    "timestamp": ("timestamp", "time"),
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """The names of the columns as the table writes them."""

    user: str
    item: str
    rating: str
    timestamp: str | None

    @property
    def names(self) -> list[str]:
        """All that are read."""
        return [name for name in (self.user, self.item, self.rating, self.timestamp) if name is not None]


def choose(names: Sequence[str], given: Mapping[str, str | None], where: str) -> Chosen:
    """Find the columns among `names` of the table that is called `where`; what is `given` goes before the usual names.

    Raises InvalidParameter when `given` has a key that means nothing, InvalidRatings when a column is missing or ambiguous.
    """
    if unknown := [kind for kind in given if kind not in USUAL]:
        raise InvalidParameter(
            f'unrecognized kind of column "{unknown[0]}"', hint=f"Kinds of columns are {', '.join(USUAL)}."
        )
    user, item, rating = (_required(kind, names, given, where) for kind in ("user", "item", "rating"))
    chosen = Chosen(user, item, rating, _time(names, given, where))
    if len(set(chosen.names)) < len(chosen.names):
        raise InvalidParameter(f"the columns {', '.join(chosen.names)} are not different")
    return chosen


def _time(names: Sequence[str], given: Mapping[str, str | None], where: str) -> str | None:
    if "timestamp" not in given:
        return _found(USUAL["timestamp"], names, where)
    return None if given["timestamp"] is None else _required("timestamp", names, given, where)


def _required(kind: str, names: Sequence[str], given: Mapping[str, str | None], where: str) -> str:
    chosen = given.get(kind)
    wanted = USUAL[kind] if chosen is None else (chosen,)
    found = _found(wanted, names, where)
    if found is None:
        raise InvalidRatings(
            f"{where} has no column {' or '.join(wanted)}",
            detail=f"Its columns are {', '.join(names)}.",
            hint=f'Say which one has the {kind}s: --column {kind}=NAME, or columns={{"{kind}": "NAME"}}.',
        )
    return found


def _found(wanted: Sequence[str], names: Sequence[str], where: str) -> str | None:
    for name in wanted:
        matches = [name] * names.count(name) or [n for n in names if n.lower() == name.lower()]
        if len(matches) > 1:
            raise InvalidRatings(f"{where} has {len(matches)} columns {name}")
        if matches:
            return matches[0]
    return None
