"""What the rules share: the statement, the edits that they make, the facts that they may ask for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pythiadb.sql.edits import Edits
from pythiadb.sql.source import Source, Span


@dataclass(frozen=True, slots=True)
class Model:
    """A model: its mining function, the SQL type of its answer, its attributes' types by name in upper case.

    The types are text, number, vector and blob, as in a model's specification.
    """

    function: str
    result: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: whether its type is a number, and whether its values are short and no arrays."""

    is_number: bool
    is_short: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is stored here: its columns by name, and the system columns that tell its rows apart.

    `is_one_file`: no partitions and no inheriting tables, so that its rows can be read by ranges of ctid.
    """

    columns: Mapping[str, Column]
    row_key: tuple[str, ...]
    is_one_file: bool


class Catalog(Protocol):
    """Facts of the database that a plan may depend on; objects are named as in a statement."""

    @property
    def version(self) -> Hashable:
        """Changes whenever an answer might; equal versions of any two catalogs promise equal answers."""

    def primary_key(self, table: str) -> tuple[str, ...] | None:
        """The key columns of a table, quoted for use in SQL; None if it has none."""

    def model(self, name: str) -> Model | None:
        """A model; None if there is none of the name."""

    def table(self, name: str) -> Table | None:
        """A table, whole or partitioned, or a materialized view, all of whose columns the caller may read; else None."""


class NoCatalog:
    """A catalog that knows nothing."""

    version: Hashable = None

    def primary_key(self, table: str) -> tuple[str, ...] | None:  # noqa: ARG002
        """No table is known."""
        return None

    def model(self, name: str) -> Model | None:  # noqa: ARG002
        """No model is known."""
        return None

    def table(self, name: str) -> Table | None:  # noqa: ARG002
        """No table is known."""
        return None


NO_CATALOG = NoCatalog()


@dataclass(slots=True)
class Rewrite:
    """One statement on its way through the rules."""

    source: Source
    edits: Edits
    catalog: Catalog
    notes: dict[int, str] = field(default_factory=dict)  # call -> how it is computed
    ctes: int = 0  # names __pythia_1, __pythia_2 ... given so far

    def text(self, span: Span) -> str:
        """The text of some tokens with the edits made so far."""
        if span.start >= span.end:
            return ""
        return self.edits.render(*self.source.offsets(span))

    def replace(self, span: Span, text: str) -> None:
        """Put a text in the place of some tokens."""
        self.edits.replace(*self.source.offsets(span), text)

    def before(self, index: int, text: str) -> None:
        """Insert a text in front of a token."""
        self.edits.insert(self.source.at(index).start, text)

    def after(self, index: int, text: str) -> None:
        """Insert a text right behind a token."""
        self.edits.insert(self.source.at(index).end, text)

    def next_cte(self) -> int:
        """A number for a new CTE and its columns, unique in the statement."""
        self.ctes += 1
        return self.ctes


Rule = Callable[[Rewrite], None]
