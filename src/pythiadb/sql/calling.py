"""Writing scoring calls: the function that scores one row, and the texts that batches are made of."""

from __future__ import annotations

from dataclasses import replace

from pythiadb.errors import FeatureNotSupported
from pythiadb.sql.calls import is_literal
from pythiadb.sql.rewrite import Model, Rewrite
from pythiadb.sql.scoring import Attribute, Scoring, literal
from pythiadb.sql.source import Source, Span

_PAIRS = 50  # of names and values in one jsonb_build_object: PostgreSQL's functions take 100 arguments


def model_of(rewrite: Rewrite, call: Scoring) -> Model | None:
    """What the catalog says of a call's model."""
    return rewrite.catalog.model(call.shown)


def result_type(rewrite: Rewrite, call: Scoring) -> str:
    """The SQL type of one answer; a set's elements are counted by this type."""
    if call.operator.result:
        return call.operator.result
    model = model_of(rewrite, call)
    return model.result if model else call.operator.default


def takes_blob(rewrite: Rewrite, call: Scoring) -> bool:
    """Tell whether the model's only attribute is a byte string: an image."""
    model = model_of(rewrite, call)
    return model is not None and list(model.attributes.values()) == ["blob"]


def is_text_embedding(rewrite: Rewrite, call: Scoring) -> bool:
    """Tell whether a call travels as bare texts, without attribute names."""
    return call.is_embedding and not takes_blob(rewrite, call)


def single(rewrite: Rewrite, call: Scoring, *, immutable: bool = False) -> str:
    """The expression that scores one row."""
    suffix = "_immutable" if immutable else ""
    if call.is_embedding:
        name = embedding_attribute(rewrite, call)
        attribute = f", {literal(name)}" if name else ""
        value = _embedding_value(rewrite, call)
        return f"pythia.vector_embedding{suffix}({call.model}::regclass, {value}{attribute})"
    text = function_call(rewrite, call)
    if not call.operator.is_set:
        return text
    return f"(SELECT jsonb_agg(to_jsonb(__pythia_s)) AS {call.operator.name} FROM {text} AS __pythia_s)"


def function_call(rewrite: Rewrite, call: Scoring) -> str:
    """The call of the function behind an operator other than VECTOR_EMBEDDING."""
    arguments = [f"{call.model}::regclass", attributes_object(rewrite, call)]
    result = result_type(rewrite, call)
    if result in (call.operator.result, call.operator.default):
        arguments += _arguments(rewrite, call)
    else:
        arguments += [*_arguments(rewrite, call, whole=True), f"NULL::{result}"]
    return f"pythia.{call.operator.name}({', '.join(arguments)})"


def attributes_object(rewrite: Rewrite, call: Scoring) -> str:
    """The attributes of a row as one jsonb value."""
    pieces: list[str] = []
    pairs: list[str] = []
    for attribute in call.attributes:
        if not attribute.star:
            pairs.append(_pair(rewrite, call, attribute))
            continue
        pieces += [*_objects(pairs), *(f"to_jsonb({whole})" for whole in attribute.whole)]
        pairs = []
    return " || ".join([*pieces, *_objects(pairs)])


def attribute_value(rewrite: Rewrite, attribute: Attribute) -> str:
    """The value of an attribute; PostgreSQL does not know the type of a bare literal or parameter."""
    text = rewrite.text(attribute.value)
    return (
        f"{text}::text" if is_literal(rewrite.source, _unwrapped(rewrite.source, attribute.value)) else text
    )


def arguments_array(rewrite: Rewrite, call: Scoring) -> str:
    """The arguments as scoring_batch takes them: a jsonb array with NULL for what was left out."""
    written = _arguments(rewrite, call, whole=True)
    if not call.arguments:
        return f"'[{', '.join('null' for _ in written)}]'"
    return f"jsonb_build_array({', '.join(written)})"


def key_text(rewrite: Rewrite, call: Scoring) -> str:
    """The input of a row as it is compared: as text, byte by byte."""
    if is_text_embedding(rewrite, call):
        return f'pythia.text_input({_embedding_value(rewrite, call)}) COLLATE "C"'
    return f'({attributes_object(rewrite, call)})::text COLLATE "C"'


def batch_size(rewrite: Rewrite, call: Scoring) -> int:
    """How many inputs travel in one engine call: enough to fill a matrix product, few enough to answer soon."""
    model = model_of(rewrite, call)
    kinds = set(model.attributes.values()) if model else set()
    if "blob" in kinds:
        return 16
    return 4096 if kinds == {"number"} else 256


def typed(rewrite: Rewrite, call: Scoring, output: str) -> str:
    """An output of a batch, which is text except for embeddings of texts, in the type of the answer."""
    if is_text_embedding(rewrite, call):
        return output
    return f"{output}::{'jsonb' if call.operator.is_set else result_type(rewrite, call)}"


def resolve_stars(call: Scoring, tables: list[str] | None, source: Source) -> Scoring:
    """Name the tables that a bare `*` stands for.

    Raises FeatureNotSupported where they cannot be named, which a model with one attribute does not need.
    """
    if call.is_embedding or not any(attribute.star and not attribute.whole for attribute in call.attributes):
        return call
    if not tables:
        raise FeatureNotSupported(
            f"USING * of {call.operator.name} needs tables with names",
            detail=source.where(call.input.start),
            hint="Give every item of the FROM clause a name, or name the attributes.",
        )
    whole = tuple(f"{table}.*" for table in tables)
    attributes = tuple(
        replace(attribute, whole=attribute.whole or whole) if attribute.star else attribute
        for attribute in call.attributes
    )
    return replace(call, attributes=attributes)


def embedding_attribute(rewrite: Rewrite, call: Scoring) -> str:
    """The attribute of an embedding's input: as it is written, else the model's only one; empty for DATA, the default."""
    name = call.attributes[0].name
    model = None if name else model_of(rewrite, call)
    if model is not None and len(model.attributes) == 1:
        name = next(iter(model.attributes))
    return "" if name.upper() == "DATA" else name


def _embedding_value(rewrite: Rewrite, call: Scoring) -> str:
    attribute = call.attributes[0]
    if attribute.star:
        column = embedding_attribute(rewrite, call).lower() or "data"
        return rewrite.text(Span(call.input.start, call.input.end - 1)) + column
    text = rewrite.text(attribute.value)
    kind = "bytea" if takes_blob(rewrite, call) else "text"
    return f"{text}::{kind}" if is_literal(rewrite.source, attribute.value) else text


def _objects(pairs: list[str]) -> list[str]:
    chunks = [pairs[start : start + _PAIRS] for start in range(0, len(pairs), _PAIRS)]
    return [f"jsonb_build_object({', '.join(chunk)})" for chunk in chunks]


def _pair(rewrite: Rewrite, call: Scoring, attribute: Attribute) -> str:
    if takes_blob(rewrite, call):  # as text, whatever bytea_output says
        name = attribute.name or embedding_attribute(rewrite, call) or "DATA"
        return f"{literal(name)}, '\\x' || encode({_embedding_or_value(rewrite, call, attribute)}, 'hex')"
    return f"{literal(attribute.name)}, {attribute_value(rewrite, attribute)}"


def _embedding_or_value(rewrite: Rewrite, call: Scoring, attribute: Attribute) -> str:
    if call.is_embedding:
        return _embedding_value(rewrite, call)
    text = rewrite.text(attribute.value)
    return (
        f"{text}::bytea" if is_literal(rewrite.source, _unwrapped(rewrite.source, attribute.value)) else text
    )


def _unwrapped(source: Source, span: Span) -> Span:
    """Without the parentheses around the whole of it."""
    while source.is_open(span.start) and source.partner[span.start] == span.end - 1:
        span = Span(span.start + 1, span.end - 1)
    return span


def _arguments(rewrite: Rewrite, call: Scoring, *, whole: bool = False) -> list[str]:
    """The arguments with their types; those left out as NULL if `whole`."""
    kinds = call.operator.arguments
    written = [f"({rewrite.text(span)})::{kind}" for span, kind in zip(call.arguments, kinds, strict=False)]
    left_out = kinds[len(written) :] if whole else ()
    return [*written, *(f"NULL::{kind}" for kind in left_out)]
