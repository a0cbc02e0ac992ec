"""The forms of answers: whole outputs turned into PostgreSQL's text of values at once, None for NULL.

Each has `texts`, a text a row, and `elements`, what stands between the braces of one PostgreSQL text[] in UTF-8. A scan asks for
millions of rows, so numbers are written by orjson and labels are looked up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

from pythiadb.models.columns import Mask
from pythiadb.models.metadata import Label
from pythiadb.models.scoring import Floats

_NUMPY = orjson.OPT_SERIALIZE_NUMPY


class Numbers:
    """Answers that are one float64 a row. NaN is no answer: PostgreSQL would hold it larger than all numbers."""

    def __init__(self, values: Floats, missing: Mask) -> None:
        wide = np.asarray(values, dtype=np.float64)
        self._values = np.where(missing, np.nan, wide) if missing.any() else wide

    def texts(self) -> list[str | None]:
        elements = self.elements().decode().split(",") if len(self._values) else []
        return [None if element == "NULL" else element for element in elements]

    def elements(self) -> bytes:
        text = orjson.dumps(np.ascontiguousarray(self._values), option=_NUMPY)[1:-1]
        finite = np.isfinite(self._values)
        if finite.all():
            return text
        parts = text.split(b",")  # orjson writes null for NaN and infinity
        for row in np.flatnonzero(~finite).tolist():
            parts[row] = _special(self._values[row])
        return b",".join(parts)


class Choices:
    """Answers that are one of a few texts: `places` tells which for each row."""

    def __init__(self, choices: Sequence[str], places: NDArray[np.int64], missing: Mask) -> None:
        self._choices = choices
        self._places = np.where(missing, len(choices), places) if missing.any() else places

    def texts(self) -> list[str | None]:
        choices: list[str | None] = [*self._choices, None]
        return [choices[place] for place in self._places.tolist()]

    def elements(self) -> bytes:
        quoted = [*map(quote_element, self._choices), b"NULL"]
        return b",".join([quoted[place] for place in self._places.tolist()])


class Texts:
    """Answers that are a text of their own for each row."""

    def __init__(self, texts: list[str | None]) -> None:
        self._texts = texts

    def texts(self) -> list[str | None]:
        return self._texts

    def elements(self) -> bytes:
        return b",".join([b"NULL" if text is None else quote_element(text) for text in self._texts])


class Sets:
    """Answers that are a JSON array of classes: for each row their places, best first, and how many count."""

    def __init__(
        self,
        heads: Sequence[str],
        places: NDArray[np.int64],
        values: Floats,
        counts: NDArray[np.int64],
        missing: Mask,
    ) -> None:
        self._heads = heads
        self._places = places
        self._values = values
        self._counts = np.where(missing, -1, counts)

    def texts(self) -> list[str | None]:
        return self._joined(list(self._heads))

    def elements(self) -> bytes:
        escaped = [head.replace("\\", "\\\\").replace('"', '\\"') for head in self._heads]
        return ",".join(["NULL" if text is None else f'"{text}"' for text in self._joined(escaped)]).encode()

    def _joined(self, heads: list[str]) -> list[str | None]:
        width = self._places.shape[1]
        flat = np.ascontiguousarray(self._values.ravel())
        numbers = orjson.dumps(flat, option=_NUMPY)[1:-1].decode().split(",")
        members = list(map(str.__add__, map(heads.__getitem__, self._places.ravel().tolist()), numbers))
        starts = range(0, len(members), width)
        texts: list[str | None] = []
        for start, count in zip(starts, self._counts.tolist(), strict=True):
            if count < 0:
                texts.append(None)
            else:
                texts.append(f"[{'},'.join(members[start : start + count])}}}]" if count else "[]")
        return texts


Answers = Numbers | Choices | Texts | Sets


def quote_element(text: str) -> bytes:
    """Return a text as an element of a PostgreSQL array literal, always in quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'.encode()


def label_text(label: Label) -> str:
    """Return PostgreSQL's text of a label: 1.0 is 1."""
    if isinstance(label, float):
        return str(int(label)) if label.is_integer() and abs(label) < 1e15 else repr(label)
    return str(label)


def _special(value: float) -> bytes:
    return b"NULL" if math.isnan(value) else b"Infinity" if value > 0 else b"-Infinity"
