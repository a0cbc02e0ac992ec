"""The fixture files: pairs of a statement and its translation, as SQL that a reader can skim.

A case is a title, options, the statement, the notes and the translation:

    -- case: title (oracle, parameters, key t(id))
    statement
    -- note: vector_embedding(m) once
    -- becomes:
    translation
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pythiadb.sql import Translation, translate
from pythiadb.sql.rewrite import Column, Function, Model, Table, VectorIndex

FIXTURES = Path(__file__).parent / "fixtures"
_HEAD = re.compile(
    r"^-- case: (?P<title>.*?)(?: \((?P<options>(?:oracle|parameters|key |model |table |large |temporary |partitioned |view |index |function ).*)\))?$"
)


@dataclass(frozen=True)
class Case:
    """One pair."""

    title: str
    options: tuple[str, ...]
    text: str
    statements: tuple[str, ...]
    notes: tuple[str, ...]


class Facts:
    """A catalog that knows what a case's options name.

    `key t(id)`; `model m(text: A number+B text)`, the type of its answer and its attributes; `table t(a+b+c text)`, whose
    columns are numbers unless a type is given, and `large t(...)`, `temporary t(...)`, `partitioned t(...)`; `view w(a+b)`.
    `index i(t: 7 v vector COSINE VALID id bigint+severity integer)`: a vector index of t, its number, column, type, metric and
    status, the key and its type, then the INCLUDE columns. `function f(volatile)`, `function f(rows)`: one that gives sets of rows.
    """

    def __init__(self, options: tuple[str, ...]) -> None:
        self.version = options
        self._facts = [match for option in options if (match := _FACT.fullmatch(option))]

    def _find(self, name: str, *kinds: str) -> re.Match[str] | None:
        return next((fact for fact in self._facts if fact["kind"] in kinds and fact["name"] == name), None)

    def primary_key(self, table: str) -> tuple[str, ...] | None:
        fact = self._find(table, "key")
        return tuple(fact["items"].split("+")) if fact else None

    def model(self, name: str) -> Model | None:
        fact = self._find(name, "model")
        if fact is None:
            return None
        result, _, attributes = fact["items"].partition(": ")
        return Model("classification", result, dict(item.split(" ") for item in attributes.split("+")))

    def table(self, name: str) -> Table | None:
        fact = self._find(name, "table", "large", "temporary", "partitioned")
        if fact is None:
            return None
        columns = {
            item.split(" ")[0]: item.partition(" ")[2] or "number" for item in fact["items"].split("+")
        }
        known = {
            column: Column(
                "double precision" if kind == "number" else kind.partition("(")[0],
                "double precision" if kind == "number" else kind,
                is_number=kind in ("number", "integer", "real"),
                is_short=kind != "text",
                is_small=kind == "integer",
            )
            for column, kind in columns.items()
        }
        one = fact["kind"] != "partitioned"
        pages = {"table": 10, "large": 2000}.get(fact["kind"])
        return Table(known, ("ctid",) if one else ("tableoid", "ctid"), one, pages)

    def columns(self, relation: str) -> frozenset[str] | None:
        fact = self._find(relation, "view", "table", "large", "temporary", "partitioned")
        return frozenset(item.split(" ")[0] for item in fact["items"].split("+")) if fact else None

    def vector_indexes(self, table: str) -> tuple[VectorIndex, ...]:
        facts = (fact for fact in self._facts if fact["kind"] == "index")
        return tuple(_index(fact) for fact in facts if fact["items"].startswith(f"{table}: "))

    def vector_index(self, name: str) -> VectorIndex | None:
        fact = self._find(name, "index")
        return _index(fact) if fact else None

    def function(self, name: str) -> Function | None:
        fact = self._find(name, "function")
        return Function(fact["items"] == "volatile", fact["items"] == "rows") if fact else None


def _index(fact: re.Match[str]) -> VectorIndex:
    own, *included = fact["items"].partition(": ")[2].split("+")
    number, column, vector, metric, status, key, key_type = own.split(" ", 6)
    include = dict(item.split(" ", 1) for item in included)
    return VectorIndex(int(number), fact["name"], column, vector, metric, status, key, key_type, include)


_FACT = re.compile(
    r"(?P<kind>key|model|table|large|temporary|partitioned|view|index|function) (?P<name>.+?)\((?P<items>.+)\)"
)


def run_case(case: Case) -> Translation:
    """Translate a case's statement as its options say."""
    return translate(
        case.text,
        dialect="oracle" if "oracle" in case.options else "postgres",
        catalog=Facts(case.options),
        with_parameters="parameters" in case.options,
    )


def read(path: Path) -> list[Case]:
    """Read a fixture file."""
    cases = []
    for block in re.split(r"\n(?=-- case: )", path.read_text().strip()):
        head, _, rest = block.partition("\n")
        match = _HEAD.match(head)
        assert match is not None, head
        before, _, after = rest.partition("\n-- becomes:\n")
        lines = before.split("\n")
        notes = [line.removeprefix("-- note: ") for line in lines if line.startswith("-- note: ")]
        text = "\n".join(line for line in lines if not line.startswith("-- note: "))
        options = tuple((match["options"] or "").split(", ")) if match["options"] else ()
        cases.append(
            Case(match["title"], options, text, tuple(after.strip("\n").split("\n-- and:\n")), tuple(notes))
        )
    return cases


def write(cases: list[Case]) -> str:
    """Write a fixture file."""
    blocks = []
    for case in cases:
        options = f" ({', '.join(case.options)})" if case.options else ""
        notes = "".join(f"\n-- note: {note}" for note in case.notes)
        after = "\n-- and:\n".join(case.statements)
        blocks.append(f"-- case: {case.title}{options}\n{case.text}{notes}\n-- becomes:\n{after}\n")
    return "\n".join(blocks)
