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
    """A column of a table: its type, whether that is a number, and whether its values are short and no arrays.

    `is_small`: an integer of 32 bits at most, which every tensor of numbers holds or refuses whatever way it comes.
    """

    type: str
    full_type: str  # with its modifiers, as numeric(10,2)
    is_number: bool
    is_short: bool
    is_small: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is stored here: its columns by name, and the system columns that tell its rows apart.

    `is_one_file`: no partitions and no inheriting tables. `pages`: about how many pages it has, if parallel workers can read
    it by ranges of them; else None.
    """

    columns: Mapping[str, Column]
    row_key: tuple[str, ...]
    is_one_file: bool
    pages: int | None


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """A vector index: what it holds, by which key its rows are named, and whether it may be searched.

    Names are as PostgreSQL folds them; `key` is quoted for use in SQL. `include` maps columns that the index holds beside the
    vectors to their types.
    """

    id: int
    name: str
    column: str
    vector_type: str  # vector, halfvec, sparsevec or bit
    distance: str
    status: str
    key: str
    key_type: str
    include: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Function:
    """What is known of the functions of a name: whether one of them is volatile, and whether one gives sets of rows."""

    is_volatile: bool
    makes_rows: bool


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

    def columns(self, relation: str) -> frozenset[str] | None:
        """The names of the columns of a table or view; None if there is none of the name."""

    def vector_indexes(self, table: str) -> tuple[VectorIndex, ...]:
        """The vector indexes of a table."""

    def vector_index(self, name: str) -> VectorIndex | None:
        """A vector index by its own name; None if there is none."""

    def function(self, name: str) -> Function | None:
        """The functions of a name, whatever they take; None if there is none."""


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

    def columns(self, relation: str) -> frozenset[str] | None:  # noqa: ARG002
        """No relation is known."""
        return None

    def vector_indexes(self, table: str) -> tuple[VectorIndex, ...]:  # noqa: ARG002
        """No index is known."""
        return ()

    def vector_index(self, name: str) -> VectorIndex | None:  # noqa: ARG002
        """No index is known."""
        return None

    def function(self, name: str) -> Function | None:  # noqa: ARG002
        """No function is known."""
        return None


NO_CATALOG = NoCatalog()


@dataclass(frozen=True, slots=True)
class Search:
    """What EXPLAIN tells of one FETCH APPROX or EXACT, as SQL expressions; without an index, why there is none.

    `query` and `source` are NULL where they depend on the rows of an outer query.
    """

    index: int | None
    reason: str = ""
    query: str = "NULL"
    rows: str = "NULL"
    options: str = "NULL"
    source: str = "NULL"
    predicate: str = "NULL"


@dataclass(slots=True)
class Rewrite:
    """One statement on its way through the rules."""

    source: Source
    edits: Edits
    catalog: Catalog
    notes: dict[int, str] = field(default_factory=dict)  # call -> how it is computed
    ctes: int = 0  # names __pythia_1, __pythia_2 ... given so far
    with_clauses: set[int] = field(default_factory=set)  # levels that were given a WITH clause
    placeholders: bool = False  # the text holds psycopg's placeholders, so that a percent sign is doubled
    conditions: dict[int, str] = field(default_factory=dict)  # SELECT -> what was added to its WHERE
    searches: list[Search] = field(default_factory=list)

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

    def percent(self, text: str) -> str:
        """Write a text of ours as psycopg wants it: with every percent sign doubled, if there are placeholders."""
        return text.replace("%", "%%") if self.placeholders else text

    def next_cte(self) -> int:
        """A number for a new CTE and its columns, unique in the statement."""
        self.ctes += 1
        return self.ctes


Rule = Callable[[Rewrite], None]
