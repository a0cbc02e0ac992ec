"""INCLUDE columns of one segment, read as mapped arrays of integers (see codes.py for what the integers mean).

A column is one file: a code for every row, a bit for every row that tells whether it is not null (absent where all are), and for
texts, uuids and numbers too wide for 64 bits the dictionary whose places are the codes. Codes are as narrow as the greatest
needs: a filter over 341,479 rows reads 341 kB where a column has 100 different values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pythiadb.errors import CorruptedIndex, FeatureNotSupported
from pythiadb.index import container
from pythiadb.index.codes import CODINGS
from pythiadb.index.decimals import Codes, Point, read_decimal, scaled_point
from pythiadb.index.dictionary import FORMS, Dictionary

Mask = NDArray[np.bool_]

MAGIC = "column"
_ALIASES = {
    "smallint": "int2",
    "integer": "int4",
    "bigint": "int8",
    "real": "float4",
    "double precision": "float8",
    "boolean": "bool",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "character varying": "varchar",
    "decimal": "numeric",
}
SUPPORTED_TYPES = frozenset({*CODINGS, *FORMS})


def base_type(name: str) -> str:
    """Return the short name of a type that an INCLUDE column may have, as `int4` for `integer`.

    Takes what format_type() gives, modifiers too. Raises FeatureNotSupported for other types. A text column with a
    nondeterministic collation must not be included: what is equal there is not told by the bytes.
    """
    plain = re.sub(r"\s*\([^)]*\)", "", name).strip().lower()
    plain = _ALIASES.get(plain, plain)
    if plain not in SUPPORTED_TYPES:
        raise FeatureNotSupported(
            f"columns of type {name} cannot be included in a vector index",
            hint=f"Types that can: {', '.join(sorted(SUPPORTED_TYPES))}.",
        )
    return plain


@dataclass(frozen=True, slots=True)
class Coded:
    """Rows of a stored column on their way to another segment; ColumnsWriter.add takes them in place of values."""

    column: Column
    codes: Codes
    valid: Mask | None

    def __len__(self) -> int:
        return len(self.codes)


class Column:
    """One stored column. `codes` [rows] are integers; those of null rows mean nothing."""

    def __init__(
        self,
        type_name: str,
        codes: Codes,
        bits: NDArray[np.uint8] | None,
        scale: int | None,
        dictionary: Dictionary | None,
    ) -> None:
        self.type = type_name
        self.codes = codes
        self.scale = scale
        self.dictionary = dictionary
        self._bits = bits

    @cached_property
    def valid(self) -> Mask | None:
        """Tell of each row whether it is not null; None where no row is null."""
        if self._bits is None:
            return None
        return np.unpackbits(self._bits, count=len(self.codes), bitorder="little").view(np.bool_)

    @property
    def ordered(self) -> bool:
        """Whether < and > of codes are those of PostgreSQL."""
        return self.dictionary is None or self.type == "numeric"

    def point(self, text: str) -> Point:
        """Return where a predicate's value stands among the codes. Raises ValueError where its meaning is not certain."""
        if self.dictionary is not None:
            return self.dictionary.point(text)
        if self.scale is not None:
            return scaled_point(read_decimal(text), self.scale)
        return CODINGS[self.type].point(text)

    def take(self, positions: NDArray[np.int64]) -> Coded:
        """Return the rows at these positions, for a segment that takes them over."""
        return Coded(self, self.codes[positions], None if self.valid is None else self.valid[positions])


class Columns:
    """All INCLUDE columns of a segment by name."""

    def __init__(self, columns: Mapping[str, Column], rows: int) -> None:
        self.by_name = dict(columns)
        self.rows = rows

    def take(self, positions: NDArray[np.int64]) -> dict[str, Coded]:
        """Return the rows at these positions as a batch for ColumnsWriter.add."""
        return {name: column.take(positions) for name, column in self.by_name.items()}


def column_path(folder: Path, number: int) -> Path:
    """Return the file of the n-th column of a definition; names may hold any character, so files are numbered."""
    return folder / f"column_{number}"


def open_columns(folder: Path, types: Mapping[str, str], rows: int, *, verify: bool) -> Columns:
    """Map the columns of a segment of `rows` rows, {name: PostgreSQL type} in the order of the definition.

    `verify` reads every byte and compares checksums. Raises CorruptedIndex for files that are not these columns.
    """
    opened = {}
    for number, (name, type_name) in enumerate(types.items()):
        header, arrays = container.read(column_path(folder, number), MAGIC, verify=verify)
        expected = {"name": name, "type": base_type(type_name), "rows": rows}
        if any(header.get(key) != value for key, value in expected.items()):
            raise CorruptedIndex(f'the file of column "{name}" of a vector index belongs to another column')
        opened[name] = _column(header, arrays)
    return Columns(opened, rows)


def _column(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Column:
    dictionary = None
    if "blob" in arrays:
        dictionary = Dictionary(FORMS[header["type"]], arrays["offsets"], arrays["blob"])
    return Column(header["type"], arrays["codes"], arrays.get("valid"), header.get("scale"), dictionary)
