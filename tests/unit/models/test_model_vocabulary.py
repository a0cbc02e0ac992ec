"""Tokenizers of every kind and every file form, against the bare tokenizers library, with any text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Bare
from tokenizers.implementations import BertWordPieceTokenizer, ByteLevelBPETokenizer

from pythiadb.errors import InvalidModel
from pythiadb.models.source import open_source
from pythiadb.models.tokenizing import Tokenizer, clean_text
from pythiadb.models.vocabulary import tokenizer_file

LIMIT = 12
CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps.",
    "¿Dónde está la biblioteca? Ünïcödé wörds, naïve cafés and 1,234.56 numbers",
    "Москва столица, 北京 東京, emoji 🏴‍☠️ and tabs\tand\nlines",
    "revenue rose by ten percent; it's what they'd've expected",
] * 5
any_text = st.text(st.characters(exclude_categories=()), max_size=120)
likely_text = st.lists(
    st.sampled_from([*" ".join(CORPUS[:4]).split(), "  ", "\n", "<s>", "[SEP]"]), max_size=20
).map(" ".join)
texts = st.lists(any_text | likely_text, max_size=6)


def no_limits(tokenizer: Bare) -> Bare:
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def closing(bare: Bare) -> int:
    """Return how many special tokens stand behind a text."""
    whole, inner = bare.encode("a").ids, bare.encode("a", add_special_tokens=False).ids
    first = next(n for n in range(len(whole)) if whole[n : n + len(inner)] == inner)
    return len(whole) - len(inner) - first


def check(path: Path, bare: Bare, given_texts: list[str]) -> None:
    """Compare ids with the library's, cut to LIMIT by hand."""
    clean = [clean_text(text) for text in given_texts]
    last = closing(bare)
    for text, row in zip(clean, Tokenizer(path, LIMIT).encode(clean), strict=True):
        whole = bare.encode(text).ids
        if len(whole) > LIMIT:
            whole = whole[: LIMIT - last] + whole[len(whole) - last :]
        assert list(row.ids) == whole
        assert len(row.types) == len(row.ids)


@pytest.fixture(scope="module")
def unigram(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bare]:
    """SentencePiece's Unigram, as XLM-RoBERTa and T5 store it."""
    bare = Bare(models.Unigram())
    bare.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("``", '"')])
    bare.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    bare.train_from_iterator(CORPUS, trainer)
    ends = [(token, bare.token_to_id(token)) for token in ("<s>", "</s>")]
    bare.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
    )
    return saved(bare, tmp_path_factory.mktemp("unigram"))


@pytest.fixture(scope="module")
def byte_pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bare]:
    """Byte-level BPE, as GPT-2 and RoBERTa store it."""
    bare = Bare(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False
    )
    bare.train_from_iterator(CORPUS, trainer)
    bare.post_processor = processors.ByteLevel(trim_offsets=False)
    return saved(bare, tmp_path_factory.mktemp("bpe"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bare]:
    """BPE over SentencePiece's words with single bytes for what is unknown, as Llama stores it."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = sorted({letter for text in CORPUS for letter in text.replace(" ", "▁")} | {"▁"})
    vocabulary = {token: number for number, token in enumerate([*tokens, *letters, "▁t", "▁th", "▁the"])}
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e")]
    bare = Bare(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    bare.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bare.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    bare.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return saved(bare, tmp_path_factory.mktemp("llama"))


def saved(bare: Bare, folder: Path) -> tuple[Path, Bare]:
    """Save a tokenizer with the settings of some last use, which must not matter."""
    bare.enable_truncation(5)
    bare.enable_padding(length=9)
    bare.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json", no_limits(Bare.from_file(str(folder / "tokenizer.json")))


@given(texts)
@settings(deadline=None, max_examples=60)
def test_unigram(unigram: tuple[Path, Bare], given_texts: list[str]) -> None:
    check(*unigram, given_texts)


@given(texts)
@settings(deadline=None, max_examples=60)
def test_byte_pairs(byte_pairs: tuple[Path, Bare], given_texts: list[str]) -> None:
    check(*byte_pairs, given_texts)


@given(texts)
@settings(deadline=None, max_examples=60)
def test_byte_pairs_with_fallback(llama: tuple[Path, Bare], given_texts: list[str]) -> None:
    check(*llama, given_texts)


@given(st.lists(st.tuples(any_text | likely_text, any_text | likely_text), max_size=5))
@settings(deadline=None, max_examples=60)
def test_pairs(unigram: tuple[Path, Bare], pairs: list[tuple[str, str]]) -> None:
    """Pairs are cut from the longer text until they fit, as the library's longest_first."""
    path, bare = unigram
    clean = [(clean_text(one), clean_text(two)) for one, two in pairs]
    for (one, two), row in zip(clean, Tokenizer(path, LIMIT, pairs=True).encode_pairs(clean), strict=True):
        first, second = (bare.encode(text, add_special_tokens=False).ids for text in (one, two))
        start, end = bare.token_to_id("<s>"), bare.token_to_id("</s>")
        whole = [start, *first, end, end, *second, end]
        if len(whole) <= LIMIT:
            assert list(row.ids) == whole
            continue
        assert len(row.ids) == LIMIT
        cut = list(row.ids)
        kept = cut[1:].index(end) if end not in first else len(first)
        if end in (*first, *second):
            continue  # the text itself holds the token that ends it
        rest = cut[kept + 3 : -1]
        assert cut[1 : 1 + kept] == first[:kept]
        assert rest == second[: len(rest)]
        assert abs(kept - len(rest)) <= 1 or min(kept, len(rest)) == min(len(first), len(second))


@pytest.fixture(scope="module")
def word_pieces(minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer made out of MiniLM's vocab.txt alone."""
    folder = tmp_path_factory.mktemp("pieces")
    shutil.copyfile(minilm_folder / "vocab.txt", folder / "vocab.txt")
    return tokenizer_file(open_source(folder, tmp_path_factory.mktemp("made")))


@pytest.fixture(scope="module")
def published(minilm_folder: Path) -> Bare:
    return no_limits(Bare.from_file(str(minilm_folder / "tokenizer.json")))


@given(given_texts=texts)
@settings(deadline=None, max_examples=60)
def test_word_pieces_from_a_vocabulary_are_the_published_ones(
    word_pieces: Path, published: Bare, given_texts: list[str]
) -> None:
    check(word_pieces, published, given_texts)


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("accents", [True, False, None])
@pytest.mark.parametrize("chinese", [True, False])
def test_settings_of_word_pieces(
    minilm_folder: Path, tmp_path: Path, work: Path, lower: bool, accents: bool | None, chinese: bool
) -> None:
    shutil.copyfile(minilm_folder / "vocab.txt", tmp_path / "vocab.txt")
    options = {"do_lower_case": lower, "strip_accents": accents, "tokenize_chinese_chars": chinese}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(options))
    made = no_limits(Bare.from_file(str(tokenizer_file(open_source(tmp_path, work)))))
    bare = BertWordPieceTokenizer(
        str(minilm_folder / "vocab.txt"), lowercase=lower, strip_accents=accents, handle_chinese_chars=chinese
    )
    for text in CORPUS[:4]:
        assert made.encode(text).ids == bare.encode(text).ids


@pytest.fixture(scope="module")
def older_pairs(byte_pairs: tuple[Path, Bare], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer made out of vocab.json and merges.txt, as the library writes them."""
    folder = tmp_path_factory.mktemp("older")
    byte_pairs[1].model.save(str(folder))
    return tokenizer_file(open_source(folder, tmp_path_factory.mktemp("made")))


@given(given_texts=texts)
@settings(deadline=None, max_examples=40)
def test_byte_pairs_from_a_vocabulary(
    older_pairs: Path, byte_pairs: tuple[Path, Bare], given_texts: list[str]
) -> None:
    check(older_pairs, byte_pairs[1], given_texts)


@pytest.mark.parametrize("prefix", [True, False])
def test_roberta_puts_its_tokens_around_a_text(tmp_path: Path, work: Path, prefix: bool) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    trained = ByteLevelBPETokenizer(add_prefix_space=prefix)
    trained.train_from_iterator(
        CORPUS,
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        show_progress=False,
    )
    trained.save_model(str(folder))
    (folder / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_prefix_space": prefix}))
    made = no_limits(Bare.from_file(str(tokenizer_file(open_source(folder, work)))))
    start, end = trained.token_to_id("<s>"), trained.token_to_id("</s>")
    for text in CORPUS[:4]:
        inner = trained.encode(text).ids
        assert made.encode(text).ids == [start, *inner, end]
        assert made.encode(text, text).ids == [start, *inner, end, end, *inner, end]
    mask = trained.token_to_id("<mask>")
    assert mask in made.encode("the <mask> dog").ids


def test_added_tokens_follow_the_vocabulary(minilm_folder: Path, tmp_path: Path, work: Path) -> None:
    shutil.copyfile(minilm_folder / "vocab.txt", tmp_path / "vocab.txt")
    size = len((tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines())
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[NEW]": size}))
    made = Bare.from_file(str(tokenizer_file(open_source(tmp_path, work))))
    assert made.encode("[NEW]", add_special_tokens=False).ids == [size]
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[NEW]": size + 5}))
    with pytest.raises(InvalidModel, match="does not follow"):
        tokenizer_file(open_source(tmp_path, work))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"has no tokenizer\.json"),
        ({"spiece.model": "x"}, r"has spiece\.model and no tokenizer\.json"),
        ({"vocab.json": "{}"}, r"has no tokenizer\.json"),
        ({"vocab.txt": "a\nb\n"}, r'"vocab\.txt" lacks the special token "\[UNK\]"'),
        ({"vocab.json": '{"a": -1}', "merges.txt": ""}, r"could not read vocab\.json and merges\.txt"),
        ({"vocab.json": '{"a": 0}', "merges.txt": "b c\n"}, r"could not read vocab\.json and merges\.txt"),
        ({"tokenizer.json": "[1]"}, r'could not read tokenizer "tokenizer\.json"'),
    ],
)
def test_tokenizers_that_are_refused(tmp_path: Path, work: Path, files: dict[str, Any], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InvalidModel, match=message):
        tokenizer_file(open_source(tmp_path, work))
