"""CLIP: one folder, two models in one space, a tower for texts and a tower for pictures.

Both are transformers with LayerNorm before each part. The text tower looks backwards only and takes the vector of the token that
ends the text; the picture tower cuts the picture into patches and takes the vector of a class token. A projection without bias
brings both to one length, and both are scaled to length 1, so their inner product is the cosine that CLIP was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from pythiadb.errors import FeatureNotSupported, InvalidModel
from pythiadb.models.blocks import Blocks
from pythiadb.models.building import GraphBuilder, close_model, save_model, token_model
from pythiadb.models.image_folder import fit_input, picture_spec, read_preprocessor
from pythiadb.models.images import Preprocessing
from pythiadb.models.package import GRAPH, TOKENIZER, Input, Package, Spec
from pythiadb.models.source import Source, text_attributes, whole
from pythiadb.models.text_folder import find_prefix
from pythiadb.models.tokenizing import Tokenizer
from pythiadb.models.vocabulary import tokenizer_file
from pythiadb.models.weights import Weights, open_weights

TEXT, IMAGE = "_text", "_image"  # suffixes of the two models' names
OUTPUT = "embedding"
IDS, PIXELS = "input_ids", "pixel_values"
_OLD_END = 2  # what the first configurations say; the text then ends at its largest id
# What config.json leaves out, because it equals the defaults of the transformers library.
_TEXT_DEFAULTS = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
_IMAGE_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}
_ACTIVATIONS = ("quick_gelu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu")


@dataclass(frozen=True, slots=True)
class Tower:
    """The sizes of one tower; `config` is its part of config.json with the defaults filled in."""

    prefix: str
    hidden: int
    wide: int
    layers: int
    heads: int
    activation: str
    epsilon: float
    config: Mapping[str, Any]

    def size(self, key: str) -> int:
        """Return another size of the configuration."""
        return whole(self.config.get(key), f'{key}" of "{self.prefix}')


def is_clip(config: Mapping[str, Any]) -> bool:
    """Tell whether config.json describes two towers."""
    return isinstance(config.get("text_config"), Mapping) and isinstance(config.get("vision_config"), Mapping)


def clip_packages(source: Source) -> dict[str, Package]:
    """Return the text and the picture model of a folder with weights, by the suffixes of their names.

    Raise InvalidModel for a folder that is incomplete or malformed, FeatureNotSupported for other two-tower families.
    """
    kind = source.config.get("model_type", "clip")
    if kind != "clip":
        raise FeatureNotSupported(
            f'model type "{kind}" is not supported',
            hint="Export the model to ONNX and load the folder with text_model.onnx and vision_model.onnx.",
        )
    if source.function not in (None, "embedding"):
        raise FeatureNotSupported(f'function "{source.function}" cannot be made out of a two-tower model')
    text = read_tower(source.config, "text", _TEXT_DEFAULTS)
    picture = read_tower(source.config, "vision", _IMAGE_DEFAULTS)
    width = whole(source.config.get("projection_dim", 512), "projection_dim")
    with open_weights(source.folder) as weights:
        return {
            TEXT: _text_package(source, build_text(text, weights, width), text, width),
            IMAGE: _image_package(source, build_image(picture, weights, width), width),
        }


def read_tower(config: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> Tower:
    """Read one tower out of config.json; raise InvalidModel for senseless sizes, FeatureNotSupported for its activation."""
    # Old files repeat the part under another key, which wins.
    part = {**defaults, **(config.get(f"{name}_config") or {}), **(config.get(f"{name}_config_dict") or {})}
    activation, epsilon = part.get("hidden_act", "quick_gelu"), part.get("layer_norm_eps", 1e-5)
    if activation not in _ACTIVATIONS:
        raise FeatureNotSupported(f'activation "{activation}" is not supported')
    if not isinstance(epsilon, float) or not 0 <= epsilon < 1:
        raise InvalidModel(f'invalid value for "layer_norm_eps" in config.json: {epsilon!r}')
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    hidden, wide, layers, heads = (whole(part.get(key), key) for key in keys)
    if hidden % heads:
        raise InvalidModel(f"hidden size {hidden} is not a multiple of {heads} attention heads")
    return Tower(f"{name}_model.", hidden, wide, layers, heads, activation, epsilon, part)


def build_text(tower: Tower, weights: Weights, width: int) -> onnx.ModelProto:
    """Return the graph from token ids, int64 [batch, tokens], to float32 [batch, width] of length 1.

    Padding follows the end of a text and nothing looks ahead, so no mask is needed.
    """
    graph = GraphBuilder()
    hidden, names = tower.hidden, tower.prefix + "embeddings."
    words = graph.weight("words", weights.get(names + "token_embedding.weight", (0, hidden)))
    positions = weights.get(
        names + "position_embedding.weight", (tower.size("max_position_embeddings"), hidden)
    )
    length = graph.node("Shape", IDS, start=1, end=2)
    placed = graph.node("Slice", graph.weight("positions", positions), graph.integers(0), length)
    tokens = graph.node("Add", graph.node("Gather", words, IDS), placed)
    tokens = _transform(graph, tower, weights, tokens, causal=True)
    blocks = Blocks(graph, weights, tower.prefix, tower.epsilon)
    last = _at_end(graph, blocks.norm(tokens, "final_layer_norm", hidden), tower.config.get("eos_token_id"))
    _project(graph, weights, last, "text_projection", (hidden, width))
    return token_model(graph, "CLIP text", (IDS,), OUTPUT, width)


def build_image(tower: Tower, weights: Weights, width: int) -> onnx.ModelProto:
    """Return the graph from pixels, float32 [batch, channels, side, side], to float32 [batch, width] of length 1."""
    graph = GraphBuilder()
    hidden, names = tower.hidden, tower.prefix + "embeddings."
    side, patch, channels = (tower.size(key) for key in ("image_size", "patch_size", "num_channels"))
    if side < patch:
        raise InvalidModel(f"image size {side} is smaller than a patch of {patch}")
    kernel = weights.get(names + "patch_embedding.weight", (hidden, channels, patch, patch))
    cut = graph.node("Conv", PIXELS, graph.weight("patches", kernel), strides=[patch, patch])
    rows = graph.node("Transpose", graph.node("Reshape", cut, graph.integers(0, hidden, -1)), perm=[0, 2, 1])
    label = graph.weight("class", weights.get(names + "class_embedding", (hidden,)).reshape(1, 1, hidden))
    batch = graph.node("Shape", PIXELS, start=0, end=1)
    labels = graph.node("Expand", label, graph.node("Concat", batch, graph.integers(1, hidden), axis=0))
    count = (side // patch) ** 2 + 1
    positions = weights.get(names + "position_embedding.weight", (count, hidden))
    tokens = graph.node("Concat", labels, rows, axis=1)
    tokens = graph.node("Add", tokens, graph.weight("positions", positions))
    blocks = Blocks(graph, weights, tower.prefix, tower.epsilon)
    tokens = blocks.norm(tokens, "pre_layrnorm", hidden)  # the name is misspelt in every file
    tokens = _transform(graph, tower, weights, tokens, causal=False)
    first = blocks.norm(graph.node("Gather", tokens, graph.integer(0), axis=1), "post_layernorm", hidden)
    _project(graph, weights, first, "visual_projection", (hidden, width))
    pixels = helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, ["batch", channels, side, side])
    return close_model(graph, "CLIP picture", [pixels], OUTPUT, width)


def _transform(graph: GraphBuilder, tower: Tower, weights: Weights, tokens: str, *, causal: bool) -> str:
    """Add the layers to [batch, tokens, hidden]: LayerNorm, then attention or a feed-forward net, then the sum."""
    hidden, wide = tower.hidden, tower.wide
    shape = graph.node("Shape", tokens)
    rows = graph.node("Reshape", tokens, graph.integers(-1, hidden))
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    for number in range(tower.layers):
        blocks = Blocks(graph, weights, f"{tower.prefix}encoder.layers.{number}.", tower.epsilon)
        normal = blocks.norm(rows, "layer_norm1", hidden)
        attended = blocks.attention(normal, names, (hidden, tower.heads), shape, causal=causal)
        rows = graph.node("Add", rows, blocks.linear(attended, "self_attn.out_proj", hidden, hidden))
        up = blocks.linear(blocks.norm(rows, "layer_norm2", hidden), "mlp.fc1", hidden, wide)
        down = blocks.linear(blocks.activation(up, tower.activation), "mlp.fc2", wide, hidden)
        rows = graph.node("Add", rows, down)
    return graph.node("Reshape", rows, shape)


def _at_end(graph: GraphBuilder, tokens: str, end: object) -> str:
    """Add the choice of the vector where the text ends: the first end token, or in old models the largest id."""
    values = graph.node("Cast", IDS, to=TensorProto.INT32)
    if end != _OLD_END:
        wanted = graph.weight("end", np.array(whole(end, "eos_token_id"), np.int32))
        values = graph.node("Cast", graph.node("Equal", values, wanted), to=TensorProto.INT32)
    place = graph.node("ArgMax", values, axis=1, keepdims=1)
    return graph.node("GatherND", tokens, place, batch_dims=1)


def _project(graph: GraphBuilder, weights: Weights, rows: str, name: str, sizes: tuple[int, int]) -> None:
    projected = Blocks(graph, weights, "", 0).projection(rows, name, *sizes)
    graph.node("LpNormalization", projected, output=OUTPUT, axis=-1, p=2)


def _text_package(source: Source, model: onnx.ModelProto, tower: Tower, width: int) -> Package:
    tokenizer = tokenizer_file(source)
    limit = min([tower.size("max_position_embeddings"), *source.longest()])
    vocabulary = Tokenizer(tokenizer, limit).vocabulary_size
    known = next(tensor.dims[0] for tensor in model.graph.initializer if tensor.name == "words")
    if vocabulary > known:
        raise InvalidModel(f"tokenizer has {vocabulary} tokens, the model knows {known}")
    files = {**save_model(model, folder(source, TEXT) / GRAPH), TOKENIZER: tokenizer}
    spec = text_spec(source, ((IDS, "ids"),), OUTPUT, width, limit)
    return source.package(spec, files, {"normalization": True, "maxSequenceLength": limit})


def _image_package(source: Source, model: onnx.ModelProto, width: int) -> Package:
    steps = fit_input(read_preprocessor(source), model.graph.input[0])
    files = save_model(model, folder(source, IMAGE) / GRAPH)
    return source.package(image_spec(source, PIXELS, steps, OUTPUT, width), files, {"normalization": True})


def text_spec(
    source: Source, inputs: tuple[tuple[str, str], ...], output: str, width: int, limit: int
) -> Spec:
    """Return the specification of a text tower."""
    (name,) = source.attributes(("DATA",), 1)
    return Spec(
        function="embedding",
        inputs=tuple(Input(tensor, kind, (name,)) for tensor, kind in inputs),
        outputs={"embedding": output},
        attributes=text_attributes((name,)),
        result="vector",
        tokenizer=TOKENIZER,
        max_tokens=limit,
        prefix=find_prefix(source, None),
        dimensions=width,
    )


def image_spec(source: Source, tensor: str, steps: Preprocessing, output: str, width: int) -> Spec:
    """Return the specification of a picture tower."""
    return picture_spec(
        source, tensor, steps,
        function="embedding",
        outputs={"embedding": output},
        result="vector",
        dimensions=width,
    )  # fmt: skip


def folder(source: Source, suffix: str) -> Path:
    """Return a work folder of its own for one of the two models: both have a graph of the same name."""
    made = source.work / suffix.strip("_")
    made.mkdir(exist_ok=True)
    return made
