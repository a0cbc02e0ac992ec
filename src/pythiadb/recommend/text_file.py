"""Ratings in a file of separated values, read by pyarrow as a stream."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv

from pythiadb.errors import InvalidRatings
from pythiadb.recommend.choosing import Chosen
from pythiadb.recommend.table import Table

_LINE_BYTES = 1 << 12  # in which the names of the columns are looked at
_HEAD_BYTES = 1 << 20  # in which the first lines are looked at
_BLOCK_BYTES = 1 << 22  # pyarrow keeps up to 32 blocks ahead
# What pyarrow says of a value or a line that it cannot read. It counts the lines that are not blank, from 1.
_NO_VALUE = re.compile(
    r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error to ([^:]+): (.*)", re.DOTALL
)
_NO_ROW = re.compile(r"CSV parse error: (?:Row #(\d+): )?Expected (\d+) columns, got (\d+)")
_SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "bars"}
_KINDS = {"\t": ".tsv", ",": ".csv"}
_BYTE_ORDERS = (b"\xff\xfe", b"\xfe\xff")  # what UTF-16 begins with
_MEANT = {"float": "Ratings are numbers.", "string": "The text is not UTF-8."}
_TIMES = "Times are seconds since 1970, dates or timestamps, all of one form."


class TextFile(Table):
    """A file whose first line names the columns. Every line is a row: values hold no line breaks."""

    ids_as_text = True
    encodes_ids = True

    def __init__(self, path: Path, delimiter: str) -> None:
        self.name = f'"{path.name}"'
        self._path = path
        self._parse = csv.ParseOptions(delimiter=delimiter)
        with self._errors():
            self._check_form()
            with self._open(_HEAD_BYTES, csv.ConvertOptions()) as reader:
                self._schema = reader.schema
            self._columns = list(self._schema.names)

    @property
    def columns(self) -> list[str]:
        return self._columns

    def blocks(self, chosen: Chosen) -> Generator[pa.RecordBatch, None, None]:
        types = {name: pa.dictionary(pa.int32(), pa.string()) for name in (chosen.user, chosen.item)}
        types[chosen.rating] = pa.float32()
        if chosen.timestamp is not None:
            types[chosen.timestamp] = self._time_type(chosen.timestamp)
        convert = csv.ConvertOptions(include_columns=chosen.names, column_types=types)
        with self._errors(), self._open(_BLOCK_BYTES, convert) as reader:
            yield from reader

    def place(self, row: int) -> str:
        return self._where(row + 2)  # the header is the first

    def _check_form(self) -> None:
        """Raise InvalidRatings for a file in UTF-16, and for one whose first line has other separators."""
        with BufferedReader(pa.input_stream(self._path)) as file:
            head = file.read(_LINE_BYTES)
        if head.startswith(_BYTE_ORDERS):
            raise InvalidRatings(f"{self.name} is in UTF-16", hint="Save it in UTF-8.")
        names = head.lstrip(b"\r\n").split(b"\n")[0].split(b"\r")[0].decode(errors="replace")
        if self._parse.delimiter in names:
            return
        for other, called in _SEPARATORS.items():
            if other in names:
                raise InvalidRatings(
                    f"{self.name} has {called} between its values, not {_SEPARATORS[self._parse.delimiter]}",
                    hint=_hint(other),
                )

    def _open(self, block_bytes: int, convert: csv.ConvertOptions) -> Any:
        # Only without threads does pyarrow count lines, and say where it met what it cannot read.
        read = csv.ReadOptions(use_threads=False, block_size=block_bytes)
        return csv.open_csv(self._path, read, self._parse, convert)

    def _time_type(self, name: str) -> pa.DataType:
        """Times are of the form that the first lines have; text that is no time is refused where it is read as an integer."""
        first = self._schema.field(name).type
        return first if pa.types.is_temporal(first) or pa.types.is_floating(first) else pa.int64()

    def _where(self, row: int) -> str:
        """Name the line that is the `row`-th one which is not blank, counted from 1, with the blank ones counted too."""
        file = BufferedReader(pa.input_stream(self._path))
        with TextIOWrapper(file, encoding="latin-1") as lines:  # which knows all ends of lines
            for number, line in enumerate(lines, 1):
                row -= bool(line.strip())
                if row == 0:
                    return f"line {number} of {self.name}"
        return self.name

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Say what pyarrow found as our errors do."""
        try:
            yield
        except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
            raise self._error(str(error)) from error

    def _error(self, message: str) -> InvalidRatings:
        if found := _NO_VALUE.search(message):
            column, row, kind, problem = found.groups()
            where = self._where(int(row)) if row else self.name
            value = problem.removeprefix("invalid value ").strip("'")
            read = f'has "{value}"' if value != problem else "cannot be read"
            return InvalidRatings(
                f"column {self.columns[int(column)]} {read} in {where}", detail=_MEANT.get(kind, _TIMES)
            )
        if found := _NO_ROW.search(message):
            row, wanted, count = found.groups()
            return InvalidRatings(
                f"{self._where(int(row)) if row else self.name} has {count} values, not {wanted}"
            )
        if "Empty CSV file" in message:
            return InvalidRatings(f"{self.name} is empty")
        return InvalidRatings(f"{self.name} cannot be read", detail=f"{message.rstrip('.')}.")


def _hint(separator: str) -> str:
    """Tell how a file with a separator can be read."""
    if separator in _KINDS:
        return f"The name of such a file ends in {_KINDS[separator]}."
    return f'Give the table instead: read_ratings(pandas.read_csv(file, sep="{separator}")).'
