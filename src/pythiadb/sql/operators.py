"""The scoring operators: what each may be given besides a model and its attributes, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

EMBEDDING = "vector_embedding"
SET_COLUMNS = ("prediction", "cluster_id", "probability")  # the columns that a set may have


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator by its name in lower case.

    `arguments` are the SQL types of the optional arguments between the model and USING. `result` is the SQL type of the
    answer; empty where the model decides it, and then `default` is what the function takes when it is not told.
    """

    name: str
    arguments: tuple[str, ...] = ()
    result: str = ""
    default: str = ""
    columns: tuple[str, str] | None = None  # of a set: what is counted, and its probability

    @property
    def is_set(self) -> bool:
        """Tell whether the answer is a set of rows."""
        return self.columns is not None


_BOUNDS = ("integer", "double precision")
_ALL = (
    Operator(EMBEDDING, result="vector"),
    Operator("prediction", default="double precision"),
    Operator("prediction_probability", ("text",), "double precision"),
    Operator("prediction_set", _BOUNDS, default="text", columns=("prediction", "probability")),
    Operator("cluster_id", default="numeric"),
    Operator("cluster_probability", ("text",), "double precision"),
    Operator("cluster_distance", ("text",), "double precision"),
    Operator("cluster_set", _BOUNDS, "numeric", columns=("cluster_id", "probability")),
)
OPERATORS = {operator.name.upper(): operator for operator in _ALL}
