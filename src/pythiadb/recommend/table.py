"""A table of ratings as the readers see it, wherever it lies: its columns' names, and its rows in blocks of bounded size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pyarrow as pa

from pythiadb.errors import InvalidRatings
from pythiadb.recommend.choosing import Chosen


class Table(ABC):
    """A table that is read once. `name` is what messages call it."""

    name: str
    ids_as_text = (
        False  # whether integers come as strings too, so that only all of them tell what the ids are
    )
    encodes_ids = False  # whether dictionaries of ids hold those that occur, each once

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """The names of its columns."""

    @abstractmethod
    def blocks(self, chosen: Chosen) -> Generator[pa.RecordBatch, None, None]:
        """Read the chosen columns, which may come in any order. Raises InvalidRatings for what cannot be read."""

    def place(self, row: int) -> str:
        """Name a row, counted from 0, for a message."""
        return f"row {row + 1} of {self.name}"


@contextmanager
def readable(problem: str) -> Iterator[None]:
    """Stand around what pyarrow reads; raise InvalidRatings that begins with `problem` where it cannot.

    What a data frame's own library raises, as for columns of one name, is a ValueError.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        said = " ".join(str(error).split()).rstrip(".")
        same = said.startswith("Duplicate column names")
        hint = "Give each column a name of its own." if same else None
        raise InvalidRatings(problem, detail=f"{said}.", hint=hint) from error
