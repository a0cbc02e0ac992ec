"""The lexer: PostgreSQL's rules, to the byte.

A statement becomes a list of tokens whose texts, joined, give the statement back. Beside PostgreSQL's own tokens it knows
what a client writes before binding: `:name`, `:1` and, when asked, psycopg's `%s` and `%(name)s`. Nothing is rejected:
an unterminated literal or comment becomes one token that runs to the end, and PostgreSQL will complain about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """What a token is."""

    SPACE = "space"
    COMMENT = "comment"
    WORD = "word"  # an identifier or key word without quotes
    QUOTED = "quoted"  # "ident", U&"ident"
    STRING = "string"  # every kind of literal in quotes or dollars
    NUMBER = "number"
    PARAM = "param"  # $1
    BIND = "bind"  # :name, :1
    PLACEHOLDER = "placeholder"  # %s, %(name)s
    OPERATOR = "operator"
    PUNCT = "punct"  # ( ) [ ] , ; . .. : :: :=


class Token(NamedTuple):
    """One token and its place: `text == statement[start:end]`. `key` is the word in upper case, or the text."""

    kind: Kind
    text: str
    start: int
    end: int
    key: str


_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\n\r\f\v]+)
  | (?P<comment>--[^\n\r]*)
  | (?P<nested>/\*)
  | (?P<escaped>[eE]'(?:[^'\\]|\\.|'')*(?:'|\\?\Z))
  | (?P<string>(?:[uU]&|[bBxXnN])?'(?:[^']|'')*(?:'|\Z))
  | (?P<quoted>(?:[uU]&)?"(?:[^"]|"")*(?:"|\Z))
  | (?P<dollar>\$(?P<tag>(?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?)\$(?:.*?\$(?P=tag)\$|.*\Z))
  | (?P<param>\$\d+)
  | (?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
  | (?P<range>\.\.)
  | (?P<number>0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+
      |(?:\d(?:_?\d)*(?:\.(?!\.)(?:\d(?:_?\d)*)?)?|\.\d(?:_?\d)*)(?:[eE][+-]?\d(?:_?\d)*)?)
  | (?P<colons>::|:=)
  | (?P<bind>:(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*|\d+))
  | (?P<operator>[-+*/<>=~!@\#%^&|`?]+)
  | (?P<punct>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_PLACEHOLDER = re.compile(r"%(?:%|\([^)]+\)[sbt]|[sbt](?![A-Za-z0-9_$\x80-\U0010ffff]))")
_QUOTED_LITERAL = re.compile(
    r"[nN]?[qQ]'(?:\[.*?\]|\{.*?\}|\(.*?\)|<.*?>|(?P<mark>[^\s\[{(<]).*?(?P=mark))'", re.DOTALL
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
# A longer operator may end in + or - only if it holds one of these (PostgreSQL, "Operators").
_SPECIAL = frozenset("~!@#%^&|`?")
_KINDS = {
    "space": Kind.SPACE,
    "comment": Kind.COMMENT,
    "nested": Kind.COMMENT,
    "escaped": Kind.STRING,
    "string": Kind.STRING,
    "quoted": Kind.QUOTED,
    "dollar": Kind.STRING,
    "param": Kind.PARAM,
    "word": Kind.WORD,
    "number": Kind.NUMBER,
    "range": Kind.PUNCT,
    "colons": Kind.PUNCT,
    "bind": Kind.BIND,
    "operator": Kind.OPERATOR,
    "punct": Kind.PUNCT,
}


def words(text: str) -> frozenset[str]:
    """A set of key words, written with spaces between them."""
    return frozenset(text.split())


def scan(text: str, *, placeholders: bool = False, oracle: bool = False) -> list[Token]:
    """Cut a text into tokens; with `placeholders`, `%s` and `%(name)s` are read as psycopg reads them.

    With `oracle`, literals with delimiters of their own, `q'[it's]'`, are read too.
    """
    return list(_scan(text, placeholders, oracle))


def plain_literal(text: str) -> str:
    """Write `q'[it's]'` as `'it''s'`; any other literal stays."""
    if not _QUOTED_LITERAL.fullmatch(text):
        return text
    start = text.index("'") + 2
    return "'" + text[start:-2].replace("'", "''") + "'"


def significant(tokens: list[Token]) -> list[Token]:
    """Leave out white space and comments."""
    return [token for token in tokens if token.kind not in (Kind.SPACE, Kind.COMMENT)]


def _scan(text: str, placeholders: bool, oracle: bool) -> Iterator[Token]:
    position, length = 0, len(text)
    brackets = _Brackets()
    while position < length:
        literal = _QUOTED_LITERAL.match(text, position) if oracle and text[position] in "nNqQ" else None
        kind, end = (Kind.STRING, literal.end()) if literal else _next(text, position, placeholders)
        if kind is Kind.BIND and brackets.in_subscript:
            kind, end = Kind.PUNCT, position + 1
        piece = text[position:end]
        token = Token(kind, piece, position, end, piece.upper() if kind is Kind.WORD else piece)
        yield token
        brackets.see(token)
        position = end


def _next(text: str, position: int, placeholders: bool) -> tuple[Kind, int]:
    if placeholders and text[position] == "%":
        found = _PLACEHOLDER.match(text, position)
        if found:
            return (Kind.OPERATOR if found[0] == "%%" else Kind.PLACEHOLDER), found.end()
        return Kind.OPERATOR, position + 1
    match = _TOKEN.match(text, position)
    assert match is not None
    group = str(match.lastgroup)
    if group == "nested":
        return Kind.COMMENT, _comment_end(text, position)
    if group == "operator":
        return Kind.OPERATOR, position + len(_operator(match[0], placeholders))
    return _KINDS[group], match.end()


def _comment_end(text: str, start: int) -> int:
    depth = 0
    for edge in _COMMENT_EDGE.finditer(text, start):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(text)


def _operator(run: str, placeholders: bool) -> str:
    """Cut a run of operator characters as PostgreSQL does: before a comment, and without a trailing sign."""
    for stop in ("--", "/*", *(["%"] if placeholders else [])):
        cut = run.find(stop)
        if cut > 0:
            run = run[:cut]
    while len(run) > 1 and run[-1] in "+-" and not _SPECIAL.intersection(run):
        run = run[:-1]
    return run


class _Brackets:
    """Tells the colon of an array slice, `a[1:n]`, from a bind variable, `ARRAY[:n]`."""

    def __init__(self) -> None:
        self._open: list[bool] = []  # True: a subscript
        self._last: Token | None = None

    @property
    def in_subscript(self) -> bool:
        return bool(self._open) and self._open[-1]

    def see(self, token: Token) -> None:
        if token.kind in (Kind.SPACE, Kind.COMMENT):
            return
        if token.text == "[":
            self._open.append(self._follows_value())
        elif token.text == "(":
            self._open.append(False)
        elif token.text in ("]", ")") and self._open:
            self._open.pop()
        self._last = token

    def _follows_value(self) -> bool:
        last = self._last
        if last is None or last.key == "ARRAY":
            return False
        return last.kind is not Kind.OPERATOR and last.text not in ("[", "(", ",")
