"""Parting a text into statements at its top-level semicolons."""

from __future__ import annotations

from pythiadb.sql.scan import Kind, Token, words

_CREATE_WORDS = words("CREATE OR REPLACE EDITIONABLE NONEDITIONABLE")
_ROUTINES = words("FUNCTION PROCEDURE TRIGGER PACKAGE")
_OPENERS = words("IF LOOP CASE")  # each ends with an END of its own inside an Oracle block


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
        begins_transaction = self._is_block and len(self.tokens) == 1
        if token.text == ";" and (begins_transaction or self._is_outside()):
            if self._is_block and not begins_transaction:
                self.tokens.append(token)
            return True
        self._see(token)
        self.tokens.append(token)
        return False

    def _is_outside(self) -> bool:
        return self._parens <= 0 and self._blocks <= 0 and not self._awaits_body

    def _see(self, token: Token) -> None:
        if token.text in ("(", ")"):
            self._parens += 1 if token.text == "(" else -1
        if token.kind is Kind.STRING and token.text.startswith("$"):
            self._awaits_body = False  # a routine of PostgreSQL, whose body is this literal
        if token.kind is Kind.WORD:
            if self._oracle:
                self._notice_block(token.key)
            self._nest(token.key, self.tokens[-1].key if self.tokens else "")

    def _notice_block(self, key: str) -> None:
        """A block begins with BEGIN or DECLARE, a routine with CREATE; DECLARE name CURSOR is a plain statement."""
        count = len(self.tokens)
        routine = key in _ROUTINES and count > 0 and all(token.key in _CREATE_WORDS for token in self.tokens)
        if count == 0 and key in ("BEGIN", "DECLARE"):
            self._is_block, self._awaits_body = True, key == "DECLARE"
        elif routine:
            self._is_block = self._awaits_body = True
        elif count == 2 and key == "CURSOR" and self.tokens[0].key == "DECLARE":
            self._is_block = self._awaits_body = False

    def _nest(self, key: str, previous: str) -> None:
        if key == "BEGIN" and self._is_block:
            self._awaits_body = False
            self._blocks += 1
        elif key == "ATOMIC" and previous == "BEGIN" and not self._is_block:
            self._blocks += 1
        elif self._blocks and key == "END":
            self._blocks -= 1
        elif self._blocks and previous != "END":
            self._blocks += key in _OPENERS if self._is_block else key == "CASE"
