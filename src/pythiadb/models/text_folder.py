"""A package from a folder with an encoder of texts: embeddings, or classes and scores of texts and pairs of texts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pythiadb.errors import FeatureNotSupported, InvalidModel, InvalidParameter
from pythiadb.models.bert import INPUTS, OUTPUT, WORDS, build_encoder
from pythiadb.models.building import save_model
from pythiadb.models.families import Encoder, read_encoder
from pythiadb.models.heads import Task, build_classifier, is_classifier, read_task
from pythiadb.models.package import GRAPH, TOKENIZER, Input, Package, Spec
from pythiadb.models.pooling import Pooling, read_json, read_pooling
from pythiadb.models.ready import TOKEN_SOURCES, Ready, ready_classifier, ready_encoder
from pythiadb.models.source import Source, text_attributes
from pythiadb.models.tokenizing import Tokenizer
from pythiadb.models.vocabulary import tokenizer_file
from pythiadb.models.weights import has_weights, open_weights

_DEFAULT_TOKENS = 512  # where a ready graph comes without any configuration
_SCORED = ("classification", "regression")


def text_package(source: Source) -> Package:
    """Return the package of an encoder folder. Weights (`model.safetensors`) are preferred to a ready graph.

    Raise InvalidModel for a folder that is incomplete or malformed, FeatureNotSupported for an architecture, pooling or function
    that is not served, InvalidParameter for metadata that do not fit.
    """
    function = source.function
    if function in _SCORED or (function is None and is_classifier(source.config)):
        return _scoring(source)
    if function not in (None, "embedding"):
        raise FeatureNotSupported(f'function "{function}" cannot be made out of an encoder folder')
    return _embedding(source)


def _embedding(source: Source) -> Package:
    pooling = read_pooling(source.folder, source.given.get("pooling"))
    prefix = find_prefix(source, pooling)
    text = _Text.of(source, pairs=False)
    if has_weights(source.folder):
        encoder = text.encoder()
        with open_weights(source.folder, encoder.prefixes) as weights:
            model = build_encoder(encoder, weights, pooling, text.limit)
        text.check_vocabulary(model)
        made = Ready(
            save_model(model, source.work / GRAPH),
            INPUTS,
            OUTPUT,
            pooling.dimensions(encoder.hidden),
            pooling,
        )
    else:
        made = ready_encoder(source, pooling)
    spec = Spec(
        function="embedding",
        inputs=text.inputs(made.inputs, source.attributes(("DATA",), 1)),
        outputs={"embedding": made.output},
        attributes=text_attributes(source.attributes(("DATA",), 1)),
        result="vector",
        tokenizer=TOKENIZER,
        max_tokens=text.limit,
        prefix=prefix,
        dimensions=made.width,
    )
    facts = _facts(spec, made.pooling)
    return source.package(spec, {**made.files, TOKENIZER: text.tokenizer}, facts)


def _scoring(source: Source) -> Package:
    task = _task(source)
    names = source.attributes(("DATA",) if task.labels else ("DATA1", "DATA2"), 2)
    text = _Text.of(source, pairs=len(names) == 2)
    if has_weights(source.folder):
        encoder = text.encoder()
        with open_weights(source.folder, encoder.prefixes) as weights:
            model, inputs = build_classifier(encoder, weights, task, text.limit)
        text.check_vocabulary(model)
        made = Ready(save_model(model, source.work / GRAPH), inputs, task.output, task.scores, None)
    else:
        made = ready_classifier(source, task)
    softmax = "none" if task.labels is None or task.independent else "softmax"
    labels = _labels(source, task)
    spec = Spec(
        function="classification" if labels else "regression",
        inputs=text.inputs(made.inputs, names),
        outputs={"probability" if labels else "regression": made.output},
        attributes=text_attributes(names),
        result=result_type(labels),
        tokenizer=TOKENIZER,
        max_tokens=text.limit,
        prefix=find_prefix(source, None),
        labels=labels,
        normalize_prob=source.given.get("normalizeProb", softmax),
    )
    return source.package(spec, {**made.files, TOKENIZER: text.tokenizer}, _facts(spec, None))


def _task(source: Source) -> Task:
    task = read_task(source.config)
    if source.function == "regression" and task.labels is not None:
        raise InvalidParameter(
            f"a model with {len(task.labels)} labels cannot be loaded as regression",
            hint='Load it with the function "classification".',
        )
    if source.function == "classification" and task.labels is None:
        raise InvalidParameter(
            "a model with a single score cannot be loaded as classification",
            hint='Load it with the function "regression".',
        )
    return task


def _labels(source: Source, task: Task) -> tuple[str | int | float, ...] | None:
    given = source.given.get("labels")
    if task.labels is None or not given:
        return task.labels
    if len(given) != task.scores:
        raise InvalidParameter(f"the metadata name {len(given)} labels, the model has {task.scores}")
    return tuple(given)


def result_type(labels: tuple[str | int | float, ...] | None) -> str:
    """Return the SQL type of a prediction: text labels, numbers, or the score of a regression."""
    if labels is None:
        return "double precision"
    return "text" if all(isinstance(label, str) for label in labels) else "numeric"


def find_prefix(source: Source, pooling: Pooling | None) -> str | None:
    """Return what is put before every text: the metadata's "prefix", the prompt asked for, or the folder's default prompt."""
    found = source.optional("config_sentence_transformers.json")
    prompts = found.get("prompts")
    prompts = prompts if isinstance(prompts, Mapping) else {}
    name = source.prompt if source.prompt is not None else found.get("default_prompt_name")
    if name is not None and name not in prompts:
        known = (
            f"The folder's prompts are {', '.join(map(str, prompts))}."
            if prompts
            else "The folder has no prompts."
        )
        raise InvalidParameter(f'prompt "{name}" does not exist', hint=known)
    prefix = source.given.get("prefix", prompts.get(name) if name is not None else None)
    if prefix is not None and not isinstance(prefix, str):
        raise InvalidParameter('metadata key "prefix" must be of JSON type string')
    if prefix and pooling is not None and not pooling.with_prompt:
        raise FeatureNotSupported("models that leave the prompt out of the pooling are not supported")
    return prefix or None


def _facts(spec: Spec, pooling: Pooling | None) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if pooling is not None:
        facts = {"pooling": "+".join(pooling.modes), "normalization": pooling.normalize}
        if pooling.assumed:
            facts["poolingAssumed"] = True
    if spec.prefix is not None:
        facts["prefix"] = spec.prefix
    return {**facts, "maxSequenceLength": spec.max_tokens}


@dataclass(frozen=True, slots=True)
class _Text:
    """The tokenizer file of a folder and the longest input in tokens."""

    source: Source
    tokenizer: Path
    limit: int
    pairs: bool

    @classmethod
    def of(cls, source: Source, *, pairs: bool) -> _Text:
        tokenizer = tokenizer_file(source)
        positions = _encoder(source).positions if has_weights(source.folder) else None
        limit = max_tokens(source, positions)
        Tokenizer(tokenizer, limit, pairs=pairs)  # checks that the limit leaves room
        return cls(source, tokenizer, limit, pairs)

    def encoder(self) -> Encoder:
        return _encoder(self.source)

    def check_vocabulary(self, model: Any) -> None:
        known = next(tensor.dims[0] for tensor in model.graph.initializer if tensor.name == WORDS)
        vocabulary = Tokenizer(self.tokenizer, self.limit).vocabulary_size
        if vocabulary > known:
            raise InvalidModel(f"tokenizer has {vocabulary} tokens, the model knows {known}")

    def inputs(self, tensors: tuple[str, ...], attributes: tuple[str, ...]) -> tuple[Input, ...]:
        return tuple(Input(tensor, TOKEN_SOURCES[tensor], attributes) for tensor in tensors)


def _encoder(source: Source) -> Encoder:
    return read_encoder(read_json(source.folder / "config.json"))


def max_tokens(source: Source, positions: int | None) -> int:
    """Return the longest input in tokens: what sentence-transformers says, else the tokenizer's limit, else the positions.

    The metadata's maxSequenceLength can make it shorter.
    """
    limits = [positions or _config_positions(source.config)]
    for name, key in (
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    ):
        if limit := _count(source.optional(name).get(key)):
            limits.append(limit)
            break
    return min([*limits, *source.longest()])


def _count(value: object) -> int | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value < math.inf:
        return int(value)
    return None


def _config_positions(config: Mapping[str, Any]) -> int:
    """Return the positions of a ready graph; it may come from a family that cannot be built from weights."""
    try:
        return read_encoder(config).positions
    except (FeatureNotSupported, InvalidModel):
        found = config.get("max_position_embeddings")
        return found if isinstance(found, int) and found > 0 else _DEFAULT_TOKENS
