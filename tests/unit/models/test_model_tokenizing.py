"""Tokenizing against the bare library, with any text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Bare

from pythiadb.errors import LimitExceeded
from pythiadb.models.session import Model
from pythiadb.models.tokenizing import Tokenizer, Tokens, clean_text, pad

any_text = st.text(st.characters(exclude_categories=()), max_size=200)


@pytest.fixture(scope="module")
def path(minilm_folder: Path) -> Path:
    return minilm_folder / "tokenizer.json"


@pytest.fixture(scope="module")
def ours(path: Path) -> Tokenizer:
    return Tokenizer(path, 16)


@pytest.fixture(scope="module")
def bare(path: Path) -> Bare:
    tokenizer = Bare.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


@given(texts=st.lists(any_text, max_size=8))
@settings(deadline=None)
def test_tokens_are_those_of_the_library_cut_to_the_limit(
    ours: Tokenizer, bare: Bare, texts: list[str]
) -> None:
    clean = [clean_text(text) for text in texts]
    for text, row in zip(clean, ours.encode(clean), strict=True):
        whole = bare.encode(text).ids
        assert list(row.ids) == (whole if len(whole) <= 16 else [*whole[:15], whole[-1]])
        assert set(row.types) <= {0}


@given(st.lists(st.lists(st.integers(0, 30_000), max_size=20), min_size=1, max_size=10))
def test_padding(rows: list[list[int]]) -> None:
    ids, mask, types = pad([Tokens(tuple(row), (0,) * len(row)) for row in rows])
    assert ids.shape == mask.shape == types.shape == (len(rows), max(1, *map(len, rows)))
    assert ids.dtype == mask.dtype == types.dtype == np.int64
    for number, row in enumerate(rows):
        assert mask[number].tolist() == [1] * len(row) + [0] * (ids.shape[1] - len(row))
        assert ids[number, : len(row)].tolist() == row
        assert not ids[number, len(row) :].any()


@given(any_text)
def test_clean_text_can_always_be_encoded(text: str) -> None:
    clean = clean_text(text)
    clean.encode()
    assert len(clean) == len(text)
    assert all(a == b or (b == "?" and "\ud800" <= a <= "\udfff") for a, b in zip(text, clean, strict=True))


@given(st.text(max_size=50), st.integers(0, 100))
def test_limit_is_in_bytes(text: str, limit: int) -> None:
    if len(text.encode()) <= limit:
        assert clean_text(text, limit) == text
    else:
        with pytest.raises(LimitExceeded, match=f"exceeds the limit of {limit} bytes"):
            clean_text(text, limit)


def test_strange_texts_give_vectors(minilm: Model) -> None:
    texts = [
        "a\0b",
        "\ud800 lone",
        "\udfff",
        "\u202e right to left",
        "🏴‍☠️" * 50,
        "\n\t ",
        "\ufeff",
        "x" * 100_000,
    ]
    vectors = minilm.embed(texts)
    assert np.isfinite(vectors).all()
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5
