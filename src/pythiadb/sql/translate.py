"""The translator: a text with AI SQL in, PostgreSQL's texts out."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Literal

from pythiadb.errors import InvalidParameter
from pythiadb.sql.binds import bind_names, write_binds
from pythiadb.sql.edits import Edits
from pythiadb.sql.rewrite import NO_CATALOG, Catalog, Rewrite
from pythiadb.sql.rules import RULES
from pythiadb.sql.scan import Kind, Token, scan, significant
from pythiadb.sql.source import Source
from pythiadb.sql.split import parts

Dialect = Literal["postgres", "oracle"]
DIALECTS = ("postgres", "oracle")

# A text without any of these words holds no AI construct, so that it need not be read further.
_TRIGGER = re.compile(r"vector|predict|cluster_|approx|exact|accuracy|inmemory|explain\s", re.IGNORECASE)
_SEPARATORS = re.compile(
    r"\A(?:[;\s]|/(?!\*))*"
)  # in front of a statement; a slash ends a block in Oracle scripts
_POSITIONAL = ("%s", "%b", "%t")


@dataclass(frozen=True, slots=True)
class Translation:
    """What to send to PostgreSQL for a text.

    Attributes:
        statements: PostgreSQL's texts in order; one, unless Oracle SQL gave several.
        binds: the names of the placeholders in order of first appearance, to map a sequence of values to names; empty
            if the text's own placeholders are kept.
        placeholders: the texts hold psycopg's placeholders, so that a literal `%` is doubled.
        batched: for each AI call in the order of the text, how it is computed.
    """

    statements: tuple[str, ...]
    binds: tuple[str, ...] = ()
    placeholders: bool = False
    batched: tuple[str, ...] = ()


def translate(
    text: str, *, dialect: Dialect = "postgres", catalog: Catalog = NO_CATALOG, with_parameters: bool = False
) -> Translation:
    """Translate AI SQL; a text in dialect postgres without an AI construct comes back untouched.

    Raises SQLSyntaxError, InvalidParameter or FeatureNotSupported with the line and column in the detail. Results are
    kept in a cache; one that asked the catalog is used again only under the catalog's same version.
    """
    key = (text, dialect, with_parameters)
    found = _CACHE.get(key) or _CACHE.get((*key, catalog.version))
    if found is None:
        witness = _Witness(catalog)
        found = _translate(text, dialect, witness, with_parameters)
        _CACHE.put((*key, catalog.version) if witness.asked else key, found, len(text))
    return found


def split_statements(text: str, *, dialect: Dialect = "postgres") -> list[str]:
    """Part a script at its top-level semicolons; bodies, blocks, strings and comments stay whole."""
    pieces, done = [], 0
    for tokens in parts(significant(scan(text)), oracle=_check(dialect) == "oracle"):
        pieces.append(_SEPARATORS.sub("", text[done : tokens[-1].end]))
        done = tokens[-1].end
    return pieces


class _Cache:
    """The least recently used translations, forgotten first."""

    def __init__(self, size: int = 1024, longest: int = 65536) -> None:
        self._size, self._longest = size, longest  # entries; characters of a text
        self._entries: OrderedDict[Hashable, Translation] = OrderedDict()

    def get(self, key: Hashable) -> Translation | None:
        found = self._entries.get(key)
        if found is not None:
            try:
                self._entries.move_to_end(key)
            except KeyError:  # another thread has just dropped it
                return found
        return found

    def put(self, key: Hashable, value: Translation, length: int) -> None:
        if length > self._longest:
            return
        self._entries[key] = value
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)


_CACHE = _Cache()


class _Witness:
    """A catalog that remembers whether it was asked."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.version = catalog.version
        self.asked = False

    def primary_key(self, table: str) -> tuple[str, ...] | None:
        self.asked = True
        return self._catalog.primary_key(table)


def _check(dialect: str) -> str:
    if dialect not in DIALECTS:
        raise InvalidParameter(f'unrecognized dialect "{dialect}"', hint=f"Use one of {', '.join(DIALECTS)}.")
    return dialect


def _translate(text: str, dialect: str, catalog: Catalog, with_parameters: bool) -> Translation:
    names = bind_names(text) if with_parameters and ":" in text else ()
    own = with_parameters and not names  # the placeholders, if any, are psycopg's own
    if _check(dialect) == "oracle":
        done = _rewrite_oracle(text, catalog, own)
    elif _TRIGGER.search(text):
        done = [_rewrite(text, catalog, own)]
    else:
        done = [_Rewritten(text)]
    texts = tuple(write_binds(one.text) if names else one.text for one in done)
    numbered = tuple(dict.fromkeys(name for one in done for name in one.numbered))
    notes = tuple(note for one in done for note in one.notes)
    return Translation(texts, names or numbered, with_parameters and bool(names or "%" in text), notes)


@dataclass(frozen=True, slots=True)
class _Rewritten:
    text: str
    notes: tuple[str, ...] = ()
    numbered: tuple[str, ...] = ()  # names given to positional placeholders


def _rewrite_oracle(text: str, catalog: Catalog, placeholders: bool) -> list[_Rewritten]:
    tokens = significant(scan(text, placeholders=placeholders))
    names = _numbers(tokens)
    tokens = [token._replace(text=names.get(token.start, token.text)) for token in tokens]
    from pythiadb.sql.oracle import to_postgres  # sqlglot takes longer to import than all the rest

    texts = [one for part in parts(tokens, oracle=True) for one in to_postgres(Source(text, part))]
    numbered = tuple(str(number) for number in range(1, len(names) + 1))
    return [replace(_rewrite(one, catalog, placeholders), numbered=numbered) for one in texts]


def _rewrite(text: str, catalog: Catalog, placeholders: bool) -> _Rewritten:
    """Run the rules over each statement of a text; the text between them stays."""
    edits = Edits(text)
    tokens = significant(scan(text, placeholders=placeholders))
    names = _numbers(tokens)
    for token in tokens:
        if token.start in names:
            edits.replace(token.start, token.end, names[token.start])
    before = edits.made
    notes: list[str] = []
    for part in parts(tokens, oracle=False):
        rewrite = Rewrite(Source(text, part), edits, catalog)
        for rule in RULES:
            rule(rewrite)
        notes += [note for _, note in sorted(rewrite.notes.items())]
    if edits.made == before:
        return _Rewritten(text)
    return _Rewritten(edits.render(), tuple(notes), tuple(str(number) for number in range(1, len(names) + 1)))


def _numbers(tokens: list[Token]) -> dict[int, str]:
    """Name positional placeholders, found by offset, by their number: a rewritten statement may hold one twice."""
    placeholders = [token for token in tokens if token.kind is Kind.PLACEHOLDER]
    if any(token.text not in _POSITIONAL for token in placeholders):
        return {}
    return {token.start: f"%({number}){token.text[1:]}" for number, token in enumerate(placeholders, 1)}
