"""From records and matrices of SQL values to items, for one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pythiadb.errors import FeatureNotSupported, InvalidModel, InvalidParameter
from pythiadb.models.columns import (
    Column,
    Mask,
    as_bytes,
    blob_column,
    float_columns,
    number_column,
    text_column,
    vector_column,
)
from pythiadb.models.items import TOKENS, Cutter, Item, Tensor, Tensors, one_each, text_cost
from pythiadb.models.package import Input, Spec
from pythiadb.models.tokenizing import MAX_INPUT_BYTES, Tokenizer, clean_text

Records = Sequence[Mapping[str, Any] | None]
LoadImage = Callable[[bytes], NDArray[Any]]


class Preparer:
    """Turns SQL values into items for one model."""

    def __init__(
        self,
        spec: Spec,
        tensors: Mapping[str, Tensor],
        tokenizer: Tokenizer | None,
        load_image: LoadImage | None,
    ) -> None:
        self._spec = spec
        self._tensors = tensors
        self._tokenizer = tokenizer
        self._load_image = load_image
        self._types = {a.name.upper(): a.type for a in spec.attributes}
        given = {name.upper(): value for name, value in spec.default_on_null.items()}
        self._defaults = {name: given.get(name) for name in self._types}
        self._filled = [i for i in spec.inputs if i.source not in TOKENS]
        # a text to embed stays alone, so that texts of like length can meet
        texts = spec.function == "embedding" and any(i.source == "text" for i in self._filled)
        self._cutter = Cutter.of(self._filled, tensors, single=tokenizer is not None or texts)

    def texts(self, texts: Sequence[str], max_bytes: int = MAX_INPUT_BYTES) -> list[Item]:
        """Return one item a text for a model that embeds text."""
        prefix = self._spec.prefix
        clean = [clean_text(text, max_bytes) for text in texts]
        if prefix:
            clean = [prefix + text for text in clean]
        if self._tokenizer is not None:
            return [Item(1, len(tokens), tokens) for tokens in self._tokenizer.encode(clean)]
        if len(self._filled) != 1 or self._filled[0].source != "text":
            raise InvalidParameter("the model does not embed text")
        tensor = self._tensors[self._filled[0].tensor]
        return [
            Item(1, text_cost(text), tensors={tensor.name: tensor.shaped(np.array([text], dtype=object))})
            for text in clean
        ]

    def records(self, records: Records, max_bytes: int = MAX_INPUT_BYTES) -> list[Item]:
        """Return items that cover all records, in order; a record that is None is a missing row."""
        missing = np.array([record is None for record in records], dtype=np.bool_)
        given = ~missing
        columns = self._columns([record for record in records if record is not None])
        filled = {i.tensor: self._fill(i, columns, max_bytes) for i in self._filled}
        for _, holes in filled.values():
            if holes is not None:
                missing[given] |= holes
        kept = ~missing[given]
        whole = bool(kept.all())
        tensors = {name: values if whole else values[kept] for name, (values, _) in filled.items()}
        if self._tokenizer is None:
            return list(self._cutter.cut(tensors, missing))
        return self._tokenized(columns, kept, tensors, missing, max_bytes)

    def matrix(
        self,
        attributes: Sequence[str],
        values: NDArray[Any],
        nulls: Mask | None,
        constants: Mapping[str, Any],
    ) -> list[Item]:
        """Return the items of a matrix [rows, attributes] of float64, float32 or int32; `nulls` marks NULL in it.

        `constants` are the values of attributes that are the same for all rows, read as those of a record.
        Raise InvalidParameter unless the attributes of the model are numbers.
        """
        if any(i.source != "number" for i in self._spec.inputs):
            raise InvalidParameter("a matrix of numbers needs a model whose attributes are all numbers")
        places = {name.upper(): place for place, name in enumerate(attributes)}
        fixed = {name.upper(): value for name, value in constants.items()}
        missing = np.zeros(len(values), dtype=np.bool_)
        tensors: dict[str, NDArray[Any]] = {}
        for entry in self._filled:
            block, holes = self._block(entry, places, values, nulls, fixed)
            tensor = self._tensors[entry.tensor]
            narrow, bad = float_columns(block, holes, tensor.dtype, entry.attributes)
            lost = self._fill_constants(entry, fixed, narrow)
            tensors[tensor.name] = tensor.shaped(narrow)
            missing |= lost if bad is None else bad | lost
        if missing.any():
            tensors = {name: rows[~missing] for name, rows in tensors.items()}
        return list(self._cutter.cut(tensors, missing))

    def _columns(self, records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        """Return the values of each attribute with defaults for NULL, by name in upper case."""
        columns: dict[str, list[Any]] = {name: [] for name in self._types}
        appends = [(column.append, self._defaults[name]) for name, column in columns.items()]
        known: dict[tuple[str, ...], list[str]] = {}
        for record in records:
            keys = tuple(record)
            names = known.get(keys)
            if names is None:
                names = known[keys] = self._match(keys)
            for (append, default), key in zip(appends, names, strict=True):
                value = record.get(key)
                append(default if value is None else value)
        return columns

    def _match(self, keys: Sequence[str]) -> list[str]:
        """Return which key of a record serves each attribute: the one spelled alike, else one that differs in case."""
        upper = {key.upper(): key for key in reversed(keys)}
        return [
            a.name if a.name in keys else upper.get(a.name.upper(), a.name) for a in self._spec.attributes
        ]

    def _fill(self, entry: Input, columns: Mapping[str, list[Any]], max_bytes: int) -> Column:
        """Return the tensor of one input, its rows in front, and the rows that it cannot hold."""
        tensor = self._tensors[entry.tensor]
        parts = [columns[name.upper()] for name in entry.attributes]
        if len(parts) > 1 and entry.source == "number":
            rows, missing = _numbers(parts, entry.attributes, tensor.dtype)
            return tensor.shaped(rows), missing
        missing = None
        converted: list[NDArray[Any]] = []
        for name, values in zip(entry.attributes, parts, strict=True):
            part, holes = self._convert(entry, name, values, tensor, max_bytes)
            converted.append(part)
            if holes is not None:
                missing = holes if missing is None else missing | holes
        if entry.source == "image" or tensor.loose:
            return converted[0], missing
        return tensor.shaped(converted[0] if len(parts) == 1 else np.stack(converted, axis=1)), missing

    def _convert(
        self, entry: Input, name: str, values: Sequence[Any], tensor: Tensor, max_bytes: int
    ) -> Column:
        kind = self._types[name.upper()]
        if tensor.loose:
            return _files(values, name, max_bytes, self._load_image)
        if entry.source == "image":
            return self._images(values, name, max_bytes)
        if entry.source == "text":
            return text_column(values, name, max_bytes)
        if kind == "vector":
            return vector_column(values, name, tensor.dtype, tensor.width)
        if kind == "blob":
            return blob_column(values, name, tensor.width, max_bytes)
        return number_column(values, name, tensor.dtype)

    def _images(self, values: Sequence[Any], name: str, max_bytes: int) -> Column:
        if self._load_image is None:
            raise InvalidModel("model specification has no image parameters")
        missing = np.array([value is None for value in values], dtype=np.bool_)
        loaded = [None if v is None else self._load_image(as_bytes(v, name, max_bytes)) for v in values]
        shape = next((image.shape for image in loaded if image is not None), ())
        rows = np.zeros((len(values), *shape), dtype=np.float32)
        for row, image in enumerate(loaded):
            if image is not None:
                rows[row] = image
        return rows, missing

    def _tokenized(
        self,
        columns: Mapping[str, list[Any]],
        kept: Mask,
        tensors: Tensors,
        missing: Mask,
        max_bytes: int,
    ) -> list[Item]:
        """Return one item a record for a model with a tokenizer."""
        assert self._tokenizer is not None
        names = next(i.attributes for i in self._spec.inputs if i.source in TOKENS)
        texts: list[NDArray[Any]] = []
        gaps = np.zeros(len(kept), dtype=np.bool_)
        for name in names:
            column, holes = text_column(columns[name.upper()], name, max_bytes)
            texts.append(column)
            if holes is not None:
                gaps |= holes
        missing[np.flatnonzero(~missing)] = gaps[kept]
        tensors = {name: rows[~gaps[kept]] for name, rows in tensors.items()}
        kept = kept & ~gaps
        prefix = self._spec.prefix or ""
        if len(texts) == 2:
            encoded = self._tokenizer.encode_pairs(
                list(zip(texts[0][kept].tolist(), texts[1][kept].tolist(), strict=True))
            )
        else:
            encoded = self._tokenizer.encode([prefix + text for text in texts[0][kept].tolist()])
        return one_each(missing, encoded, tensors)

    def _fill_constants(self, entry: Input, fixed: Mapping[str, Any], rows: NDArray[Any]) -> bool:
        """Write constants into the rows of one input; tell whether its tensor cannot hold one, which is NULL."""
        lost = False
        for column, name in enumerate(entry.attributes):
            if name.upper() in fixed:
                given = fixed[name.upper()]
                value = self._defaults[name.upper()] if given is None else given
                number, holes = number_column([value], name, rows.dtype)
                rows[:, column] = number[0]
                lost = lost or holes is not None
        return lost

    def _block(
        self,
        entry: Input,
        places: Mapping[str, int],
        values: NDArray[Any],
        nulls: Mask | None,
        fixed: Mapping[str, Any],
    ) -> tuple[NDArray[Any], Mask | None]:
        """Return the columns of one input, and where they are NULL after defaults; zeros in the columns of constants."""
        wanted = [places.get(name.upper()) for name in entry.attributes]
        if any(self._types[name.upper()] != "number" for name in entry.attributes):
            raise InvalidParameter("a matrix of numbers needs a model whose attributes are all numbers")
        defaults = [self._defaults[name.upper()] for name in entry.attributes]
        found = [place for place in wanted if place is not None]
        if len(found) == len(wanted) and (nulls is None or not nulls[:, found].any()):
            return _take(values, found), None
        block = np.zeros((len(values), len(wanted)))
        holes = np.zeros(block.shape, dtype=np.bool_)
        for column, (place, default) in enumerate(zip(wanted, defaults, strict=True)):
            if place is None:
                holes[:, column] = entry.attributes[column].upper() not in fixed
            else:
                block[:, column] = values[:, place]
                if nulls is not None:
                    holes[:, column] = nulls[:, place]
            if default is not None:
                number, _ = number_column([default], entry.attributes[column], np.dtype(np.float64))
                block[holes[:, column], column] = number[0]
                holes[:, column] = False
        return block, holes


def check_defaults(spec: Spec, tensors: Mapping[str, Tensor]) -> None:
    """Raise InvalidParameter when a default for NULL is not a value of its attribute; tensors by name."""
    preparer = Preparer(spec, tensors, None, None)
    sources = {name: i for i in spec.inputs for name in i.attributes}
    for name, value in spec.default_on_null.items():
        attribute = spec.attribute(name)
        if attribute is None:
            raise InvalidParameter(
                f'"{name}" in the key "defaultOnNull" of the metadata is not an attribute of the model',
                hint=f"The attributes are {', '.join(a.name for a in spec.attributes)}.",
            )
        entry = sources[attribute.name]
        if entry.source in TOKENS:
            continue
        if entry.source == "image":
            raise FeatureNotSupported("a default for a NULL picture is not supported")
        preparer._convert(entry, attribute.name, [value], tensors[entry.tensor], MAX_INPUT_BYTES)


def _numbers(columns: Sequence[Sequence[Any]], names: Sequence[str], dtype: np.dtype[Any]) -> Column:
    """Convert several columns at once to [rows, columns]; calls of numpy are what a single row costs."""
    flat = [value for row in zip(*columns, strict=True) for value in row]
    try:
        values, holes = number_column(flat, names[0], dtype)
    except InvalidParameter:
        for name, column in zip(names, columns, strict=True):
            number_column(column, name, dtype)  # raises it again and names the attribute
        raise
    shape = (-1, len(names))
    missing: Mask | None = None if holes is None else np.any(holes.reshape(shape), axis=1)
    return values.reshape(shape), missing


def _files(values: Sequence[Any], name: str, max_bytes: int, load: LoadImage | None) -> Column:
    """Return the bytes of each row as an array of its own; `load` checks pictures that the graph decodes."""
    rows = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        if value is not None:
            content = as_bytes(value, name, max_bytes)
            rows[row] = np.frombuffer(content, dtype=np.uint8) if load is None else load(content)
    missing = np.array([value is None for value in values], dtype=np.bool_)
    return rows, missing if missing.any() else None


def _take(values: NDArray[Any], places: list[int]) -> NDArray[Any]:
    """Return some columns, without a copy where they are neighbours."""
    neighbours = places == list(range(places[0], places[0] + len(places)))
    return values[:, places[0] : places[-1] + 1] if neighbours else values[:, places]
