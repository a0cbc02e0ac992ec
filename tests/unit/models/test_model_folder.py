"""Packages from folders: every encoder family, pooling, ready graphs, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from numpy_encoder import Reference, unit
from random_heads import DISTILBERT, as_distilbert
from safetensors.numpy import save_file
from small_models import (
    HEADS,
    HIDDEN,
    LAYERS,
    POSITIONS,
    bert_config,
    bert_weights,
    token_graph,
    write_folder,
    write_modules,
    write_tokenizer,
)

from pythiadb.errors import FeatureNotSupported, InvalidModel, InvalidParameter
from pythiadb.models import building
from pythiadb.models.folder import package_from_folder
from pythiadb.models.package import Attribute, Package
from pythiadb.models.probe import probe
from pythiadb.models.session import Model, open_model
from pythiadb.models.tokenizing import Tokenizer
from pythiadb.models.validate import check_model_file

TEXTS = ["the cat sits outside", "a dog", "revenue rose by ten percent and the dog runs quickly", ""]


def opened(package: Package) -> Model:
    return open_model(package.files, package.spec, threads=1)


def ids_of(package: Package) -> list[list[int]]:
    assert package.spec.max_tokens is not None
    tokenizer = Tokenizer(package.files["tokenizer.json"], package.spec.max_tokens)
    return [list(row.ids) for row in tokenizer.encode(TEXTS)]


def pooled(tokens: NDArray[np.float64], mode: str) -> NDArray[np.float64]:
    return {"mean": tokens.mean(axis=0), "cls": tokens[0], "max": tokens.max(axis=0)}[mode]


def check_against(reference: Reference, package: Package, mode: str = "mean") -> None:
    found = opened(package).embed(TEXTS)
    expected = np.stack([unit(pooled(reference.token_vectors(ids), mode)) for ids in ids_of(package)])
    assert np.abs(found - expected).max() < 5e-6


@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
def test_bert_with_every_pooling(tmp_path: Path, work: Path, mode: str) -> None:
    weights = bert_weights()
    key = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}[mode]
    folder = write_folder(tmp_path / "m", bert_config(), weights, pooling=f"pooling_mode_{key}")
    package = package_from_folder(folder, work)
    check_against(Reference(weights, LAYERS, HEADS), package, mode)
    assert package.metadata["pooling"] == mode
    probe(package)


@pytest.mark.parametrize("activation", ["gelu_new", "relu"])
def test_other_activations_and_epsilon(tmp_path: Path, work: Path, activation: str) -> None:
    weights = bert_weights(1)
    config = bert_config(hidden_act=activation, layer_norm_eps=0.01)
    package = package_from_folder(write_folder(tmp_path / "m", config, weights), work)
    check_against(Reference(weights, LAYERS, HEADS, epsilon=0.01, activation=activation), package)


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta", "camembert"])
def test_roberta_counts_positions_from_after_the_padding_id(tmp_path: Path, work: Path, family: str) -> None:
    weights = bert_weights(2, first=2, types=1)
    config = bert_config(model_type=family, pad_token_id=1, max_position_embeddings=POSITIONS + 2)
    named = {f"roberta.{name}": values for name, values in weights.items()}
    package = package_from_folder(write_folder(tmp_path / "m", config, named), work)
    check_against(Reference(weights, LAYERS, HEADS, first_position=2), package)
    assert package.spec.max_tokens == POSITIONS


def test_distilbert(tmp_path: Path, work: Path) -> None:
    weights = as_distilbert(bert_weights(3))
    named = {f"distilbert.{name}": values for name, values in weights.items()}
    package = package_from_folder(write_folder(tmp_path / "m", DISTILBERT, named), work)
    check_against(Reference(weights, LAYERS, HEADS, layer_prefix="transformer.layer."), package)


def test_shards_old_names_and_half_precision(tmp_path: Path, work: Path) -> None:
    weights = {name: values.astype(ml_dtypes.bfloat16) for name, values in bert_weights(4).items()}
    old = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for n, v in weights.items()
    }
    folder = write_folder(tmp_path / "m", bert_config(), old)
    (folder / "model.safetensors").unlink()
    names = sorted(old)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, members in shards.items():
        save_file({name: old[name] for name in members}, folder / shard)
    index = {"weight_map": {name: shard for shard, members in shards.items() for name in members}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    check_against(Reference(weights, LAYERS, HEADS), package_from_folder(folder, work))


def test_without_modules_the_mean_is_taken_and_recorded(tmp_path: Path, work: Path) -> None:
    weights = bert_weights()
    folder = write_folder(tmp_path / "m", bert_config(), weights, pooling=None)
    package = package_from_folder(folder, work)
    assert (package.metadata["pooling"], package.metadata["poolingAssumed"]) == ("mean", True)
    tokens = Reference(weights, LAYERS, HEADS).token_vectors(ids_of(package)[0])
    assert np.abs(opened(package).embed(TEXTS[:1])[0] - tokens.mean(axis=0)).max() < 1e-5


def test_without_modules_the_caller_may_choose_the_pooling(tmp_path: Path, work: Path) -> None:
    weights = bert_weights()
    folder = write_folder(tmp_path / "m", bert_config(), weights, pooling=None)
    given = {"function": "embedding", "pooling": "cls", "input": {"input": ["TXT"]}}
    package = package_from_folder(folder, work, given)
    assert package.spec.attributes == (Attribute("TXT", "text"),)
    assert "poolingAssumed" not in package.metadata
    tokens = Reference(weights, LAYERS, HEADS).token_vectors(ids_of(package)[0])
    assert np.abs(opened(package).embed(TEXTS[:1])[0] - tokens[0]).max() < 1e-5


@pytest.mark.parametrize(
    ("sentence", "tokenizer", "expected"),
    [(12, 10, 12), (None, 10, 10), (None, 1e30, POSITIONS), (500, None, POSITIONS), (None, None, POSITIONS)],
)
def test_longest_input(
    tmp_path: Path, work: Path, sentence: int | None, tokenizer: float | None, expected: int
) -> None:
    folder = write_folder(tmp_path / "m", bert_config(), bert_weights())
    if sentence:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": sentence}))
    if tokenizer:
        (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": tokenizer}))
    package = package_from_folder(folder, work)
    assert package.spec.max_tokens == expected
    assert len(opened(package).tokenize(["cat " * 50])[0]) == expected


@pytest.mark.parametrize("longest", [0, -1, 0.5, float("nan"), float("inf")])
def test_longest_inputs_that_cannot_be(tmp_path: Path, work: Path, longest: float) -> None:
    folder = write_folder(tmp_path / "m", bert_config(), bert_weights())
    with pytest.raises(InvalidParameter, match='"maxSequenceLength" must be a number from 1, not'):
        package_from_folder(folder, work, {"function": "embedding", "maxSequenceLength": longest})


def test_large_weights_go_to_a_file_of_their_own(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = bert_weights()
    folder = write_folder(tmp_path / "m", bert_config(), weights)
    monkeypatch.setattr(building.save_model, "__kwdefaults__", {"inline_limit": 1000})
    package = package_from_folder(folder, work)
    assert set(package.files) == {"model.onnx", "model.onnx.data", "tokenizer.json"}
    assert package.files["model.onnx"].stat().st_size < package.files["model.onnx.data"].stat().st_size
    assert check_model_file(package.files["model.onnx"]).external == ("model.onnx.data",)
    check_against(Reference(weights, LAYERS, HEADS), package)


def ready_folder(folder: Path, model: onnx.ModelProto, name: str = "model.onnx") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, folder / name)
    write_tokenizer(folder)
    return folder


@pytest.mark.parametrize("mode", ["mean_tokens", "cls_token", "max_tokens"])
@pytest.mark.parametrize("opset", [12, 17, 20])
def test_ready_graph_of_token_vectors_gets_pooling(tmp_path: Path, work: Path, opset: int, mode: str) -> None:
    model = token_graph(opset, int32=opset == 12)
    folder = ready_folder(tmp_path / "m", model, "onnx/model.onnx")
    write_modules(folder, f"pooling_mode_{mode}", normalize=True)
    package = package_from_folder(folder, work)
    assert (package.spec.dimensions, package.spec.outputs) == (HIDDEN, {"embedding": "pythia.embedding"})
    assert [(i.tensor, i.source) for i in package.spec.inputs] == [
        ("input_ids", "ids"),
        ("attention_mask", "mask"),
        ("token_type_ids", "types"),
    ]
    table = onnx.numpy_helper.to_array(model.graph.initializer[0]).astype(np.float64)
    expected = np.stack([unit(pooled(table[ids], mode.partition("_")[0])) for ids in ids_of(package)])
    assert np.abs(opened(package).embed(TEXTS) - expected).max() < 1e-6
    probe(package)


def test_ready_graph_with_sentence_embedding_stays_as_it_is(tmp_path: Path, work: Path) -> None:
    folder = ready_folder(tmp_path / "m", token_graph(pooled=True))
    package = package_from_folder(folder, work)
    assert package.files["model.onnx"] == folder / "model.onnx"
    assert (package.spec.outputs, package.spec.dimensions) == ({"embedding": "sentence_embedding"}, HIDDEN)
    assert "pooling" not in package.metadata
    assert list(work.iterdir()) == []


def test_ready_graph_keeps_external_data_beside_it(tmp_path: Path, work: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    onnx.save_model(
        token_graph(),
        folder / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    write_tokenizer(folder)
    package = package_from_folder(folder, work)
    assert package.files["weights.bin"] == work / "weights.bin"
    probe(package)


def test_output_that_the_metadata_names(tmp_path: Path, work: Path) -> None:
    folder = ready_folder(tmp_path / "m", token_graph())
    named = package_from_folder(folder, work, {"function": "embedding", "embeddingOutput": "pooler_output"})
    assert named.spec.outputs == {"embedding": "pooler_output"}
    with pytest.raises(InvalidParameter, match='"nothing" in the JSON metadata is not a model output'):
        package_from_folder(folder, work, {"function": "embedding", "embeddingOutput": "nothing"})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model_type": "t5"}, FeatureNotSupported, 'model type "t5" is not supported'),
        ({"model_type": "mpnet"}, FeatureNotSupported, 'model type "mpnet" is not supported'),
        ({"hidden_act": "swish"}, FeatureNotSupported, 'activation "swish" is not supported'),
        ({"position_embedding_type": "relative_key"}, FeatureNotSupported, "relative_key"),
        ({"is_decoder": True}, FeatureNotSupported, "decoder"),
        ({"num_attention_heads": 5}, InvalidModel, "not a multiple"),
        ({"num_hidden_layers": "two"}, InvalidModel, '"num_hidden_layers"'),
        ({"num_hidden_layers": 3}, InvalidModel, 'lack "encoder.layer.2'),
        ({"intermediate_size": 41}, InvalidModel, r"has shape \[40, 24\], expected \[41, 24\]"),
    ],
)
def test_configurations_that_are_refused(
    tmp_path: Path, work: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    folder = write_folder(tmp_path / "m", bert_config(**change), bert_weights())
    with pytest.raises(error, match=message):
        package_from_folder(folder, work)


def test_folders_that_are_refused(tmp_path: Path, work: Path) -> None:
    folder = write_folder(tmp_path / "m", bert_config(), bert_weights(), pooling="pooling_mode_lasttoken")
    with pytest.raises(FeatureNotSupported, match='pooling "pooling_mode_lasttoken" is not supported'):
        package_from_folder(folder, work)
    write_modules(folder, "pooling_mode_mean_tokens", normalize=True)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:5000])
    with pytest.raises(InvalidModel, match=r'could not read weights "model.safetensors"'):
        package_from_folder(folder, work)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InvalidModel, match="neither weights nor a graph"):
        package_from_folder(folder, work)
    index = {"weight_map": {"x": "../../other/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidModel, match="outside the model folder"):
        package_from_folder(folder, work)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidModel, match=r'could not read tokenizer "tokenizer.json"'):
        package_from_folder(folder, work)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InvalidModel, match=r"has no tokenizer.json"):
        package_from_folder(folder, work)


def test_other_modules_are_refused(tmp_path: Path, work: Path) -> None:
    folder = write_folder(tmp_path / "m", bert_config(), bert_weights())
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"type": "sentence_transformers.models.Dense", "path": "3_Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(FeatureNotSupported, match='module "Dense" is not supported'):
        package_from_folder(folder, work)
    modules[1]["path"] = "../elsewhere"
    (folder / "modules.json").write_text(json.dumps(modules[:2]))
    with pytest.raises(InvalidModel, match="outside the model folder"):
        package_from_folder(folder, work)


def test_tokenizer_larger_than_the_model_is_refused(tmp_path: Path, work: Path) -> None:
    weights = bert_weights()
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][:5]
    folder = write_folder(tmp_path / "m", bert_config(), weights)
    with pytest.raises(InvalidModel, match="the model knows 5"):
        package_from_folder(folder, work)
