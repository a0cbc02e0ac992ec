"""ONNX Runtime behind a small door: sessions, runs that can be stopped, optimized copies. The only module that imports it.

Of custom operators only those of the onnxruntime-extensions package are ever registered, from its own library, and only for a
graph that asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, defs, helper

from pythiadb.errors import InvalidModel, RunStopped
from pythiadb.models.custom import EXTENSION_DOMAINS
from pythiadb.models.items import Tensor

EXTERNAL_BYTES = 1024  # weights that are smaller stay in an optimized graph

_ARENA_FIRST = 64 << 10  # bytes; the first region of the arena is never given back, so it is small
_ARENA_GROWTH = 32 << 20  # bytes of the next ones; the system gives memory to pages in use only
_ARENA_WASTE = 64 << 10  # bytes that a piece may be larger than what was asked for

_NO_VERSION = 2**63 - 1  # what ONNX Runtime reports for a file without a version
_SILENT = 4  # log severity "fatal": faults come as exceptions
_TYPES: dict[str, type[Any]] = {
    "tensor(string)": object,
    "tensor(bool)": np.bool_,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    **{
        f"tensor({kind}{bits})": getattr(np, f"{kind}{bits}")
        for kind in ("int", "uint")
        for bits in (8, 16, 32, 64)
    },
}


@dataclass(frozen=True, slots=True)
class RuntimeVersions:
    """The newest file version and operator sets that the installed ONNX Runtime reads."""

    ir: int
    opset: int
    ml_opset: int


class Run:
    """One or more calls of graphs that can be stopped together, from another thread.

    `alone`: nothing else waits for the processor, so that the calls may take all threads.
    """

    def __init__(self, *, alone: bool = True) -> None:
        self.alone = alone
        self.options = ort.RunOptions()
        self.options.log_severity_level = _SILENT
        self.stopped = False

    def stop(self) -> None:
        """Make calls in progress end at their next operator, and later ones at once."""
        self.stopped = True
        self.options.terminate = True


class Graph:
    """An open graph. `inputs` and `outputs` are their names; `tensor_outputs` leaves lists and maps out."""

    def __init__(self, path: Path, threads: int) -> None:
        """Open a graph file. Raise InvalidModel when ONNX Runtime refuses it."""
        self._session = _open(path, threads)
        self._nodes = {item.name: item for item in self._session.get_inputs()}
        self.inputs = frozenset(self._nodes)
        self.outputs = frozenset(item.name for item in self._session.get_outputs())
        self.tensor_outputs = frozenset(
            item.name for item in self._session.get_outputs() if item.type.startswith("tensor(")
        )

    def tensor(self, name: str, takes_file: bool = False) -> Tensor:
        """Return the form of an input; `takes_file` allows bytes of any length in place of a batch dimension."""
        node = self._nodes.get(name)
        if node is None:
            raise InvalidModel(f'model graph has no input "{name}"')
        kind = _TYPES.get(node.type)
        if kind is None:
            raise InvalidModel(f'model input "{name}" has the type {node.type}, which SQL values cannot fill')
        sizes = [size if isinstance(size, int) and size > 0 else None for size in node.shape]
        if takes_file and kind is np.uint8 and sizes == [None]:
            return Tensor(name, np.dtype(kind), (), loose=True)
        batch = sizes[0] if sizes else None
        return Tensor(name, np.dtype(kind), tuple(sizes[1:]), batch)

    def run(
        self, feed: Mapping[str, NDArray[Any]], outputs: Sequence[str], run: Run | None = None
    ) -> list[NDArray[Any]]:
        """Return some outputs. Raise RunStopped when `run` was stopped, InvalidModel when the graph fails."""
        run = run or Run()
        try:
            values = self._session.run(list(outputs), dict(feed), run.options)
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            if run.stopped:
                raise RunStopped("the run of the model was stopped") from error
            # Where memory was refused, the arena would next ask for as much again, and take what it can get of it.
            trim_arena()
            raise InvalidModel("model graph failed while running", detail=_one_line(error)) from error
        for name, value in zip(outputs, values, strict=True):
            if not isinstance(value, np.ndarray):
                raise InvalidModel(f'model output "{name}" is not a tensor')
        return list(values)

    def facts(self, inputs: Sequence[str]) -> dict[str, Any]:
        """Return tensors as Oracle's views write them, producer and version."""
        meta = self._session.get_modelmeta()
        return {
            "inputs": [_describe(self._nodes[name]) for name in inputs],
            "outputs": [_describe(item) for item in self._session.get_outputs()],
            "graph_name": meta.graph_name,
            "graph_description": meta.graph_description,
            "producer": meta.producer_name,
            "version": None if meta.version == _NO_VERSION else meta.version,
        }


def save_optimized(graph: Path, target: Path, weights_name: str, threads: int) -> list[Path]:
    """Write the optimized form of a graph with prepacked weights in a file beside it; return the files that were written.

    The file `weights_name` is made for mapping: several processes that open `target` share one copy of it. It is only
    written when some weight has at least EXTERNAL_BYTES. It fits the processor and the ONNX Runtime that wrote it.
    """
    options = _options(threads)
    options.optimized_model_filepath = str(target)
    for key, value in (
        ("optimized_model_external_initializers_file_name", weights_name),
        ("optimized_model_external_initializers_min_size_in_bytes", str(EXTERNAL_BYTES)),
        ("save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(f"session.{key}", value)
    _open(graph, threads, options)
    return [path for path in (target, target.with_name(weights_name)) if path.exists()]


def trim_arena() -> None:
    """Give the memory that runs have left behind back to the system; runs in progress keep theirs.

    The arena also forgets how much it was asked for.
    """
    one = np.ones(1, np.float32)
    binding = (
        _arena().io_binding()
    )  # input and output in memory of our own: what is in use cannot be given back
    binding.bind_cpu_input("x", one)
    binding.bind_output("y", "cpu", 0, np.float32, [1], one.ctypes.data)
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    _arena().run_with_iobinding(binding, options)


def measure_dimensions(graph: Path, feed: Mapping[str, NDArray[Any]], output: str) -> int:
    """Run a graph once and return the length of its embeddings; raise InvalidModel when the output is not a matrix."""
    (vectors,) = Graph(graph, threads=1).run(feed, [output])
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise InvalidModel(
            f'model output "{output}" has shape {list(vectors.shape)}, expected [batch, dimensions]'
        )
    return int(vectors.shape[1])


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
    except Exception:  # see Graph.run
        return False
    return True


def _trial(opset: int = 17, ir: int = 8, ml_opset: int = 1) -> bytes:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "trial", [x], [y])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ml_opset)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=ir).SerializeToString())


def _options(threads: int) -> ort.SessionOptions:
    _arena()
    return _bare_options(threads)


def _bare_options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _SILENT
    # Waiting threads sleep: the engine shares the machine with PostgreSQL.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Batches differ in shape, so plans of one shape would only pile up.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Weights stay out of the arena: they live as long as their model, and would keep what is around them from the system.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    return options


@cache
def _arena() -> ort.InferenceSession:
    """Make the memory in which all graphs of this process work: as much as runs at one time need, however many graphs there are.

    Return the least of graphs, of which a run does nothing.
    """
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    sizes = {
        "max_mem": 0,  # the process has a limit of its own
        "arena_extend_strategy": 0,  # regions of one size, or of what is asked for
        "initial_chunk_size_bytes": _ARENA_FIRST,
        "initial_growth_chunk_size_bytes": _ARENA_GROWTH,
        "max_dead_bytes_per_chunk": _ARENA_WASTE,
        # Else it would double for ever, trimmed or not, until the system refuses it.
        "max_power_of_two_extend_bytes": _ARENA_GROWTH,
    }
    ort.create_and_register_allocator(place, ort.OrtArenaCfg(sizes))
    graph = ort.InferenceSession(_trial(), _bare_options(1), providers=["CPUExecutionProvider"])
    graph.run(None, {"x": np.ones(1, np.float32)})  # takes the first region
    return graph


def _open(graph: Path, threads: int, options: ort.SessionOptions | None = None) -> ort.InferenceSession:
    options = options or _options(threads)
    try:
        try:
            return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # see Graph.run
            if not any(domain in str(error) for domain in EXTENSION_DOMAINS):
                raise
            options.register_custom_ops_library(_extensions_library())
            return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InvalidModel(f'could not open model file "{graph.name}"', detail=_one_line(error)) from error


def _extensions_library() -> str:
    import onnxruntime_extensions  # type: ignore[import-untyped]  # heavy, and few graphs need it

    return str(onnxruntime_extensions.get_library_path())


def _describe(item: ort.NodeArg) -> str:
    """Write a tensor as Oracle's views do: `embedding:float32[?,384]`."""
    kind = item.type.removeprefix("tensor(").removesuffix(")")
    kind = {"float": "float32", "double": "float64"}.get(kind, kind)
    sizes = ",".join(str(size) if isinstance(size, int) else "?" for size in item.shape)
    return f"{item.name}:{kind}[{sizes}]"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500].rstrip(".") + "."
