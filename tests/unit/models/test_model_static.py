"""Static embeddings: wordllama, and small tables of every form, against numpy and the bare tokenizers library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from numpy_encoder import unit
from safetensors.numpy import load_file, save_file
from small_models import VOCABULARY, WORDS, write_tokenizer
from tokenizers import Tokenizer as Bare

from pythiadb.errors import FeatureNotSupported, InvalidModel
from pythiadb.models.folder import package_from_folder
from pythiadb.models.package import Package
from pythiadb.models.probe import probe
from pythiadb.models.session import Model, open_model

TEXTS = [
    "The cat sits outside.",
    "Quarterly revenue rose by ten percent, driven by demand for cloud services and a weaker dollar.",
    "¿Dónde está la biblioteca? 図書館はどこですか 🏴‍☠️",
    "word " * 3000,
]
SMALL = ["the cat sits outside", "a dog", "revenue rose by ten percent and the dog", "zebra the unknown"]


def opened(package: Package) -> Model:
    return open_model(package.files, package.spec, threads=2)


def table(rows: int = len(VOCABULARY), seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).normal(size=(rows, 6)).astype(np.float32)


def ids(folder: Path, text: str) -> list[int]:
    tokenizer = Bare.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.fixture(scope="module")
def wordllama(wordllama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    return package_from_folder(wordllama_folder, tmp_path_factory.mktemp("work"))


def test_wordllama_equals_the_mean_of_its_table(wordllama: Package, wordllama_folder: Path) -> None:
    (rows,) = load_file(wordllama_folder / "model.safetensors").values()
    wide = rows.astype(np.float64)
    expected = np.stack([wide[ids(wordllama_folder, text)].mean(axis=0) for text in TEXTS])
    found = opened(wordllama).embed(TEXTS)
    assert (wordllama.spec.dimensions, found.dtype) == (256, np.float32)
    assert np.abs(found - expected).max() < 1e-5
    cosines = (
        (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    )
    assert cosines.min() > 0.999999
    probe(wordllama)


def test_wordllama_knows_what_is_alike(wordllama: Package) -> None:
    one, other, strange = (
        unit(vector.astype(np.float64))
        for vector in opened(wordllama).embed(
            [
                "I bought a used car yesterday",
                "Yesterday I purchased a second-hand automobile",
                "Volcanoes erupt at dawn",
            ]
        )
    )
    assert one @ other > one @ strange + 0.2


def test_an_empty_text_has_the_vector_zero(wordllama: Package) -> None:
    assert not opened(wordllama).embed([""]).any()


def small_folder(folder: Path, weights: dict[str, Any], config: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True)
    write_tokenizer(folder)
    save_file(weights, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("normalize", [True, False])
def test_model2vec_leaves_unknown_tokens_out(tmp_path: Path, work: Path, normalize: bool) -> None:
    rows = table()
    folder = small_folder(
        tmp_path / "m", {"embeddings": rows}, {"model_type": "model2vec", "normalize": normalize}
    )
    package = package_from_folder(folder, work)
    assert package.metadata["normalization"] == normalize
    known = [[i for i in ids(folder, text) if i != VOCABULARY["[UNK]"]] for text in SMALL]
    expected = np.stack([rows[row].astype(np.float64).mean(axis=0) for row in known])
    if normalize:
        expected = np.stack([unit(vector) for vector in expected])
    assert np.abs(opened(package).embed(SMALL) - expected).max() < 1e-6
    assert package.spec.max_tokens == 512


def test_model2vec_with_mapping_and_weights(tmp_path: Path, work: Path) -> None:
    """Quantized vocabularies: several tokens share a row, and each token has a weight."""
    rows = table(5)
    mapping = (np.arange(len(VOCABULARY)) % 5).astype(np.int64)
    factors = np.linspace(0.1, 2, len(VOCABULARY)).astype(np.float32)
    weights = {"embeddings": rows, "mapping": mapping, "weights": factors}
    folder = small_folder(tmp_path / "m", weights, {"model_type": "model2vec", "normalize": False})
    package = package_from_folder(folder, work)
    text = SMALL[0]
    wanted = np.mean([rows[mapping[i]].astype(np.float64) * factors[i] for i in ids(folder, text)], axis=0)
    assert np.abs(opened(package).embed([text])[0] - wanted).max() < 1e-6


@pytest.mark.parametrize("normalize", [True, False])
def test_sentence_transformers(tmp_path: Path, work: Path, normalize: bool) -> None:
    rows = table()
    folder = tmp_path / "m"
    small_folder(folder / "0_StaticEmbedding", {"embedding.weight": rows})
    kinds = [("StaticEmbedding", "0_StaticEmbedding"), *([("Normalize", "1_Normalize")] if normalize else [])]
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    package = package_from_folder(folder, work)
    expected = np.stack(
        [rows[ids(folder / "0_StaticEmbedding", t)].astype(np.float64).mean(axis=0) for t in SMALL]
    )
    if normalize:
        expected = np.stack([unit(vector) for vector in expected])
    assert np.abs(opened(package).embed(SMALL) - expected).max() < 1e-6
    probe(package)


def test_the_longest_text_can_be_set(tmp_path: Path, work: Path) -> None:
    rows = table()
    folder = small_folder(tmp_path / "m", {"embedding.weight": rows})
    package = package_from_folder(folder, work, {"function": "embedding", "maxSequenceLength": 3})
    text = " ".join(WORDS[:8])
    expected = rows[ids(folder, text)[:3]].mean(axis=0)
    assert np.abs(opened(package).embed([text])[0] - expected).max() < 1e-6


def test_tables_that_are_refused(tmp_path: Path, work: Path) -> None:
    folder = small_folder(tmp_path / "short", {"embedding.weight": table(4)})
    with pytest.raises(InvalidModel, match=f"tokenizer has {len(VOCABULARY)} tokens, the model knows 4"):
        package_from_folder(folder, work)
    mapping = np.full(len(VOCABULARY), 9, np.int64)
    folder = small_folder(tmp_path / "beyond", {"embeddings": table(5), "mapping": mapping})
    with pytest.raises(InvalidModel, match="the model knows"):
        package_from_folder(folder, work)
    folder = small_folder(tmp_path / "scored", {"embedding.weight": table()})
    with pytest.raises(FeatureNotSupported, match="cannot be made out of a table of embeddings"):
        package_from_folder(folder, work, {"function": "regression"})
    modules = [{"type": "x.StaticEmbedding", "path": ""}, {"type": "x.Dense", "path": "2"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(FeatureNotSupported, match='module "Dense" is not supported'):
        package_from_folder(folder, work)
