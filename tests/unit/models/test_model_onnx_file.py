"""Packages from one ONNX file with a string input, by Oracle's rules."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_models import string_graph, token_graph

from pythiadb.errors import InvalidModel, InvalidParameter
from pythiadb.models.onnx_file import package_from_onnx
from pythiadb.models.package import Attribute, Package
from pythiadb.models.probe import probe
from pythiadb.models.session import open_model

CORPUS = [
    "the cat sits on the mat",
    "dogs and cats are animals",
    "stock markets fell sharply today",
    "the central bank raised interest rates",
    "a dog chased the cat",
    "investors sold shares as rates rose",
]


def save(tmp_path: Path, model: onnx.ModelProto) -> Path:
    path = tmp_path / "source.onnx"
    onnx.save_model(model, path)
    return path


def embed(package: Package, texts: list[str]) -> Any:
    return open_model(package.files, package.spec, threads=1).embed(texts)


@pytest.mark.parametrize("shape", [("batch",), ("batch", 1), (1,), (1, 1), (3,), (1, 1, 1), (-1,)])
def test_shapes_of_the_text_input(tmp_path: Path, work: Path, shape: tuple[Any, ...]) -> None:
    path = save(tmp_path, string_graph(shape))
    package = package_from_onnx(path, work)
    assert package.files == {"model.onnx": path}
    assert package.spec.tokenizer is None
    assert package.spec.attributes == (Attribute("DATA", "text"),)
    assert embed(package, ["dog", "cat", "bird", "fish"]).tolist() == [
        [0, 1, 0],
        [1, 0, 0],
        [0, 0, 0],
        [0, 0, 1],
    ]
    probe(package)


def test_bytes_are_as_good_as_a_file(work: Path) -> None:
    package = package_from_onnx(string_graph().SerializeToString(), work)
    assert package.files["model.onnx"].parent == work
    assert embed(package, ["cat"]).tolist() == [[1, 0, 0]]


def test_a_scikit_learn_pipeline(tmp_path: Path, work: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other projects
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import StringTensorType
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_pipeline

        pipeline = make_pipeline(TfidfVectorizer(), TruncatedSVD(4, random_state=0)).fit(CORPUS)
        # Without a locale ONNX Runtime wants en_US.UTF-8, which small systems do not have.
        locale = {TfidfVectorizer: {"locale": "C.UTF-8"}}
        text = [("text", StringTensorType([None, 1]))]
        model = to_onnx(pipeline, initial_types=text, target_opset=17, options=locale)
        expected = pipeline.transform(CORPUS)
    metadata = {"function": "embedding", "input": {"text": ["DATA"]}, "embeddingOutput": "variable"}
    package = package_from_onnx(save(tmp_path, model), work, metadata)
    assert package.spec.dimensions == 4
    assert np.abs(embed(package, CORPUS) - expected).max() < 1e-5
    probe(package)


def test_output_rules(tmp_path: Path, work: Path) -> None:
    only = {"function": "embedding"}
    model = string_graph(output="something")
    assert package_from_onnx(save(tmp_path, model), work, only).spec.outputs == {"embedding": "something"}
    model.graph.node.append(helper.make_node("Neg", ["something"], ["other"]))
    model.graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["batch", 3]))
    path = save(tmp_path, model)
    with pytest.raises(InvalidParameter, match="model has 2 outputs and the metadata does not say"):
        package_from_onnx(path, work, only)
    assert package_from_onnx(path, work, {**only, "embeddingOutput": "other"}).spec.outputs == {
        "embedding": "other"
    }
    with pytest.raises(InvalidParameter, match='"embedding" in the JSON metadata is not a model output'):
        package_from_onnx(path, work)
    model.graph.node.append(helper.make_node("Abs", ["something"], ["embeddingOutput"]))
    model.graph.output.append(
        helper.make_tensor_value_info("embeddingOutput", TensorProto.FLOAT, ["batch", 3])
    )
    assert package_from_onnx(save(tmp_path, model), work, only).spec.outputs == {
        "embedding": "embeddingOutput"
    }


def test_attribute_is_named_after_the_tensor_without_an_input_map(tmp_path: Path, work: Path) -> None:
    package = package_from_onnx(save(tmp_path, string_graph()), work, {"function": "embedding"})
    assert package.spec.attributes == (Attribute("input", "text"),)


def test_metadata_input_that_the_model_does_not_have(tmp_path: Path, work: Path) -> None:
    path = save(tmp_path, string_graph())
    message = 'field "text" in the JSON metadata is not a model input'
    with pytest.raises(InvalidParameter, match=message) as caught:
        package_from_onnx(path, work, {"function": "embedding", "input": {"text": ["DATA"]}})
    assert caught.value.hint == 'The model input is "input".'
    with pytest.raises(InvalidParameter, match="exactly one attribute, the metadata names 2"):
        package_from_onnx(path, work, {"function": "embedding", "input": {"input": ["A", "B"]}})


def test_dimensions_are_found_by_a_run(tmp_path: Path, work: Path) -> None:
    package = package_from_onnx(save(tmp_path, string_graph(columns=None)), work)
    assert package.spec.dimensions == 3


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_other_floats_are_converted(tmp_path: Path, work: Path, kind: int) -> None:
    path = save(tmp_path, string_graph(kind=kind))
    package = package_from_onnx(path, work)
    assert package.files["model.onnx"] != path
    found = embed(package, ["cat"])
    assert found.dtype == np.float32
    assert found.tolist() == [[1, 0, 0]]


def test_more_than_one_variable_dimension_is_refused(tmp_path: Path, work: Path) -> None:
    message = r'tensor "input" contains multiple dimensions \(2\) of variable size'
    with pytest.raises(InvalidModel, match=message):
        package_from_onnx(save(tmp_path, string_graph(("batch", "words"))), work)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((), 'tensor "input" has no batch dimension'),
        (("batch", 2), "takes 2 values a row, the metadata name 1 attributes"),
        ((1, "words"), r"has shape \[1, \?\], where a dimension behind the first is variable"),
        ((0,), r"has shape \[0\], which holds nothing"),
    ],
)
def test_shapes_that_are_refused(tmp_path: Path, work: Path, shape: tuple[Any, ...], message: str) -> None:
    with pytest.raises((InvalidModel, InvalidParameter), match=message):
        package_from_onnx(save(tmp_path, string_graph(shape)), work)


def test_token_graph_without_tokenizer_is_refused(tmp_path: Path, work: Path) -> None:
    with pytest.raises(InvalidModel, match='model input "input_ids" does not take text') as caught:
        package_from_onnx(save(tmp_path, token_graph()), work)
    assert "tokenizer.json" in str(caught.value.hint)


def test_output_that_is_no_embedding_is_refused(tmp_path: Path, work: Path) -> None:
    with pytest.raises(InvalidModel, match='"embedding" is not a tensor of floating-point numbers'):
        package_from_onnx(save(tmp_path, string_graph(kind=TensorProto.INT64)), work)


def test_functions_that_the_graph_does_not_have(tmp_path: Path, work: Path) -> None:
    path = save(tmp_path, string_graph())
    with pytest.raises(InvalidModel, match=r"has shape \[61, 3\] for 61 rows, expected one value a row"):
        package_from_onnx(path, work, {"function": "regression"})
    with pytest.raises(InvalidParameter, match='unrecognized model function "embeding"'):
        package_from_onnx(path, work, {"function": "embeding"})
