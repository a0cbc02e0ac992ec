"""The only door to faiss: partitions with compressed codes, graphs, and distances of whole segments.

What is large stays in mapped files that all processes share: inverted lists are read through faiss's on-disk lists, a graph's links
through its mapped reader, and its vectors are our own file. Only centroids, codebooks and directories are copied.
Every search runs in the calling thread.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from pythiadb.index import container
from pythiadb.index.distances import Floats
from pythiadb.index.keys import Positions

Progress = Callable[[str, float], None]

PARTITIONS_FILE = "partitions"
LISTS_FILE = "lists"
DIRECTORY_FILE = "directory"
ASSIGNED_FILE = "assigned"
GRAPH_FILE = "graph"
_BLOCK_ROWS = 32  # rows whose 4-bit codes are interleaved
_ALIGNMENT = 64
_CHUNK_BYTES = 32 << 20
_METRICS = {"COSINE": faiss.METRIC_INNER_PRODUCT, "DOT": faiss.METRIC_INNER_PRODUCT}


class Selector:
    """Rows that a search may return, as a little-endian bitmap; with no bitmap, all rows."""

    def __init__(self, bits: NDArray[np.uint8] | None = None) -> None:
        self._selector = None if bits is None else faiss.IDSelectorBitmap(bits)
        self._parameters: dict[tuple[str, int], Any] = {}

    def probing(self, probes: int) -> Any:
        """Return faiss's parameters of a search in so many partitions."""
        return self._kept("probes", probes) or self._keep(
            "probes", probes, faiss.SearchParametersIVF(nprobe=probes, sel=self._selector)
        )

    def walking(self, ef: int) -> Any:
        """Return faiss's parameters of a search in a graph."""
        return self._kept("ef", ef) or self._keep(
            "ef", ef, faiss.SearchParametersHNSW(efSearch=ef, sel=self._selector)
        )

    def _kept(self, kind: str, value: int) -> Any:
        return self._parameters.get((kind, value))

    def _keep(self, kind: str, value: int, parameters: Any) -> Any:
        self._parameters[kind, value] = parameters
        return parameters


ALL_ROWS = Selector()


def inner_products(rows: Floats, query: Floats) -> Floats:
    """Return the inner products of [n, d] rows with a query [d]: from memory in half the time of BLAS, which is made for matrices."""
    return _to_each(faiss.fvec_inner_products_ny, rows, query)


def squared_distances(rows: Floats, query: Floats) -> Floats:
    """Return the squared Euclidean distances of [n, d] rows to a query [d]."""
    return _to_each(faiss.fvec_L2sqr_ny, rows, query)


def inner_products_at(rows: Floats, positions: Positions, query: Floats) -> Floats:
    """Return the inner products of some of [n, d] rows with a query [d], without a copy of them."""
    return _to_some(faiss.fvec_inner_products_by_idx, rows, positions, query)


def squared_distances_at(rows: Floats, positions: Positions, query: Floats) -> Floats:
    """Return the squared Euclidean distances of some of [n, d] rows to a query [d], without a copy of them."""
    return _to_some(faiss.fvec_L2sqr_by_idx, rows, positions, query)


def _to_some(measure: Callable[..., None], rows: Floats, positions: Positions, query: Floats) -> Floats:
    positions = np.ascontiguousarray(positions, np.int64)
    found = np.empty(len(positions), np.float32)
    pointers = [faiss.swig_ptr(array) for array in (found, query, rows, positions)]
    faiss.omp_set_num_threads(1)
    measure(*pointers, rows.shape[1], 1, len(positions))
    return found


def _to_each(measure: Callable[..., None], rows: Floats, query: Floats) -> Floats:
    found = np.empty(len(rows), np.float32)
    measure(faiss.swig_ptr(found), faiss.swig_ptr(query), faiss.swig_ptr(rows), rows.shape[1], len(rows))
    return found


def nearest_rows(rows: Floats, queries: Floats, count: int, distance: str) -> Positions:
    """Return the [m, count] rows nearest to each of [m, d] queries, looking at all; equally near ones in any order."""
    faiss.omp_set_num_threads(1)
    metric = faiss.METRIC_L1 if distance == "MANHATTAN" else _METRICS.get(distance, faiss.METRIC_L2)
    found: Positions = faiss.knn(np.ascontiguousarray(queries), rows, count, metric=metric)[1]
    return found


class _Searchable:
    """An open index that finds rows for queries."""

    _index: Any
    width: int

    def _find(self, queries: Floats, count: int, parameters: Any) -> Positions:
        """Return row numbers [m, count], -1 where fewer were found."""
        queries = _padded(queries, self.width)
        distances = np.empty((len(queries), count), np.float32)
        rows = np.empty((len(queries), count), np.int64)
        faiss.omp_set_num_threads(1)
        self._index.search_c(
            len(queries),
            faiss.swig_ptr(queries),
            count,
            faiss.swig_ptr(distances),
            faiss.swig_ptr(rows),
            parameters,
        )
        return rows


class PartitionIndex(_Searchable):
    """Coarse clusters of 4-bit product codes. Reads what build_partitions() wrote."""

    def __init__(self, folder: Path) -> None:
        self._index = faiss.read_index(str(folder / PARTITIONS_FILE))
        self.width: int = self._index.d
        self.partitions: int = self._index.nlist
        header, arrays = container.read(folder / DIRECTORY_FILE, "directory", verify=False)
        path = folder / LISTS_FILE
        lists = faiss.OnDiskInvertedLists(self.partitions, header["code_bytes"], str(path))
        lists.totsize, lists.read_only, lists.prefetch_nthread = path.stat().st_size, True, 0
        directory = np.array(arrays["data"])
        faiss.memcpy(lists.lists.data(), faiss.swig_ptr(directory), directory.nbytes)
        lists.do_mmap()
        self._index.replace_invlists(lists, True)
        lists.this.disown()  # the index owns them now
        self._assigned = container.read(folder / ASSIGNED_FILE, "assigned", verify=False)[1]["data"]

    def counts(self, rows: Positions) -> NDArray[np.int64]:
        """Return how many of some rows are in each partition."""
        return np.bincount(self.partitions_of(rows), minlength=self.partitions)

    def order(self, query: Floats) -> Positions:
        """Return all partitions, nearest to a query [1, d] first."""
        distances = np.empty((1, self.partitions), np.float32)
        nearest = np.empty((1, self.partitions), np.int64)
        query = _padded(query, self.width)
        self._index.quantizer.search_c(
            1,
            faiss.swig_ptr(query),
            self.partitions,
            faiss.swig_ptr(distances),
            faiss.swig_ptr(nearest),
            None,
        )
        found: Positions = nearest[0]
        return found

    def partitions_of(self, rows: Positions) -> Positions:
        """Return the partition of each row."""
        found: Positions = self._assigned[rows]
        return found

    def find(self, queries: Floats, probes: int, count: int, selector: Selector) -> Positions:
        """Return [m, count] rows that are nearest by their codes, -1 where fewer were found."""
        return self._find(queries, count, selector.probing(min(probes, self.partitions)))


class GraphIndex(_Searchable):
    """A navigable small-world graph over vectors that stay in their own file. Reads what build_graph() wrote."""

    def __init__(self, folder: Path, vectors: Floats, distance: str) -> None:
        self._index = faiss.read_index(str(folder / GRAPH_FILE), faiss.IO_FLAG_MMAP_IFC)
        self._vectors = vectors  # kept as long as faiss looks at them
        self._storage = faiss.IndexFlat(vectors.shape[1], _graph_metric(distance))
        # A view needs an owner; the graph's own mapping serves, what the view shows is kept alive above.
        self._storage.codes = faiss.MaybeOwnedVectorUInt8.create_view(
            faiss.swig_ptr(vectors.reshape(-1).view(np.uint8)),
            vectors.nbytes,
            self._index.hnsw.neighbors.owner,
        )
        self._storage.ntotal = len(vectors)
        self._index.storage, self._index.own_fields = self._storage, False
        self.width = vectors.shape[1]

    def find(self, queries: Floats, ef: int, count: int, selector: Selector) -> Positions:
        """Return [m, count] rows that are nearest, -1 where fewer were found."""
        return self._find(queries, count, selector.walking(ef))


def build_partitions(
    folder: Path,
    vectors: Floats,
    distance: str,
    *,
    partitions: int,
    samples: int,
    threads: int,
    progress: Progress,
) -> dict[str, int]:
    """Write the partitions of [n, d] vectors: centroids trained on up to `samples` rows each, codes, directory.

    Returns how many rows the least and the most filled partition have.
    """
    index = _new_partitions(vectors.shape[1], partitions, distance)
    faiss.omp_set_num_threads(threads)
    progress("training", 0.0)
    index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = samples, 1
    index.pq.cp.min_points_per_centroid = 1
    index.train(_padded(_sample(vectors, partitions * samples), index.d))
    for start, chunk in _chunks(vectors):
        progress("assigning", start / len(vectors))
        index.add(_padded(chunk, index.d))
    faiss.omp_set_num_threads(1)
    return _write_lists(folder, index)


def build_graph(
    folder: Path,
    vectors: Floats,
    distance: str,
    *,
    neighbors: int,
    ef: int,
    threads: int,
    progress: Progress,
) -> dict[str, int]:
    """Write the graph of [n, d] vectors. While it is built, the vectors are in memory once.

    Returns its layers, its edges, and how many rows are in more layers than the lowest.
    """
    index = faiss.IndexHNSWFlat(vectors.shape[1], neighbors, _graph_metric(distance))
    index.hnsw.efConstruction = ef
    faiss.omp_set_num_threads(threads)
    for start, chunk in _chunks(vectors):
        progress("linking", start / len(vectors))
        index.add(np.ascontiguousarray(chunk))
    faiss.omp_set_num_threads(1)
    _write(index, folder / GRAPH_FILE, faiss.IO_FLAG_SKIP_STORAGE)
    links = index.hnsw.neighbors
    return {
        "layers": index.hnsw.max_level + 1,
        "edges": _count(faiss.rev_swig_ptr(links.data(), links.size()), least=0),
        "sparse_vectors": _count(faiss.vector_to_array(index.hnsw.levels), least=2),
    }


def _count(values: NDArray[np.int32], least: int) -> int:
    """Count values that are not less, without a copy of all."""
    parts = (values[start : start + _CHUNK_BYTES] for start in range(0, len(values), _CHUNK_BYTES))
    return sum(int(np.count_nonzero(part >= least)) for part in parts)


def _new_partitions(dimensions: int, partitions: int, distance: str) -> Any:
    metric = _METRICS.get(distance, faiss.METRIC_L2)
    step = code_step(dimensions)
    width = -(-dimensions // step) * step
    # With few dimensions a code says little; codes of what the centroid leaves over say more.
    codes = "fsr" if dimensions <= _FEW_DIMENSIONS else "fs"
    return faiss.index_factory(width, f"IVF{partitions},PQ{width // step}x4{codes}", metric)


_FEW_DIMENSIONS = 16


def code_step(dimensions: int) -> int:
    """Return how many dimensions share 4 bits."""
    if dimensions <= _FEW_DIMENSIONS:
        return 1
    return 2 if dimensions <= 256 else 4 if dimensions <= 2048 else 8


def _graph_metric(distance: str) -> int:
    if distance == "MANHATTAN":
        return int(faiss.METRIC_L1)
    return int(_METRICS.get(distance, faiss.METRIC_L2))


def _sample(vectors: Floats, count: int) -> Floats:
    if count >= len(vectors):
        return np.ascontiguousarray(vectors)
    chosen = np.random.default_rng(7).choice(len(vectors), count, replace=False)
    chosen.sort()
    return vectors[chosen]


def _chunks(vectors: Floats) -> Any:
    step = max(1, _CHUNK_BYTES // (4 * vectors.shape[1]))
    return ((start, vectors[start : start + step]) for start in range(0, len(vectors), step))


def _padded(rows: Floats, width: int) -> Floats:
    if rows.shape[1] == width:
        return np.ascontiguousarray(rows)
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])))


def _write_lists(folder: Path, index: Any) -> dict[str, int]:
    """Write codes and row numbers of all partitions as faiss's on-disk lists expect them, and the index without them."""
    lists = faiss.downcast_InvertedLists(index.invlists)
    code_bytes = lists.block_size // _BLOCK_ROWS
    directory = np.zeros((index.nlist, 3), np.uint64)  # rows, room, offset in the file
    assigned = np.zeros(index.ntotal, np.uint16 if index.nlist < 1 << 16 else np.uint32)
    with container.StreamWriter(folder / LISTS_FILE, "lists", "u1") as out:
        at = out.offset
        for number in range(index.nlist):
            size = lists.list_size(number)
            room = -(-size // _BLOCK_ROWS) * _BLOCK_ROWS
            directory[number] = size, room, at
            if size:
                assigned[faiss.rev_swig_ptr(lists.get_ids(number), size)] = number
            block = _list_bytes(lists, number, size, room, code_bytes)
            out.add(block)
            at += len(block)
    container.write(folder / ASSIGNED_FILE, "assigned", {}, {"data": assigned})
    container.write(folder / DIRECTORY_FILE, "directory", {"code_bytes": code_bytes}, {"data": directory})
    empty = faiss.ArrayInvertedLists(index.nlist, code_bytes)
    index.replace_invlists(empty, False)
    _write(index, folder / PARTITIONS_FILE)
    return {"least": int(directory[:, 0].min()), "most": int(directory[:, 0].max())}


def _write(index: Any, path: Path, flags: int = 0) -> None:
    """Write an index's file, and look whether it is whole: faiss keeps it to itself when closing fails. Raises OSError."""
    try:
        faiss.write_index(index, str(path), flags)
        faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise OSError(f"{path.name} was not written whole ({error})") from error


def _list_bytes(lists: Any, number: int, size: int, room: int, code_bytes: int) -> NDArray[np.uint8]:
    block = np.zeros(-(-room * (code_bytes + 8) // _ALIGNMENT) * _ALIGNMENT, np.uint8)
    if size:
        codes = room * code_bytes
        block[:codes] = faiss.rev_swig_ptr(lists.get_codes(number), codes)
        rows = faiss.rev_swig_ptr(lists.get_ids(number), size)
        block[codes : codes + 8 * size] = rows.view(np.uint8)
    return block
