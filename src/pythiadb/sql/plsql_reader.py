"""Reading a PL/SQL block: spans of tokens as SQL and expressions, where they end, and the errors that name them."""

from __future__ import annotations

from collections.abc import Callable

from pythiadb.errors import FeatureNotSupported, SQLSyntaxError
from pythiadb.sql.oracle_hiding import translate_span
from pythiadb.sql.source import Source, Span

Rules = Callable[[str], tuple[str, tuple[str, ...]]]
# PL/pgSQL's names of conditions; the classes of PL/SQL that are wider are the class of SQLSTATE.
CONDITIONS = {
    "OTHERS": "others",
    "NO_DATA_FOUND": "no_data_found",
    "TOO_MANY_ROWS": "too_many_rows",
    "DUP_VAL_ON_INDEX": "unique_violation",
    "ZERO_DIVIDE": "division_by_zero",
    "VALUE_ERROR": "data_exception",
    "INVALID_NUMBER": "invalid_text_representation",
    "CURSOR_ALREADY_OPEN": "duplicate_cursor",
    "INVALID_CURSOR": "invalid_cursor_name",
    "LOGIN_DENIED": "invalid_authorization_specification",
}


def part(source: Source, span: Span) -> Source:
    """Some tokens as a statement of their own; errors still name the place in the whole text."""
    return Source(source.text, source.tokens[span.start : span.end])


def raw(source: Source, span: Span) -> str:
    """The text of some tokens as it stands."""
    return source.text[slice(*source.offsets(span))]


class Reader:
    """Reads the tokens of one block; `notes` tells how the AI calls in them are computed."""

    def __init__(self, source: Source, rules: Rules) -> None:
        self.source = source
        self.notes: list[str] = []
        self._rules = rules

    def sql(self, span: Span, *, without: Span | None = None) -> str:
        """Translate an SQL statement with its AI SQL; `without` are tokens to leave out."""
        alone = part(self.source, span)
        dropped = Span(without.start - span.start, without.end - span.start) if without else None
        return self.finish(translate_span(alone, alone.inside(-1), without=dropped))

    def expression(self, span: Span) -> str:
        """Translate an expression."""
        if span.start >= span.end:
            raise self.near(span.end)
        alone = part(self.source, span)
        text = translate_span(alone, alone.inside(-1), before="SELECT ")
        return self.finish(text).removeprefix("SELECT ")

    def find(self, index: int, word: str) -> int:
        """The next token with a key word on the same level, CASE expressions aside."""
        cases = 0
        for at in self.source.flat(Span(index, len(self.source.tokens))):
            key = self.source.key(at)
            if key == word and not cases:
                return at
            cases += (key == "CASE") - (key == "END" and cases > 0)
        raise self.near(len(self.source.tokens))

    def end_of_statement(self, index: int) -> int:
        """The semicolon that ends a statement without statements inside."""
        return self.find(index, ";")

    def behind_end(self, index: int) -> int:
        """Behind `END [IF | LOOP | CASE] [label];`."""
        if self.source.key(index) != "END":
            raise self.near(index)
        rest = Span(index, len(self.source.tokens))
        return next((i for i in self.source.flat(rest) if self.source.key(i) == ";"), rest.end - 1) + 1

    def condition(self, span: Span) -> str:
        """The name of an exception in PL/pgSQL."""
        name = self.source.key(span.start)
        if span.end - span.start != 1 or name not in CONDITIONS:
            raise FeatureNotSupported(
                f"exception {raw(self.source, span)} is not supported",
                detail=self.source.where(span.start),
                hint=f"Use one of {', '.join(CONDITIONS)}.",
            )
        return CONDITIONS[name]

    def near(self, index: int) -> SQLSyntaxError:
        """The error for a token that may not stand where it does."""
        text = self.source.at(index).text
        message = f'syntax error at or near "{text}"' if text else "syntax error at end of input"
        return SQLSyntaxError(message, detail=self.source.where(index))

    def refused(self, index: int, what: str) -> FeatureNotSupported:
        """The error for something that PL/pgSQL has nothing for."""
        return FeatureNotSupported(
            f"{what} is not supported",
            detail=self.source.where(index),
            hint="Write a function or procedure in PL/pgSQL.",
        )

    def finish(self, text: str) -> str:
        """Rewrite the AI SQL of a statement."""
        done, notes = self._rules(text)
        self.notes += notes
        return done
