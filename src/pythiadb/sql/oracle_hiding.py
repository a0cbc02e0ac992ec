"""Oracle SQL through sqlglot: what sqlglot does not know is hidden behind plain names, and put back afterwards.

A statement passes in four steps: the rules that need no context run on the Oracle text; scoring calls, binds, vector
operators and a few functions are hidden; sqlglot reads Oracle and writes PostgreSQL, with the repairs of `oracle_tree`;
what was hidden comes back.
"""

from __future__ import annotations

import logging
import re
from contextvars import ContextVar
from dataclasses import dataclass, field

import sqlglot
from sqlglot.errors import SqlglotError

from pythiadb.errors import SQLSyntaxError
from pythiadb.sql.blocks import block_at
from pythiadb.sql.calls import METERED
from pythiadb.sql.edits import Edits
from pythiadb.sql.fetch_clause import find_fetches
from pythiadb.sql.oracle_tree import repair
from pythiadb.sql.rewrite import NO_CATALOG, Rewrite
from pythiadb.sql.rules import LOCAL_RULES
from pythiadb.sql.rules.fetch import drop_words
from pythiadb.sql.scan import Kind, plain_literal, scan, significant, words
from pythiadb.sql.scoring import Scoring, find_scorings
from pythiadb.sql.source import Source, Span

# sqlglot knows these by other rules than PostgreSQL, pgvector or Pythia.
_VERBATIM = words(
    "COSINE_DISTANCE HAMMING_DISTANCE INNER_PRODUCT JACCARD_DISTANCE L1_DISTANCE L2_DISTANCE L2_NORMALIZE SUBVECTOR "
    "BINARY_QUANTIZE VECTOR_EMBEDDING TO_CHAR TO_NUMBER TO_TIMESTAMP SUBSTR REGEXP_COUNT REGEXP_INSTR REGEXP_LIKE "
    "REGEXP_REPLACE REGEXP_SUBSTR"
)
_HIDDEN_FUNCTIONS = {
    "JSON": "__pythia_json",
    "TO_DATE": "__pythia_to_date",
    "ADD_MONTHS": "__pythia_add_months",
}
_PLAIN_NAMES = ("TOP",)  # a name like any other in Oracle
# Oracle has no operators of these names, sqlglot passes them on, and they bind as pgvector's do in PostgreSQL.
_OPERATORS = {"<=>": "<<", "<->": ">>", "<#>": "&", "<+>": "|"}
_SHOWN_OPERATORS = {hidden: shown for shown, hidden in _OPERATORS.items()}
_HIDDEN = re.compile(r"__pythia_(bind|fn|ai|name|fetch)_(\d+)")
_STAR = "__pythia_star"
_PARSING: ContextVar[bool] = ContextVar("pythia_parsing", default=False)
logging.getLogger("sqlglot").addFilter(lambda _: not _PARSING.get())


def translate_span(
    source: Source, span: Span, *, before: str = "", behind: str = "", without: Span | None = None
) -> str:
    """Translate some tokens, put between two texts that make them a statement; tokens of `without` are left out.

    Raises SQLSyntaxError if the text cannot be read as Oracle SQL.
    """
    rewrite = Rewrite(source, Edits(source.text), NO_CATALOG)
    for rule in LOCAL_RULES:
        rule(rewrite)
    hidden = _Hidden()
    _hide_scorings(rewrite, hidden)
    _give_operands_types(rewrite)
    _drop_storage_words(rewrite)
    _hide_tokens(rewrite, hidden)
    _hide_fetches(rewrite, hidden)
    if without is not None:
        rewrite.replace(without, "")
    text = rewrite.text(span)
    if source.key(0) == "DELETE" and source.key(1) != "FROM":
        text = "DELETE FROM" + text[len("DELETE") :]
    bare = "".join(" " if token.kind is Kind.COMMENT else token.text for token in scan(text))
    return _show(_transpile(source, before + bare + behind), hidden)


@dataclass(slots=True)
class _Hidden:
    """What stands behind the plain names: texts and calls by their number."""

    texts: list[str] = field(default_factory=list)
    calls: dict[int, Scoring] = field(default_factory=dict)
    fetches: dict[int, tuple[str, str, str]] = field(default_factory=dict)  # mode, accuracy, hints by count

    def hide(self, kind: str, text: str) -> str:
        self.texts.append(text)
        return f"__pythia_{kind}_{len(self.texts) - 1}"


def _parse(text: str) -> sqlglot.Expr:
    """Read Oracle SQL; sqlglot's log is not to tell of the names that stand in this text."""
    token = _PARSING.set(True)
    try:
        return sqlglot.parse_one(text, read="oracle")
    finally:
        _PARSING.reset(token)


def _transpile(source: Source, text: str) -> str:
    try:
        tree = _parse(text)
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


def _hide_scorings(rewrite: Rewrite, hidden: _Hidden) -> None:
    """`PREDICTION(m, 'a' USING x AS y)` becomes `__pythia_ai_0('a', x)`; TABLE( ) around a set is dropped."""
    source = rewrite.source
    for call in find_scorings(source):
        name = hidden.hide("ai", call.shown) + "("
        hidden.calls[len(hidden.texts) - 1] = call
        using = call.input.start - 1
        if call.arguments:
            rewrite.replace(Span(call.name, call.arguments[0].start), name)
            rewrite.replace(Span(using, using + 1), ",")
        else:
            rewrite.replace(Span(call.name, using + 1), name)
        for attribute in call.attributes:
            if attribute.star:
                rewrite.replace(Span(attribute.value.end - 1, attribute.value.end), _STAR)
            elif source.key(attribute.value.end) == "AS":
                rewrite.replace(Span(attribute.value.end, attribute.value.end + 2), "")
        start, end = call.span
        wrapped = source.key(start - 2) == "TABLE" and source.partner.get(start - 1) == end
        if call.operator.is_set and wrapped:
            rewrite.edits.replace(source.at(start - 2).start, source.at(start - 1).end, "")
            rewrite.replace(Span(end, end + 1), "")


def _hide_fetches(rewrite: Rewrite, hidden: _Hidden) -> None:
    """`FETCH APPROX FIRST 10 ROWS ONLY WITH TARGET ACCURACY 90` becomes `FETCH FIRST __pythia_fetch_0 ROWS ONLY`."""
    source = rewrite.source
    for fetch in find_fetches(source):
        drop_words(rewrite, fetch)
        if not fetch.mode:
            continue
        name = hidden.hide("fetch", _raw(source, fetch.count) or "1")
        hints = " ".join(hint.text for hint in fetch.hints)
        hidden.fetches[len(hidden.texts) - 1] = (fetch.mode, _raw(source, fetch.accuracy), hints)
        if fetch.count.start < fetch.count.end:
            rewrite.replace(fetch.count, name)
        else:
            rewrite.after(fetch.first, f" {name}")


def _raw(source: Source, span: Span) -> str:
    return source.text[slice(*source.offsets(span))] if span.start < span.end else ""


def _hide_tokens(rewrite: Rewrite, hidden: _Hidden) -> None:
    source = rewrite.source
    for index, token in enumerate(source.tokens):
        here = Span(index, index + 1)
        called = token.kind is Kind.WORD and source.is_open(index + 1) and source.key(index - 1) != "."
        if token.kind in (Kind.BIND, Kind.PLACEHOLDER):
            rewrite.replace(here, hidden.hide("bind", token.text))
        elif token.kind is Kind.STRING and (plain := plain_literal(token.text)) != token.text:
            rewrite.replace(here, plain)
        elif token.kind is Kind.OPERATOR and token.text in _OPERATORS:
            rewrite.replace(here, _OPERATORS[token.text])
        elif token.kind is Kind.WORD and token.key in _PLAIN_NAMES:
            rewrite.replace(here, hidden.hide("name", token.text))
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
        elif token.text == _STAR:
            edits.replace(token.start, token.end, "*")
        elif match and match[1] == "ai":
            _show_scoring(source, edits, index, hidden.calls[int(match[2])])
        elif match and match[1] == "fetch":
            mode, accuracy, hints = hidden.fetches[int(match[2])]
            edits.insert(source.at(index - 1).start, f"{mode} ")
            edits.replace(token.start, token.end, hidden.texts[int(match[2])])
            end = index + 2 + (source.key(index + 2) == "WITH")  # ROWS ONLY, ROWS WITH TIES
            edits.insert(source.at(end).end, f" {accuracy}" if accuracy else "")
            if hints and (block := block_at(source, index)):
                edits.insert(source.at(block.span.start).end, f" /*+ {hints} */")
        elif match:
            edits.replace(token.start, token.end, hidden.texts[int(match[2])])
    for bracket in _generated(source):
        edits.insert(source.at(source.partner[bracket]).end, " STORED")
    return edits.render()


def _show_scoring(source: Source, edits: Edits, index: int, call: Scoring) -> None:
    """Write a hidden call again, its model and the names of its attributes between what sqlglot made of the values."""
    values = source.split(source.inside(index + 1), ",")
    count = len(call.arguments)
    opening = f"{call.operator.name.upper()}({call.shown}{', ' if count else ' USING '}"
    edits.replace(source.at(index).start, source.at(index + 1).end, opening)
    if count:
        comma = source.at(values[count].start - 1)
        edits.replace(comma.start, comma.end, " USING")
    for value, attribute in zip(values[count:], call.attributes, strict=True):
        if attribute.name:
            written = attribute.name.replace('"', '""')
            edits.insert(source.at(value.end - 1).end, f' AS "{written}"')
