"""Build the ONNX graph of a BERT-like encoder from its weights.

In an embedding model token types do not appear as an input: a text alone is always type 0, so that row is added to the
positions beforehand. Models of two texts get the types as a third input.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto

from pythiadb.models.blocks import Blocks
from pythiadb.models.building import GraphBuilder, token_model
from pythiadb.models.families import Encoder
from pythiadb.models.pooling import Pooling, add_pooling
from pythiadb.models.weights import Weights

INPUTS = ("input_ids", "attention_mask")
TYPES = "token_type_ids"
OUTPUT = "embedding"
WORDS = "words"  # the weight with one row a token


def build_encoder(encoder: Encoder, weights: Weights, pooling: Pooling, max_tokens: int) -> onnx.ModelProto:
    """Return the graph from token ids and mask, int64 [batch, tokens ≤ max_tokens], to float32 [batch, dimensions].

    Raise InvalidModel when a weight is missing or has another shape than the configuration says.
    """
    graph = GraphBuilder()
    tokens = add_encoder(graph, encoder, weights, max_tokens)
    add_pooling(graph, tokens, INPUTS[1], pooling, OUTPUT)
    return token_model(graph, "encoder", INPUTS, OUTPUT, pooling.dimensions(encoder.hidden))


def add_encoder(
    graph: GraphBuilder, encoder: Encoder, weights: Weights, max_tokens: int, *, types: bool = False
) -> str:
    """Add the encoder and return its token vectors, float32 [batch, tokens, hidden]. `types` uses the third input."""
    ids, mask = INPUTS
    # Shape of token vectors; between the layers they are one matrix [batch * tokens, hidden].
    shape = graph.node("Concat", graph.node("Shape", ids), graph.integers(encoder.hidden), axis=0)
    short_mask = graph.node("Cast", mask, to=TensorProto.INT32)
    rows = _embeddings(graph, encoder, weights, max_tokens, types)
    for number in range(encoder.layers):
        rows = _add_layer(graph, encoder, weights, number, (rows, short_mask, shape))
    return graph.node("Reshape", rows, shape)


def uses_types(encoder: Encoder, weights: Weights) -> bool:
    """Tell whether the encoder tells a first text from a second one."""
    names = encoder.names
    return (
        names.token_type is not None
        and len(weights.get(names.token_type + ".weight", (0, encoder.hidden))) > 1
    )


def _embeddings(graph: GraphBuilder, encoder: Encoder, weights: Weights, max_tokens: int, types: bool) -> str:
    names, hidden = encoder.names, encoder.hidden
    words = graph.weight(WORDS, weights.get(names.word + ".weight", (0, hidden)))
    first = encoder.first_position
    table = weights.get(names.position + ".weight", (first + encoder.positions, hidden))
    table = table[first : first + max_tokens]
    kinds = weights.get(names.token_type + ".weight", (0, hidden)) if names.token_type else None
    if kinds is not None and not types:
        table = table + kinds[0]
    length = graph.node("Shape", INPUTS[0], start=1, end=2)
    positions = graph.node("Slice", graph.weight("positions", table), graph.integers(0), length)
    total = graph.node("Add", graph.node("Gather", words, INPUTS[0]), positions)
    if kinds is not None and types:
        total = graph.node("Add", total, graph.node("Gather", graph.weight("types", kinds), TYPES))
    normal = Blocks(graph, weights, "", encoder.epsilon).norm(total, names.embedding_norm, hidden)
    return graph.node("Reshape", normal, graph.integers(-1, hidden))


def _add_layer(
    graph: GraphBuilder, encoder: Encoder, weights: Weights, number: int, state: tuple[str, str, str]
) -> str:
    """Add attention and a feed-forward net, each added to its input and normalised; `state` is rows, mask, shape."""
    rows, mask, shape = state
    names, hidden, wide = encoder.names, encoder.hidden, encoder.intermediate
    blocks = Blocks(graph, weights, names.layer.format(number), encoder.epsilon)
    parts = (names.query, names.key, names.value)
    attended = blocks.attention(rows, parts, (hidden, encoder.heads), shape, mask=mask)
    projected = blocks.linear(attended, names.attention, hidden, hidden)
    rows = blocks.norm(graph.node("Add", projected, rows), names.attention_norm, hidden)
    up = blocks.activation(blocks.linear(rows, names.up, hidden, wide), encoder.activation)
    down = blocks.linear(up, names.down, wide, hidden)
    return blocks.norm(graph.node("Add", down, rows), names.output_norm, hidden)
