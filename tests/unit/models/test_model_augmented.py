"""Oracle's augmented files, with operators of onnxruntime-extensions inside, against bare ONNX Runtime with that library."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from small_models import VOCABULARY, WORDS

from pythiadb.errors import InvalidModel, InvalidParameter, LimitExceeded
from pythiadb.models.onnx_file import package_from_onnx
from pythiadb.models.operators import answers
from pythiadb.models.package import Attribute, Input, Package
from pythiadb.models.probe import probe
from pythiadb.models.session import Model, Scores, open_model

extensions = pytest.importorskip("onnxruntime_extensions", reason="onnxruntime-extensions is not installed")

EXTENSIONS, PICTURES = "ai.onnx.contrib", "com.microsoft.extensions"
TEXTS = ["the cat sits outside", "A DOG runs", "revenue rose by ten percent, zebra", "", "the " * 200]


def bare(source: Path | bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.register_custom_ops_library(extensions.get_library_path())
    return ort.InferenceSession(source, options)


def opened(package: Package) -> Model:
    probe(package)
    return open_model(package.files, package.spec, threads=1)


def augmented(
    nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any], weights: list[Any]
) -> bytes:
    graph = helper.make_graph(nodes, "augmented", inputs, outputs, weights)
    domains = (("", 17), (EXTENSIONS, 1), (PICTURES, 1))
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="OML4Py")
    return bytes(model.SerializeToString())


def tokenizing_graph(width: int = 6, *, output: str = "embedding") -> bytes:
    """Return a graph that splits one string with BertTokenizer and takes the mean of its tokens' vectors."""
    table = np.random.default_rng(3).normal(size=(len(VOCABULARY), width)).astype(np.float32)
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "cls", "pad")}
    nodes = [
        helper.make_node(
            "BertTokenizer",
            ["input"],
            ["ids", "types", "mask"],
            domain=EXTENSIONS,
            vocab_file="\n".join(VOCABULARY),
            do_lower_case=1,
            **special,
            mask_token="[UNK]",
        ),
        helper.make_node("Gather", ["table", "ids"], ["vectors"]),
        helper.make_node("ReduceMean", ["vectors"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Identity", ["mean"], [output]),
    ]
    taken = helper.make_tensor_value_info("input", TensorProto.STRING, [1])
    made = helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, width])
    return augmented(nodes, [taken], [made], [numpy_helper.from_array(table, "table")])


def expected(source: bytes, texts: list[str], output: str = "embedding") -> NDArray[np.float32]:
    session = bare(source)
    return np.concatenate([session.run([output], {"input": np.array([text])})[0] for text in texts])


def test_an_augmented_file_needs_no_metadata(work: Path) -> None:
    source = tokenizing_graph()
    package = package_from_onnx(source, work)
    spec = package.spec
    assert spec.inputs == (Input("input", "text", ("DATA",)),)
    assert (spec.attributes, spec.dimensions, spec.tokenizer) == ((Attribute("DATA", "text"),), 6, None)
    model = opened(package)
    wanted = expected(source, TEXTS)
    assert np.array_equal(model.embed(TEXTS), wanted)
    records: list[Any] = [{"data": text} for text in TEXTS]
    outputs = model.run(model.prepare([*records, None, {}]))
    assert np.array_equal(np.concatenate(outputs[: len(TEXTS)]), wanted)
    last = [
        text for output in outputs[len(TEXTS) :] for text in answers("vector_embedding", [], spec, output)
    ]
    assert last == [None, None]


def test_a_text_classifier_as_oracle_documents_it(work: Path) -> None:
    source = tokenizing_graph(3, output="logits")
    metadata = {
        "function": "classification",
        "classificationProbOutput": "logits",
        "input": {"input": ["DATA"]},
        "labels": ["low", "middle", "high"],
        "normalizeProb": "softmax",
    }
    package = package_from_onnx(source, work, metadata)
    model = opened(package)
    logits = expected(source, TEXTS, "logits").astype(np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    outputs = model.run(model.prepare([{"DATA": text} for text in TEXTS]))
    assert all(isinstance(output, Scores) for output in outputs)
    labels = [text for output in outputs for text in answers("prediction", [], package.spec, output)]
    assert labels == [metadata["labels"][place] for place in logits.argmax(axis=1)]  # type: ignore[index]
    found = [
        json.loads(text or "null")
        for output in outputs
        for text in answers("prediction_set", [], package.spec, output)
    ]
    for row, best in zip(shares, found, strict=True):
        assert [entry["prediction"] for entry in best] == [
            metadata["labels"][place]
            for place in np.argsort(-row)  # type: ignore[index]
        ]
        assert np.allclose([entry["probability"] for entry in best], np.sort(row)[::-1], atol=1e-6)


def test_operators_on_strings(work: Path) -> None:
    """Rows of strings are changed by two operators before a label encoder reads them."""
    nodes = [
        helper.make_node("StringLower", ["word"], ["low"], domain=EXTENSIONS),
        helper.make_node("StringRegexReplace", ["low", "pattern", "by"], ["clean"], domain=EXTENSIONS),
        helper.make_node(
            "LabelEncoder",
            ["clean"],
            ["number"],
            domain="ai.onnx.ml",
            keys_strings=WORDS,
            values_floats=[float(n) for n in range(len(WORDS))],
            default_float=-1.0,
        ),
    ]
    taken = helper.make_tensor_value_info("word", TensorProto.STRING, ["batch"])
    made = helper.make_tensor_value_info("number", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph(
        nodes, "words", [taken], [made],
        [
            numpy_helper.from_array(np.array(["[^a-z]"], dtype=object), "pattern"),
            numpy_helper.from_array(np.array([""], dtype=object), "by"),
        ],
    )  # fmt: skip
    opsets = [
        helper.make_opsetid(domain, version)
        for domain, version in (("", 17), (EXTENSIONS, 1), ("ai.onnx.ml", 2))
    ]
    source = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    model = opened(package_from_onnx(source, work, {"function": "regression"}))
    words = ["The", "c-a-t!", "dog", "zebra", ""]
    (wanted,) = bare(source).run(None, {"word": np.array(words)})
    (output,) = model.run(model.prepare([{"WORD": word} for word in words]))
    assert isinstance(output, Scores)
    assert output["regression"].tolist() == wanted.tolist() == [0.0, 1.0, 5.0, -1.0, -1.0]


def decoding_graph() -> bytes:
    """Return a graph from the bytes of a picture to the mean of its channels."""
    nodes = [
        helper.make_node("DecodeImage", ["image"], ["pixels"], domain=PICTURES),
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["means"], axes=[0, 1], keepdims=0),
        helper.make_node("Unsqueeze", ["means", "first"], ["embedding"]),
    ]
    taken = helper.make_tensor_value_info("image", TensorProto.UINT8, ["num_bytes"])
    made = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 3])
    return augmented(nodes, [taken], [made], [numpy_helper.from_array(np.array([0], np.int64), "first")])


def png(seed: int, size: tuple[int, int]) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, format="PNG")
    return stream.getvalue()


def test_pictures_that_the_graph_decodes_itself(work: Path) -> None:
    source = decoding_graph()
    package = package_from_onnx(source, work, {"function": "embedding", "input": {"image": ["DATA"]}})
    assert package.spec.attributes == (Attribute("DATA", "blob"),)
    assert package.spec.inputs == (Input("image", "image", ("DATA",)),)
    model = opened(package)
    pictures = [png(0, (9, 7)), png(1, (30, 2)), png(2, (1, 1))]
    session = bare(source)
    wanted = [session.run(None, {"image": np.frombuffer(data, np.uint8)})[0][0] for data in pictures]
    means = [np.asarray(Image.open(io.BytesIO(data)), float).mean(axis=(0, 1)) for data in pictures]
    outputs = model.run(model.prepare([{"DATA": data} for data in pictures]))
    found = np.concatenate([output for output in outputs if not isinstance(output, Scores)])
    assert np.array_equal(found, np.stack(wanted))
    assert np.allclose(found, np.stack(means)[:, ::-1], atol=1e-3)  # the operator gives BGR
    assert np.array_equal(model.run(model.prepare([{"DATA": "\\x" + pictures[0].hex()}]))[0], found[:1])
    for data in (b"no picture", b"", pictures[0][:60], b"\xff\xd8\xff\xe0 no JPEG", b"GIF89a"):
        # the operator would end the process at some of these
        with pytest.raises(InvalidParameter, match="image cannot be decoded"):
            model.prepare([{"DATA": data}])
    with pytest.raises(LimitExceeded, match="input of 10 bytes exceeds the limit of 9 bytes"):
        model.prepare([{"DATA": b"no picture"}], max_bytes=9)
    with pytest.raises(InvalidParameter, match='invalid value for attribute "DATA"'):
        model.prepare([{"DATA": "no hex"}])


def test_a_file_of_bytes_stands_alone(work: Path) -> None:
    model = onnx.load_model_from_string(decoding_graph())
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["batch"]))
    metadata = {"function": "regression", "input": {"image": ["A"], "other": ["B"]}}
    with pytest.raises(InvalidModel, match="takes a file as bytes cannot have other inputs"):
        package_from_onnx(model.SerializeToString(), work, metadata)
