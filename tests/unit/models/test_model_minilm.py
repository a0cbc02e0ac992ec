"""all-MiniLM-L6-v2: our graph against an independent forward pass and against known figures."""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy_encoder import Reference, unit
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from pythiadb.models.package import Package
from pythiadb.models.probe import probe
from pythiadb.models.session import Model

TEXTS = [
    "The cat sits outside.",
    "Quarterly revenue rose by ten percent, driven by demand for cloud services and a weaker dollar.",
    "¿Dónde está la biblioteca? 図書館はどこですか",
    "",
]


@pytest.fixture(scope="module")
def bare(minilm_folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(minilm_folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    return tokenizer


@pytest.fixture(scope="module")
def reference(minilm_folder: Path) -> Reference:
    return Reference(load_file(minilm_folder / "model.safetensors"), layers=6, heads=12)


def test_vectors_equal_an_independent_forward_pass(
    minilm: Model, reference: Reference, bare: Tokenizer
) -> None:
    expected = np.stack([unit(reference.token_vectors(bare.encode(text).ids).mean(axis=0)) for text in TEXTS])
    found = minilm.embed(TEXTS)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 2e-6
    assert ((found * expected).sum(axis=1) > 0.9999999).all()


def test_known_similarities(minilm: Model) -> None:
    paraphrase = minilm.embed(
        ["How can I reset my password?", "I forgot my login credentials, what do I do?"]
    )
    strange = minilm.embed(["How can I reset my password?", "The volcano erupted at dawn."])
    assert 0.5 < float(paraphrase[0] @ paraphrase[1]) < 0.8
    assert abs(float(strange[0] @ strange[1])) < 0.15


def test_a_batch_gives_what_single_texts_give(minilm: Model) -> None:
    texts = [*TEXTS, "word " * 400, "middle length " * 20, *TEXTS]
    together = minilm.embed(texts)
    alone = np.concatenate([minilm.embed([text]) for text in texts])
    assert np.abs(together - alone).max() < 1e-6
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-6


def test_text_is_cut_at_256_tokens_and_not_at_the_128_of_the_file(minilm: Model) -> None:
    words = [f"w{number % 7}" for number in range(600)]
    assert [len(row) for row in minilm.tokenize([" ".join(words)])] == [256]
    full, longer, shorter = minilm.embed([" ".join(words[:n]) for n in (300, 600, 60)])
    assert np.array_equal(full, longer)
    assert float(full @ shorter) < 0.9999


def test_probe_tells_tensors_as_oracle_writes_them(minilm_package: Package) -> None:
    facts = probe(minilm_package)
    assert facts["inputs"] == ["input_ids:int64[?,?]", "attention_mask:int64[?,?]"]
    assert facts["outputs"] == ["embedding:float32[?,384]"]
    assert facts["dimensions"] == 384
    assert facts["version"] is None
    assert facts["bytes"] == sum(facts["files"].values())


def test_metadata_is_derived_from_the_folder(minilm_package: Package) -> None:
    assert minilm_package.metadata == {
        "function": "embedding",
        "embeddingOutput": "embedding",
        "input": {"input": ["DATA"]},
        "pooling": "mean",
        "normalization": True,
        "maxSequenceLength": 256,
    }


def test_graph_has_the_operators_that_were_measured_as_fastest(minilm_package: Package) -> None:
    model = onnx.load(minilm_package.files["model.onnx"])
    count = collections.Counter(node.op_type for node in model.graph.node)
    assert (count["Attention"], count["Gemm"], count["Gelu"], count["LayerNormalization"]) == (6, 18, 6, 13)
    onnx.checker.check_model(model)


def test_embed_nothing(minilm: Model) -> None:
    assert minilm.embed([]).shape == (0, 384)
