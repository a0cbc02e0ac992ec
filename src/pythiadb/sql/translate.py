"""The translator: a text with AI SQL in, PostgreSQL's texts out."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal

from pythiadb.errors import FeatureNotSupported, InvalidParameter
from pythiadb.sql.binds import bind_names, write_binds
from pythiadb.sql.edits import Edits
from pythiadb.sql.rewrite import NO_CATALOG, Catalog, Function, Model, Rewrite, Table, VectorIndex
from pythiadb.sql.rules import RULES
from pythiadb.sql.scan import Kind, Token, scan, significant
from pythiadb.sql.source import Source
from pythiadb.sql.split import parts

Dialect = Literal["postgres", "oracle"]
DIALECTS = ("postgres", "oracle")

# A text without any of these words holds no AI construct, so that it need not be read further.
_TRIGGER = re.compile(
    r"vector|predict|cluster_|feature_|approx|exact|accuracy|inmemory|index|explain\s|\btable\s*\(",
    re.IGNORECASE,
)
_SEPARATORS = re.compile(
    r"\A(?:[;\s]|/(?!\*))*"
)  # in front of a statement; a slash ends a block in Oracle scripts
_POSITIONAL = ("%s", "%b", "%t")
# Words of statements after which a table's key, the table that a name means, or what the role may read, may be another.
_DEFINITION = re.compile(
    r"\b(CREATE|ALTER|DROP|ROLLBACK|search_path|DISCARD|DO|CALL|RESET|(create|drop|switch|name)_model\w*"
    r"|SET\s+((LOCAL|SESSION)\s+)*(ROLE|AUTHORIZATION))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Translation:
    """What to send to PostgreSQL for a text.

    Attributes:
        statements: PostgreSQL's texts in order; one, unless Oracle SQL gave several.
        binds: the names of the placeholders in order of first appearance, to map a sequence of values to names; empty
            if the text's own placeholders are kept.
        placeholders: the texts hold psycopg's placeholders, so that a literal `%` is doubled.
        inline: the values must be written into the one text as literals, for DO takes no parameters.
        batched: for each AI call and each FETCH APPROX in the order of the text, how it is computed.
        defines: the catalog's answers may be others afterwards.
    """

    statements: tuple[str, ...]
    binds: tuple[str, ...] = ()
    placeholders: bool = False
    batched: tuple[str, ...] = ()
    inline: bool = False
    defines: bool = False


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
    oracle = _check(dialect) == "oracle"
    for tokens in parts(significant(scan(text, oracle=oracle)), oracle=oracle):
        pieces.append(_SEPARATORS.sub("", text[done : tokens[-1].end]))
        done = tokens[-1].end
    return pieces


def do_statement(body: str) -> str:
    """The DO statement with a body, between marks that the body does not hold."""
    mark = next(mark for n in count() if (mark := f"$pythia{n or ''}$") not in body)
    return f"DO {mark}\n{body}\n{mark}"


def body_of(statement: str) -> str:
    """The body of a statement that do_statement made."""
    mark = statement.split(maxsplit=2)[1]
    return statement.removeprefix(f"DO {mark}\n").removesuffix(f"\n{mark}")


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

    def model(self, name: str) -> Model | None:
        self.asked = True
        return self._catalog.model(name)

    def table(self, name: str) -> Table | None:
        self.asked = True
        return self._catalog.table(name)

    def columns(self, relation: str) -> frozenset[str] | None:
        self.asked = True
        return self._catalog.columns(relation)

    def vector_indexes(self, table: str) -> tuple[VectorIndex, ...]:
        self.asked = True
        return self._catalog.vector_indexes(table)

    def vector_index(self, name: str) -> VectorIndex | None:
        self.asked = True
        return self._catalog.vector_index(name)

    def function(self, name: str) -> Function | None:
        self.asked = True
        return self._catalog.function(name)


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
    texts = tuple(one.quote(write_binds(one.text) if names else one.text) for one in done)
    numbered = tuple(dict.fromkeys(name for one in done for name in one.numbered))
    notes = tuple(note for one in done for note in one.notes)
    binds = names or numbered
    inline = bool(binds) and any(one.is_body for one in done)
    if inline and len(done) > 1:
        raise FeatureNotSupported("a block with bind variables beside other statements is not supported")
    placeholders = with_parameters and bool(names or "%" in text)
    defines = any(_DEFINITION.search(one) for one in texts)
    return Translation(texts, binds, placeholders, notes, inline, defines)


@dataclass(frozen=True, slots=True)
class _Rewritten:
    text: str
    notes: tuple[str, ...] = ()
    numbered: tuple[str, ...] = ()  # names given to positional placeholders
    is_body: bool = False  # what stands between the quotes of a DO statement

    def quote(self, text: str) -> str:
        """The statement around a body; any other text is one already."""
        return do_statement(text) if self.is_body else text


def _rewrite_oracle(text: str, catalog: Catalog, placeholders: bool) -> list[_Rewritten]:
    tokens = significant(scan(text, placeholders=placeholders, oracle=True))
    names = _numbers(tokens)
    tokens = [token._replace(text=names.get(token.start, token.text)) for token in tokens]
    from pythiadb.sql.oracle import to_postgres  # sqlglot takes longer to import than all the rest

    def rules(one: str) -> tuple[str, tuple[str, ...]]:
        done = _rewrite(one, catalog, placeholders)
        return done.text, done.notes

    written = [one for part in parts(tokens, oracle=True) for one in to_postgres(Source(text, part), rules)]
    numbered = tuple(str(number) for number in range(1, len(names) + 1))
    return [
        _Rewritten(one.text, one.notes, numbered, is_body=True)
        if one.is_body
        else replace(_rewrite(one.text, catalog, placeholders), numbered=numbered)
        for one in written
    ]


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
        rewrite = Rewrite(Source(text, part), edits, catalog, placeholders=placeholders)
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
