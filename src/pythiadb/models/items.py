"""Prepared inputs: rows of tensors that a run only has to stack, and what a run of them costs.

An *item* is the unit that the engine's scheduler moves: one text, one picture, or a *slab* of rows of numbers and short
strings. Rows that cannot be scored because a value is NULL keep their place in an item and take no part in the run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pythiadb.models.columns import Mask
from pythiadb.models.package import Input
from pythiadb.models.tokenizing import Tokens

SLAB_COST = 8192  # about a run's worth of rows: 8192 rows of 16 numbers, or 64 of 2048
_CHEAP = 16  # numbers or characters that count as one unit of cost
IMAGE_COST = 256  # a picture of 224 × 224 keeps a run about as busy as a text of so many tokens
TOKENS = ("ids", "mask", "types")

Tensors = Mapping[str, NDArray[Any]]


@dataclass(slots=True, eq=False)
class Item:
    """One or more rows, ready to run. `len()` is what a run of it costs, in tokens or about as much work.

    `tokens` is a tokenized text (or pair), of a single row. `tensors` holds the other inputs, one entry for each row that is
    not `missing`; None stands for none missing.
    """

    rows: int
    cost: int
    tokens: Tokens | None = None
    tensors: Tensors = field(default_factory=dict)
    missing: Mask | None = None

    def __len__(self) -> int:
        return self.cost

    @property
    def present(self) -> int:
        """The number of rows that take part in a run."""
        return self.rows if self.missing is None else self.rows - int(self.missing.sum())


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input of the graph: numpy type (object for strings) and the sizes behind the batch dimension.

    `batch` is the fixed number of rows of a run, None for any. `loose` marks a tensor without a batch dimension: the bytes
    of one file, of any length.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    batch: int | None = None
    loose: bool = False

    @property
    def width(self) -> int:
        """The number of values a row."""
        return math.prod(size or 1 for size in self.shape)

    def shaped(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Give rows of `width` values the shape of the tensor."""
        return rows.reshape(len(rows), *(size or 1 for size in self.shape))


@dataclass(frozen=True, slots=True)
class Cutter:
    """Cuts rows into items. `inputs` are those that are filled without a tokenizer, `tensors` the graph's by name.

    With `single` every row is an item of its own: rows are large, or differ in size. `row_cost` is what a row costs when all cost
    the same, else 0.
    """

    inputs: Sequence[Input]
    tensors: Mapping[str, Tensor]
    single: bool
    row_cost: int

    @classmethod
    def of(cls, inputs: Sequence[Input], tensors: Mapping[str, Tensor], *, single: bool) -> Cutter:
        """Return the cutter for a model's inputs; pictures and files are items of their own in any case."""
        single = single or any(i.source == "image" or tensors[i.tensor].loose for i in inputs)
        row_cost = 0
        if not single and all(i.source == "number" for i in inputs):
            row_cost = max(1, sum(tensors[i.tensor].width for i in inputs) // _CHEAP)
        return cls(inputs, tensors, single, row_cost)

    def cut(self, tensors: Tensors, missing: Mask) -> Iterator[Item]:
        """Cut rows into items of at most SLAB_COST, or of one row where rows are large or differ in size."""
        if self.row_cost and len(missing) * self.row_cost <= SLAB_COST:
            holes = missing if missing.any() else None
            if len(missing):
                yield Item(len(missing), len(missing) * self.row_cost, tensors=tensors, missing=holes)
            return
        costs = self._costs(tensors, missing)
        if self.single:
            cuts = np.arange(1, len(missing))
        else:
            totals = np.cumsum(costs)
            cuts = np.flatnonzero(np.diff((totals - costs) // SLAB_COST)) + 1
        starts = [0, *cuts.tolist(), len(missing)]
        taken = 0
        for start, end in pairwise(starts):
            if start == end:
                continue  # no rows at all
            holes = missing[start:end]
            present = end - start - int(holes.sum())
            part = {name: rows[taken : taken + present] for name, rows in tensors.items()}
            taken += present
            yield Item(
                rows=end - start,
                cost=max(1, int(costs[start:end].sum())),
                tensors=part,
                missing=holes if present < end - start else None,
            )

    def _costs(self, tensors: Tensors, missing: Mask) -> NDArray[np.int64]:
        """Return the cost of each row; a missing one counts like the cheapest."""
        present = np.zeros(len(missing) - int(missing.sum()), dtype=np.int64)
        for entry in self.inputs:
            rows = tensors[entry.tensor]
            if entry.source == "image" or self.tensors[entry.tensor].loose:
                present += IMAGE_COST * _CHEAP
            elif entry.source == "text":
                lengths = np.fromiter(map(len, rows.ravel().tolist()), np.int64, rows.size)
                present += lengths.reshape(rows.shape).sum(axis=tuple(range(1, rows.ndim)))
            else:
                present += self.tensors[entry.tensor].width
        costs = np.ones(len(missing), dtype=np.int64)
        costs[~missing] = np.maximum(1, present // _CHEAP)
        return costs


def text_cost(text: str) -> int:
    """Return the cost of a text for a graph that tokenizes itself: a token has about four characters."""
    return max(1, len(text) // 4)


def one_each(missing: Mask, encoded: Sequence[Tokens], tensors: Tensors) -> list[Item]:
    """Return an item for each row, with the tokens and the part of the tensors of those that are not missing."""
    items: list[Item] = []
    taken = 0
    for gone in missing.tolist():
        if gone:
            items.append(Item(1, 1, missing=np.ones(1, dtype=np.bool_)))
            continue
        part = {name: rows[taken : taken + 1] for name, rows in tensors.items()}
        items.append(Item(1, len(encoded[taken]), encoded[taken], part))
        taken += 1
    return items
