"""Anonymous PL/SQL blocks as PL/pgSQL: the blocks, their declarations and handlers.

A block becomes the body of one DO statement. DO takes no parameters, so that binds stay in the body and are written into
it as literals when it runs.
"""

from __future__ import annotations

from pythiadb.sql.oracle_hiding import translate_span
from pythiadb.sql.oracle_procedures import procedure_name
from pythiadb.sql.plsql_reader import Rules, part, raw
from pythiadb.sql.plsql_simple import CONTROL
from pythiadb.sql.plsql_statements import Statements
from pythiadb.sql.scan import Kind, words
from pythiadb.sql.source import Source, Span

_INTEGERS = words("PLS_INTEGER BINARY_INTEGER SIMPLE_INTEGER NATURAL NATURALN POSITIVE POSITIVEN")
_NO_DECLARATIONS = words("PRAGMA TYPE SUBTYPE PROCEDURE FUNCTION")
_VARIABLES = "#variable_conflict use_column\n"  # as in PL/SQL, where a column hides a variable of its name


def is_one_call(source: Source) -> bool:
    """Tell whether a block is `BEGIN p(...); END;`, which is a CALL: that may have parameters, and may commit."""
    if source.key(0) != "BEGIN":
        return False
    parts = source.split(Span(1, len(source.tokens)), ";")
    called = procedure_name(source, parts[0])
    if len(parts) < 2 or called is None or source.key(1) in CONTROL:
        return False
    rest = source.shape(Span(parts[1].start, len(source.tokens)))
    output = source.shape(called)[:1] == ("DBMS_OUTPUT",) or source.key(1) == "RAISE_APPLICATION_ERROR"
    return not output and rest[:1] == ("END",) and [key for key in rest[1:] if key != "/"] in ([], [";"])


def translate_block(source: Source, rules: Rules) -> tuple[str, tuple[str, ...]]:
    """Translate a block; give the body of a DO statement and the notes of the AI calls in it.

    Raises SQLSyntaxError for a block that cannot be read, FeatureNotSupported for what PL/pgSQL has nothing for.
    """
    reader = _Blocks(source, rules)
    lines, index = reader.block(0)
    if index < len(source.tokens) and source.key(index) != "/":
        raise reader.near(index)
    return _VARIABLES + "\n".join(lines), tuple(reader.notes)


class _Blocks(Statements):
    """Reads blocks from a token on; every method gives the lines written and the token behind what it read."""

    def block(self, index: int) -> tuple[list[str], int]:
        """`[DECLARE declarations] BEGIN statements [EXCEPTION handlers] END [label];`"""
        lines: list[str] = []
        if self.source.key(index) == "DECLARE":
            lines.append("DECLARE")
            index += 1
            while self.source.key(index) != "BEGIN":
                end = self.end_of_statement(index)
                lines.append("  " + self._declaration(Span(index, end)))
                index = end + 1
        if self.source.key(index) != "BEGIN":
            raise self.near(index)
        body, index = self.statements(index + 1, ("END", "EXCEPTION"))
        lines += ["BEGIN", *_indented(body or ["NULL;"])]
        if self.source.key(index) == "EXCEPTION":
            handlers, index = self._handlers(index + 1)
            lines += ["EXCEPTION", *_indented(handlers)]
        lines.append("END;")
        return lines, self.behind_end(index)

    def _handlers(self, index: int) -> tuple[list[str], int]:
        lines: list[str] = []
        while self.source.key(index) == "WHEN":
            then = self.find(index, "THEN")
            names = self.source.split(Span(index + 1, then), "OR")
            lines.append(f"WHEN {' OR '.join(self.condition(name) for name in names)} THEN")
            body, index = self.statements(then + 1, ("WHEN", "END"))
            lines += _indented(body)
        return lines, index

    def _declaration(self, span: Span) -> str:
        """`name [CONSTANT] type [NOT NULL] [:= | DEFAULT value]`, or `CURSOR name IS query`."""
        source, name = self.source, span.start
        if source.key(name) in _NO_DECLARATIONS or source.key(name + 1) == "EXCEPTION":
            raise self.refused(name, f"{' '.join(source.shape(Span(name, name + 2)))} in a block")
        if source.key(name) == "CURSOR":
            return self._cursor(span)
        if source.at(name).kind not in (Kind.WORD, Kind.QUOTED):
            raise self.near(name)
        start = name + 1 + (source.key(name + 1) == "CONSTANT")
        value = next(
            (i for i in source.flat(Span(start, span.end)) if source.key(i) in (":=", "DEFAULT")), span.end
        )
        not_null = source.shape(Span(max(value - 2, start), value)) == ("NOT", "NULL")
        kind = self._type(Span(start, value - 2 if not_null else value))
        words = [source.at(name).text, *(["CONSTANT"] if start > name + 1 else []), kind]
        words += ["NOT NULL"] if not_null else []
        words += [":=", self.expression(Span(value + 1, span.end))] if value < span.end else []
        return " ".join(words) + ";"

    def _cursor(self, span: Span) -> str:
        start = self.find(span.start, "IS")
        name = raw(self.source, Span(span.start + 1, span.start + 2))
        if start != span.start + 2:
            raise self.refused(span.start, "a cursor with parameters")
        return f"{name} CURSOR FOR {self.sql(Span(start + 1, span.end))};"

    def _type(self, span: Span) -> str:
        """A type as PostgreSQL's; `t.c%TYPE` stays."""
        source = self.source
        if span.start >= span.end:
            raise self.near(span.end)
        shape = source.shape(span)
        if "%" in shape:
            return raw(source, span)
        if shape[0] in _INTEGERS or shape == ("JSON",):
            return "jsonb" if shape == ("JSON",) else "integer"
        opening = "CREATE TABLE __pythia_t (c "
        alone = part(source, span)
        text = translate_span(alone, alone.inside(-1), before=opening, behind=")")
        return text.removeprefix(opening)[:-1]


def _indented(lines: list[str]) -> list[str]:
    return ["  " + line for line in lines]
