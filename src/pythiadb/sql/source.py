"""A statement as its significant tokens, with brackets matched: what every rule reads.

Positions are indexes into `tokens`; a `Span` is a half-open range of them. Tokens keep their offsets in the whole text, so
an error can name the line and column that the user sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pythiadb.sql.scan import Kind, Token

_OPENING = ("(", "[")
_CLOSING = (")", "]")
NOWHERE = Token(Kind.SPACE, "", 0, 0, "")


class Span(NamedTuple):
    """The tokens from `start` up to, not including, `end`."""

    start: int
    end: int

    def holds(self, index: int) -> bool:
        """Tell whether a token lies in the span."""
        return self.start <= index < self.end


class Source:
    """The tokens of one statement inside `text`."""

    def __init__(self, text: str, tokens: list[Token]) -> None:
        self.text = text
        self.tokens = tokens
        self.partner: dict[
            int, int
        ] = {}  # bracket -> its other half; an open end is closed by the statement's
        self.parent: list[int] = []  # token -> the bracket around it, -1 at the top
        self._match()

    def _match(self) -> None:
        opened: list[int] = []
        for index, token in enumerate(self.tokens):
            if token.text in _CLOSING and token.kind is Kind.PUNCT and opened:
                start = opened.pop()
                self.partner[start], self.partner[index] = index, start
            self.parent.append(opened[-1] if opened else -1)
            if token.text in _OPENING and token.kind is Kind.PUNCT:
                opened.append(index)
        for start in opened:
            self.partner[start] = len(self.tokens)

    def at(self, index: int) -> Token:
        """The token at an index; an empty one outside the statement."""
        return self.tokens[index] if 0 <= index < len(self.tokens) else NOWHERE

    def key(self, index: int) -> str:
        """The upper-case word, or the text, of the token at an index."""
        return self.at(index).key

    def is_open(self, index: int) -> bool:
        """Tell whether a parenthesis opens here."""
        return self.at(index).text == "(" and index in self.partner

    def flat(self, span: Span) -> Iterator[int]:
        """Go through a span's tokens without entering brackets: an opening bracket is given, its content is not."""
        index = span.start
        while index < span.end:
            yield index
            opens = self.at(index).text in _OPENING and index in self.partner
            index = self.partner[index] + 1 if opens else index + 1

    def inside(self, bracket: int) -> Span:
        """The tokens between a bracket and its partner; for -1 the whole statement."""
        if bracket < 0:
            return Span(0, len(self.tokens))
        return Span(bracket + 1, self.partner[bracket])

    def depth(self, bracket: int) -> int:
        """How many brackets are around and including a bracket; 0 for -1."""
        depth = 0
        while bracket >= 0:
            bracket, depth = self.parent[bracket], depth + 1
        return depth

    def split(self, span: Span, separator: str) -> list[Span]:
        """Cut a span at the separators that stand outside brackets; an empty span gives no parts."""
        if span.start >= span.end:
            return []
        cuts = [index for index in self.flat(span) if self.key(index) == separator]
        starts = [span.start, *(cut + 1 for cut in cuts)]
        return [Span(start, end) for start, end in zip(starts, [*cuts, span.end], strict=True)]

    def offsets(self, span: Span) -> tuple[int, int]:
        """The offsets in the text of a span that is not empty."""
        return self.tokens[span.start].start, self.tokens[span.end - 1].end

    def shape(self, span: Span) -> tuple[str, ...]:
        """The tokens of a span as keys: equal for texts that differ in case and white space only."""
        return tuple(self.key(index) for index in range(span.start, span.end))

    def where(self, index: int) -> str:
        """The detail of an error: the line and column, from 1, of a token."""
        offset = self.at(index).start if index < len(self.tokens) else len(self.text)
        return position(self.text, offset)


def position(text: str, offset: int) -> str:
    """Name an offset by line and column, both from 1."""
    line = text.count("\n", 0, offset) + 1
    column = offset - text.rfind("\n", 0, offset)
    return f"At line {line}, column {column}."
