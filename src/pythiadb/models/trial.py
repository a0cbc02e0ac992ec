"""A first run of a graph with made-up rows, to learn what its file does not say."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from pythiadb.errors import InvalidModel
from pythiadb.models.items import Tensor
from pythiadb.models.known import as_type, known_values
from pythiadb.models.package import Spec
from pythiadb.models.probe import TEXTS, picture
from pythiadb.models.runtime import Graph

_ROWS = 61  # no likely number of classes


class Trial:
    """An open graph and the outputs of one run. `rows` is how many rows the run had."""

    def __init__(self, path: Path, spec: Spec, model: onnx.ModelProto) -> None:
        self._graph = Graph(path, threads=1)
        self._spec = spec
        self._known = known_values(model)
        files = {a.name for a in spec.attributes if a.type == "blob"}
        self.tensors = {i.tensor: self._graph.tensor(i.tensor, i.attributes[0] in files) for i in spec.inputs}
        fixed = next((t.batch for t in self.tensors.values() if t.batch), None)
        text = any(t.dtype.kind == "O" for t in self.tensors.values())
        self.loose = any(t.loose for t in self.tensors.values())
        self.rows = (
            1 if self.loose else fixed or (len(TEXTS) if text and spec.function == "embedding" else _ROWS)
        )

    def output(self, tensor: str) -> NDArray[Any]:
        """Return an output of the run."""
        if tensor not in self._outputs:
            raise InvalidModel(f'model graph has no output "{tensor}"')
        return self._outputs[tensor]

    def width(self, role: str) -> int:
        """Return the number of values a row of the output of a role; raise InvalidModel when it is not a matrix."""
        tensor = self._spec.outputs[role]
        values = self.output(tensor)
        if self.loose:
            values = values.reshape(1, -1)
        if values.ndim != 2 or values.shape[0] != self.rows or values.shape[1] == 0:
            words = "dimensions" if role == "embedding" else "classes"
            raise InvalidModel(
                f'model output "{tensor}" has shape {list(values.shape)} for {self.rows} rows, expected [batch, {words}]'
            )
        return int(values.shape[1])

    def single(self, role: str) -> None:
        """Raise InvalidModel unless the output of a role has one value a row."""
        tensor = self._spec.outputs[role]
        values = self.output(tensor)
        if values.size != self.rows:
            several = values.ndim == 2 and values.shape[0] == self.rows
            raise InvalidModel(
                f'model output "{tensor}" has shape {list(values.shape)} for {self.rows} rows, expected one value a row',
                hint="For a model with several targets export one model for each." if several else None,
            )

    def is_single(self, tensor: str) -> bool:
        """Tell whether an output has one value a row."""
        values = self.output(tensor)
        return values.size == self.rows and (self.loose or values.shape[:1] == (self.rows,))

    @cached_property
    def _outputs(self) -> dict[str, NDArray[Any]]:
        names = sorted(self._graph.tensor_outputs)
        feed = {name: self._sample(tensor) for name, tensor in self.tensors.items()}
        return dict(zip(names, self._graph.run(feed, names), strict=True))

    def _sample(self, tensor: Tensor) -> NDArray[Any]:
        if tensor.loose:
            return np.frombuffer(picture(0), dtype=np.uint8)
        random = np.random.default_rng(0)
        rows = self._made_up(tensor, random)
        for (name, place), values in self._known.items():
            known = as_type(values, tensor.dtype) if name == tensor.name else None
            if known is not None:
                rows[:, place] = known[random.integers(0, known.size, self.rows)]
        return tensor.shaped(rows)

    def _made_up(self, tensor: Tensor, random: np.random.Generator) -> NDArray[Any]:
        size = (self.rows, tensor.width)
        if tensor.dtype.kind == "O":
            texts = [TEXTS[row % len(TEXTS)] for row in range(self.rows)]
            return np.array([texts] * tensor.width, dtype=object).T
        if tensor.dtype.kind == "f":
            return random.normal(size=size).astype(tensor.dtype)
        return random.integers(0, 2, size=size).astype(tensor.dtype)
