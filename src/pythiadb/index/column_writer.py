"""Writing INCLUDE columns: batches of values become codes at once, and files when the segment is finished.

Codes wait in memory, 8 bytes a row and column, little beside the vectors; dictionaries hold each distinct value once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from pythiadb.index import container
from pythiadb.index.codes import CODINGS
from pythiadb.index.columns import MAGIC, Coded, Column, Mask, base_type, column_path
from pythiadb.index.decimals import Codes, plain_decimal, rescaled, scaled_codes, unscaled
from pythiadb.index.dictionary import FORMS, Dictionary, EntryForm

_NONE: Codes = np.zeros(0, np.int64)


class ColumnsWriter:
    """Writer of one segment's columns, given as {name: PostgreSQL type} in the order of the definition."""

    def __init__(self, types: Mapping[str, str]) -> None:
        self.rows = 0
        self._writers = {name: _writer(base_type(type_name)) for name, type_name in types.items()}

    def add(self, batch: Mapping[str, Sequence[Any] | Coded]) -> None:
        """Append rows: for each column a list as psycopg loads it (or of PostgreSQL's texts), None for NULL, or what take() gave.

        Raises ValueError when columns are missing, of different lengths, or hold values that are not of the column's type; the
        writer is of no use then.
        """
        lengths = {len(batch[name]) for name in self._writers if name in batch}
        if batch.keys() != self._writers.keys() or len(lengths) > 1:
            raise ValueError("a batch has one value of every included column for each row")
        for name, writer in self._writers.items():
            writer.add(batch[name])
        self.rows += lengths.pop() if lengths else 0

    def finish(self, folder: Path) -> None:
        """Write the files into an existing folder."""
        for number, (name, writer) in enumerate(self._writers.items()):
            header, arrays = writer.stored()
            container.write(column_path(folder, number), MAGIC, {"name": name, **header}, arrays)


class _Writer(ABC):
    """One column: which rows are not null; the subclass keeps the values of those."""

    def __init__(self, type_name: str) -> None:
        self.type = type_name
        self._valid: list[Mask] = []

    def add(self, values: Sequence[Any] | Coded) -> None:
        if isinstance(values, Coded):
            valid = np.ones(len(values), np.bool_) if values.valid is None else values.valid
            self._take(values.column, values.codes[valid].astype(np.int64))
        else:
            valid = np.fromiter((value is not None for value in values), np.bool_, len(values))
            self._encode([value for value in values if value is not None])
        self._valid.append(valid)

    def stored(self) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
        """Return header and arrays of the file."""
        present, header, arrays = self._finish()
        valid = np.concatenate(self._valid) if self._valid else np.zeros(0, np.bool_)
        codes = np.zeros(len(valid), np.int64)
        codes[valid] = present
        arrays["codes"] = _narrow(codes)
        if not valid.all():
            arrays["valid"] = np.packbits(valid, bitorder="little")
        return {"type": self.type, "rows": len(valid), **header}, arrays

    @abstractmethod
    def _encode(self, values: list[Any]) -> None:
        """Keep values."""

    @abstractmethod
    def _take(self, column: Column, codes: Codes) -> None:
        """Keep values of another segment's column of the same type."""

    @abstractmethod
    def _finish(self) -> tuple[Codes, dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
        """Return the codes of all values, what the header says of them, and further arrays."""


class _PlainWriter(_Writer):
    """Values whose codes depend on nothing else."""

    def __init__(self, type_name: str) -> None:
        super().__init__(type_name)
        self._codes = [_NONE]

    def _encode(self, values: list[Any]) -> None:
        self._codes.append(CODINGS[self.type].encode(values).astype(np.int64))

    def _take(self, column: Column, codes: Codes) -> None:  # noqa: ARG002
        self._codes.append(codes)

    def _finish(self) -> tuple[Codes, dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
        return np.concatenate(self._codes), {}, {}


class _DictionaryWriter(_Writer):
    """Values that are numbered as they come, and by order at the end."""

    def __init__(self, type_name: str) -> None:
        super().__init__(type_name)
        self._form: EntryForm = FORMS[type_name]
        self._numbers: dict[bytes, int] = {}
        self._codes = [_NONE]

    def _encode(self, values: list[Any]) -> None:
        self._append([self._form.from_value(value) for value in values])

    def _take(self, column: Column, codes: Codes) -> None:
        assert column.dictionary is not None
        used, where = np.unique(codes, return_inverse=True)
        first = len(self._codes)
        self._append([column.dictionary[place] for place in used.tolist()])
        self._codes[first] = self._codes[first][where]

    def _append(self, entries: list[bytes]) -> None:
        numbers = self._numbers
        self._codes.append(np.array([numbers.setdefault(entry, len(numbers)) for entry in entries], np.int64))

    def _finish(self) -> tuple[Codes, dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
        dictionary, places = Dictionary.of(self._form, self._numbers)
        return (
            places[np.concatenate(self._codes)],
            {},
            {"offsets": dictionary.offsets, "blob": dictionary.blob},
        )


class _NumericWriter(_Writer):
    """Numbers at one scale, the smallest that holds them all; a dictionary when 64 bits do not."""

    def __init__(self, type_name: str) -> None:
        super().__init__(type_name)
        self._batches: list[tuple[Codes, int] | list[Decimal]] = []

    def _encode(self, values: list[Any]) -> None:
        numbers = [Decimal(value) for value in values]
        if (found := scaled_codes(numbers)) is None:
            # Trailing zeros, as PostgreSQL's divisions leave them, may be all that does not fit.
            numbers = [plain_decimal(number) for number in numbers]
            found = scaled_codes(numbers)
        self._batches.append(numbers if found is None else found)

    def _take(self, column: Column, codes: Codes) -> None:
        if column.dictionary is not None:
            entries = column.dictionary
            self._encode([Decimal(entries[place].decode()) for place in codes.tolist()])
        else:
            assert column.scale is not None
            self._batches.append((codes, column.scale))

    def _finish(self) -> tuple[Codes, dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
        common = self._at_one_scale()
        if common is not None:
            return common[0], {"scale": common[1]}, {}
        entries = _DictionaryWriter(self.type)
        for batch in self._batches:
            numbers = batch if isinstance(batch, list) else unscaled(*batch)
            entries._encode([plain_decimal(number) for number in numbers])
        return entries._finish()

    def _at_one_scale(self) -> tuple[Codes, int] | None:
        if any(isinstance(batch, list) for batch in self._batches):
            return None
        scaled = [batch for batch in self._batches if isinstance(batch, tuple)]
        wanted = max((scale for _, scale in scaled), default=0)
        parts = [rescaled(codes, scale, wanted) for codes, scale in scaled]
        fitting = [part for part in parts if part is not None]
        if len(fitting) < len(parts):
            return None
        return np.concatenate([_NONE, *fitting]), wanted


def _writer(type_name: str) -> _Writer:
    if type_name == "numeric":
        return _NumericWriter(type_name)
    return (_DictionaryWriter if type_name in FORMS else _PlainWriter)(type_name)


def _narrow(codes: Codes) -> Codes:
    """Return codes in the narrowest type that holds them."""
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    for kind in (np.int8, np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return codes.astype(kind)
    return codes
