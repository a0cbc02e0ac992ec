"""The encoder families that can be built from weights: their configuration keys and their weight names.

All are the encoder of "Attention Is All You Need" with learned positions and LayerNorm after each sum. They differ in
names, in how positions are numbered and in whether there are token types:

- bert: positions from 0, token types.
- roberta, xlm-roberta, camembert: positions from pad_token_id + 1.
- distilbert: positions from 0, no token types, names of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pythiadb.errors import FeatureNotSupported, InvalidModel


@dataclass(frozen=True, slots=True)
class Names:
    """Weight names without ".weight" and ".bias"; those of a layer follow `layer`, which has its number as `{}`."""

    word: str
    position: str
    token_type: str | None
    embedding_norm: str
    layer: str
    query: str
    key: str
    value: str
    attention: str
    attention_norm: str
    up: str
    down: str
    output_norm: str
    head: tuple[str, str, str]  # of a classifier: first map, activation as ONNX calls it, second map


_BERT = Names(
    word="embeddings.word_embeddings",
    position="embeddings.position_embeddings",
    token_type="embeddings.token_type_embeddings",  # noqa: S106 - a weight, not a password
    embedding_norm="embeddings.LayerNorm",
    layer="encoder.layer.{}.",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    output_norm="output.LayerNorm",
    head=("pooler.dense", "Tanh", "classifier"),
)
_ROBERTA = replace(_BERT, head=("classifier.dense", "Tanh", "classifier.out_proj"))
_DISTILBERT = Names(
    word="embeddings.word_embeddings",
    position="embeddings.position_embeddings",
    token_type=None,
    embedding_norm="embeddings.LayerNorm",
    layer="transformer.layer.{}.",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    output_norm="output_layer_norm",
    head=("pre_classifier", "Relu", "classifier"),
)


@dataclass(frozen=True, slots=True)
class Encoder:
    """The sizes of one encoder. `first_position` is the row of the first token; `positions` counts the rows from there."""

    names: Names
    prefixes: tuple[str, ...]
    layers: int
    heads: int
    hidden: int
    intermediate: int
    epsilon: float
    activation: str
    first_position: int
    positions: int


_ROBERTAS = {"roberta": "roberta.", "xlm-roberta": "roberta.", "camembert": "roberta."}
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")


def read_encoder(config: Mapping[str, Any]) -> Encoder:
    """Read a Hugging Face `config.json`.

    Raise FeatureNotSupported for another family, activation or kind of positions, InvalidModel for missing or senseless sizes.
    """
    family = config.get("model_type")
    if family == "distilbert":
        return _distilbert(config)
    if family == "bert":
        return _bert(config, ("bert.",), 0)
    if isinstance(family, str) and family in _ROBERTAS:
        first = _integer(config, "pad_token_id", 1, least=0) + 1
        return replace(_bert(config, (_ROBERTAS[family],), first), names=_ROBERTA)
    known = ", ".join(["bert", "distilbert", *_ROBERTAS])
    raise FeatureNotSupported(
        f'model type "{family}" is not supported',
        detail=f"Weights can be read for these types: {known}.",
        hint="Export the model to ONNX and load the folder with model.onnx and tokenizer.json.",
    )


def _bert(config: Mapping[str, Any], prefixes: tuple[str, ...], first: int) -> Encoder:
    kind = config.get("position_embedding_type", "absolute")
    if kind != "absolute":
        raise FeatureNotSupported(f'position embedding type "{kind}" is not supported')
    if config.get("is_decoder"):
        raise FeatureNotSupported("decoder models are not supported as embedding models")
    return _checked(
        Encoder(
            names=_BERT,
            prefixes=prefixes,
            layers=_integer(config, "num_hidden_layers"),
            heads=_integer(config, "num_attention_heads"),
            hidden=_integer(config, "hidden_size"),
            intermediate=_integer(config, "intermediate_size"),
            epsilon=_epsilon(config),
            activation=str(config.get("hidden_act", "gelu")),
            first_position=first,
            positions=_integer(config, "max_position_embeddings") - first,
        )
    )


def _distilbert(config: Mapping[str, Any]) -> Encoder:
    return _checked(
        Encoder(
            names=_DISTILBERT,
            prefixes=("distilbert.",),
            layers=_integer(config, "n_layers"),
            heads=_integer(config, "n_heads"),
            hidden=_integer(config, "dim"),
            intermediate=_integer(config, "hidden_dim"),
            epsilon=1e-12,  # fixed in the family's code
            activation=str(config.get("activation", "gelu")),
            first_position=0,
            positions=_integer(config, "max_position_embeddings"),
        )
    )


def _checked(encoder: Encoder) -> Encoder:
    if encoder.activation not in ACTIVATIONS:
        raise FeatureNotSupported(f'activation "{encoder.activation}" is not supported')
    if encoder.hidden % encoder.heads:
        raise InvalidModel(
            f"hidden size {encoder.hidden} is not a multiple of {encoder.heads} attention heads"
        )
    if encoder.positions <= 0:
        raise InvalidModel("config.json leaves no positions for tokens")
    return encoder


def _integer(config: Mapping[str, Any], key: str, default: int | None = None, *, least: int = 1) -> int:
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidModel(f'invalid value for "{key}" in config.json: {value!r}')
    return value


def _epsilon(config: Mapping[str, Any]) -> float:
    value = config.get("layer_norm_eps", 1e-12)
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise InvalidModel(f'invalid value for "layer_norm_eps" in config.json: {value!r}')
    return float(value)
