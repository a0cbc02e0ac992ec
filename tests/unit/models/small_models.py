"""Small model folders with random weights, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from pythiadb.recommend.factors import Factors

WORDS = [
    "the",
    "cat",
    "sits",
    "outside",
    "a",
    "dog",
    "runs",
    "quickly",
    "through",
    "green",
    "fields",
    "and",
    "revenue",
    "rose",
    "by",
    "ten",
    "percent",
]
VOCABULARY = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *dict.fromkeys(WORDS)])}
HIDDEN, HEADS, LAYERS, WIDE, POSITIONS = 24, 4, 2, 40, 20


def write_tokenizer(folder: Path) -> Path:
    """Write a word-level tokenizer with [CLS] … [SEP], saved with a fixed padding as MiniLM's is."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", VOCABULARY["[CLS]"]), ("[SEP]", VOCABULARY["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def bert_weights(seed: int = 0, *, first: int = 0, types: int = 2) -> dict[str, NDArray[Any]]:
    """Return random weights by BERT's names."""
    rng = np.random.default_rng(seed)
    weights = {
        "embeddings.word_embeddings.weight": rng.normal(size=(len(VOCABULARY) + 3, HIDDEN)),
        "embeddings.position_embeddings.weight": rng.normal(size=(POSITIONS + first, HIDDEN)),
        "embeddings.token_type_embeddings.weight": rng.normal(size=(types, HIDDEN)),
        **_norm("embeddings.LayerNorm", rng),
    }
    for n in range(LAYERS):
        layer = f"encoder.layer.{n}."
        for name in (
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
        ):
            weights |= _linear(layer + name, HIDDEN, HIDDEN, rng)
        weights |= _norm(layer + "attention.output.LayerNorm", rng) | _norm(layer + "output.LayerNorm", rng)
        weights |= _linear(layer + "intermediate.dense", HIDDEN, WIDE, rng)
        weights |= _linear(layer + "output.dense", WIDE, HIDDEN, rng)
    return {name: values.astype(np.float32) for name, values in weights.items()}


def bert_config(**changes: Any) -> dict[str, Any]:
    """Return a `config.json` that fits `bert_weights`."""
    config = {
        "model_type": "bert",
        "hidden_size": HIDDEN,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "intermediate_size": WIDE,
        "max_position_embeddings": POSITIONS,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }
    return config | changes


def write_folder(
    folder: Path,
    config: dict[str, Any],
    weights: dict[str, NDArray[Any]],
    *,
    pooling: str | None = "pooling_mode_mean_tokens",
    normalize: bool = True,
) -> Path:
    """Write a sentence-transformers folder; without `pooling` there is no modules.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    write_tokenizer(folder)
    if pooling is not None:
        write_modules(folder, pooling, normalize=normalize)
    return folder


def write_modules(folder: Path, pooling: str, *, normalize: bool) -> None:
    """Write modules.json and the pooling configuration."""
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling")] + (
        [("Normalize", "2_Normalize")] if normalize else []
    )
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({pooling: True, "word_embedding_dimension": HIDDEN})
    )


def token_graph(opset: int = 17, *, pooled: bool = False, int32: bool = False) -> onnx.ModelProto:
    """Return a graph that looks token vectors up: `last_hidden_state`, and `pooler_output` which is no embedding."""
    rng = np.random.default_rng(5)
    table = numpy_helper.from_array(rng.normal(size=(len(VOCABULARY), HIDDEN)).astype(np.float32), "table")
    kind = TensorProto.INT32 if int32 else TensorProto.INT64
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, kind, ["batch", "sequence"]) for name in names]
    first = numpy_helper.from_array(np.array(0, np.int64), "first")
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"]),
        helper.make_node("Gather", ["last_hidden_state", "first"], ["pooler_output"], axis=1),
    ]
    outputs = [
        helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "sequence", HIDDEN]),
        helper.make_tensor_value_info("pooler_output", TensorProto.FLOAT, ["batch", HIDDEN]),
    ]
    if pooled:
        nodes.append(helper.make_node("Identity", ["pooler_output"], ["sentence_embedding"]))
        outputs.append(
            helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", None])
        )
    graph = helper.make_graph(nodes, "lookup", inputs, outputs, [table, first])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def string_graph(
    shape: tuple[Any, ...] = ("batch",),
    *,
    output: str = "embedding",
    kind: int = TensorProto.FLOAT,
    columns: Any = 3,
) -> onnx.ModelProto:
    """Return a graph from strings to [batch, 3] vectors: 1 for each of the categories cat, dog and fish."""
    text = helper.make_tensor_value_info("input", TensorProto.STRING, shape)
    wide = numpy_helper.from_array(np.array([-1, 1], np.int64), "wide")
    classes = numpy_helper.from_array(np.array([[0, 1, 2]], np.int64), "classes")
    nodes = [
        helper.make_node("Reshape", ["input", "wide"], ["column"]),
        helper.make_node(
            "LabelEncoder",
            ["column"],
            ["number"],
            domain="ai.onnx.ml",
            keys_strings=["cat", "dog", "fish"],
            values_int64s=[0, 1, 2],
            default_int64=-1,
        ),
        helper.make_node("Equal", ["number", "classes"], ["hit"]),
        helper.make_node("Cast", ["hit"], [output], to=kind),
    ]
    given = helper.make_tensor_value_info(output, kind, ["batch", columns])
    graph = helper.make_graph(nodes, "categories", [text], [given], [wide, classes])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="test")


def _linear(name: str, wide: int, high: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    return {f"{name}.weight": rng.normal(scale=0.3, size=(high, wide)), f"{name}.bias": rng.normal(size=high)}


def _norm(name: str, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    return {f"{name}.weight": rng.uniform(0.5, 1.5, HIDDEN), f"{name}.bias": rng.normal(size=HIDDEN)}


def tabular_graph(
    kind: int = TensorProto.FLOAT, shape: tuple[Any, ...] = ("batch", 3), *, output: str = "y"
) -> onnx.ModelProto:
    """Return a regression graph that adds the values of a row, whatever their type."""
    given = helper.make_tensor_value_info("x", kind, shape)
    axes = numpy_helper.from_array(np.arange(1, len(shape), dtype=np.int64), "axes")
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("ReduceSum", ["wide", "axes"], [output], keepdims=0)
        if len(shape) > 1
        else helper.make_node("Identity", ["wide"], [output]),
    ]
    made = helper.make_tensor_value_info(output, TensorProto.DOUBLE, shape[:1])
    graph = helper.make_graph(nodes, "sum", [given], [made], [axes] if len(shape) > 1 else [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def logit_graph(
    classes: int = 3, *, kind: int = TensorProto.FLOAT, batch: Any = "batch", columns: Any = None
) -> onnx.ModelProto:
    """Return a graph that gives its input of one value a class back as `logits`."""
    given = helper.make_tensor_value_info("x", kind, [batch, classes])
    made = helper.make_tensor_value_info("logits", kind, [batch, columns])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["logits"])], "logits", [given], [made])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def random_factors(users: int, items: int, dimensions: int, seed: int = 0) -> Factors:
    """Return what a recommender of ratings from 1 to 5 might have learned."""
    rng = np.random.default_rng(seed)
    shapes = ((users,), (items,), (users, dimensions), (items, dimensions))
    return Factors(3.5, 1.0, 5.0, *(rng.normal(0, 0.5, shape).astype(np.float32) for shape in shapes))


def pair_graph() -> onnx.ModelProto:
    """Return a graph of a reranker's form: 1 for two equal strings, else 0, from two string tensors."""
    names = ("first_input", "second_input")
    inputs = [helper.make_tensor_value_info(name, TensorProto.STRING, ["batch"]) for name in names]
    nodes = [
        helper.make_node("Equal", list(names), ["same"]),
        helper.make_node("Cast", ["same"], ["logits"], to=TensorProto.FLOAT),
    ]
    made = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph(nodes, "pairs", inputs, [made])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
