"""The statements of a PL/SQL block, read one by one and written as PL/pgSQL's."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pythiadb.errors import SQLSyntaxError
from pythiadb.sql.plsql_reader import raw
from pythiadb.sql.plsql_simple import Simple
from pythiadb.sql.source import Span


class Statements(Simple, ABC):
    """Reads the statements of one block, with those that hold others."""

    @abstractmethod
    def block(self, index: int) -> tuple[list[str], int]:
        """Read a nested block."""

    def statements(self, index: int, stops: tuple[str, ...]) -> tuple[list[str], int]:
        """Read statements up to one of the key words."""
        lines: list[str] = []
        while self.source.key(index) not in stops:
            if index >= len(self.source.tokens):
                raise SQLSyntaxError("anonymous block without END", detail=self.source.where(index))
            found, index = self._statement(index)
            lines += found
        return lines, index

    def _statement(self, index: int) -> tuple[list[str], int]:
        source, key = self.source, self.source.key(index)
        if key in ("BEGIN", "DECLARE"):
            return self.block(index)
        if key in ("IF", "CASE"):
            return self._branches(index, key)
        if key in ("LOOP", "WHILE", "FOR"):
            return self._loop(index)
        if key == "<<":
            return [raw(source, Span(index, index + 3))], index + 3
        end = self.end_of_statement(index)
        return [self.simple(Span(index, end)) + ";"], end + 1

    def _branches(self, index: int, word: str) -> tuple[list[str], int]:
        """IF and CASE: conditions with statements behind each."""
        source, lines = self.source, []
        stops = ("ELSIF", "ELSE", "WHEN", "END")
        while source.key(index) in ("IF", "CASE", "ELSIF", "WHEN"):
            key = source.key(index)
            if key == "CASE":
                first = self.find(index + 1, "WHEN")
                lines.append(
                    "CASE" if first == index + 1 else f"CASE {self.expression(Span(index + 1, first))}"
                )
                index = first
                continue
            then = self.find(index + 1, "THEN")
            lines.append(f"{key} {self.expression(Span(index + 1, then))} THEN")
            body, index = self.statements(then + 1, stops)
            lines += ["  " + line for line in body]
        if source.key(index) == "ELSE":
            body, index = self.statements(index + 1, ("END",))
            lines += ["ELSE", *("  " + line for line in body)]
        return [*lines, f"END {word};"], self.behind_end(index)

    def _loop(self, index: int) -> tuple[list[str], int]:
        head, key = self.find(index, "LOOP"), self.source.key(index)
        record = ""
        line = "LOOP"
        if key == "WHILE":
            line = f"WHILE {self.expression(Span(index + 1, head))} LOOP"
        elif key == "FOR":
            line, record = self._for(Span(index + 1, head))
        body, end = self.statements(head + 1, ("END",))
        lines = [line, *("  " + one for one in body), "END LOOP;"]
        if record:  # PL/pgSQL wants the record of a loop over a query declared
            lines = [f"DECLARE {record} record; BEGIN", *("  " + one for one in lines), "END;"]
        return lines, self.behind_end(end)

    def _for(self, span: Span) -> tuple[str, str]:
        """The head of a FOR loop, and the name of the record that it needs, if any."""
        source, name = self.source, self.source.at(span.start).text
        if source.key(span.start + 1) != "IN":
            raise self.near(span.start + 1)
        start = span.start + 2
        reverse = source.key(start) == "REVERSE"
        dots = next((i for i in source.flat(span) if source.key(i) == ".."), None)
        if dots is not None:
            bounds = [self.expression(Span(start + reverse, dots)), self.expression(Span(dots + 1, span.end))]
            low, high = reversed(bounds) if reverse else bounds
            return f"FOR {name} IN {'REVERSE ' if reverse else ''}{low}..{high} LOOP", ""
        if source.is_open(start) and source.partner[start] == span.end - 1:
            return f"FOR {name} IN {self.sql(Span(start + 1, span.end - 1))} LOOP", name
        return f"FOR {name} IN {raw(source, Span(start, span.end))} LOOP", ""
