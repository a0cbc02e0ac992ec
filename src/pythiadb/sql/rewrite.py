"""What the rules share: the statement, the edits that they make, the facts that they may ask for."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

from pythiadb.sql.edits import Edits
from pythiadb.sql.source import Source, Span


class Catalog(Protocol):
    """Facts of the database that a plan may depend on."""

    @property
    def version(self) -> Hashable:
        """Changes whenever an answer might; equal versions of any two catalogs promise equal answers."""

    def primary_key(self, table: str) -> tuple[str, ...] | None:
        """The key columns, quoted for use in SQL, of a table named as in a statement; None if it has none."""


class NoCatalog:
    """A catalog that knows nothing."""

    version: Hashable = None

    def primary_key(self, table: str) -> tuple[str, ...] | None:  # noqa: ARG002
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
