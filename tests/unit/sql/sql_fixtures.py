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

FIXTURES = Path(__file__).parent / "fixtures"
_HEAD = re.compile(r"^-- case: (?P<title>.*?)(?: \((?P<options>(?:oracle|parameters|key ).*)\))?$")


@dataclass(frozen=True)
class Case:
    """One pair."""

    title: str
    options: tuple[str, ...]
    text: str
    statements: tuple[str, ...]
    notes: tuple[str, ...]


class Keys:
    """A catalog that knows the keys named by a case's options: `key t(id)`."""

    def __init__(self, options: tuple[str, ...]) -> None:
        found = (re.fullmatch(r"key (.+?)\((.+)\)", option) for option in options)
        self._keys = {match[1]: tuple(match[2].split("+")) for match in found if match}
        self.version = tuple(sorted(self._keys.items()))

    def primary_key(self, table: str) -> tuple[str, ...] | None:
        return self._keys.get(table)


def run_case(case: Case) -> Translation:
    """Translate a case's statement as its options say."""
    return translate(
        case.text,
        dialect="oracle" if "oracle" in case.options else "postgres",
        catalog=Keys(case.options),
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
