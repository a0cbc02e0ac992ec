"""Sequence classification from weights: the heads that Hugging Face puts on BERT, RoBERTa and DistilBERT.

- BERT: the pooler (dense, tanh) on the first token, then `classifier`.
- RoBERTa, XLM-RoBERTa, CamemBERT: `classifier.dense`, tanh, `classifier.out_proj` on the first token.
- DistilBERT: `pre_classifier`, relu, `classifier` on the first token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from pythiadb.errors import InvalidModel
from pythiadb.models.bert import INPUTS, TYPES, add_encoder, uses_types
from pythiadb.models.blocks import Blocks
from pythiadb.models.building import GraphBuilder, token_model
from pythiadb.models.families import Encoder
from pythiadb.models.weights import Weights

LOGITS = "logits"
PROBABILITIES = "probabilities"
ARCHITECTURE = "ForSequenceClassification"


@dataclass(frozen=True, slots=True)
class Task:
    """What a sequence classifier answers: one logit (`labels` None) or a score for each label.

    `independent` labels may be true together: their scores are sigmoids instead of a softmax.
    """

    labels: tuple[str, ...] | None
    independent: bool = False

    @property
    def scores(self) -> int:
        """Return the number of logits."""
        return 1 if self.labels is None else len(self.labels)

    @property
    def output(self) -> str:
        """Return the name of the graph's output."""
        return PROBABILITIES if self.independent else LOGITS


def is_classifier(config: Mapping[str, Any]) -> bool:
    """Tell whether config.json names a sequence classifier."""
    names = config.get("architectures")
    return isinstance(names, list) and any(str(name).endswith(ARCHITECTURE) for name in names)


def read_task(config: Mapping[str, Any]) -> Task:
    """Read labels and kind out of config.json; raise InvalidModel when `id2label` does not count from 0."""
    labels = read_labels(config)
    if labels is None:
        count = config.get("num_labels", 2)
        labels = tuple(f"LABEL_{number}" for number in range(count if isinstance(count, int) else 2))
    if len(labels) == 1:
        return Task(None)
    return Task(labels, independent=config.get("problem_type") == "multi_label_classification")


def read_labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the labels of `id2label` in the order of the scores, None when there are none."""
    found = config.get("id2label")
    if not isinstance(found, Mapping) or not found:
        return None
    try:
        by_number = {int(number): str(label) for number, label in found.items()}
        return tuple(by_number[number] for number in range(len(by_number)))
    except (ValueError, KeyError) as error:
        raise InvalidModel('"id2label" in config.json does not number its labels from 0') from error


def build_classifier(
    encoder: Encoder, weights: Weights, task: Task, max_tokens: int
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return the graph from tokens to float32 [batch, scores], and its inputs.

    Raise InvalidModel when a weight is missing or has another shape than the configuration says.
    """
    graph = GraphBuilder()
    types = uses_types(encoder, weights)
    inputs = (*INPUTS, TYPES) if types else INPUTS
    tokens = add_encoder(graph, encoder, weights, max_tokens, types=types)
    first = graph.node("Gather", tokens, graph.integer(0), axis=1)
    blocks = Blocks(graph, weights, "", encoder.epsilon)
    hidden, scores = encoder.hidden, task.scores
    dense, activation, last = encoder.names.head
    middle = graph.node(activation, blocks.linear(first, dense, hidden, hidden))
    logits = blocks.linear(middle, last, hidden, scores)
    graph.node("Sigmoid" if task.independent else "Identity", logits, output=task.output)
    return token_model(graph, "classifier", inputs, task.output, scores), inputs
