"""Run a package with ONNX Runtime. The only module that imports onnxruntime.

Work is split so that callers can merge it: `tokenize` turns texts into rows, rows of several callers can be put into one
list, and `run` turns rows into vectors, in *micro-batches*. A micro-batch holds rows of like length, padded to its longest.
No library of custom operators is ever registered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, defs, helper

from pythiadb.errors import InvalidModel, InvalidParameter, InvalidVector
from pythiadb.models.package import Spec
from pythiadb.models.tokenizing import MAX_INPUT_BYTES, Tokenizer, Tokens, clean_text, pad

Vectors = NDArray[np.float32]
Row = Tokens | str  # a tokenized text, or the text itself when the graph takes strings
ShouldStop = Callable[[], bool]

# Padded tokens of a micro-batch. Measured with MiniLM on a shared machine, so in relation only: for texts of one length 512 to
# 4096 differ within the noise; for 64 texts of mixed length a larger batch pads more, and 1024 is 15 to 50 % faster than 2048.
MAX_BATCH_TOKENS = 1024
MAX_BATCH_ROWS = 64

_NUMBERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_NO_VERSION = 2**63 - 1  # what ONNX Runtime reports for a file without a version
_SILENT = 4  # log severity "fatal": faults come as exceptions


class Cancelled(Exception):
    """A run was stopped between two micro-batches because its caller asked for it."""


@dataclass(frozen=True, slots=True)
class RuntimeVersions:
    """The newest file version and operator sets that the installed ONNX Runtime reads."""

    ir: int
    opset: int
    ml_opset: int


class Model:
    """An open model. `run` may be called from several threads at once; they share the session's threads."""

    def __init__(self, session: ort.InferenceSession, spec: Spec, tokenizer: Tokenizer | None) -> None:
        self.spec = spec
        self._session = session
        self._tokenizer = tokenizer
        self._inputs = {item.name: item for item in session.get_inputs()}
        missing = [name for name in spec.inputs if name not in self._inputs]
        if missing or spec.output not in {item.name for item in session.get_outputs()}:
            raise InvalidModel(f'model graph has no tensor "{missing[0] if missing else spec.output}"')
        batch = next(iter(self._inputs[spec.inputs[0]].shape or ["?"]))
        self._max_rows = batch if isinstance(batch, int) and batch > 0 else MAX_BATCH_ROWS

    def tokenize(self, texts: Sequence[str], *, max_bytes: int = MAX_INPUT_BYTES) -> list[Row]:
        """Return one row a text, in order. Raise LimitExceeded for a text of more than `max_bytes` UTF-8 bytes."""
        clean = [clean_text(text, max_bytes) for text in texts]
        if self._tokenizer is None:
            return list(clean)
        return list(self._tokenizer.encode(clean))

    def run(self, rows: Sequence[Row], should_stop: ShouldStop | None = None) -> Vectors:
        """Return the embeddings of `rows`, float32 [rows, dimensions], in order.

        Raise Cancelled when `should_stop` says so before a micro-batch, InvalidVector when the model gives NaN or infinity,
        InvalidModel when the graph fails.
        """
        vectors = np.empty((len(rows), self.spec.dimensions), dtype=np.float32)
        for batch in micro_batches([len(row) for row in rows], max_rows=self._max_rows):
            if should_stop is not None and should_stop():
                raise Cancelled
            vectors[batch] = self._run_batch([rows[number] for number in batch])
        return vectors

    def embed(self, texts: Sequence[str], should_stop: ShouldStop | None = None) -> Vectors:
        """Tokenize and run: the embeddings of `texts`, float32 [texts, dimensions], in order."""
        return self.run(self.tokenize(texts), should_stop)

    def facts(self) -> dict[str, Any]:
        """Return what the views show: tensors as Oracle writes them, producer, version, dimensions."""
        meta = self._session.get_modelmeta()
        return {
            "inputs": [_describe(self._inputs[name]) for name in self.spec.inputs],
            "outputs": [_describe(item) for item in self._session.get_outputs()],
            "dimensions": self.spec.dimensions,
            "max_tokens": self.spec.max_tokens,
            "graph_name": meta.graph_name,
            "graph_description": meta.graph_description,
            "producer": meta.producer_name,
            "version": None if meta.version == _NO_VERSION else meta.version,
        }

    def _run_batch(self, rows: Sequence[Row]) -> Vectors:
        vectors = _call(self._session, self.spec.output, self._feed(rows))
        expected = (len(rows), self.spec.dimensions)
        if vectors.shape != expected:
            raise InvalidModel(
                f'model output "{self.spec.output}" has shape {list(vectors.shape)}, expected {list(expected)}'
            )
        if not np.isfinite(vectors).all():
            raise InvalidVector(f'model output "{self.spec.output}" holds NaN or infinite values')
        return vectors

    def _feed(self, rows: Sequence[Row]) -> dict[str, NDArray[Any]]:
        names = self.spec.inputs
        if self._tokenizer is None:
            return {names[0]: _strings(rows, len(self._inputs[names[0]].shape))}
        tensors = pad([row for row in rows if isinstance(row, Tokens)])
        return {
            name: tensor.astype(_NUMBERS[self._inputs[name].type], copy=False)
            for name, tensor in zip(names, tensors, strict=False)
        }


def open_model(files: Mapping[str, Path] | Path, spec: Spec, *, threads: int) -> Model:
    """Open a package for running on `threads` threads.

    `files` maps stored names to paths, or is the folder that holds them; external data must lie beside the graph. Raise
    InvalidModel when a file is missing or ONNX Runtime refuses the graph.
    """
    if threads < 1:
        raise InvalidParameter(f"number of threads must be at least 1, not {threads}")
    session = _open(_file(files, spec.graph), threads)
    tokenizer = None
    if spec.tokenizer is not None:
        if spec.max_tokens is None:
            raise InvalidModel("model specification names a tokenizer and no max_tokens")
        tokenizer = Tokenizer(_file(files, spec.tokenizer), spec.max_tokens)
    return Model(session, spec, tokenizer)


def measure_dimensions(graph: Path, feed: Mapping[str, NDArray[Any]], output: str) -> int:
    """Run a graph once and return the length of its embeddings; raise InvalidModel when the output is not a matrix."""
    vectors = _call(_open(graph, threads=1), output, feed)
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise InvalidModel(
            f'model output "{output}" has shape {list(vectors.shape)}, expected [batch, dimensions]'
        )
    return int(vectors.shape[1])


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


@cache
def runtime_versions() -> RuntimeVersions:
    """Find out, by trying, which ONNX versions the installed ONNX Runtime reads: it does not say."""
    opset = _newest(lambda version: _trial(opset=version), defs.onnx_opset_version())
    return RuntimeVersions(
        ir=_newest(lambda version: _trial(ir=version), opset),
        opset=opset,
        ml_opset=_newest(lambda version: _trial(ml_opset=version), 20),
    )


def _newest(trial: Callable[[int], bytes], start: int) -> int:
    """Return the highest version up to `start` that loads."""
    for version in range(start, 1, -1):
        if _loads(trial(version)):
            return version
    return 1


def _loads(model: bytes) -> bool:
    try:
        ort.InferenceSession(model, _options(1), providers=["CPUExecutionProvider"])
    except Exception:  # ONNX Runtime's exceptions have no common base of their own
        return False
    return True


def _trial(opset: int = 17, ir: int = 8, ml_opset: int = 1) -> bytes:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "trial", [x], [y])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ml_opset)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=ir).SerializeToString())


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _SILENT
    # Waiting threads sleep: the engine shares the machine with PostgreSQL.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Batches differ in shape, so plans of one shape would only pile up.
    options.enable_mem_pattern = False
    return options


def _open(graph: Path, threads: int) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(graph, _options(threads), providers=["CPUExecutionProvider"])
    except Exception as error:  # see _loads
        raise InvalidModel(f'could not open model file "{graph.name}"', detail=_one_line(error)) from error


def _call(session: ort.InferenceSession, output: str, feed: Mapping[str, NDArray[Any]]) -> Vectors:
    try:
        (vectors,) = session.run([output], dict(feed))
    except Exception as error:  # see _loads
        raise InvalidModel("model graph failed while running", detail=_one_line(error)) from error
    return np.asarray(vectors, dtype=np.float32)


def _strings(rows: Sequence[Row], rank: int) -> NDArray[Any]:
    texts = np.array(rows, dtype=object)
    return texts if rank == 1 else texts.reshape(-1, 1)


def _file(files: Mapping[str, Path] | Path, name: str) -> Path:
    path = files / name if isinstance(files, Path) else files.get(name)
    if path is None or not path.is_file():
        raise InvalidModel(f'model package lacks the file "{name}"')
    return path


def _describe(item: ort.NodeArg) -> str:
    """Write a tensor as Oracle's views do: `embedding:float32[?,384]`."""
    kind = item.type.removeprefix("tensor(").removesuffix(")")
    kind = {"float": "float32", "double": "float64"}.get(kind, kind)
    sizes = ",".join(str(size) if isinstance(size, int) else "?" for size in item.shape)
    return f"{item.name}:{kind}[{sizes}]"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500].rstrip(".") + "."
