"""From a path to packages: what is a model, what its name becomes, where its weights lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import bert_config, bert_weights, string_graph, tabular_graph, token_graph, write_folder

from pythiadb.errors import InvalidModel, InvalidParameter
from pythiadb.models.building import INLINE_LIMIT
from pythiadb.models.loading import read_packages, shareable, suffixed
from pythiadb.models.package import Package
from pythiadb.models.session import Scores, open_model

SUM = {"function": "regression", "regressionOutput": "y", "input": {"x": ["A", "B", "C"]}}


def wide_graph(*, raw: bool) -> onnx.ModelProto:
    """A regression on three numbers with more than INLINE_LIMIT bytes of weights, as bytes or as a list of numbers."""
    columns = INLINE_LIMIT // 12 + 10
    values = np.random.default_rng(1).normal(size=(3, columns)).astype(np.float32)
    weights = (
        numpy_helper.from_array(values, "weights")
        if raw
        else helper.make_tensor("weights", TensorProto.FLOAT, values.shape, values.ravel().tolist())
    )
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["wide"]),
        helper.make_node("ReduceMean", ["wide"], ["y"], axes=[1], keepdims=0),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph(nodes, "wide", [given], [made], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def predict(package: Package, **record: float) -> float:
    model = open_model(package.files, package.spec, threads=1)
    (output,) = model.run(model.prepare([record]))
    assert isinstance(output, Scores)
    return float(output["regression"].ravel()[0])


# Weights ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [True, False])
def test_large_weights_leave_the_graph(tmp_path: Path, work: Path, raw: bool) -> None:
    """So that the engine's processes can share them; also those that a file holds as a list of numbers."""
    model = wide_graph(raw=raw)
    package = read_packages(write(tmp_path / "wide.onnx", model), work, SUM)[""]
    assert set(package.files) == {"model.onnx", "model.onnx.data"}
    assert package.files["model.onnx"].stat().st_size < 2000
    assert package.files["model.onnx.data"].stat().st_size >= INLINE_LIMIT
    expected = (np.array([1, 2, 3]) @ numpy_helper.to_array(model.graph.initializer[0])).mean()
    assert predict(package, A=1, B=2, C=3) == pytest.approx(float(expected), abs=1e-5)


def test_small_weights_stay_in_the_graph(tmp_path: Path, work: Path) -> None:
    path = write(tmp_path / "sum.onnx", tabular_graph())
    package = read_packages(path, work, SUM)[""]
    assert package.files == {"model.onnx": path}
    assert predict(package, A=1, B=2, C=4) == 7


@pytest.mark.parametrize(("name", "kept"), [("weights.bin", True), ("weights of mine.bin", False)])
def test_external_data_keep_their_names_if_the_database_can_store_them(
    tmp_path: Path, work: Path, name: str, kept: bool
) -> None:
    path = tmp_path / "wide.onnx"
    onnx.save_model(wide_graph(raw=True), path, save_as_external_data=True, location=name)
    package = read_packages(path, work, SUM)[""]
    assert set(package.files) == {"model.onnx", name if kept else "model.onnx.data"}
    assert shareable(package, work / "again").files == package.files
    assert np.isfinite(predict(package, A=1, B=2, C=3))


# What is a model ----------------------------------------------------------------------------------------------------------


def test_a_folder_an_onnx_file_and_neither(tmp_path: Path, work: Path) -> None:
    folder = write_folder(tmp_path / "bert", bert_config(), bert_weights())
    assert read_packages(folder, work)[""].spec.dimensions == 24
    assert read_packages(str(write(tmp_path / "s.onnx", string_graph())), work)[""].spec.dimensions == 3
    with pytest.raises(InvalidModel, match="does not exist") as caught:
        read_packages(tmp_path / "nowhere", work)
    assert "a name on the hub like organisation/name" in str(caught.value)


def test_a_file_has_no_prompts(tmp_path: Path, work: Path) -> None:
    with pytest.raises(InvalidParameter, match="only model folders have prompts"):
        read_packages(write(tmp_path / "s.onnx", string_graph()), work, prompt="query")


@pytest.mark.parametrize("form", [json.dumps, dict])
def test_the_function_completes_the_metadata(tmp_path: Path, work: Path, form: Any) -> None:
    path = write(tmp_path / "sum.onnx", tabular_graph(shape=("batch", 1)))
    metadata = form({"input": {"x": ["AMOUNT"]}})
    spec = read_packages(path, work, metadata, function="regression")[""].spec
    assert (spec.function, spec.attributes[0].name) == ("regression", "AMOUNT")
    alone = read_packages(path, work, function="regression")[""].spec
    assert [attribute.name for attribute in alone.attributes] == ["x"]
    with pytest.raises(InvalidParameter, match='"classification" contradicts the metadata'):
        read_packages(path, work, form(SUM), function="classification")


@pytest.mark.parametrize("metadata", ["{", "[]", '"text"', "[[1, 2]]"])
def test_metadata_that_are_no_object(tmp_path: Path, work: Path, metadata: str) -> None:
    path = write(tmp_path / "sum.onnx", tabular_graph())
    for function in (None, "regression"):
        with pytest.raises(InvalidParameter, match="metadata"):
            read_packages(path, work, metadata, function=function)


# Two models out of one folder ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("clip", "clip_text"),
        ("app.clip", "app.clip_text"),
        ('"Clip"', '"Clip_text"'),
        ('app."C l"', 'app."C l_text"'),
    ],
)
def test_the_suffix_of_a_name(name: str, made: str) -> None:
    assert suffixed(name, "_text") == made
    assert suffixed(name, "") == name


def test_ready_encoders_have_their_weights_outside_too(tmp_path: Path, work: Path) -> None:
    folder = tmp_path / "ready"
    folder.mkdir()
    write_folder(folder, bert_config(), bert_weights())
    (folder / "model.safetensors").unlink()
    model = token_graph()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(INLINE_LIMIT, np.float32), "unused"))
    write(folder / "model.onnx", model)
    package = read_packages(folder, work)[""]
    assert set(package.files) == {"model.onnx", "model.onnx.data", "tokenizer.json"}
    assert open_model(package.files, package.spec, threads=1).embed(["the cat"]).shape == (1, 24)
