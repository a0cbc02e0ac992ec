"""Build the ONNX graph of a BERT-like encoder from its weights.

The operators were chosen by measurement: MiniLM, ONNX Runtime 1.31, a CPU with AVX-512, best of 6 to 12 runs. Against plain
operators, `com.microsoft.Attention` is 10 to 15 % faster with 2 threads from 64 tokens and 2 to 6 % with one at 256, and up to
4 % slower with one at 16. Sums and LayerNormalization kept apart are 7 to 13 % faster on one thread than SkipLayerNormalization.
Gemm on a [batch × tokens, hidden] matrix is up to 6 % faster on one thread than MatMul and Add.

Token types do not appear as an input: a text alone is always type 0, so that row is added to the positions beforehand.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from pythiadb.models.building import MICROSOFT, GraphBuilder, text_model
from pythiadb.models.families import Encoder
from pythiadb.models.pooling import Pooling, add_pooling
from pythiadb.models.weights import Weights

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "embedding"
WORDS = "words"  # the weight with one row a token


def build_encoder(encoder: Encoder, weights: Weights, pooling: Pooling, max_tokens: int) -> onnx.ModelProto:
    """Return the graph from token ids and mask, int64 [batch, tokens ≤ max_tokens], to float32 [batch, dimensions].

    Raise InvalidModel when a weight is missing or has another shape than the configuration says.
    """
    graph = GraphBuilder()
    ids, mask = INPUTS
    # Shape of token vectors, [batch, tokens, hidden]; between the layers they are one matrix [batch * tokens, hidden].
    shape = graph.node("Concat", graph.node("Shape", ids), graph.integers(encoder.hidden), axis=0)
    short_mask = graph.node("Cast", mask, to=TensorProto.INT32)
    rows = _embeddings(graph, encoder, weights, ids, max_tokens)
    for number in range(encoder.layers):
        rows = _Layer(graph, encoder, weights, number).add(rows, short_mask, shape)
    tokens = graph.node("Reshape", rows, shape)
    add_pooling(graph, tokens, mask, pooling, OUTPUT)
    return text_model(graph, "encoder", INPUTS, OUTPUT, pooling.dimensions(encoder.hidden))


def _embeddings(graph: GraphBuilder, encoder: Encoder, weights: Weights, ids: str, max_tokens: int) -> str:
    names, hidden = encoder.names, encoder.hidden
    words = graph.weight(WORDS, weights.get(names.word + ".weight", (0, hidden)))
    first = encoder.first_position
    table = weights.get(names.position + ".weight", (first + encoder.positions, hidden))
    table = table[first : first + max_tokens]
    if names.token_type:
        table = table + weights.get(names.token_type + ".weight", (0, hidden))[0]
    length = graph.node("Shape", ids, start=1, end=2)
    positions = graph.node("Slice", graph.weight("positions", table), graph.integers(0), length)
    total = graph.node("Add", graph.node("Gather", words, ids), positions)
    norm = names.embedding_norm
    scale, shift = (weights.get(f"{norm}.{part}", (hidden,)) for part in ("weight", "bias"))
    normal = graph.node(
        "LayerNormalization",
        total,
        graph.weight("embeddings.scale", scale),
        graph.weight("embeddings.shift", shift),
        axis=-1,
        epsilon=encoder.epsilon,
    )
    return graph.node("Reshape", normal, graph.integers(-1, hidden))


class _Layer:
    """One encoder layer: attention and a feed-forward net, each added to its input and normalised."""

    def __init__(self, graph: GraphBuilder, encoder: Encoder, weights: Weights, number: int) -> None:
        self.graph = graph
        self.encoder = encoder
        self.weights = weights
        self.prefix = encoder.names.layer.format(number)

    def add(self, rows: str, mask: str, shape: str) -> str:
        """Add the layer and return its output, a matrix of the shape of `rows`."""
        graph, names, sizes = self.graph, self.encoder.names, self.encoder
        attended = graph.node("Reshape", self._attention(rows, mask, shape), graph.integers(-1, sizes.hidden))
        projected = self._linear(attended, names.attention, sizes.hidden, sizes.hidden)
        rows = self._norm(graph.node("Add", projected, rows), names.attention_norm)
        wide = self._activation(self._linear(rows, names.up, sizes.hidden, sizes.intermediate))
        narrow = self._linear(wide, names.down, sizes.intermediate, sizes.hidden)
        return self._norm(graph.node("Add", narrow, rows), names.output_norm)

    def _get(self, name: str, *shape: int) -> NDArray[np.float32]:
        return self.weights.get(self.prefix + name, shape)

    def _attention(self, rows: str, mask: str, shape: str) -> str:
        names, hidden = self.encoder.names, self.encoder.hidden
        parts = (names.query, names.key, names.value)
        matrix = np.concatenate([self._get(f"{part}.weight", hidden, hidden).T for part in parts], axis=1)
        bias = np.concatenate([self._get(f"{part}.bias", hidden) for part in parts])
        return self.graph.node(
            "Attention",
            self.graph.node("Reshape", rows, shape),
            self.graph.weight(self.prefix + "qkv.weight", matrix),
            self.graph.weight(self.prefix + "qkv.bias", bias),
            mask,
            domain=MICROSOFT,
            num_heads=self.encoder.heads,
        )

    def _linear(self, rows: str, name: str, wide: int, high: int) -> str:
        matrix = self.graph.weight(f"{self.prefix}{name}.weight", self._get(f"{name}.weight", high, wide))
        bias = self.graph.weight(f"{self.prefix}{name}.bias", self._get(f"{name}.bias", high))
        return self.graph.node("Gemm", rows, matrix, bias, transB=1)

    def _norm(self, rows: str, name: str) -> str:
        hidden = self.encoder.hidden
        scale = self.graph.weight(f"{self.prefix}{name}.weight", self._get(f"{name}.weight", hidden))
        shift = self.graph.weight(f"{self.prefix}{name}.bias", self._get(f"{name}.bias", hidden))
        return self.graph.node(
            "LayerNormalization", rows, scale, shift, axis=-1, epsilon=self.encoder.epsilon
        )

    def _activation(self, rows: str) -> str:
        if self.encoder.activation == "relu":
            return self.graph.node("Relu", rows)
        if self.encoder.activation == "gelu":
            return self.graph.node("Gelu", rows)
        return self.graph.node("Gelu", rows, approximate="tanh")
