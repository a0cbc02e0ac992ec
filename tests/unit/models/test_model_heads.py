"""Sequence classification and pair scoring from folders, against a forward pass in numpy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from numpy_encoder import Reference
from onnx import TensorProto, helper, numpy_helper
from random_heads import head_config, head_weights, stored_weights
from small_models import HEADS, HIDDEN, LAYERS, POSITIONS, VOCABULARY, write_folder, write_tokenizer
from tokenizers import Tokenizer as Bare
from tokenizers import processors

from pythiadb.errors import InvalidModel, InvalidParameter
from pythiadb.models.folder import package_from_folder
from pythiadb.models.package import Attribute, Package
from pythiadb.models.probe import probe
from pythiadb.models.session import Scores, open_model

TEXTS = ["the cat sits outside", "a dog", "revenue rose by ten percent and the dog runs quickly", ""]
PAIRS = [
    ("the cat", "a dog runs"),
    ("", "revenue rose"),
    ("a " * 30, "dog"),
    ("the cat sits " * 9, "dog " * 9),
]
FAMILIES = ["bert", "roberta", "distilbert"]


def reference(family: str, weights: dict[str, NDArray[Any]]) -> Reference:
    prefix = "transformer.layer." if family == "distilbert" else "encoder.layer."
    return Reference(
        weights, LAYERS, HEADS, first_position=2 if family == "roberta" else 0, layer_prefix=prefix
    )


def pair_tokenizer(folder: Path) -> None:
    """Let the tokenizer put pairs together as BERT does."""
    tokenizer = Bare.from_file(str(write_tokenizer(folder)))
    special = [(name, VOCABULARY[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=special
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def bare(package: Package) -> Bare:
    tokenizer = Bare.from_file(str(package.files["tokenizer.json"]))
    tokenizer.no_padding()
    assert package.spec.max_tokens is not None
    tokenizer.enable_truncation(package.spec.max_tokens)
    return tokenizer


def write(folder: Path, family: str, scores: int, **changes: Any) -> dict[str, NDArray[Any]]:
    weights = head_weights(family, scores)
    config = head_config(family, scores, **changes)
    write_folder(folder, config, stored_weights(family, weights), pooling=None)
    pair_tokenizer(folder)
    return weights


def scores(package: Package, records: list[dict[str, str]]) -> dict[str, NDArray[Any]]:
    model = open_model(package.files, package.spec, threads=1)
    outputs = model.run(model.prepare(records))
    parts = [output for output in outputs if isinstance(output, Scores)]
    assert len(parts) == len(outputs)
    normal = package.spec.normalize_prob == "softmax"
    found = {role: np.concatenate([part[role] for part in parts]) for role in package.spec.outputs}
    return {role: softmax(values) if normal else values for role, values in found.items()}


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_text_classification(tmp_path: Path, work: Path, family: str) -> None:
    weights = write(tmp_path / "m", family, 3)
    package = package_from_folder(tmp_path / "m", work)
    spec = package.spec
    assert (spec.function, spec.result, spec.labels) == ("classification", "text", ("L0", "L1", "L2"))
    assert (spec.outputs, spec.normalize_prob) == ({"probability": "logits"}, "softmax")
    assert spec.attributes == (Attribute("DATA", "text"),)
    ids = [bare(package).encode(text).ids for text in TEXTS]
    expected = softmax(np.stack([reference(family, weights).logits(family, row) for row in ids]))
    found = scores(package, [{"DATA": text} for text in TEXTS])["probability"]
    assert np.abs(found - expected).max() < 1e-5
    probe(package)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_label_is_a_reranker(tmp_path: Path, work: Path, family: str) -> None:
    weights = write(tmp_path / "m", family, 1)
    package = package_from_folder(tmp_path / "m", work)
    spec = package.spec
    assert (spec.function, spec.result, spec.labels) == ("regression", "double precision", None)
    assert spec.attributes == (Attribute("DATA1", "text"), Attribute("DATA2", "text"))
    assert spec.is_pair
    encoded = [bare(package).encode(*pair) for pair in PAIRS]
    assert max(len(e.ids) for e in encoded) == spec.max_tokens == POSITIONS
    types = [e.type_ids for e in encoded] if family == "bert" else [None] * len(encoded)
    expected = [
        reference(family, weights).logits(family, e.ids, t)[0] for e, t in zip(encoded, types, strict=True)
    ]
    found = scores(package, [{"DATA1": one, "DATA2": two} for one, two in PAIRS])["regression"]
    assert np.abs(found.ravel() - expected).max() < 1e-5
    sources = [(i.tensor, i.source) for i in spec.inputs]
    assert (("token_type_ids", "types") in sources) == (family == "bert")
    assert package.metadata["input"] == {"first_input": ["DATA1"], "second_input": ["DATA2"]}
    probe(package)


def test_two_attributes_in_the_metadata_make_a_classifier_of_pairs(tmp_path: Path, work: Path) -> None:
    weights = write(tmp_path / "m", "bert", 3)
    given = {
        "function": "classification",
        "input": {"one": ["PREMISE"], "two": ["HYPOTHESIS"]},
        "labels": [10, 20, 30],
        "normalizeProb": "none",
    }
    package = package_from_folder(tmp_path / "m", work, given)
    assert (package.spec.result, package.spec.labels) == ("numeric", (10, 20, 30))
    encoded = bare(package).encode(*PAIRS[0])
    expected = reference("bert", weights).logits("bert", encoded.ids, encoded.type_ids)
    record = {"PREMISE": PAIRS[0][0], "HYPOTHESIS": PAIRS[0][1]}
    assert np.abs(scores(package, [record])["probability"][0] - expected).max() < 1e-5


def test_one_attribute_makes_a_regression_of_single_texts(tmp_path: Path, work: Path) -> None:
    weights = write(tmp_path / "m", "bert", 1)
    package = package_from_folder(tmp_path / "m", work, {"function": "regression", "input": {"x": ["TXT"]}})
    assert package.spec.attributes == (Attribute("TXT", "text"),)
    expected = reference("bert", weights).logits("bert", bare(package).encode(TEXTS[0]).ids)
    assert abs(scores(package, [{"TXT": TEXTS[0]}])["regression"].item() - expected[0]) < 1e-5


def test_independent_labels_get_sigmoids(tmp_path: Path, work: Path) -> None:
    weights = write(tmp_path / "m", "bert", 2, problem_type="multi_label_classification")
    package = package_from_folder(tmp_path / "m", work)
    assert (package.spec.outputs, package.spec.normalize_prob) == ({"probability": "probabilities"}, "none")
    logits = reference("bert", weights).logits("bert", bare(package).encode(TEXTS[0]).ids)
    found = scores(package, [{"DATA": TEXTS[0]}])["probability"][0]
    assert np.abs(found - 1 / (1 + np.exp(-logits))).max() < 1e-6


def test_the_function_can_be_chosen(tmp_path: Path, work: Path) -> None:
    write(tmp_path / "m", "bert", 2)
    package = package_from_folder(tmp_path / "m", work, function="embedding")
    assert (package.spec.function, package.spec.dimensions) == ("embedding", HIDDEN)
    with pytest.raises(InvalidParameter, match="with 2 labels cannot be loaded as regression"):
        package_from_folder(tmp_path / "m", work, function="regression")
    with pytest.raises(InvalidParameter, match='function "embedding" contradicts the metadata'):
        package_from_folder(tmp_path / "m", work, {"function": "classification"}, function="embedding")


def logit_graph(columns: int) -> onnx.ModelProto:
    """Return a graph whose logits are those of the first token."""
    table = np.random.default_rng(7).normal(size=(len(VOCABULARY), columns)).astype(np.float32)
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in names]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("ReduceSum", ["rows", "axis"], ["sums"], keepdims=0),
        helper.make_node("ReduceSum", ["token_type_ids", "axis"], ["kinds"], keepdims=1),
        helper.make_node("Cast", ["kinds"], ["kind"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["attention_mask", "axis"], ["lengths"], keepdims=1),
        helper.make_node("Cast", ["lengths"], ["length"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["table", "zero"], ["padding"]),
        helper.make_node("Shape", ["input_ids"], ["width"], start=1),
        helper.make_node("Cast", ["width"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["wide", "length"], ["padded"]),
        helper.make_node("Mul", ["padded", "padding"], ["surplus"]),
        helper.make_node("Sub", ["sums", "surplus"], ["own"]),
        helper.make_node("Add", ["own", "kind"], ["logits"]),
    ]
    weights = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
    ]
    given = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", columns])]
    graph = helper.make_graph(nodes, "logits", inputs, given, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def ready(folder: Path, columns: int, **changes: Any) -> NDArray[Any]:
    folder.mkdir()
    model = logit_graph(columns)
    onnx.save_model(model, folder / "model.onnx")
    pair_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(head_config("bert", columns, **changes)))
    return np.asarray(numpy_helper.to_array(model.graph.initializer[0]))


def test_ready_graphs_of_classifiers(tmp_path: Path, work: Path) -> None:
    table = ready(tmp_path / "c", 3)
    package = package_from_folder(tmp_path / "c", work)
    assert package.files["model.onnx"] == tmp_path / "c" / "model.onnx"
    expected = softmax(np.stack([table[bare(package).encode(text).ids].sum(axis=0) for text in TEXTS]))
    assert np.abs(scores(package, [{"DATA": t} for t in TEXTS])["probability"] - expected).max() < 1e-5
    table = ready(tmp_path / "p", 1)
    package = package_from_folder(tmp_path / "p", work)
    encoded = [bare(package).encode(*pair) for pair in PAIRS]
    wanted = [table[e.ids].sum() + sum(e.type_ids) for e in encoded]
    found = scores(package, [{"DATA1": one, "DATA2": two} for one, two in PAIRS])["regression"]
    assert np.abs(found.ravel() - wanted).max() < 1e-4
    table = ready(tmp_path / "i", 2, problem_type="multi_label_classification")
    package = package_from_folder(tmp_path / "i", work)
    logits = table[bare(package).encode(TEXTS[1]).ids].sum(axis=0)
    assert (
        np.abs(scores(package, [{"DATA": TEXTS[1]}])["probability"][0] - 1 / (1 + np.exp(-logits))).max()
        < 1e-5
    )


def test_faulty_folders(tmp_path: Path, work: Path) -> None:
    write(tmp_path / "m", "bert", 2)
    folder = tmp_path / "m"
    config = json.loads((folder / "config.json").read_text())
    for labels in ({"1": "a", "2": "b"}, {"x": "a"}):
        (folder / "config.json").write_text(json.dumps(config | {"id2label": labels}))
        with pytest.raises(InvalidModel, match='"id2label" in config.json does not number'):
            package_from_folder(folder, work)
    (folder / "config.json").write_text(json.dumps(config | {"id2label": dict.fromkeys("012", "x")}))
    with pytest.raises(InvalidModel, match=r'"classifier.weight" has shape \[2, 24\], expected \[3, 24\]'):
        package_from_folder(folder, work)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidParameter, match="the metadata name 3 labels, the model has 2"):
        package_from_folder(folder, work, {"function": "classification", "labels": ["a", "b", "c"]})
    with pytest.raises(InvalidParameter, match="takes 2 attributes, the metadata names 3"):
        package_from_folder(folder, work, {"function": "classification", "input": {"x": ["A", "B", "C"]}})


def test_defaults_stand_in_for_null(tmp_path: Path, work: Path) -> None:
    write(tmp_path / "m", "bert", 1)
    metadata = {"function": "regression", "defaultOnNull": {"data2": "a dog"}}
    package = package_from_folder(tmp_path / "m", work, metadata)
    found = scores(package, [{"DATA1": "the cat", "DATA2": None}, {"DATA1": "the cat", "DATA2": "a dog"}])
    assert found["regression"][0] == pytest.approx(found["regression"][1], rel=1e-6)
    with pytest.raises(InvalidParameter, match='"words" in the key "defaultOnNull" of the metadata is not'):
        package_from_folder(tmp_path / "m", work, metadata | {"defaultOnNull": {"words": ""}})
