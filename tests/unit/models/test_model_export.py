"""Models out again: files that load back as they were, and Oracle's form with the tokenizer in the graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnxruntime_extensions import get_library_path
from safetensors.numpy import save_file
from small_models import (
    HIDDEN,
    bert_config,
    bert_weights,
    string_graph,
    tabular_graph,
    write_folder,
    write_modules,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from pythiadb.errors import FeatureNotSupported, InvalidModel, InvalidParameter
from pythiadb.models.export import MANIFEST, export_augmented, export_files
from pythiadb.models.loading import read_packages
from pythiadb.models.onnx_file import package_from_onnx
from pythiadb.models.package import Package
from pythiadb.models.session import open_model

TEXTS = [
    "How can I reset my password?",
    "Quarterly revenue rose by ten percent (1,234.56 €), driven by demand for cloud services.",
    "don't, I'll, we've — e-mail: someone@example.com",
    "Übergröße, naïve café, ¿dónde está?  two  spaces ",
    "Москва, 北京, 東京タワー 🙂",
    "line one\nline two\tand a tab",
    "x",
    "",
    "middle length " * 60,
    "word " * 3000,
]


def embed(package: Package, texts: list[str] = TEXTS) -> NDArray[np.float32]:
    return open_model(package.files, package.spec, threads=2).embed(texts)


def embed_bare(path: Path) -> NDArray[np.float32]:
    """The vectors of an augmented file by ONNX Runtime and the extensions' library alone, one text at a time."""
    options = ort.SessionOptions()
    options.register_custom_ops_library(get_library_path())
    session = ort.InferenceSession(path, options)
    rows = [session.run(["embedding"], {"input": np.array([text], dtype=object)})[0] for text in TEXTS]
    return np.concatenate(rows)


def least_cosine(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((found * expected).sum(axis=1) / lengths).min())


def byte_pair_tokenizer(path: Path) -> Tokenizer:
    """A byte-level BPE of RoBERTa's form, trained on this test's own words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.save(str(path))
    return tokenizer


@pytest.fixture
def byte_pairs(tmp_path: Path) -> Path:
    """A RoBERTa folder with random weights and a BPE tokenizer."""
    weights = bert_weights(first=2, types=1)
    folder = write_folder(
        tmp_path / "roberta",
        bert_config(model_type="roberta", pad_token_id=1, max_position_embeddings=22),
        weights,
    )
    size = byte_pair_tokenizer(folder / "tokenizer.json").get_vocab_size()
    rng = np.random.default_rng(3)
    weights["embeddings.word_embeddings.weight"] = rng.normal(size=(size, HIDDEN)).astype(np.float32)
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "small", bert_config(), bert_weights())


# Plain --------------------------------------------------------------------------------------------------------------------


def test_exported_files_are_the_package_again(minilm_package: Package, tmp_path: Path, work: Path) -> None:
    export_files(minilm_package, tmp_path / "out")
    again = read_packages(tmp_path / "out", work)[""]
    assert again.spec == minilm_package.spec
    assert again.metadata == minilm_package.metadata
    assert (
        set(again.files) == set(minilm_package.files) == {"model.onnx", "model.onnx.data", "tokenizer.json"}
    )
    for name, path in minilm_package.files.items():
        assert again.files[name].read_bytes() == path.read_bytes()
    assert np.array_equal(embed(again, TEXTS[:3]), embed(minilm_package, TEXTS[:3]))


def test_models_without_a_tokenizer_are_exported_too(tmp_path: Path, work: Path) -> None:
    path = tmp_path / "sum.onnx"
    path.write_bytes(tabular_graph().SerializeToString())
    metadata = {"function": "regression", "regressionOutput": "y", "input": {"x": ["A", "B", "C"]}}
    package = read_packages(path, work, metadata)[""]
    export_files(package, tmp_path / "out")
    again = read_packages(tmp_path / "out", work)[""]
    assert (again.spec, again.metadata) == (package.spec, package.metadata)


def test_a_folder_in_use_is_left_alone(minilm_package: Package, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidParameter, match="is not empty"):
        export_files(minilm_package, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_export_is_loaded_as_it_is(small: Path, tmp_path: Path, work: Path) -> None:
    export_files(read_packages(small, work)[""], tmp_path / "out")
    for wish in ({"function": "embedding"}, {"prompt": "query"}, {"metadata": '{"function": "embedding"}'}):
        with pytest.raises(InvalidParameter, match="has its metadata with it"):
            read_packages(tmp_path / "out", work, **wish)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": ["../secret"]}, "names a file outside its folder"),
        ({"files": ["/etc/passwd"]}, "names a file outside its folder"),
        ({"files": ["missing.bin"]}, 'lacks the file "missing.bin"'),
        ({"files": None}, "lists no files"),
        ({"metadata": []}, "lists no files or no metadata"),
        ({"spec": {"format": 2}}, "model specification lacks"),
    ],
)
def test_a_manifest_that_is_wrong(
    small: Path, tmp_path: Path, work: Path, change: dict[str, Any], message: str
) -> None:
    export_files(read_packages(small, work)[""], tmp_path / "out")
    manifest = tmp_path / "out" / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    with pytest.raises(InvalidModel, match=message):
        read_packages(tmp_path / "out", work)


# Augmented ----------------------------------------------------------------------------------------------------------------


def test_minilm_with_its_tokenizer_inside(minilm_package: Package, tmp_path: Path, work: Path) -> None:
    target = tmp_path / "out" / "minilm.onnx"
    differing = export_augmented(minilm_package, target)
    assert {"Polish", "Vietnamese", "Greek", "Hindi", "Korean", "special tokens written out"} <= set(
        differing
    )
    assert not {"Chinese", "emoji"} & set(differing)
    assert [path.name for path in target.parent.iterdir()] == ["minilm.onnx"]
    expected = embed(minilm_package)
    assert least_cosine(embed_bare(target), expected) >= 0.9999
    loaded = package_from_onnx(target, work)  # Oracle's default metadata
    assert loaded.files == {"model.onnx": target}
    assert (loaded.spec.dimensions, loaded.spec.tokenizer) == (384, None)
    assert least_cosine(embed(loaded), expected) >= 0.9999


def test_a_byte_pair_model_with_its_tokenizer_inside(byte_pairs: Path, tmp_path: Path, work: Path) -> None:
    package = read_packages(byte_pairs, work)[""]
    target = tmp_path / "bpe.onnx"
    assert export_augmented(package, target) == ()
    operators = [node.op_type for node in onnx.load(target).graph.node if node.domain == "ai.onnx.contrib"]
    assert operators == ["HfJsonTokenizer"]
    expected = embed(package)
    assert least_cosine(embed_bare(target), expected) >= 0.9999
    assert least_cosine(embed(package_from_onnx(target, tmp_path)), expected) >= 0.9999


def test_the_prompt_is_part_of_the_graph(byte_pairs: Path, tmp_path: Path, work: Path) -> None:
    write_modules(byte_pairs, "pooling_mode_mean_tokens", normalize=True)
    prompts = {"prompts": {"query": "Quarterly revenue: "}}
    (byte_pairs / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    (tmp_path / "without").mkdir()
    without = embed(read_packages(byte_pairs, tmp_path / "without")[""])
    package = read_packages(byte_pairs, work, prompt="query")[""]
    export_augmented(package, tmp_path / "prompt.onnx")
    found = embed_bare(tmp_path / "prompt.onnx")
    assert least_cosine(found, embed(package)) >= 0.9999
    assert least_cosine(found, without) < 0.999


def test_a_file_that_is_there_is_left_alone(minilm_package: Package, tmp_path: Path) -> None:
    target = tmp_path / "minilm.onnx"
    target.write_text("mine")
    with pytest.raises(InvalidParameter, match="exists"):
        export_augmented(minilm_package, target)
    assert target.read_text() == "mine"


def test_what_has_no_augmented_form(small: Path, tmp_path: Path, work: Path) -> None:
    """A word-level tokenizer has no operator; a graph that takes strings needs none; a regression embeds nothing."""
    with pytest.raises(FeatureNotSupported, match="has no equal among the operators") as caught:
        export_augmented(read_packages(small, work)[""], tmp_path / "out.onnx")
    assert caught.value.hint is not None
    path = tmp_path / "strings.onnx"
    path.write_bytes(string_graph().SerializeToString())
    with pytest.raises(FeatureNotSupported, match="only models that embed a text with a tokenizer"):
        export_augmented(read_packages(path, work)[""], tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_a_tokenizer_that_the_operator_reads_otherwise_is_refused(
    byte_pairs: Path, tmp_path: Path, work: Path
) -> None:
    """The tokenizer replaces letters first, which the operator does not know of."""
    tokenizer = json.loads((byte_pairs / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "e"}, "content": "x"}
    (byte_pairs / "tokenizer.json").write_text(json.dumps(tokenizer))
    package = read_packages(byte_pairs, work)[""]
    with pytest.raises(FeatureNotSupported, match="has no equal among the operators") as caught:
        export_augmented(package, tmp_path / "out.onnx")
    assert "differently" in str(caught.value.detail)
    assert list(tmp_path.glob("out*")) == []
