"""Oracle SQL to PostgreSQL SQL with AI clauses: which statement is translated by what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pythiadb.sql.edits import Edits
from pythiadb.sql.oracle_hiding import translate_span
from pythiadb.sql.oracle_objects import translate_object_statement
from pythiadb.sql.oracle_procedures import procedure_call
from pythiadb.sql.plsql import is_one_call, translate_block
from pythiadb.sql.scan import scan, significant, words
from pythiadb.sql.source import Source, Span
from pythiadb.sql.statements import explained

_PARSED = words("SELECT WITH INSERT UPDATE DELETE MERGE CREATE ALTER (")
Rules = Callable[[str], tuple[str, tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Written:
    """A PostgreSQL statement; of a block, whose rules have run already, the body without its quotes."""

    text: str
    notes: tuple[str, ...] = ()
    is_body: bool = False


def to_postgres(source: Source, rules: Rules) -> list[Written]:
    """Translate one Oracle statement. `rules` finishes the AI SQL of one statement inside a block and gives its notes.

    Raises SQLSyntaxError if the statement cannot be read, FeatureNotSupported for what PostgreSQL has nothing for.
    """
    if _is_block(source) and not is_one_call(source):
        return [Written(*translate_block(source, rules), is_body=True)]
    return [Written(text) for text in _statement(source)]


def _is_block(source: Source) -> bool:
    if source.key(0) == "DECLARE":
        return source.key(2) != "CURSOR"
    begins = source.key(0) == "BEGIN" and len(source.tokens) > 1
    return begins and source.key(1) not in ("TRANSACTION", "WORK", "ISOLATION")


def _statement(source: Source) -> list[str]:
    first, everything = source.key(0), Span(0, len(source.tokens))
    if first in ("EXECUTE", "EXEC", "CALL"):
        return [procedure_call(source, Span(1, everything.end))]
    if _is_block(source):
        return [procedure_call(source, Span(1, source.split(everything, ";")[0].end))]
    return translate_object_statement(source) or [_plain(source, everything)]


def _plain(source: Source, everything: Span) -> str:
    """A statement that is one in PostgreSQL as well."""
    first = source.key(0)
    if first == "ALTER" and source.key(1) == "TABLE":
        return _alter_table(source)
    if first == "DROP":
        return _drop(source)
    if first == "EXPLAIN":
        return _explain(source, everything)
    if _is_about_index(source):
        return source.text[slice(*source.offsets(everything))]
    if first not in _PARSED:
        return source.text[slice(*source.offsets(everything))]
    return translate_span(source, everything)


def _is_about_index(source: Source) -> bool:
    """Tell CREATE VECTOR INDEX and ALTER INDEX, which a rule writes as calls."""
    start = source.shape(Span(0, min(3, len(source.tokens))))
    return start == ("CREATE", "VECTOR", "INDEX") or start[:2] == ("ALTER", "INDEX")


def _explain(source: Source, everything: Span) -> str:
    """EXPLAIN of a statement that sqlglot reads; of any other as it is."""
    start = explained(source)
    if source.key(start) not in _PARSED:
        return source.text[slice(*source.offsets(everything))]
    text = translate_span(source, Span(start, everything.end))
    return f"{source.text[slice(*source.offsets(Span(0, start)))]} {text}"


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
        return translate_span(source, Span(0, len(source.tokens)))
    opening = "CREATE TABLE __pythia_t ("
    text = translate_span(source, source.inside(add + 1), before=opening, behind=")")
    inner = text.removeprefix(opening)[:-1]
    written = Source(inner, significant(scan(inner)))
    columns = written.split(written.inside(-1), ",")
    added = ", ".join("ADD " + inner[slice(*written.offsets(column))] for column in columns)
    return source.text[slice(*source.offsets(Span(0, add)))] + " " + added
