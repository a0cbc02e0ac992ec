"""Sections of the measurement: each is a table that is printed and a part of bench/results/search.json, with its own facts."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import orjson

from bench.common import REPOSITORY, machine
from pythiadb.cli.display import console, print_table

FILE = REPOSITORY / "bench" / "results" / "search.json"


@dataclass
class Section:
    """One table in the making; `raw` is what it was computed from."""

    name: str
    columns: list[str]
    facts: dict[str, Any] = field(default_factory=lambda: machine() | {"faiss": version("faiss-cpu")})
    rows: list[list[Any]] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    def add(self, *cells: Any) -> None:
        """Add a line; numbers are rounded to what they can mean."""
        self.rows.append([_rounded(cell) for cell in cells])

    def finish(self) -> None:
        """Print the table, and put the section into the file, where other sections stay as they are."""
        print_table(
            self.columns,
            self.rows,
            title=f"{self.name}: {self.facts['cpu']}, {self.facts['cores']} cores, load before {self.facts['load_before']:.1f}",
        )
        FILE.parent.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"benchmark": "search", "sections": {}}
        if FILE.exists():
            content = orjson.loads(FILE.read_bytes())
        own = {"machine": self.facts, "columns": self.columns, "rows": self.rows, "raw": self.raw}
        content["sections"][self.name] = own
        options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SERIALIZE_DATACLASS
        FILE.write_bytes(orjson.dumps(content, option=options))
        console.print(f"written: {FILE.relative_to(REPOSITORY)}, section {self.name}")


def _rounded(cell: Any) -> Any:
    if cell is None:
        return "cannot reach"
    if isinstance(cell, float):
        return float(f"{cell:.3g}") if abs(cell) < 1000 else round(cell)
    return cell
