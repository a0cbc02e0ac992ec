"""The clauses of CREATE VECTOR INDEX and ALTER INDEX … REBUILD, read in any order."""

from __future__ import annotations

from dataclasses import dataclass, field

from pythiadb.errors import FeatureNotSupported, InvalidParameter
from pythiadb.sql.fetch_clause import near, whole_number
from pythiadb.sql.references import folded
from pythiadb.sql.rules.distance import METRICS
from pythiadb.sql.scan import Kind
from pythiadb.sql.source import Source, Span

GRAPH, PARTITIONS = "INMEMORY NEIGHBOR GRAPH", "NEIGHBOR PARTITIONS"
NAMES = (Kind.WORD, Kind.QUOTED)
# Words of a parameter, its name, its range and the organization that has it; empty for both.
_PARAMETERS: tuple[tuple[tuple[str, ...], str, int, int | None, str], ...] = (
    (("NEIGHBORS",), "neighbors", 1, 2048, GRAPH),
    (("M",), "neighbors", 1, 2048, GRAPH),
    (("EFCONSTRUCTION",), "efConstruction", 1, 65535, GRAPH),
    (("NEIGHBOR", "PARTITIONS"), "partitions", 1, 10_000_000, PARTITIONS),
    (("SAMPLES_PER_PARTITION",), "samples_per_partition", 1, None, PARTITIONS),
    (("MIN_VECTORS_PER_PARTITION",), "min_vectors_per_partition", 0, None, PARTITIONS),
    (("RESCORE", "FACTOR"), "rescore_factor", 1, 100, ""),
)
_TYPES = {"HNSW": GRAPH, "IVF": PARTITIONS}
_NO_QUANTIZATION = "Partitions keep compressed codes beside the vectors by themselves; leave it out."
_REFUSED = {
    "LOCAL": ("LOCAL vector indexes are", "An index covers all partitions of a table; leave LOCAL out."),
    "QUANTIZATION": ("QUANTIZATION is", _NO_QUANTIZATION),
    "COMPRESSION": ("COMPRESSION RATIO is", _NO_QUANTIZATION),
    "DISTRIBUTE": ("DISTRIBUTE is", "Every instance holds the whole index; leave it out."),
    "DUPLICATE": ("DUPLICATE is", "Every instance holds the whole index; leave it out."),
    "PARTITION": ("REBUILD PARTITION is", "An index covers all partitions of a table; rebuild the whole."),
}
_REFUSED_PARAMETERS = {
    ("ALGORITHM",): ("parameter ALGORITHM is", _NO_QUANTIZATION),
    ("NEIGHBOR", "PARTITION", "GROUPING"): (
        "parameter NEIGHBOR PARTITION GROUPING is",
        "Partitions are searched in the order of their distances; leave it out.",
    ),
}
_ORGANIZATIONS = "Write ORGANIZATION INMEMORY NEIGHBOR GRAPH or ORGANIZATION NEIGHBOR PARTITIONS."
_ACCURACIES = (
    "The target accuracy is the percentage of true neighbors to be found; with 100, searches are exact."
)


@dataclass(slots=True)
class Clauses:
    """What the clauses say; None and what is empty for what they leave open."""

    include: list[str] | None = None
    organization: str | None = None
    distance: str | None = None
    accuracy: int | None = None
    parameters: dict[str, int] = field(default_factory=dict)
    parallel: int | None = None
    type: str = ""  # HNSW or IVF
    kinds: list[tuple[int, str]] = field(default_factory=list)  # (token, the organization that it belongs to)


def read_clauses(source: Source, start: int, *, allowed: tuple[str, ...]) -> Clauses:
    """Read clauses from a token to the end; of a repeated one the last counts.

    Raises SQLSyntaxError, InvalidParameter, or FeatureNotSupported for Oracle's clauses that are not served.
    """
    clauses, index = Clauses(), start
    while index < len(source.tokens):
        key = source.key(index)
        if key in _REFUSED:
            raise _refused(source, index, *_REFUSED[key])
        word = source.key(index + 1) if key == "WITH" else key
        if word not in allowed:
            raise near(source, index + (key == "WITH"), hint=_CLAUSES[allowed])
        index = _READERS[word](source, index + (key == "WITH"), clauses)
    _check_kinds(source, clauses)
    return clauses


def _refused(source: Source, index: int, what: str, hint: str) -> FeatureNotSupported:
    return FeatureNotSupported(f"{what} not supported", detail=source.where(index), hint=hint)


def _include(source: Source, index: int, clauses: Clauses) -> int:
    if not source.is_open(index + 1):
        raise near(source, index + 1)
    clauses.include = [column_name(source, item) for item in source.split(source.inside(index + 1), ",")]
    if not clauses.include:
        raise near(source, source.partner[index + 1])
    return source.partner[index + 1] + 1


def column_name(source: Source, item: Span) -> str:
    """The folded name that an item consists of."""
    if item.end - item.start != 1 or source.at(item.start).kind not in NAMES:
        raise near(source, min(item.start + 1, item.end) if item.start < item.end else item.end)
    return folded(source, item.start)


def _organization(source: Source, index: int, clauses: Clauses) -> int:
    """ORGANIZATION {INMEMORY [NEIGHBOR] GRAPH | [NEIGHBOR] PARTITIONS}."""
    at = index + 1
    graph = source.key(at) == "INMEMORY"
    at += graph
    at += source.key(at) == "NEIGHBOR"
    if source.key(at) != ("GRAPH" if graph else "PARTITIONS"):
        raise near(source, at, hint=_ORGANIZATIONS)
    clauses.organization = GRAPH if graph else PARTITIONS
    return at + 1


def _distance(source: Source, index: int, clauses: Clauses) -> int:
    metric = source.key(index + 1)
    if metric == "CUSTOM":
        raise FeatureNotSupported(
            "distance metric CUSTOM is not supported",
            detail=source.where(index + 1),
            hint=f"Use one of {', '.join(METRICS)}.",
        )
    if source.at(index + 1).kind not in NAMES:
        raise near(source, index + 1)
    if metric not in METRICS:
        raise InvalidParameter(
            f'unrecognized distance metric "{source.at(index + 1).text}"',
            detail=source.where(index + 1),
            hint=f"Use one of {', '.join(METRICS)}.",
        )
    clauses.distance = "EUCLIDEAN_SQUARED" if metric == "L2_SQUARED" else metric
    return index + 2


def _accuracy(source: Source, index: int, clauses: Clauses) -> int:
    """[TARGET] ACCURACY n, where n may stand in parentheses."""
    at = index + (source.key(index) == "TARGET")
    if source.key(at) != "ACCURACY":
        raise near(source, at)
    bracketed = source.is_open(at + 1)
    number = at + 1 + bracketed
    if source.at(number).kind is not Kind.NUMBER:
        raise near(source, number, hint=_ACCURACIES)
    clauses.accuracy = whole_number(source, number, "target accuracy", 1, 100, hint=_ACCURACIES)
    if bracketed and source.key(number + 1) != ")":
        raise near(source, number + 1)
    behind = number + 1 + bracketed
    return behind + (source.key(behind) == "PERCENT")


def _parameters(source: Source, index: int, clauses: Clauses) -> int:
    if not source.is_open(index + 1):
        raise near(source, index + 1)
    for item in source.split(source.inside(index + 1), ","):
        _parameter(source, item, clauses)
    return source.partner[index + 1] + 1


def _parameter(source: Source, item: Span, clauses: Clauses) -> None:
    shape = source.shape(item)
    if shape[:1] == ("TYPE",) and len(shape) == 2:
        if shape[1] not in _TYPES:
            raise near(source, item.end - 1, hint="The types are HNSW and IVF.")
        clauses.type = shape[1]
        clauses.kinds.append((item.end - 1, _TYPES[shape[1]]))
        return
    for words, name, low, high, kind in _PARAMETERS:
        if shape[: len(words)] == words and len(shape) == len(words) + 1:
            said = " ".join(words).lower()
            clauses.parameters[name] = whole_number(
                source, item.end - 1, said, low, high, hint="Leave it out for the usual value."
            )
            if kind:
                clauses.kinds.append((item.start, kind))
            return
    for words, refusal in _REFUSED_PARAMETERS.items():
        if shape[: len(words)] == words:
            raise _refused(source, item.start, *refusal)
    raise near(source, item.start if item.start < item.end else item.end, hint=" ".join(_HINTS.values()))


def _check_kinds(source: Source, clauses: Clauses) -> None:
    """Parameters decide an organization that is left out, and must fit one that is given."""
    if clauses.organization is None and clauses.kinds:
        clauses.organization = clauses.kinds[0][1]
    for index, kind in clauses.kinds:
        if kind != clauses.organization:
            said = (
                f"type {source.key(index)}" if source.key(index) in _TYPES else source.at(index).text.lower()
            )
            raise InvalidParameter(
                f"{said} does not belong to ORGANIZATION {clauses.organization}",
                detail=source.where(index),
                hint=_HINTS[str(clauses.organization)],
            )


_HINTS = {
    GRAPH: "A graph has TYPE HNSW, NEIGHBORS and EFCONSTRUCTION.",
    PARTITIONS: "Partitions have TYPE IVF, NEIGHBOR PARTITIONS, SAMPLES_PER_PARTITION and MIN_VECTORS_PER_PARTITION.",
}


def _parallel(source: Source, index: int, clauses: Clauses) -> int:
    hint = "Leave it out for the engine's own number of threads."
    clauses.parallel = whole_number(source, index + 1, "parallel", 1, 1024, hint=hint)
    return index + 2


def _nothing(source: Source, index: int, clauses: Clauses) -> int:  # noqa: ARG001
    """GLOBAL and ONLINE say what is so anyway."""
    return index + 1


_READERS = {
    "INCLUDE": _include,
    "ORGANIZATION": _organization,
    "DISTANCE": _distance,
    "TARGET": _accuracy,
    "ACCURACY": _accuracy,
    "PARAMETERS": _parameters,
    "PARALLEL": _parallel,
    "GLOBAL": _nothing,
    "ONLINE": _nothing,
}
CREATION = tuple(_READERS)
REBUILDING = ("ONLINE", "PARALLEL", "PARAMETERS")
_CLAUSES = {
    CREATION: "The clauses are INCLUDE, ORGANIZATION, DISTANCE, WITH TARGET ACCURACY, PARAMETERS, PARALLEL, GLOBAL and ONLINE.",
    REBUILDING: "REBUILD takes ONLINE, PARALLEL and PARAMETERS; pythia.rebuild_vector_index changes more.",
}
