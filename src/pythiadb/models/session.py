"""Run a package: what the engine and the importers use of models.

Work is split so that callers can merge it: `tokenize` and `prepare` turn SQL values into items, items of several callers can
be put into one list, and `run` turns items into outputs. Rows of like length meet in *micro-batches*, padded to their
longest; rows of numbers meet in slabs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pythiadb.errors import InvalidModel, InvalidParameter, RunStopped
from pythiadb.models.items import SLAB_COST, TOKENS, Item, Tensor
from pythiadb.models.package import Spec
from pythiadb.models.preparing import LoadImage, Preparer, Records
from pythiadb.models.runtime import (
    Graph,
    Run,
    measure_dimensions,
    runtime_versions,
    save_optimized,
    trim_arena,
)
from pythiadb.models.scoring import SINGLE, Arrays, Output, Scores, Vectors, check_output, split_output
from pythiadb.models.tokenizing import MAX_INPUT_BYTES, Tokenizer, pad

# Padded tokens of a micro-batch. Measured with MiniLM on a shared machine, so in relation only: for texts of one length 512 to
# 4096 differ within the noise; for 64 texts of mixed length a larger batch pads more, and 1024 is 15 to 50 % faster than 2048.
MAX_BATCH_TOKENS = 1024
MAX_BATCH_ROWS = 64

__all__ = [
    "MAX_BATCH_ROWS",
    "MAX_BATCH_TOKENS",
    "Item",
    "Model",
    "Output",
    "RunStopped",
    "Scores",
    "Vectors",
    "measure_dimensions",
    "micro_batches",
    "open_model",
    "runtime_versions",
    "save_optimized",
    "trim_arena",
]

Feed = dict[str, NDArray[Any]]


class Model:
    """An open model. `run` may be called from several threads at once; `lanes` of them make the most of its threads.

    `narrow` is the same graph on a single thread: runs of their own, one a core, do more together than one after the other
    on all cores. It costs next to nothing where both map the same weights.
    """

    def __init__(
        self,
        graph: Graph,
        spec: Spec,
        tokenizer: Tokenizer | None,
        *,
        narrow: Graph | None = None,
        lanes: int = 1,
    ) -> None:
        self.spec = spec
        self.lanes = lanes
        self._graph = graph
        self._narrow = narrow or graph
        for name in (*(i.tensor for i in spec.inputs), *spec.outputs.values()):
            if name not in graph.inputs and name not in graph.outputs:
                raise InvalidModel(f'model graph has no tensor "{name}"')
        loose = {a.name for a in spec.attributes if a.type == "blob"}
        self._tensors = {i.tensor: graph.tensor(i.tensor, i.attributes[0] in loose) for i in spec.inputs}
        self._alone = any(tensor.loose for tensor in self._tensors.values())
        self._fixed = next((t.batch for t in self._tensors.values() if t.batch), None)
        self._preparer = Preparer(spec, self._tensors, tokenizer, _image_loader(spec, self._tensors))
        self._sources = {i.tensor: i.source for i in spec.inputs}
        # Texts vary in length, so like meets like; everything else is stacked as it comes.
        self._by_length = tokenizer is not None or (
            spec.function == "embedding" and "text" in self._sources.values()
        )

    def tokenize(self, texts: Sequence[str], *, max_bytes: int = MAX_INPUT_BYTES) -> list[Item]:
        """Return one item a text, in order, for a model that embeds text.

        Raise LimitExceeded for a text of more than `max_bytes` UTF-8 bytes.
        """
        return self._preparer.texts(texts, max_bytes)

    def prepare(self, records: Records, *, max_bytes: int = MAX_INPUT_BYTES) -> list[Item]:
        """Return items for JSON objects that map attributes to values; in order they cover all records.

        Attributes that are missing are NULL, others are ignored. A record that is None, or has a NULL that its tensor cannot
        hold, stays a row without an answer. Raise InvalidParameter for a value that does not fit its attribute, LimitExceeded
        for a text, a file or a picture of more than `max_bytes` bytes.
        """
        return self._preparer.records(records, max_bytes)

    def prepare_matrix(
        self,
        attributes: Sequence[str],
        values: NDArray[Any],
        nulls: NDArray[np.bool_] | None = None,
        constants: Mapping[str, Any] | None = None,
    ) -> list[Item]:
        """Return items for float64, float32 or int32 [rows, attributes], `nulls` marking NULL in it, without a Python object a value.

        `constants` are attributes that are the same for all rows, with values as in a record.

        A row with a value that its tensor cannot hold (an integer over 2^53, an overflow) is a row without an answer. Raise
        InvalidParameter when the model takes anything but numbers.
        """
        return self._preparer.matrix(attributes, values, nulls, constants or {})

    def begin(self, *, alone: bool = True) -> Run:
        """Return what a run can be stopped by."""
        return Run(alone=alone)

    def run(self, items: Sequence[Item], run: Run | None = None) -> list[Output]:
        """Return one output an item: float32 [rows, dimensions] for embeddings, else Scores.

        Raise RunStopped when `run` was stopped, InvalidVector when an embedding has NaN or infinity, InvalidModel when the
        graph fails or gives another shape than its specification says.
        """
        return split_output(self.spec, self._arrays(items, run or Run()), items)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Tokenize and run: the embeddings of `texts`, float32 [texts, dimensions], in order."""
        return self._arrays(self.tokenize(texts), Run())["embedding"]

    def facts(self) -> dict[str, Any]:
        """Return what the views show: tensors as Oracle writes them, producer, version, dimensions."""
        return {
            **self._graph.facts([i.tensor for i in self.spec.inputs]),
            "dimensions": self.spec.dimensions,
            "max_tokens": self.spec.max_tokens,
        }

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The inputs of the graph that the specification fills, by name."""
        return self._tensors

    def _arrays(self, items: Sequence[Item], run: Run) -> Arrays:
        """Run all present rows and return an array a role, in the order of the items."""
        present = [item for item in items if item.present]
        if not present:
            return {role: self._empty(role) for role in self.spec.outputs}
        return self._sorted(present, run) if self._by_length else self._stacked(present, run)

    def _empty(self, role: str) -> NDArray[Any]:
        if role in SINGLE:
            return np.zeros(0)
        width = self.spec.dimensions if role == "embedding" else len(self.spec.labels or (1,))
        return np.zeros((0, width or 1), dtype=np.float32)

    def _sorted(self, items: Sequence[Item], run: Run) -> Arrays:
        """Run items of one row each in micro-batches of like length."""
        batches = list(micro_batches([len(item) for item in items], max_rows=self._fixed or MAX_BATCH_ROWS))
        parts = [self._call([items[number] for number in batch], len(batch), run) for batch in batches]
        order = np.concatenate([np.array(batch) for batch in batches])
        arrays: Feed = {}
        for role in self.spec.outputs:
            values = np.concatenate([part[role] for part in parts])
            arrays[role] = np.empty_like(values)
            arrays[role][order] = values
        return arrays

    def _stacked(self, items: Sequence[Item], run: Run) -> Arrays:
        """Run items of any number of rows in the order in which they come."""
        groups = [[item] for item in items] if self._alone else _groups(items)
        parts = [self._call(group, sum(i.present for i in group), run) for group in groups]
        return {role: _joined([part[role] for part in parts]) for role in self.spec.outputs}

    def _call(self, items: Sequence[Item], rows: int, run: Run) -> Arrays:
        """Run the present rows of some items; a fixed batch size is met by repeating the last row."""
        feed = self._feed(items)
        graph = self._graph if run.alone else self._narrow
        names = list(self.spec.outputs.values())
        if self._alone:  # such a graph may answer without a batch dimension
            return self._checked([v.reshape(1, -1) for v in graph.run(feed, names, run)], rows)
        if self._fixed is None or self._fixed == rows:
            return self._checked(graph.run(feed, names, run), rows)
        parts = []
        for start in range(0, rows, self._fixed):
            size = min(self._fixed, rows - start)
            piece = {
                name: _exactly(tensor[start : start + size], self._fixed) for name, tensor in feed.items()
            }
            outputs = graph.run(piece, names, run)
            parts.append(self._checked([values[:size] for values in outputs], size))
        return {role: _joined([part[role] for part in parts]) for role in self.spec.outputs}

    def _checked(self, outputs: Sequence[NDArray[Any]], rows: int) -> Arrays:
        return {
            role: check_output(self.spec, role, values, rows)
            for role, values in zip(self.spec.outputs, outputs, strict=True)
        }

    def _feed(self, items: Sequence[Item]) -> Feed:
        feed: Feed = {}
        encoded: dict[str, NDArray[Any]] = {}
        if any(source in TOKENS for source in self._sources.values()):
            encoded = dict(zip(TOKENS, pad([i.tokens for i in items if i.tokens is not None]), strict=True))
        for name, source in self._sources.items():
            tensor = self._tensors[name]
            if source in TOKENS:
                feed[name] = _sized(encoded[source], tensor)
            elif tensor.loose:
                feed[name] = items[0].tensors[name][0]
            else:
                feed[name] = _joined([item.tensors[name] for item in items]).astype(tensor.dtype, copy=False)
        return feed


def open_model(
    files: Mapping[str, Path] | Path, spec: Spec, *, threads: int, graph: Path | None = None
) -> Model:
    """Open a package for running on `threads` threads.

    `files` maps stored names to paths, or is the folder that holds them; external data must lie beside the graph. `graph` is
    an optimized graph to use instead of the stored one, whose weights are mapped. Raise InvalidModel when a file is missing or ONNX Runtime refuses
    the graph.
    """
    if threads < 1:
        raise InvalidParameter(f"number of threads must be at least 1, not {threads}")
    opened = Graph(graph or _file(files, spec.graph), threads)
    narrow = Graph(graph, 1) if graph is not None and threads > 1 else None
    tokenizer = None
    if spec.tokenizer is not None:
        if spec.max_tokens is None:
            raise InvalidModel("model specification names a tokenizer and no max_tokens")
        tokenizer = Tokenizer(_file(files, spec.tokenizer), spec.max_tokens, pairs=spec.is_pair)
    elif any(i.source in TOKENS for i in spec.inputs):
        raise InvalidModel("model specification takes tokens and names no tokenizer")
    # Two runs on the same threads fill each other's gaps.
    return Model(opened, spec, tokenizer, narrow=narrow, lanes=threads if narrow else min(threads, 2))


def micro_batches(
    lengths: Sequence[int], *, max_rows: int = MAX_BATCH_ROWS, max_tokens: int = MAX_BATCH_TOKENS
) -> Iterator[list[int]]:
    """Yield lists of row numbers, short rows first, so that rows of like length meet.

    No list holds more than `max_rows` rows, or more than `max_tokens` tokens after padding, unless it holds a single row.

    >>> list(micro_batches([5, 900, 3, 1000], max_tokens=1000))
    [[2, 0], [1], [3]]
    """
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == max_rows or lengths[number] * (len(batch) + 1) > max_tokens):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _groups(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Yield lists of neighbours that are run at once: small items together, none over SLAB_COST unless alone."""
    group: list[Item] = []
    cost = 0
    for item in items:
        if group and cost + len(item) > SLAB_COST:
            yield group
            group, cost = [], 0
        group.append(item)
        cost += len(item)
    yield group


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _exactly(rows: NDArray[Any], count: int) -> NDArray[Any]:
    if len(rows) == count:
        return rows
    return np.concatenate([rows, np.repeat(rows[-1:], count - len(rows), axis=0)])


def _sized(tokens: NDArray[np.int64], tensor: Tensor) -> NDArray[Any]:
    """Give padded tokens the type of the tensor, and its length when that is fixed."""
    length = tensor.shape[0] if tensor.shape else None
    if length is not None and length > tokens.shape[1]:
        tokens = np.pad(tokens, ((0, 0), (0, length - tokens.shape[1])))
    return tokens.astype(tensor.dtype, copy=False)


def _file(files: Mapping[str, Path] | Path, name: str) -> Path:
    path = files / name if isinstance(files, Path) else files.get(name)
    if path is None or not path.is_file():
        raise InvalidModel(f'model package lacks the file "{name}"')
    return path


def _image_loader(spec: Spec, tensors: Mapping[str, Tensor]) -> LoadImage | None:
    pictures = [i for i in spec.inputs if i.source == "image"]
    if not pictures:
        return None
    from pythiadb.models import images  # Pillow is only needed here

    if tensors[pictures[0].tensor].loose:
        return images.checked_file
    if spec.image is None:
        raise InvalidModel("model specification takes a picture and has no image parameters")
    return images.load(spec.image)
