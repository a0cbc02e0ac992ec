"""Ordered dictionaries of a column's distinct values: a value's code is its place. Read by bisection, straight from mapped bytes."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from pythiadb.index.decimals import Codes, Point, order_key, plain_decimal, read_decimal

_UUID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class EntryForm:
    """How a type's values are kept: as which bytes, from a column's value and from a predicate's text, and in which order."""

    from_value: Callable[[Any], bytes]
    from_text: Callable[[str], bytes]
    order: Callable[[bytes], Any]


def _text(value: str) -> bytes:
    return value.encode()


def _uuid_text(text: str) -> bytes:
    text = text.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    if not _UUID.fullmatch(text):
        raise ValueError("not a uuid")
    return UUID(text).bytes


def _uuid(value: UUID | str) -> bytes:
    return value.bytes if isinstance(value, UUID) else _uuid_text(value)


def _number(value: Decimal) -> bytes:
    return str(value).encode()


def _number_text(text: str) -> bytes:
    return _number(plain_decimal(read_decimal(text)))


def _number_order(entry: bytes) -> tuple[int, Decimal]:
    return order_key(Decimal(entry.decode()))


def _same(entry: bytes) -> bytes:
    return entry


_TEXT = EntryForm(_text, _text, _same)
FORMS: dict[str, EntryForm] = {
    "text": _TEXT,
    "varchar": _TEXT,
    "uuid": EntryForm(_uuid, _uuid_text, _same),
    "numeric": EntryForm(_number, _number_text, _number_order),
}


class Dictionary:
    """The entries of one column: `blob[offsets[i] : offsets[i + 1]]`, in the form's order."""

    def __init__(self, form: EntryForm, offsets: NDArray[np.int64], blob: NDArray[np.uint8]) -> None:
        self.form = form
        self.offsets = offsets
        self.blob = blob

    @classmethod
    def of(cls, form: EntryForm, entries: Iterable[bytes]) -> tuple[Dictionary, Codes]:
        """Make a dictionary of distinct entries; also returns, for each entry as it came, its place."""
        came = list(entries)
        order = sorted(range(len(came)), key=lambda i: form.order(came[i]))
        places = np.empty(len(came), np.int64)
        places[order] = np.arange(len(came))
        ordered = [came[i] for i in order]
        offsets = np.zeros(len(came) + 1, np.int64)
        np.cumsum([len(entry) for entry in ordered], out=offsets[1:])
        return cls(form, offsets, np.frombuffer(b"".join(ordered), np.uint8)), places

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, place: int) -> bytes:
        return self.blob[self.offsets[place] : self.offsets[place + 1]].tobytes()

    def point(self, text: str) -> Point:
        """Return where a predicate's value stands. Raises ValueError for a text that the type cannot have."""
        wanted = self.form.order(self.form.from_text(text))
        place = bisect_left(self, wanted, key=self.form.order)
        found = place < len(self) and self.form.order(self[place]) == wanted
        return Point(place, exact=found)
