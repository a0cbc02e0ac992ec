"""The statements of a PL/SQL block, read one by one and written as PL/pgSQL's."""

from __future__ import annotations

from collections.abc import Callable

from pythiadb.errors import FeatureNotSupported, SQLSyntaxError
from pythiadb.sql.blocks import blocks_of
from pythiadb.sql.oracle_hiding import translate_span
from pythiadb.sql.oracle_procedures import arguments, procedure_call, procedure_name
from pythiadb.sql.scan import Kind, words
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
_UNSERVED = words("FORALL GOTO PIPE PRAGMA LOCK SET SAVEPOINT OPEN")
_CHANGES = words("INSERT UPDATE DELETE MERGE")
CONTROL = (
    _UNSERVED
    | _CHANGES
    | words(
        "BEGIN CASE CLOSE COMMIT CONTINUE DECLARE EXECUTE EXIT FETCH FOR IF LOOP NULL RAISE RETURN ROLLBACK SELECT WHILE WITH"
    )
)


def part(source: Source, span: Span) -> Source:
    """Some tokens as a statement of their own; errors still name the place in the whole text."""
    return Source(source.text, source.tokens[span.start : span.end])


def raw(source: Source, span: Span) -> str:
    """The text of some tokens as it stands."""
    return source.text[slice(*source.offsets(span))]


class Statements:
    """Reads the statements of one block; `notes` tells how the AI calls in them are computed."""

    def __init__(self, source: Source, rules: Rules) -> None:
        self.source = source
        self.notes: list[str] = []
        self._rules = rules

    def block(self, index: int) -> tuple[list[str], int]:
        """Read a nested block."""
        raise NotImplementedError

    def statements(self, index: int, stops: tuple[str, ...]) -> tuple[list[str], int]:
        """Read statements up to one of the key words."""
        lines: list[str] = []
        while self.source.key(index) not in stops:
            if index >= len(self.source.tokens):
                raise SQLSyntaxError("anonymous block without END", detail=self.source.where(index))
            found, index = self._statement(index)
            lines += found
        return lines, index

    def sql(self, span: Span, *, without: Span | None = None) -> str:
        """Translate an SQL statement with its AI SQL; `without` are tokens to leave out."""
        alone = part(self.source, span)
        dropped = Span(without.start - span.start, without.end - span.start) if without else None
        return self._finish(translate_span(alone, alone.inside(-1), without=dropped))

    def expression(self, span: Span) -> str:
        """Translate an expression."""
        if span.start >= span.end:
            raise self.near(span.end)
        alone = part(self.source, span)
        text = translate_span(alone, alone.inside(-1), before="SELECT ")
        return self._finish(text).removeprefix("SELECT ")

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

    def _finish(self, text: str) -> str:
        done, notes = self._rules(text)
        self.notes += notes
        return done

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
        return [self._simple(Span(index, end)) + ";"], end + 1

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

    def _simple(self, span: Span) -> str:
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
        return self._finish(procedure_call(alone, alone.inside(-1)))

    def _output(self, name: str, span: Span) -> str:
        alone = part(self.source, span)
        if name in ("ENABLE", "DISABLE"):
            return "NULL"
        if name != "PUT_LINE":
            raise self.refused(span.start - 1, f"DBMS_OUTPUT.{name}")
        text = self._finish("SELECT " + arguments(alone, alone.inside(-1))).removeprefix("SELECT ")
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
