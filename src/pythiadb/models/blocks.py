"""The parts that all transformers share, as graph nodes: linear maps, normalisation, attention, activations.

The operators were chosen by measurement: MiniLM, ONNX Runtime 1.31, a CPU with AVX-512, best of 6 to 12 runs. Against plain
operators, `com.microsoft.Attention` is 10 to 15 % faster with 2 threads from 64 tokens and 2 to 6 % with one at 256, and up to
4 % slower with one at 16. Sums and LayerNormalization kept apart are 7 to 13 % faster on one thread than SkipLayerNormalization.
Gemm on a [batch × tokens, hidden] matrix is up to 6 % faster on one thread than MatMul and Add.
"""

from __future__ import annotations

import numpy as np

from pythiadb.models.building import MICROSOFT, GraphBuilder
from pythiadb.models.weights import Weights


class Blocks:
    """Adds nodes with weights named `prefix` + name. Rows are a matrix [batch * tokens, hidden]."""

    def __init__(self, graph: GraphBuilder, weights: Weights, prefix: str, epsilon: float) -> None:
        self.graph = graph
        self._weights = weights
        self._prefix = prefix
        self._epsilon = epsilon

    def linear(self, rows: str, name: str, wide: int, high: int) -> str:
        """Add rows · Wᵀ + b, from `wide` to `high` columns."""
        matrix = self._weight(f"{name}.weight", high, wide)
        return self.graph.node("Gemm", rows, matrix, self._weight(f"{name}.bias", high), transB=1)

    def projection(self, rows: str, name: str, wide: int, high: int) -> str:
        """Add rows · Wᵀ, from `wide` to `high` columns."""
        return self.graph.node("Gemm", rows, self._weight(f"{name}.weight", high, wide), transB=1)

    def norm(self, rows: str, name: str, hidden: int) -> str:
        """Add a LayerNormalization of the last dimension."""
        scale, shift = (self._weight(f"{name}.{part}", hidden) for part in ("weight", "bias"))
        return self.graph.node("LayerNormalization", rows, scale, shift, axis=-1, epsilon=self._epsilon)

    def attention(
        self,
        rows: str,
        names: tuple[str, str, str],
        sizes: tuple[int, int],
        shape: str,
        *,
        mask: str = "",
        causal: bool = False,
    ) -> str:
        """Add self-attention with the maps `names` (query, key, value) and `sizes` (hidden, heads), without the output map.

        `shape` names the tensor [batch, tokens, hidden]; `mask` an int32 [batch, tokens], or nothing when no row is padded.
        """
        hidden, heads = sizes
        get, graph, prefix = self._weights.get, self.graph, self._prefix
        matrix = np.concatenate([get(f"{prefix}{n}.weight", (hidden, hidden)).T for n in names], axis=1)
        bias = np.concatenate([get(f"{prefix}{n}.bias", (hidden,)) for n in names])
        inputs = [
            graph.node("Reshape", rows, shape),
            graph.weight(f"{prefix}qkv.weight", matrix),
            graph.weight(f"{prefix}qkv.bias", bias),
        ]
        attended = graph.node(
            "Attention",
            *inputs,
            *([mask] if mask else []),
            domain=MICROSOFT,
            num_heads=heads,
            unidirectional=int(causal),
        )
        return graph.node("Reshape", attended, graph.integers(-1, hidden))

    def activation(self, rows: str, kind: str) -> str:
        """Add an activation of ACTIVATIONS."""
        if kind == "relu":
            return self.graph.node("Relu", rows)
        if kind == "quick_gelu":
            return self.graph.node("QuickGelu", rows, domain=MICROSOFT, alpha=1.702)
        if kind == "gelu":
            return self.graph.node("Gelu", rows)
        return self.graph.node("Gelu", rows, approximate="tanh")

    def _weight(self, name: str, *shape: int) -> str:
        name = self._prefix + name
        return self.graph.weight(name, self._weights.get(name, shape))
