"""Whether an exported file reads texts as its package does.

BertTokenizer of onnxruntime-extensions is not the tokenizers library:

- It strips accents of the letters up to ÿ only, and lower-cases these, А to Я and some Greek ones; the library does both for all of
  Unicode, takes marks off Hebrew, Hindi or Thai, and Korean syllables apart.
- Of a word of which the vocabulary has only the first pieces it keeps those; to the library the whole word is unknown.
- "[CLS]" in a text is three words to it, and the special token to the library.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from pythiadb.models.package import Package
from pythiadb.models.session import Model, open_model

LEAST_COSINE = 0.9999  # between the package's embedding and the file's

# A file that reads one of these differently is of no use.
NEEDED = (
    "The quick brown fox jumps over the lazy dog.",
    "don't, I'll, we've: 1,234.56 % (e-mail: someone@example.com)",
    "Übergröße, naïve café, ¿dónde está?  two  spaces",
    "Москва, 北京, 東京タワー",
    "line one\nline two\tand a tab",
    "",
    "word " * 5000,
)
# What else may be read differently, by the name that a message gives it.
KINDS = {
    "Polish": "Łódź, żółw",
    "Czech": "Příliš žluťoučký kůň",
    "Romanian": "Țară, Șapte",
    "Hungarian": "őrült űr",
    "Turkish": "İstanbul, ığdır",  # noqa: RUF001
    "Vietnamese": "điện thoại, tiếng Việt",
    "Greek": "Αθήνα, ΑΘΗΝΑ",
    "Russian": "чай, РОССИЯ",
    "Armenian": "Հայաստան",
    "Arabic with vowel signs": "مَرْحَبًا",
    "Hebrew with points": "שָׁלוֹם",
    "Hindi": "नमस्ते दुनिया",
    "Tamil": "வணக்கம்",
    "Thai": "สวัสดีชาวโลก",
    "Chinese": "北京大学",
    "Japanese": "ひらがな, ガギグ",
    "Korean": "안녕하세요",
    "emoji": "good 👍 day ❤️",
    "special tokens written out": "a [CLS] b [SEP] <s> c </s>",
}


def first_difference(one: Model, other: Model) -> str | None:
    """Return the first of the NEEDED texts that two models read differently; None when there is none."""
    return next(_differing(one, other, NEEDED), None)


def differing_kinds(one: Model, other: Model) -> tuple[str, ...]:
    """Return the names of the KINDS that two models read differently."""
    texts = set(_differing(one, other, KINDS.values()))
    return tuple(name for name, text in KINDS.items() if text in texts)


def opened(package: Package) -> Model:
    """Open a package for a comparison."""
    return open_model(package.files, package.spec, threads=1)


def _differing(one: Model, other: Model, texts: Iterable[str]) -> Iterator[str]:
    given = list(texts)
    for text, found, wanted in zip(given, one.embed(given), other.embed(given), strict=True):
        lengths = float(np.linalg.norm(found) * np.linalg.norm(wanted))
        if not np.array_equal(found, wanted) and float(found @ wanted) < LEAST_COSINE * lengths:
            yield text
