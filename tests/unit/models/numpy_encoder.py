"""An encoder of the BERT kind in plain numpy and float64, written from the papers: the independent truth of the tests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_erf = np.vectorize(math.erf, otypes=[np.float64])

BERT_NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "n1": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "n2": "output.LayerNorm",
}
DISTILBERT_NAMES = {
    "q": "attention.q_lin",
    "k": "attention.k_lin",
    "v": "attention.v_lin",
    "o": "attention.out_lin",
    "n1": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "n2": "output_layer_norm",
}


class Arithmetic:
    """The layers that transformers have in common, in float64 over weights by name."""

    weights: dict[str, NDArray[Any]]
    epsilon: float

    def _linear(self, x: Array, name: str) -> Array:
        return x @ self._get(name + ".weight").T + self._get(name + ".bias")

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + self.epsilon)
        return scaled * self._get(name + ".weight") + self._get(name + ".bias")

    def _get(self, name: str) -> Array:
        return self.weights[name].astype(np.float64)


@dataclass
class Reference(Arithmetic):
    """Weights and sizes of one encoder; `token_vectors` runs one text without padding."""

    weights: dict[str, NDArray[Any]]
    layers: int
    heads: int
    epsilon: float = 1e-12
    first_position: int = 0
    layer_prefix: str = "encoder.layer."
    activation: str = "gelu"

    def token_vectors(self, ids: list[int], types: list[int] | None = None) -> Array:
        """Return [tokens, hidden] for token ids with special tokens; `types` tells the first text from the second."""
        get = self._get
        positions = np.arange(len(ids)) + self.first_position
        x = (
            get("embeddings.word_embeddings.weight")[ids]
            + get("embeddings.position_embeddings.weight")[positions]
        )
        if "embeddings.token_type_embeddings.weight" in self.weights:
            x = x + get("embeddings.token_type_embeddings.weight")[types or [0] * len(ids)]
        x = self._norm(x, "embeddings.LayerNorm")
        names = DISTILBERT_NAMES if self.layer_prefix.startswith("transformer") else BERT_NAMES
        for number in range(self.layers):
            x = self._layer(x, {key: f"{self.layer_prefix}{number}.{name}" for key, name in names.items()})
        return x

    def logits(self, head: str, ids: list[int], types: list[int] | None = None) -> Array:
        """Return the scores of a sequence classifier; `head` is "bert", "roberta" or "distilbert"."""
        first = self.token_vectors(ids, types)[:1]
        if head == "distilbert":
            middle = np.maximum(self._linear(first, "pre_classifier"), 0)
            return self._linear(middle, "classifier")[0]
        dense, last = {
            "bert": ("pooler.dense", "classifier"),
            "roberta": ("classifier.dense", "classifier.out_proj"),
        }[head]
        return self._linear(np.tanh(self._linear(first, dense)), last)[0]

    def _layer(self, x: Array, names: dict[str, str]) -> Array:
        size = x.shape[1] // self.heads
        q, k, v = (self._linear(x, names[key]) for key in "qkv")
        heads = []
        for head in range(self.heads):
            part = slice(head * size, (head + 1) * size)
            scores = q[:, part] @ k[:, part].T / math.sqrt(size)
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            heads.append(scores / scores.sum(axis=1, keepdims=True) @ v[:, part])
        x = self._norm(x + self._linear(np.concatenate(heads, axis=1), names["o"]), names["n1"])
        return self._norm(
            x + self._linear(self._act(self._linear(x, names["up"])), names["down"]), names["n2"]
        )

    def _act(self, x: Array) -> Array:
        if self.activation == "relu":
            return np.maximum(x, 0)
        if self.activation == "gelu":
            return np.asarray(x * 0.5 * (1 + _erf(x / math.sqrt(2))))
        return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


def unit(vector: Array) -> Array:
    """Return the vector scaled to length 1."""
    return np.asarray(vector / np.linalg.norm(vector))
