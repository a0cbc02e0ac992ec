"""Running a package: batches, order, cancelling, faults."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from small_models import bert_config, bert_weights, string_graph, write_folder

from pythiadb.errors import InvalidModel, InvalidParameter, InvalidVector, LimitExceeded
from pythiadb.models.folder import package_from_folder
from pythiadb.models.onnx_file import package_from_onnx
from pythiadb.models.package import Input, Package
from pythiadb.models.probe import probe
from pythiadb.models.session import Model, micro_batches, open_model


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = write_folder(tmp_path_factory.mktemp("small"), bert_config(), bert_weights())
    return package_from_folder(folder, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def model(package: Package) -> Model:
    return open_model(package.files, package.spec, threads=1)


@given(st.lists(st.integers(0, 300), max_size=200), st.integers(1, 64), st.integers(1, 600))
def test_micro_batches_hold_every_row_once_within_the_bounds(
    lengths: list[int], max_rows: int, max_tokens: int
) -> None:
    batches = list(micro_batches(lengths, max_rows=max_rows, max_tokens=max_tokens))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= max_rows
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= max_tokens


def test_rows_of_several_callers_can_be_merged(model: Model) -> None:
    first, second = ["the cat", "a dog runs through green fields"], ["revenue rose"]
    merged = np.concatenate(model.run(model.tokenize(first) + model.tokenize(second)))
    assert np.abs(merged - np.concatenate([model.embed(first), model.embed(second)])).max() < 1e-6


def test_many_texts_keep_their_order(model: Model) -> None:
    texts = ["the cat sits " * (number % 6) for number in range(300)]
    vectors = model.embed(texts)
    known = np.concatenate([model.embed([text]) for text in texts[:6]])
    assert np.abs(vectors - known[np.arange(300) % 6]).max() < 1e-6


def test_calls_from_several_threads(model: Model) -> None:
    texts = ["the cat sits outside", "a dog", "ten percent"]
    expected = model.embed(texts)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: model.embed(texts), range(20)))
    assert all(np.array_equal(result, expected) for result in results)


def test_opening_from_a_folder(package: Package, tmp_path: Path, model: Model) -> None:
    for name, path in package.files.items():
        (tmp_path / name).symlink_to(path)
    assert np.array_equal(open_model(tmp_path, package.spec, threads=1).embed(["cat"]), model.embed(["cat"]))


def test_packages_that_do_not_fit_their_specification(package: Package, tmp_path: Path) -> None:
    spec = package.spec
    with pytest.raises(InvalidParameter, match="number of threads must be at least 1, not 0"):
        open_model(package.files, spec, threads=0)
    with pytest.raises(InvalidModel, match=r'lacks the file "model\.onnx"'):
        open_model(tmp_path, spec, threads=1)
    with pytest.raises(InvalidModel, match='no tensor "nothing"'):
        open_model(package.files, replace(spec, outputs={"embedding": "nothing"}), threads=1)
    with pytest.raises(InvalidModel, match='no tensor "ids"'):
        open_model(package.files, replace(spec, inputs=(Input("ids", "ids", ("DATA",)),)), threads=1)
    with pytest.raises(InvalidModel, match="takes tokens and names no tokenizer"):
        open_model(package.files, replace(spec, tokenizer=None), threads=1)
    with pytest.raises(InvalidModel, match="no max_tokens"):
        open_model(package.files, replace(spec, max_tokens=None), threads=1)
    with pytest.raises(InvalidModel, match="leave no room beside 2 special tokens"):
        open_model(package.files, replace(spec, max_tokens=2), threads=1)
    wrong = open_model(package.files, replace(spec, dimensions=3), threads=1)
    with pytest.raises(InvalidModel, match=r"has shape \[1, 24\], expected \[1, 3\]"):
        wrong.embed(["cat"])
    beyond = open_model(package.files, replace(spec, max_tokens=500), threads=1)
    with pytest.raises(InvalidModel, match="model graph failed while running"):
        beyond.embed(["cat " * 400])


def test_long_input_is_refused_with_size_and_limit(model: Model) -> None:
    with pytest.raises(LimitExceeded, match="input text of 12 bytes exceeds the limit of 11 bytes"):
        model.tokenize(["ääääää"], max_bytes=11)
    with pytest.raises(LimitExceeded, match="of 5000000 characters exceeds"):
        model.tokenize(["x" * 5_000_000])


def test_values_that_are_not_finite_are_refused(tmp_path: Path, work: Path) -> None:
    graph = string_graph(output="hits")
    graph.graph.node.append(helper.make_node("Log", ["hits"], ["embedding"]))
    graph.graph.output[0].name = "embedding"
    onnx.save_model(graph, tmp_path / "m.onnx")
    package = package_from_onnx(tmp_path / "m.onnx", work)
    with pytest.raises(InvalidVector, match='model output "embedding" holds NaN or infinite values'):
        open_model(package.files, package.spec, threads=1).embed(["cat"])


def test_probe_notices_that_a_batch_changes_the_result(tmp_path: Path, work: Path) -> None:
    graph = string_graph(output="hits")
    graph.graph.node.extend(
        [
            helper.make_node("Shape", ["input"], ["size"]),
            helper.make_node("Cast", ["size"], ["length"], to=TensorProto.FLOAT),
            helper.make_node("Range", ["zero", "three", "one"], ["steps"]),
            helper.make_node("Pow", ["length", "steps"], ["row"]),
            helper.make_node("Add", ["hits", "row"], ["embedding"]),
        ]
    )
    for name, value in (("zero", 0.0), ("one", 1.0), ("three", 3.0)):
        graph.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
    graph.graph.output[0].name = "embedding"
    onnx.save_model(graph, tmp_path / "m.onnx")
    with pytest.raises(InvalidModel, match="another embedding in a batch than for an input alone"):
        probe(package_from_onnx(tmp_path / "m.onnx", work))


def test_facts_of_a_string_model(tmp_path: Path, work: Path) -> None:
    onnx.save_model(string_graph((1,)), tmp_path / "m.onnx")
    facts = probe(package_from_onnx(tmp_path / "m.onnx", work))
    assert facts["inputs"] == ["input:string[1]"]
    assert facts["outputs"] == ["embedding:float32[1,3]"]  # one text at a time, so ONNX Runtime infers
    assert (facts["graph_name"], facts["producer"], facts["max_tokens"]) == ("categories", "test", None)
