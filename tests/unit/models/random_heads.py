"""Sequence classifiers with random weights, by the names that Hugging Face gives them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from numpy_encoder import BERT_NAMES, DISTILBERT_NAMES
from small_models import HEADS, HIDDEN, LAYERS, POSITIONS, WIDE, bert_config, bert_weights

DISTILBERT = {
    "model_type": "distilbert",
    "dim": HIDDEN,
    "n_heads": HEADS,
    "n_layers": LAYERS,
    "hidden_dim": WIDE,
    "max_position_embeddings": POSITIONS,
    "activation": "gelu",
}
_MAPS = {
    "bert": ("pooler.dense", "classifier"),
    "roberta": ("classifier.dense", "classifier.out_proj"),
    "distilbert": ("pre_classifier", "classifier"),
}
_CLASSES = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "distilbert": "DistilBertForSequenceClassification",
}


def as_distilbert(weights: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    renamed = {}
    for name, values in weights.items():
        new = name.replace("encoder.layer.", "transformer.layer.")
        for key in sorted(BERT_NAMES, key=lambda key: -len(BERT_NAMES[key])):
            if new.rpartition(".")[0].endswith("." + BERT_NAMES[key]) and "transformer" in new:
                new = new.replace(BERT_NAMES[key], DISTILBERT_NAMES[key])
                break
        renamed[new] = values
    del renamed["embeddings.token_type_embeddings.weight"]
    return renamed


def head_weights(family: str, scores: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return encoder and head as `Reference` wants them; `stored_weights` names them as a file does."""
    first = 2 if family == "roberta" else 0
    weights = bert_weights(seed, first=first, types=1 if family == "roberta" else 2)
    if family == "distilbert":
        weights = as_distilbert(weights)
    rng = np.random.default_rng(seed + 1)
    for name, height in zip(_MAPS[family], (HIDDEN, scores), strict=True):
        weights[f"{name}.weight"] = rng.normal(scale=0.5, size=(height, HIDDEN)).astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(size=height).astype(np.float32)
    return weights


def stored_weights(family: str, weights: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the weights by the names of a checkpoint: the encoder under the family's prefix, the head beside it."""
    heads = ("classifier", "pre_classifier")
    return {n if n.startswith(heads) else f"{family}.{n}": values for n, values in weights.items()}


def head_config(family: str, scores: int, **changes: Any) -> dict[str, Any]:
    """Return a config.json that fits `head_weights`, with labels L0, L1, …"""
    config = {
        "bert": bert_config(),
        "roberta": bert_config(model_type="roberta", pad_token_id=1, max_position_embeddings=POSITIONS + 2),
        "distilbert": dict(DISTILBERT),
    }[family]
    labels = {str(number): f"L{number}" for number in range(scores)}
    return config | {"architectures": [_CLASSES[family]], "id2label": labels} | changes
