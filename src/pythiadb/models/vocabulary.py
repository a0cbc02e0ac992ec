"""The tokenizer of a model folder: its tokenizer.json, or one made out of the older vocabulary files.

The made ones follow `convert_slow_tokenizer.py` of the transformers library: WordPiece from vocab.txt, byte-level BPE from
vocab.json and merges.txt. A file that is made is a tokenizer.json as the tokenizers library writes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from pythiadb.errors import InvalidModel
from pythiadb.models.package import TOKENIZER
from pythiadb.models.pooling import read_json
from pythiadb.models.source import Source
from pythiadb.models.tokenizing import load_tokenizer

_SENTENCEPIECE = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
_ROBERTAS = ("roberta", "xlm-roberta", "camembert", "bart", "longformer")
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def tokenizer_file(source: Source, *, special_tokens: bool = True) -> Path:
    """Return the folder's tokenizer.json, or one made in the work folder.

    Without `special_tokens` none are put around a text. Raise InvalidModel when the folder has no tokenizer that can be read.
    """
    lower = bool(source.optional("sentence_bert_config.json").get("do_lower_case"))
    if source.has(TOKENIZER):
        path = source.folder / TOKENIZER
        if special_tokens and not lower:
            load_tokenizer(path)  # fails now rather than at the first call
            return path
        tokenizer = load_tokenizer(path)
    else:
        tokenizer = _from_vocabulary(source)
    if lower:
        first = [tokenizer.normalizer] if tokenizer.normalizer else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *first])
    made = source.work / TOKENIZER
    text = tokenizer.to_str()
    if not special_tokens:
        text = json.dumps(json.loads(text) | {"post_processor": None}, ensure_ascii=False)
    made.write_text(text, encoding="utf-8")
    return made


def _from_vocabulary(source: Source) -> Tokenizer:
    options = source.optional("tokenizer_config.json")
    special = source.optional("special_tokens_map.json") | options
    if source.has("vocab.txt"):
        tokenizer = _wordpiece(source, options, special)
    elif source.has("vocab.json") and source.has("merges.txt"):
        tokenizer = _byte_pairs(source, options, special)
    else:
        raise _missing(source)
    for token, number in sorted(source.optional("added_tokens.json").items(), key=lambda item: item[1]):
        tokenizer.add_tokens([token])
        if tokenizer.token_to_id(token) != number:
            raise InvalidModel(
                f'"added_tokens.json" gives token "{token}" the id {number}, which does not follow'
            )
    return tokenizer


def _missing(source: Source) -> InvalidModel:
    found = next((name for name in _SENTENCEPIECE if source.has(name)), None)
    name = source.folder.name
    if found is None:
        return InvalidModel(
            f'model folder "{name}" has no {TOKENIZER}',
            hint="Save the tokenizer in the format of the tokenizers library, or give vocab.txt, or vocab.json with merges.txt.",
        )
    convert = (
        "from transformers import AutoTokenizer; "
        f"AutoTokenizer.from_pretrained('{name}', use_fast=True).save_pretrained('{name}')"
    )
    return InvalidModel(
        f'model folder "{name}" has {found} and no {TOKENIZER}',
        detail="A SentencePiece file is not read directly.",
        hint=f'Convert it once where transformers and sentencepiece are installed: python -c "{convert}"',
    )


def _wordpiece(source: Source, options: Mapping[str, Any], special: Mapping[str, Any]) -> Tokenizer:
    lines = _lines(source.folder / "vocab.txt")
    vocabulary = {token: number for number, token in enumerate(lines)}
    unknown = _special(special, "unk_token", "[UNK]")
    first, last = _special(special, "cls_token", "[CLS]"), _special(special, "sep_token", "[SEP]")
    _require(vocabulary, "vocab.txt", unknown, first, last)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(options.get("tokenize_chinese_chars", True)),
        strip_accents=options.get("strip_accents"),
        lowercase=bool(options.get("do_lower_case", True)),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first}:0 $A:0 {last}:0",
        pair=f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
        special_tokens=[(token, vocabulary[token]) for token in (first, last)],
    )
    padding, masked = _special(special, "pad_token", "[PAD]"), _special(special, "mask_token", "[MASK]")
    tokenizer.add_special_tokens([t for t in (unknown, last, padding, first, masked) if t in vocabulary])
    return tokenizer


def _byte_pairs(source: Source, options: Mapping[str, Any], special: Mapping[str, Any]) -> Tokenizer:
    vocabulary = read_json(source.folder / "vocab.json")
    lines = _lines(source.folder / "merges.txt")
    if lines and lines[0].startswith("#version"):
        lines = lines[1:]
    merges = [tuple(line.split(" ")) for line in lines if line]
    try:
        if _is_clip(source, options):
            return _clip(vocabulary, merges, special)
        return _byte_level(source, vocabulary, merges, options, special)
    except InvalidModel:
        raise
    except Exception as error:  # what the library raises: Exception itself, for merges that do not fit
        raise InvalidModel("could not read vocab.json and merges.txt", detail=f"{error}.") from error


def _byte_level(
    source: Source,
    vocabulary: dict[str, int],
    merges: list[Any],
    options: Mapping[str, Any],
    special: Mapping[str, Any],
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, fuse_unk=False))
    prefix = bool(options.get("add_prefix_space", False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if source.config.get("model_type") in _ROBERTAS or "Roberta" in str(options.get("tokenizer_class")):
        first, last = _special(special, "cls_token", "<s>"), _special(special, "sep_token", "</s>")
        padding, masked = _special(special, "pad_token", "<pad>"), _special(special, "mask_token", "<mask>")
        unknown = _special(special, "unk_token", "<unk>")
        _require(vocabulary, "vocab.json", first, last)
        ends = ((last, vocabulary[last]), (first, vocabulary[first]))
        tokenizer.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=prefix)
        names = [t for t in (first, padding, last, unknown) if t in vocabulary]
        tokenizer.add_special_tokens([AddedToken(name, normalized=True, special=True) for name in names])
        if masked in vocabulary:
            tokenizer.add_special_tokens([AddedToken(masked, lstrip=True, normalized=False, special=True)])
    else:
        end = _special(special, "eos_token", "<|endoftext|>")
        tokenizer.add_special_tokens([end] if end in vocabulary else [])
    return tokenizer


def _is_clip(source: Source, options: Mapping[str, Any]) -> bool:
    return source.config.get("model_type") == "clip" or str(options.get("tokenizer_class")).startswith("CLIP")


def _clip(vocabulary: dict[str, int], merges: list[Any], special: Mapping[str, Any]) -> Tokenizer:
    first = _special(special, "bos_token", "<|startoftext|>")
    last = _special(special, "eos_token", "<|endoftext|>")
    unknown = _special(special, "unk_token", "<|endoftext|>")
    _require(vocabulary, "vocab.json", first, last, unknown)
    model = models.BPE(
        vocab=vocabulary,
        merges=merges,
        continuing_subword_prefix="",
        end_of_word_suffix="</w>",
        fuse_unk=False,
        unk_token=unknown,
    )
    tokenizer = Tokenizer(model)
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    ends = ((last, vocabulary[last]), (first, vocabulary[first]))
    tokenizer.post_processor = processors.RobertaProcessing(*ends, trim_offsets=False, add_prefix_space=False)
    tokenizer.add_special_tokens([first, last])
    return tokenizer


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidModel(f'could not read "{path.name}"', detail=f"{error}.") from error
    # Only "\n" ends a line: vocabularies hold other characters that Python takes for line ends.
    lines = text.split("\n")
    return [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def _special(special: Mapping[str, Any], key: str, default: str) -> str:
    """Return a special token; its entry is a string, or an object with its settings."""
    value = special.get(key)
    value = value.get("content") if isinstance(value, Mapping) else value
    return value if isinstance(value, str) and value else default


def _require(vocabulary: Mapping[str, int], file: str, *tokens: str) -> None:
    for token in tokens:
        if token not in vocabulary:
            raise InvalidModel(f'"{file}" lacks the special token "{token}"')
