"""The statements of a PL/SQL block that hold no others, written as PL/pgSQL's."""

from __future__ import annotations

from pythiadb.errors import SQLSyntaxError
from pythiadb.sql.blocks import blocks_of
from pythiadb.sql.oracle_procedures import arguments, procedure_call, procedure_name
from pythiadb.sql.plsql_reader import Reader, part, raw
from pythiadb.sql.scan import Kind, words
from pythiadb.sql.source import Span

_UNSERVED = words("FORALL GOTO PIPE PRAGMA LOCK SET SAVEPOINT OPEN")
_CHANGES = words("INSERT UPDATE DELETE MERGE")
CONTROL = (
    _UNSERVED
    | _CHANGES
    | words(
        "BEGIN CASE CLOSE COMMIT CONTINUE DECLARE EXECUTE EXIT FETCH FOR IF LOOP NULL RAISE RETURN ROLLBACK SELECT WHILE WITH"
    )
)


class Simple(Reader):
    """Writes one statement without its semicolon."""

    def simple(self, span: Span) -> str:
        """Write a statement that holds no others."""
        source, key = self.source, self.source.key(span.start)
        if source.at(span.start).kind is Kind.BIND:
            raise self.refused(span.start, f"assigning the bind variable {source.at(span.start).text}")
        if key in _UNSERVED and not (key == "OPEN" and span.end == span.start + 2):
            raise self.refused(span.start, f"{key} in a block")
        if key in ("NULL", "COMMIT", "ROLLBACK", "RETURN", "OPEN", "FETCH", "CLOSE"):
            return raw(source, span)
        by_word = {"EXECUTE": self._execute, "EXIT": self._exit, "CONTINUE": self._exit, "RAISE": self._raise}
        write = self._query if key in ("SELECT", "WITH", *_CHANGES) else by_word.get(key)
        if write is not None:
            return write(span)
        assigned = self._assigned(span)
        if assigned is not None:
            target = raw(source, Span(span.start, assigned))
            return f"{target} := {self.expression(Span(assigned + 1, span.end))}"
        return self._call(span)

    def _raise(self, span: Span) -> str:
        """RAISE an exception by its name; without one, the error that is being handled."""
        name = Span(span.start + 1, span.end)
        return f"RAISE {self.condition(name)}" if name.start < name.end else "RAISE"

    def _assigned(self, span: Span) -> int | None:
        return next((i for i in self.source.flat(span) if self.source.key(i) == ":="), None)

    def _exit(self, span: Span) -> str:
        """EXIT and CONTINUE, with a label, with a condition."""
        when = next((i for i in range(*span) if self.source.key(i) == "WHEN"), span.end)
        head = raw(self.source, Span(span.start, when))
        shape = self.source.shape(Span(when + 1, span.end))
        if shape[1:] in (("%", "NOTFOUND"), ("%", "FOUND")):
            return f"{head} WHEN {'NOT ' if shape[2] == 'NOTFOUND' else ''}FOUND"
        return head if when == span.end else f"{head} WHEN {self.expression(Span(when + 1, span.end))}"

    def _query(self, span: Span) -> str:
        """An SQL statement; what it puts into variables comes last. A query that gives no row, or several, is an error."""
        source, into = self.source, self._into(span)
        changes = source.key(span.start) in _CHANGES
        if into is None:
            if not changes:
                raise SQLSyntaxError("SELECT without INTO in a block", detail=source.where(span.start))
            return self.sql(span)
        if any(source.key(i) == "BULK" for i in range(*span)):
            raise self.refused(span.start, "BULK COLLECT")
        targets = raw(source, Span(into.start + 1, into.end))
        return f"{self.sql(span, without=into)} INTO {'' if changes else 'STRICT '}{targets}"

    def _into(self, span: Span) -> Span | None:
        """The tokens of INTO with its variables."""
        source = self.source
        if source.key(span.start) in _CHANGES:
            returning = next(
                (i for i in source.flat(span) if source.key(i) in ("RETURNING", "RETURN")), span.end
            )
            into = next((i for i in source.flat(Span(returning, span.end)) if source.key(i) == "INTO"), None)
            return None if into is None else Span(into, span.end)
        alone = part(source, span)
        clause = next((b.clause("INTO") for b in blocks_of(alone, -1) if "INTO" in b.clauses), None)
        return None if clause is None else Span(span.start + clause.start - 1, span.start + clause.end)

    def _execute(self, span: Span) -> str:
        """EXECUTE IMMEDIATE text [INTO variables] [USING values]; the text is PostgreSQL's."""
        source = self.source
        if source.key(span.start + 1) != "IMMEDIATE":
            raise self.near(span.start + 1)
        cuts = [i for i in source.flat(span) if source.key(i) in ("INTO", "USING")]
        starts = [span.start + 2, *cuts]
        pieces = [Span(start, end) for start, end in zip(starts, [*cuts, span.end], strict=True)]
        if any(source.at(i).kind is Kind.BIND for piece in pieces[1:] for i in range(*piece)):
            raise self.refused(span.start, "EXECUTE IMMEDIATE with bind variables of the block")
        return " ".join(
            ["EXECUTE", self.expression(pieces[0]), *(raw(source, piece) for piece in pieces[1:])]
        )

    def _call(self, span: Span) -> str:
        """A call of a procedure; those that write to the screen and raise errors are PL/pgSQL's statements."""
        source, named = self.source, procedure_name(self.source, span)
        if named is None:
            raise self.near(span.start)
        name = "".join(source.shape(named)).removeprefix("SYS.")
        if name == "RAISE_APPLICATION_ERROR":
            return self._application_error(Span(named.end + 1, span.end - 1))
        if name.startswith("DBMS_OUTPUT."):
            return self._output(name.removeprefix("DBMS_OUTPUT."), Span(named.end, span.end))
        alone = part(source, span)
        return self.finish(procedure_call(alone, alone.inside(-1)))

    def _output(self, name: str, span: Span) -> str:
        alone = part(self.source, span)
        if name in ("ENABLE", "DISABLE"):
            return "NULL"
        if name != "PUT_LINE":
            raise self.refused(span.start - 1, f"DBMS_OUTPUT.{name}")
        text = self.finish("SELECT " + arguments(alone, alone.inside(-1))).removeprefix("SELECT ")
        return f"RAISE NOTICE USING MESSAGE = COALESCE(({text})::text, '')"

    def _application_error(self, span: Span) -> str:
        """The number of an error, -20000 to -20999, without its sign is the SQLSTATE."""
        source = self.source
        values = source.split(span, ",")
        if len(values) < 2:
            raise self.near(span.end)
        number = "".join(source.shape(values[0])).lstrip("-")
        state = number if number.isdigit() and len(number) == 5 else "P0001"
        return f"RAISE EXCEPTION USING MESSAGE = ({self.expression(values[1])})::text, ERRCODE = '{state}'"
