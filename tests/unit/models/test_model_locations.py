"""The names of external data, read from the bytes of a file, against what the onnx library reads."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from pythiadb.errors import InvalidModel
from pythiadb.models import locations
from pythiadb.models.locations import external_locations
from tests.unit.models.small_models import string_graph


def elsewhere(name: str, location: str) -> TensorProto:
    """A weight that lies in another file."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("offset", "0"), ("location", location), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def everywhere() -> onnx.ModelProto:
    """A model with weights in other files wherever the format has room for one."""
    model = string_graph()
    model.graph.initializer.append(elsewhere("a", "first.bin"))
    model.graph.initializer.append(elsewhere("b", "second.bin"))
    model.graph.initializer.append(elsewhere("c", "first.bin"))
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(elsewhere("values", "values.bin"))
    sparse.indices.CopyFrom(elsewhere("indices", "indices.bin"))
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["x"], value=elsewhere("d", "deep.bin"))], "inner", [], []
    )
    inner.initializer.append(elsewhere("e", "inner.bin"))
    branch = helper.make_graph(
        [helper.make_node("If", ["c"], ["x"], then_branch=inner, else_branch=inner)], "outer", [], []
    )
    several = AttributeProto(name="graphs", type=AttributeProto.GRAPHS)
    several.graphs.append(branch)
    tensors = AttributeProto(name="tensors", type=AttributeProto.TENSORS)
    tensors.tensors.append(elsewhere("f", "list.bin"))
    model.graph.node.add(op_type="Odd").attribute.extend([several, tensors])
    function = model.functions.add(name="f", domain="d")
    function.node.append(helper.make_node("Constant", [], ["x"], value=elsewhere("g", "function.bin")))
    return model


def names(message: object) -> set[str]:
    """All locations in a protobuf message, found by the library's own reflection."""
    if isinstance(message, TensorProto):
        return {entry.value for entry in message.external_data if entry.key == "location"}
    found: set[str] = set()
    for field, value in message.ListFields():  # type: ignore[attr-defined]
        if field.type == field.TYPE_MESSAGE:
            for one in [value] if hasattr(value, "ListFields") else value:
                found |= names(one)
    return found


def test_every_place_of_a_model(tmp_path: Path) -> None:
    model = everywhere()
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    found = external_locations(path)
    assert set(found) == names(model)
    assert len(found) == 8
    assert len(set(found)) == len(found)


def test_model_without_external_data(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(string_graph().SerializeToString())
    assert external_locations(path) == []


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(InvalidModel, match="empty"):
        external_locations(tmp_path / "model.onnx")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_give_names_or_one_error(tmp_path: Path, data: st.DataObject) -> None:
    good = everywhere().SerializeToString()
    place = data.draw(st.integers(0, len(good) - 1))
    bad = good[:place] + data.draw(st.binary(max_size=12)) + good[place + data.draw(st.integers(0, 12)) :]
    path = tmp_path / "model.onnx"
    path.write_bytes(bad or b"x")
    with contextlib.suppress(InvalidModel):
        assert all(isinstance(name, str) for name in external_locations(path))


def test_file_of_nothing_but_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bytes a field: the reader gives up instead of counting to a billion."""
    monkeypatch.setattr(locations, "_MOST_FIELDS", 1000)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x01" * 1000)
    assert external_locations(path) == []
    path.write_bytes(b"\x08\x01" * 1001)
    with pytest.raises(InvalidModel, match="too many parts"):
        external_locations(path)
