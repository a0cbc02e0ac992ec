"""CLIP's two towers in plain numpy and float64, written from the paper, with random weights by the names of a checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from numpy_encoder import Arithmetic, unit

Array = NDArray[np.float64]
SPACE = 10  # dimensions of the common space
SIDE, PATCH = 16, 4


@dataclass
class Sizes:
    """The sizes of one tower."""

    hidden: int
    wide: int
    layers: int
    heads: int
    activation: str = "quick_gelu"


TEXT = Sizes(hidden=12, wide=20, layers=2, heads=3)
VISION = Sizes(hidden=16, wide=24, layers=2, heads=4, activation="gelu")
POSITIONS = 14


def clip_config(end: int, **changes: Any) -> dict[str, Any]:
    """Return a config.json; `end` is the token that ends a text."""
    parts = {
        f"{name}_config": {
            "hidden_size": sizes.hidden,
            "intermediate_size": sizes.wide,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "hidden_act": sizes.activation,
        }
        for name, sizes in (("text", TEXT), ("vision", VISION))
    }
    parts["text_config"] |= {"max_position_embeddings": POSITIONS, "eos_token_id": end}
    parts["vision_config"] |= {"image_size": SIDE, "patch_size": PATCH}
    return {"model_type": "clip", "projection_dim": SPACE, **parts} | changes


def clip_weights(vocabulary: int, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Return random weights of both towers."""
    rng = np.random.default_rng(seed)
    patches = (SIDE // PATCH) ** 2
    shapes: dict[str, tuple[int, ...]] = {
        "text_model.embeddings.token_embedding.weight": (vocabulary, TEXT.hidden),
        "text_model.embeddings.position_embedding.weight": (POSITIONS, TEXT.hidden),
        "vision_model.embeddings.class_embedding": (VISION.hidden,),
        "vision_model.embeddings.patch_embedding.weight": (VISION.hidden, 3, PATCH, PATCH),
        "vision_model.embeddings.position_embedding.weight": (patches + 1, VISION.hidden),
        "text_projection.weight": (SPACE, TEXT.hidden),
        "visual_projection.weight": (SPACE, VISION.hidden),
    }
    for prefix, sizes in (("text_model", TEXT), ("vision_model", VISION)):
        for layer in range(sizes.layers):
            name = f"{prefix}.encoder.layers.{layer}."
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                shapes |= _linear(f"{name}self_attn.{part}", sizes.hidden, sizes.hidden)
            shapes |= _linear(f"{name}mlp.fc1", sizes.wide, sizes.hidden)
            shapes |= _linear(f"{name}mlp.fc2", sizes.hidden, sizes.wide)
            shapes |= _norm(f"{name}layer_norm1", sizes) | _norm(f"{name}layer_norm2", sizes)
    shapes |= _norm("text_model.final_layer_norm", TEXT)
    shapes |= _norm("vision_model.pre_layrnorm", VISION) | _norm("vision_model.post_layernorm", VISION)
    return {name: rng.normal(scale=0.5, size=shape).astype(np.float32) for name, shape in shapes.items()}


def _linear(name: str, high: int, wide: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (high, wide), f"{name}.bias": (high,)}


def _norm(name: str, sizes: Sizes) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (sizes.hidden,), f"{name}.bias": (sizes.hidden,)}


@dataclass
class Clip(Arithmetic):
    """Both towers; each gives one vector of length 1 for one input without padding."""

    weights: dict[str, NDArray[Any]]
    epsilon: float = 1e-5
    _erf: Any = field(default=np.vectorize(math.erf, otypes=[np.float64]))

    def text(self, ids: list[int], end: int) -> Array:
        """Embed a text; `end` is the token whose first place is taken."""
        names = "text_model.embeddings."
        x = self._get(names + "token_embedding.weight")[ids]
        x = x + self._get(names + "position_embedding.weight")[: len(ids)]
        x = self._layers(x, "text_model", TEXT, causal=True)
        last = self._norm(x, "text_model.final_layer_norm")[ids.index(end)]
        return unit(self._get("text_projection.weight") @ last)

    def image(self, pixels: NDArray[Any]) -> Array:
        """Embed pixels [3, side, side]."""
        kernel = self._get("vision_model.embeddings.patch_embedding.weight")
        rows = [self._get("vision_model.embeddings.class_embedding")]
        for y in range(0, SIDE, PATCH):
            for x in range(0, SIDE, PATCH):
                patch = pixels[:, y : y + PATCH, x : x + PATCH].astype(np.float64)
                rows.append((kernel * patch).sum(axis=(1, 2, 3)))
        tokens = np.stack(rows) + self._get("vision_model.embeddings.position_embedding.weight")
        tokens = self._norm(tokens, "vision_model.pre_layrnorm")
        tokens = self._layers(tokens, "vision_model", VISION, causal=False)
        first = self._norm(tokens[:1], "vision_model.post_layernorm")[0]
        return unit(self._get("visual_projection.weight") @ first)

    def _layers(self, x: Array, prefix: str, sizes: Sizes, *, causal: bool) -> Array:
        for layer in range(sizes.layers):
            name = f"{prefix}.encoder.layers.{layer}."
            x = x + self._attention(self._norm(x, name + "layer_norm1"), name + "self_attn.", sizes, causal)
            up = self._linear(self._norm(x, name + "layer_norm2"), name + "mlp.fc1")
            x = x + self._linear(self._act(up, sizes.activation), name + "mlp.fc2")
        return x

    def _attention(self, x: Array, name: str, sizes: Sizes, causal: bool) -> Array:
        q, k, v = (self._linear(x, f"{name}{part}_proj") for part in "qkv")
        size = sizes.hidden // sizes.heads
        heads = []
        for head in range(sizes.heads):
            part = slice(head * size, (head + 1) * size)
            scores = q[:, part] @ k[:, part].T / math.sqrt(size)
            if causal:
                scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            heads.append(scores / scores.sum(axis=1, keepdims=True) @ v[:, part])
        return self._linear(np.concatenate(heads, axis=1), name + "out_proj")

    def _act(self, x: Array, kind: str) -> Array:
        if kind == "quick_gelu":
            return x / (1 + np.exp(-1.702 * x))
        return np.asarray(x * 0.5 * (1 + self._erf(x / math.sqrt(2))))
