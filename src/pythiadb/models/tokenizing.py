"""Texts to token ids, by the tokenizer file of the model's own publisher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Backend

from pythiadb.errors import InvalidModel, LimitExceeded

MAX_INPUT_BYTES = 4 * 1024 * 1024  # UTF-8 bytes; tokenizing takes about a second for each MiB

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text as token ids, special tokens included, and the type of each token (0 in a text alone)."""

    ids: tuple[int, ...]
    types: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer:
    """A tokenizer with truncation at `max_tokens` and no padding, whatever its file asks for.

    Files are saved with the settings of the last use: all-MiniLM-L6-v2 truncates at 128 and pads every text to 128.
    """

    def __init__(self, path: Path, max_tokens: int, *, pairs: bool = False) -> None:
        """Open a tokenizer; `pairs` checks that two texts have room too. Raise InvalidModel when there is none."""
        self._backend = load_tokenizer(path)
        self._backend.no_padding()
        special = self._backend.num_special_tokens_to_add(pairs)
        if max_tokens <= special:
            raise InvalidModel(f"{max_tokens} tokens leave no room beside {special} special tokens")
        self._backend.enable_truncation(max_tokens, strategy="longest_first")

    @property
    def vocabulary_size(self) -> int:
        """Return one more than the largest token id."""
        return max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Tokens]:
        """Return the tokens of each pair, in order; the types are 0 and 1 if the model tells its texts apart.

        A pair that is too long is cut at the end of its longer text. Texts must have passed `clean_text`.
        """
        encodings = self._backend.encode_batch_fast(list(pairs))
        return [Tokens(tuple(item.ids), tuple(item.type_ids)) for item in encodings]

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text, in order. Texts must have passed `clean_text`."""
        encodings = self._backend.encode_batch_fast(list(texts))
        return [Tokens(tuple(item.ids), tuple(item.type_ids)) for item in encodings]


def load_tokenizer(path: Path) -> Backend:
    """Load a `tokenizer.json`; raise InvalidModel when it is missing or not one."""
    try:
        return Backend.from_file(str(path))
    except Exception as error:  # the library raises Exception itself
        raise InvalidModel(f'could not read tokenizer "{path.name}"', detail=f"{error}.") from error


def clean_text(text: str, max_bytes: int = MAX_INPUT_BYTES) -> str:
    """Return the text as UTF-8 can carry it: a lone surrogate becomes "?".

    Raise LimitExceeded when it is longer than `max_bytes`.
    """
    if len(text) > max_bytes:  # a character has at least one byte: no need to encode to see it
        _too_long(len(text), "characters", max_bytes)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        text = text.encode(errors="replace").decode()
        size = len(text.encode())
    if size > max_bytes:
        _too_long(size, "bytes", max_bytes)
    return text


def pad(rows: Sequence[Tokens]) -> tuple[Ids, Ids, Ids]:
    """Return token ids, attention mask and token types, each int64 [rows, longest row]; padding is 0 in all three.

    The padding id does not matter, because masked positions have no weight in the attention and in the pooling.
    """
    shape = (len(rows), max(1, *map(len, rows)))
    ids, mask, types = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    for number, row in enumerate(rows):
        length = len(row)
        ids[number, :length] = row.ids
        mask[number, :length] = 1
        types[number, :length] = row.types
    return ids, mask, types


def _too_long(size: int, unit: str, limit: int) -> None:
    raise LimitExceeded(
        f"input text of {size} {unit} exceeds the limit of {limit} bytes",
        hint="Split the text into chunks and embed each of them.",
    )
