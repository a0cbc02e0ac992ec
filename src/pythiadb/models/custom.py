"""The operators that a graph may use: ONNX Runtime's own, and those of onnxruntime-extensions that only compute."""

from __future__ import annotations

import onnx

from pythiadb.errors import FeatureNotSupported, InvalidModel
from pythiadb.models.walking import nodes

# Where onnxruntime-extensions registers its operators; those on pictures are in the second only.
EXTENSION_DOMAINS = ("ai.onnx.contrib", "com.microsoft.extensions")
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# Operators of onnxruntime-extensions that only compute. Its library also has some that open files or call services.
_EXTENSION_OPERATORS = frozenset(
    {
        "BasicTokenizer",
        "BertTokenizer",
        "BertTokenizerDecoder",
        "BlingFireSentenceBreaker",
        "BpeDecoder",
        "CLIPTokenizer",
        "DecodeImage",
        "EncodeImage",
        "GPT2Tokenizer",
        "GaussianBlur",
        "HfBertTokenizer",
        "HfJsonTokenizer",
        "MaskedFill",
        "RaggedTensorToDense",
        "RaggedTensorToSparse",
        "RobertaTokenizer",
        "SegmentExtraction",
        "SegmentSum",
        "SentencepieceDecoder",
        "SentencepieceTokenizer",
        "StringConcat",
        "StringECMARegexReplace",
        "StringECMARegexSplitWithOffsets",
        "StringEqual",
        "StringHash",
        "StringHashFast",
        "StringJoin",
        "StringLength",
        "StringLower",
        "StringMapping",
        "StringRegexReplace",
        "StringRegexSplitWithOffsets",
        "StringSplit",
        "StringStrip",
        "StringToHashBucket",
        "StringToHashBucketFast",
        "StringToVector",
        "StringUpper",
        "TrieDetokenizer",
        "TrieTokenizer",
        "VectorToString",
        "WordpieceTokenizer",
    }
)


def check_operators(model: onnx.ModelProto) -> None:
    """Raise InvalidModel for a custom operator, FeatureNotSupported for one of the extensions that does more than compute."""
    local = {(item.domain, item.name) for item in model.functions}
    for node in nodes(model):
        if node.domain in _DOMAINS or (node.domain, node.op_type) in local:
            continue
        if node.domain in EXTENSION_DOMAINS:
            if node.op_type in _EXTENSION_OPERATORS:
                continue
            raise FeatureNotSupported(
                f'operator "{node.op_type}" of onnxruntime-extensions is not supported in a model graph',
                detail="Tokenizers and operators on strings and pictures are.",
            )
        raise InvalidModel(
            f'model uses custom operator "{node.op_type}" of domain "{node.domain}"',
            detail="Only the operators that ONNX Runtime itself brings may be used.",
        )
