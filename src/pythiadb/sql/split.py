"""Parting a text into statements at its top-level semicolons."""

from __future__ import annotations

from pythiadb.sql.scan import Kind, Token

_PLAIN_DDL = frozenset(("OR", "REPLACE", "EDITIONABLE", "NONEDITIONABLE"))
_ROUTINES = ("FUNCTION", "PROCEDURE", "TRIGGER", "PACKAGE")
_OPENERS = ("IF", "LOOP", "CASE", "BEGIN")


def parts(tokens: list[Token], *, oracle: bool) -> list[list[Token]]:
    """Group significant tokens into statements, without the semicolons between them; blocks keep their own.

    A body between BEGIN ATOMIC and END stays whole, as do, in Oracle SQL, anonymous blocks and stored routines. A slash
    where a statement would begin, which ends a block in Oracle scripts, is left out.
    """
    found: list[list[Token]] = []
    current = _Statement(oracle)
    for token in tokens:
        if oracle and token.text == "/" and not current.tokens:
            continue
        if current.take(token):
            found.append(current.tokens)
            current = _Statement(oracle)
    found.append(current.tokens)
    return [tokens for tokens in found if tokens]


class _Statement:
    """The tokens of one statement, and how deep in parentheses and blocks the last one lies."""

    def __init__(self, oracle: bool) -> None:
        self.tokens: list[Token] = []
        self._oracle = oracle
        self._parens = 0
        self._blocks = 0
        self._is_block = False  # an Oracle block or routine, which holds semicolons of its own
        self._awaits_body = False

    def take(self, token: Token) -> bool:
        """Add a token; True if it ends the statement. The semicolon of a block belongs to it, others are left out."""
        if token.text == ";" and self._parens <= 0 and self._blocks <= 0 and not self._awaits_body:
            if self._is_block:
                self.tokens.append(token)
            return True
        self._see(token)
        self.tokens.append(token)
        return False

    def _see(self, token: Token) -> None:
        previous = self.tokens[-1].key if self.tokens else ""
        if token.text in ("(", ")"):
            self._parens += 1 if token.text == "(" else -1
        if token.kind is Kind.STRING and token.text.startswith("$"):
            self._awaits_body = False
        if token.kind is not Kind.WORD:
            return
        if self._oracle and not self._blocks:
            self._begin(token, previous)
        if self._blocks or (token.key == "ATOMIC" and previous == "BEGIN"):
            self._nest(token, previous)

    def _begin(self, token: Token, previous: str) -> None:
        """Notice where a block of Oracle begins: BEGIN or DECLARE at the start, or the body of a routine."""
        first = not self.tokens
        words = {earlier.key for earlier in self.tokens[1:]}
        routine = token.key in _ROUTINES and previous in ("CREATE", *_PLAIN_DDL) and words <= _PLAIN_DDL
        if routine or (first and token.key == "DECLARE"):
            self._awaits_body = self._is_block = True
        if token.key == "CURSOR" and len(self.tokens) == 2:
            self._awaits_body = self._is_block = False
        if token.key == "BEGIN" and (first or self._awaits_body):
            self._awaits_body, self._is_block, self._blocks = False, True, 1

    def _nest(self, token: Token, previous: str) -> None:
        if token.key == "ATOMIC" and previous == "BEGIN" and not self._is_block:
            self._blocks = 1
        elif token.key == "END":
            self._blocks -= 1
        elif token.key in _OPENERS and previous != "END" and not (token.key == "BEGIN" and self._blocks == 1 and not self.tokens):
            self._blocks += not (token.key == "BEGIN" and self._just_begun(previous))

    def _just_begun(self, previous: str) -> bool:
        """The BEGIN that opened the block was counted when it was noticed."""
        return self._blocks == 1 and not any(earlier.key == "BEGIN" for earlier in self.tokens) and previous != "BEGIN"
