"""Oracle SQL to PostgreSQL SQL with AI clauses: sqlglot translates, this module guards what sqlglot does not know.

A statement passes in four steps: the rules that need no context run on the Oracle text; AI calls, binds, vector operators
and a few functions are hidden behind plain names; sqlglot reads Oracle and writes PostgreSQL, with the repairs of
`oracle_tree`; what was hidden comes back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import sqlglot
from sqlglot.errors import SqlglotError

from pythiadb.errors import FeatureNotSupported, SQLSyntaxError
from pythiadb.sql.calls import METERED
from pythiadb.sql.edits import Edits
from pythiadb.sql.embeddings import find_embeddings
from pythiadb.sql.oracle_tree import repair
from pythiadb.sql.rewrite import NO_CATALOG, Rewrite
from pythiadb.sql.rules import LOCAL_RULES
from pythiadb.sql.scan import Kind, scan, significant, words
from pythiadb.sql.source import Source, Span

_PARSED = words("SELECT WITH INSERT UPDATE DELETE MERGE CREATE ALTER (")
_CONTROL = words(
    "BEGIN CASE CLOSE COMMIT CONTINUE DECLARE DELETE EXECUTE EXIT FETCH FOR FORALL GOTO IF INSERT LOCK LOOP MERGE NULL OPEN "
    "PIPE RAISE RETURN ROLLBACK SAVEPOINT SELECT SET UPDATE WHILE WITH"
)
# sqlglot knows these by other rules than PostgreSQL, pgvector or Pythia.
_VERBATIM = words(
    "COSINE_DISTANCE HAMMING_DISTANCE INNER_PRODUCT JACCARD_DISTANCE L1_DISTANCE L2_DISTANCE L2_NORMALIZE SUBVECTOR "
    "BINARY_QUANTIZE VECTOR_EMBEDDING TO_CHAR TO_NUMBER TO_TIMESTAMP SUBSTR"
)
_HIDDEN_FUNCTIONS = {
    "JSON": "__pythia_json",
    "TO_DATE": "__pythia_to_date",
    "ADD_MONTHS": "__pythia_add_months",
}
# Oracle has no operators of these names, sqlglot passes them on, and they bind as pgvector's do in PostgreSQL.
_OPERATORS = {"<=>": "<<", "<->": ">>", "<#>": "&", "<+>": "|"}
_SHOWN_OPERATORS = {hidden: shown for shown, hidden in _OPERATORS.items()}
_HIDDEN = re.compile(r"__pythia_(bind|fn|ai)_(\d+)")
_NAMES = (Kind.WORD, Kind.QUOTED)


def to_postgres(source: Source) -> list[str]:
    """Translate one Oracle statement; an anonymous block gives one statement for each of its calls.

    Raises SQLSyntaxError if the statement cannot be read, FeatureNotSupported for a block that does more than call.
    """
    first = source.key(0)
    end = len(source.tokens)
    if first in ("EXECUTE", "EXEC", "CALL"):
        return [_procedure(source, Span(1, end))]
    if first == "DECLARE" and source.key(2) != "CURSOR":
        raise _only_calls(source, 0)
    if first == "BEGIN" and end > 1 and source.key(1) not in ("TRANSACTION", "WORK", "ISOLATION"):
        return [_procedure(source, part) for part in _block_parts(source)]
    if source.shape(Span(0, min(2, end))) == ("ALTER", "TABLE"):
        return [_alter_table(source)]
    if first == "DROP":
        return [_drop(source)]
    if first not in _PARSED or (first == "CREATE" and source.key(1) == "ROLE"):
        return [source.text[slice(*source.offsets(Span(0, end)))]]
    return [_translate(source, Span(0, end))]


@dataclass(slots=True)
class _Hidden:
    """What stands behind the plain names: texts by their number."""

    texts: list[str] = field(default_factory=list)
    aliases: dict[int, str] = field(default_factory=dict)

    def hide(self, kind: str, text: str) -> str:
        self.texts.append(text)
        return f"__pythia_{kind}_{len(self.texts) - 1}"


def _translate(source: Source, span: Span, *, before: str = "", behind: str = "") -> str:
    """Translate some tokens, put between two texts that make them a statement."""
    rewrite = Rewrite(source, Edits(source.text), NO_CATALOG)
    for rule in LOCAL_RULES:
        rule(rewrite)
    hidden = _Hidden()
    _hide_embeddings(rewrite, hidden)
    _give_operands_types(rewrite)
    _drop_storage_words(rewrite)
    _hide_tokens(rewrite, hidden)
    text = rewrite.text(span)
    if source.key(0) == "DELETE" and source.key(1) != "FROM":
        text = "DELETE FROM" + text[len("DELETE") :]
    bare = "".join(" " if token.kind is Kind.COMMENT else token.text for token in scan(text))
    return _show(_transpile(source, before + bare + behind), hidden)


def _transpile(source: Source, text: str) -> str:
    try:
        tree = sqlglot.parse_one(text, read="oracle")
        return repair(tree).sql(dialect="postgres", comments=False, normalize_functions=False)
    except SqlglotError as error:
        facts = (getattr(error, "errors", None) or [{}])[0]
        near = facts.get("highlight") or ""
        message = f'syntax error at or near "{near}"' if near else "statement cannot be read as Oracle SQL"
        place = _place(source, text, near, facts.get("line") or 1, facts.get("col") or 0)
        raise SQLSyntaxError(message, detail=place, hint="It was read as Oracle SQL.") from error


def _place(source: Source, text: str, near: str, line: int, column: int) -> str:
    """Where a word that sqlglot found in its text stands in the statement: the one with as many like it in front."""
    offset = sum(len(before) for before in text.splitlines(keepends=True)[: line - 1]) + column
    ordinal = sum(token.text == near and token.end <= offset for token in scan(text))
    places = [index for index, token in enumerate(source.tokens) if token.text == near]
    return source.where(places[min(ordinal, len(places)) - 1] if places and ordinal else 0)


def _hide_embeddings(rewrite: Rewrite, hidden: _Hidden) -> None:
    source = rewrite.source
    for call in find_embeddings(source):
        name = hidden.hide("ai", call.shown)
        hidden.aliases[len(hidden.texts) - 1] = call.alias
        rewrite.edits.replace(source.at(call.name).start, source.at(call.input.start - 1).end, name + "(")
        close = source.at(call.span.end - 1).start
        rewrite.edits.replace(source.at(call.input.end - 1).end, close, "")
        if call.star:
            rewrite.replace(Span(call.input.end - 1, call.input.end), "data")


def _hide_tokens(rewrite: Rewrite, hidden: _Hidden) -> None:
    source = rewrite.source
    for index, token in enumerate(source.tokens):
        here = Span(index, index + 1)
        called = token.kind is Kind.WORD and source.is_open(index + 1) and source.key(index - 1) != "."
        if token.kind in (Kind.BIND, Kind.PLACEHOLDER):
            rewrite.replace(here, hidden.hide("bind", token.text))
        elif token.kind is Kind.OPERATOR and token.text in _OPERATORS:
            rewrite.replace(here, _OPERATORS[token.text])
        elif called and token.key in _HIDDEN_FUNCTIONS:
            rewrite.replace(here, _HIDDEN_FUNCTIONS[token.key])
        elif called and token.key in _VERBATIM and not _reads_model(source, index):
            rewrite.replace(here, hidden.hide("fn", token.text))


def _give_operands_types(rewrite: Rewrite) -> None:
    """A text beside a vector operator is converted to a vector; concatenations are left alone."""
    source = rewrite.source
    for index, token in enumerate(source.tokens):
        if token.kind is not Kind.OPERATOR or token.text not in _OPERATORS:
            continue
        for at, beyond in ((index - 1, index - 2), (index + 1, index + 2)):
            if source.at(at).kind in METERED and source.key(beyond) != "||":
                rewrite.after(at, "::vector")


def _drop_storage_words(rewrite: Rewrite) -> None:
    """Forget VIRTUAL and STORED behind a generated column: PostgreSQL computes it from functions only if it is stored."""
    source = rewrite.source
    for index in _generated(source):
        end = source.partner[index]
        if source.key(end + 1) in ("VIRTUAL", "STORED"):
            rewrite.edits.replace(source.at(end).end, source.at(end + 1).end, "")


def _generated(source: Source) -> list[int]:
    """The brackets around the expressions of generated columns."""
    ends = ("ALWAYS", "AS")
    found = range(2, len(source.tokens))
    return [i for i in found if source.is_open(i) and (source.key(i - 2), source.key(i - 1)) == ends]


def _reads_model(source: Source, index: int) -> bool:
    """Tell whether a call has a USING part, which hides it already."""
    return any(source.key(i) == "USING" for i in source.flat(source.inside(index + 1)))


def _show(text: str, hidden: _Hidden) -> str:
    """Put back what was hidden."""
    source = Source(text, significant(scan(text)))
    edits = Edits(text)
    for index, token in enumerate(source.tokens):
        match = _HIDDEN.fullmatch(token.text)
        if token.text in _SHOWN_OPERATORS and token.kind is Kind.OPERATOR:
            edits.replace(token.start, token.end, _SHOWN_OPERATORS[token.text])
        elif match and match[1] == "ai":
            number = int(match[2])
            edits.replace(
                token.start, source.at(index + 1).end, f"VECTOR_EMBEDDING({hidden.texts[number]} USING "
            )
            if alias := hidden.aliases[number]:
                written = alias[1:-1].replace("''", "'").replace('"', '""')
                edits.insert(source.at(source.partner[index + 1]).start, f' AS "{written}"')
        elif match:
            edits.replace(token.start, token.end, hidden.texts[int(match[2])])
    for bracket in _generated(source):
        edits.insert(source.at(source.partner[bracket]).end, " STORED")
    return edits.render()


def _procedure(source: Source, span: Span) -> str:
    """A call of a procedure as CALL."""
    index = span.start
    while source.at(index).kind in _NAMES and source.key(index + 1) == "." and index + 2 < span.end:
        index += 2
    named = source.at(index).kind in _NAMES and not (index == span.start and source.key(index) in _CONTROL)
    bare = index + 1 == span.end
    if not named or not (bare or (source.is_open(index + 1) and source.partner[index + 1] + 1 == span.end)):
        raise _only_calls(source, span.start)
    name = "".join(source.at(i).text for i in range(span.start, index + 1))
    inside = Span(span.end, span.end) if bare else source.inside(index + 1)
    if inside.start >= inside.end:
        return f"CALL {name}()"
    call = _translate(source, inside, before="SELECT __pythia_call(", behind=")")
    return f"CALL {name}({call.removeprefix('SELECT __pythia_call(')}"


def _block_parts(source: Source) -> list[Span]:
    """The statements between BEGIN and END."""
    last = len(source.tokens) - 1
    while last > 0 and (
        source.key(last) in (";", "/") or (source.key(last) != "END" and source.key(last - 1) == "END")
    ):
        last -= 1
    if source.key(last) != "END":
        raise SQLSyntaxError("anonymous block without END", detail=source.where(last))
    found = [part for part in source.split(Span(1, last), ";") if part.start < part.end]
    if not found:
        raise _only_calls(source, 0)
    return found


def _only_calls(source: Source, index: int) -> FeatureNotSupported:
    return FeatureNotSupported(
        "an anonymous block may only call procedures",
        detail=source.where(index),
        hint="Write a function or procedure in PL/pgSQL for anything else.",
    )


def _drop(source: Source) -> str:
    """DROP without Oracle's words for constraints and the recycle bin."""
    edits = Edits(source.text)
    for index, token in enumerate(source.tokens):
        if token.key == "PURGE" or (token.key == "CONSTRAINTS" and source.key(index - 1) == "CASCADE"):
            edits.replace(source.at(index - 1).end, token.end, "")
    return edits.render(*source.offsets(Span(0, len(source.tokens))))


def _alter_table(source: Source) -> str:
    """ALTER TABLE t ADD (a NUMBER, b DATE), whose parentheses PostgreSQL does not have; any other as sqlglot has it."""
    add = next((i for i in source.flat(source.inside(-1)) if source.key(i) == "ADD"), None)
    bracketed = (
        add is not None and source.is_open(add + 1) and source.partner[add + 1] == len(source.tokens) - 1
    )
    if add is None or not bracketed:
        return _translate(source, Span(0, len(source.tokens)))
    opening = "CREATE TABLE __pythia_t ("
    text = _translate(source, source.inside(add + 1), before=opening, behind=")")
    inner = text.removeprefix(opening)[:-1]
    written = Source(inner, significant(scan(inner)))
    columns = written.split(written.inside(-1), ",")
    added = ", ".join("ADD " + inner[slice(*written.offsets(column))] for column in columns)
    return source.text[slice(*source.offsets(Span(0, add)))] + " " + added
