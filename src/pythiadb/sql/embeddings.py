"""Reading `VECTOR_EMBEDDING(model USING expression [AS alias])` and writing the function calls that stand for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pythiadb.errors import SQLSyntaxError
from pythiadb.sql.calls import Call, find_calls, is_literal
from pythiadb.sql.references import folded, is_column_free
from pythiadb.sql.rewrite import Rewrite
from pythiadb.sql.scan import Kind
from pythiadb.sql.source import Source, Span

_NAMES = (Kind.WORD, Kind.QUOTED)


@dataclass(frozen=True, slots=True)
class Embedding:
    """One call: the tokens of the whole of it, the model as a regclass literal, its input and its attribute."""

    span: Span
    model: str  # with its quotes, as a literal: 'app.minilm'
    shown: str  # the model as a note shows it
    input: Span
    star: bool  # USING * or USING t.*: the input is the column data
    alias: str  # a literal, empty for the default attribute
    model_name: Span  # the model's tokens

    @property
    def name(self) -> int:
        """The token that names the function."""
        return self.span.start

    def key(self, source: Source) -> tuple[object, ...]:
        """Equal for calls with the same model, attribute and input."""
        return (source.shape(self.model_name), self.alias, source.shape(self.input))

    def is_constant(self, source: Source) -> bool:
        """Tell whether the input names no column."""
        return not self.star and is_column_free(source, self.input)


def find_embeddings(source: Source) -> list[Embedding]:
    """Read the calls that have a USING part, in the order of the text; the plain function is left alone."""
    return list(_read_all(source))


def input_text(rewrite: Rewrite, call: Embedding) -> str:
    """The input as SQL, with the edits made in it so far."""
    if call.star:
        prefix = Span(call.input.start, call.input.end - 1)
        return rewrite.text(prefix) + "data"
    text = rewrite.text(call.input)
    return text + "::text" if is_literal(rewrite.source, call.input) else text


def single(rewrite: Rewrite, call: Embedding, *, function: str = "pythia.vector_embedding") -> str:
    """The function call that embeds one value."""
    alias = f", {call.alias}" if call.alias else ""
    return f"{function}({call.model}::regclass, {input_text(rewrite, call)}{alias})"


def _read_all(source: Source) -> Iterator[Embedding]:
    for call in find_calls(source, ("VECTOR_EMBEDDING",)):
        inside = Span(call.open + 1, call.close)
        using = next(
            (i for i in source.flat(inside) if source.key(i) == "USING" and source.key(i - 1) != "."), None
        )
        if using is not None:
            yield _read(source, call, using)


def _read(source: Source, call: Call, using: int) -> Embedding:
    model = Span(call.open + 1, using)
    _check_model(source, model)
    written, alias = _split_alias(source, Span(using + 1, call.close))
    if written.start >= written.end:
        raise _near(source, written.end)
    if len(source.split(written, ",")) > 1:
        raise SQLSyntaxError("an embedding model takes one attribute", detail=source.where(call.name))
    name = "".join(source.at(i).text for i in range(model.start, model.end))
    star = source.key(written.end - 1) == "*" and (
        written.end - written.start == 1 or source.key(written.end - 2) == "."
    )
    return Embedding(Span(call.name, call.close + 1), _literal(name), name, written, star, alias, model)


def _check_model(source: Source, span: Span) -> None:
    for index in range(span.start, max(span.end, span.start + 1)):
        fits = source.key(index) == "." if (index - span.start) % 2 else source.at(index).kind in _NAMES
        if not fits or index >= span.end:
            raise _near(source, index)
    if (span.end - span.start) % 2 == 0:
        raise _near(source, span.end)


def _split_alias(source: Source, span: Span) -> tuple[Span, str]:
    """Part an attribute from its alias; the alias is empty for none and for DATA, the default."""
    for index in source.flat(span):
        if source.key(index) != "AS" or index == span.start:
            continue
        if source.key(index + 2) == ",":
            raise SQLSyntaxError("an embedding model takes one attribute", detail=source.where(index + 2))
        if index + 2 != span.end or source.at(index + 1).kind not in _NAMES:
            raise _near(source, min(index + 2, span.end))
        written = source.at(index + 1)
        name = folded(source, index + 1) if written.kind is Kind.QUOTED else written.text
        return Span(span.start, index), "" if name.upper() == "DATA" else _literal(name)
    return span, ""


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _near(source: Source, index: int) -> SQLSyntaxError:
    return SQLSyntaxError(f'syntax error at or near "{source.at(index).text}"', detail=source.where(index))
