"""Files from strangers: each is refused with an error that names its fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import string_graph, token_graph

from pythiadb.errors import FeatureNotSupported, InvalidModel, LimitExceeded
from pythiadb.models.onnx_file import package_from_onnx
from pythiadb.models.session import runtime_versions
from pythiadb.models.validate import check_model_file


def save(tmp_path: Path, model: onnx.ModelProto, name: str = "m.onnx") -> Path:
    path = tmp_path / name
    path.write_bytes(model.SerializeToString())
    return path


def with_location(location: str, **entries: int) -> onnx.ModelProto:
    """Return a graph whose table is external data at `location`."""
    model = token_graph()
    make_external(model.graph.initializer[0], location, **entries)
    return model


def make_external(tensor: TensorProto, location: str, **entries: int) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)


def table_bytes() -> bytes:
    return bytes(token_graph().graph.initializer[0].raw_data)


def test_a_sound_file_passes(tmp_path: Path) -> None:
    checked = check_model_file(save(tmp_path, string_graph()))
    assert checked.external == ()
    assert checked.model.producer_name == "test"


def test_files_that_are_no_models(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(InvalidModel, match=r'could not read model file "m.onnx": No such file'):
        check_model_file(path)
    path.write_bytes(b"")
    with pytest.raises(InvalidModel, match=r'model file "m.onnx" is empty'):
        check_model_file(path)
    for content in (b"%PDF-1.7 hello", b"\x08\x07", b"PK\x03\x04" + bytes(100), b'{"a": 1}'):
        path.write_bytes(content)
        with pytest.raises(InvalidModel, match=r'"m.onnx" is not an ONNX model'):
            check_model_file(path)


def test_every_truncation_is_noticed(tmp_path: Path, work: Path) -> None:
    content = string_graph().SerializeToString()
    path = tmp_path / "m.onnx"
    for length in range(1, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(InvalidModel):
            package_from_onnx(path, work)


def test_versions_that_the_runtime_does_not_know(tmp_path: Path) -> None:
    newest = runtime_versions()
    assert newest.opset >= 20
    assert newest.ir >= 10
    model = string_graph()
    model.ir_version = newest.ir + 1
    with pytest.raises(InvalidModel, match=f"ONNX IR version {newest.ir + 1}, .* reads up to {newest.ir}"):
        check_model_file(save(tmp_path, model))
    model = string_graph()
    model.opset_import[0].version = newest.opset + 1
    with pytest.raises(InvalidModel, match=f"opset {newest.opset + 1} of domain"):
        check_model_file(save(tmp_path, model))
    model = string_graph()
    model.opset_import[1].version = 99
    with pytest.raises(InvalidModel, match=r'opset 99 of domain "ai.onnx.ml"'):
        check_model_file(save(tmp_path, model))


def custom_node(domain: str) -> onnx.NodeProto:
    return helper.make_node("Evil", ["embedding"], ["x"], domain=domain)


def test_custom_operators_are_refused_wherever_they_hide(tmp_path: Path) -> None:
    message = 'custom operator "Evil" of domain "evil.com"'
    plain = string_graph()
    plain.graph.node.append(custom_node("evil.com"))
    body = helper.make_graph([custom_node("evil.com")], "then", [], [])
    inner = helper.make_graph(
        [helper.make_node("If", ["c"], ["x"], then_branch=body, else_branch=body)], "b", [], []
    )
    nested = string_graph()
    nested.graph.node.append(helper.make_node("Loop", ["n", "c"], ["y"], body=inner))
    function = string_graph()
    function.functions.append(
        helper.make_function(
            "local", "F", ["embedding"], ["x"], [custom_node("evil.com")], [helper.make_opsetid("", 17)]
        )
    )
    for model in (plain, nested, function):
        with pytest.raises(InvalidModel, match=message):
            check_model_file(save(tmp_path, model))


def test_functions_of_the_model_itself_are_allowed(tmp_path: Path, work: Path) -> None:
    model = string_graph(output="embedding")
    model.graph.node[-1].output[0] = "raw"
    body = [helper.make_node("Neg", ["a"], ["b"])]
    model.functions.append(
        helper.make_function("local", "F", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    )
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.node.append(helper.make_node("F", ["raw"], ["embedding"], domain="local"))
    assert package_from_onnx(save(tmp_path, model), work).spec.dimensions == 3


@pytest.mark.parametrize("operator", ["ImageReader", "AzureTextToText", "PyOp", "Anything"])
@pytest.mark.parametrize("domain", ["ai.onnx.contrib", "com.microsoft.extensions"])
def test_operators_of_onnxruntime_extensions_that_do_more_than_compute(
    tmp_path: Path, operator: str, domain: str
) -> None:
    model = string_graph()
    model.graph.node.append(helper.make_node(operator, ["input"], ["x"], domain=domain))
    message = f'operator "{operator}" of onnxruntime-extensions is not supported'
    with pytest.raises(FeatureNotSupported, match=message):
        check_model_file(save(tmp_path, model))


@pytest.mark.parametrize("shape", [(2**31 + 1,), (1, 70_000, 70_000), (2**62, 2**62)])
def test_tensors_that_are_huge_by_their_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    model = string_graph()
    model.graph.value_info.append(helper.make_tensor_value_info("hit", TensorProto.BOOL, shape))
    with pytest.raises(
        InvalidModel, match=r'tensor "hit" has \d+ elements by its shape, the limit is 2147483648'
    ):
        check_model_file(save(tmp_path, model))


def test_weights_with_a_negative_size(tmp_path: Path) -> None:
    model = string_graph()
    model.graph.initializer[0].dims[0] = -2
    with pytest.raises(InvalidModel, match="has a negative size"):
        check_model_file(save(tmp_path, model))


@pytest.mark.parametrize(
    "location",
    ["/etc/passwd", "../secret", "a/../../secret", "C:\\x", "..\\x", "", ".", "a\0b", "*/_ORT_MEM_ADDR_/*"],
)
def test_paths_that_leave_the_folder(tmp_path: Path, location: str) -> None:
    with pytest.raises(InvalidModel, match="external data lies outside the model folder") as caught:
        check_model_file(save(tmp_path, with_location(location)))
    assert f'"{location}"' in caught.value.message


def test_links_that_leave_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(table_bytes())
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "way").symlink_to(tmp_path)
    (folder / "loop").symlink_to(folder / "loop")
    for location in ("link", "way/secret"):
        with pytest.raises(InvalidModel, match=f'outside the model folder: "{location}"'):
            check_model_file(save(folder, with_location(location)))
    with pytest.raises(InvalidModel, match='"loop" is missing'):
        check_model_file(save(folder, with_location("loop")))


def test_links_inside_the_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "one").write_bytes(table_bytes())
    (tmp_path / "weights").symlink_to("blobs/one")
    assert check_model_file(save(tmp_path, with_location("weights"))).external == ("weights",)


def test_external_data_that_is_missing_or_short(tmp_path: Path) -> None:
    path = save(tmp_path, with_location("weights"))
    with pytest.raises(InvalidModel, match='external data file "weights" is missing'):
        check_model_file(path)
    (tmp_path / "weights").mkdir()
    with pytest.raises(InvalidModel, match='"weights" is not a regular file'):
        check_model_file(path)
    (tmp_path / "weights").rmdir()
    content = table_bytes()
    (tmp_path / "weights").write_bytes(content[:-1])
    with pytest.raises(InvalidModel, match='external data file "weights" is too short'):
        check_model_file(path)
    (tmp_path / "weights").write_bytes(content)
    assert check_model_file(path).external == ("weights",)
    with pytest.raises(InvalidModel, match="is too short"):
        check_model_file(save(tmp_path, with_location("weights", offset=1)))
    with pytest.raises(InvalidModel, match="has 8 bytes of external data, its shape needs"):
        check_model_file(save(tmp_path, with_location("weights", length=8)))
    with pytest.raises(InvalidModel, match='invalid external data offset: "-4"'):
        check_model_file(save(tmp_path, with_location("weights", offset=-4)))


def test_external_data_in_subgraphs_constants_and_functions(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "t")
    make_external(tensor, "../secret")
    constant = helper.make_node("Constant", [], ["k"], value=tensor)
    body = helper.make_graph([helper.make_node("Neg", ["t"], ["z"])], "body", [], [], [tensor])
    branch, direct, function = string_graph(), string_graph(), string_graph()
    branch.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body))
    direct.graph.node.append(constant)
    function.functions.append(
        helper.make_function("local", "F", [], ["k"], [constant], [helper.make_opsetid("", 17)])
    )
    for model in (branch, direct, function):
        with pytest.raises(InvalidModel, match=r'outside the model folder: "../secret"'):
            check_model_file(save(tmp_path, model))


def test_bytes_cannot_bring_external_data(tmp_path: Path, work: Path) -> None:
    model = string_graph()
    make_external(model.graph.initializer[0], "weights")
    with pytest.raises(InvalidModel, match='external data file "weights" is missing'):
        package_from_onnx(model.SerializeToString(), work)


def test_size_limit_counts_external_data(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(table_bytes() + bytes(10_000))
    path = save(tmp_path, with_location("weights"))
    size = path.stat().st_size
    check_model_file(path, max_bytes=size + 13_000)
    for limit in (size - 1, size + 10_000):
        with pytest.raises(LimitExceeded, match=f"the limit is {limit} bytes"):
            check_model_file(path, max_bytes=limit)


def test_graph_that_the_runtime_refuses(tmp_path: Path, work: Path) -> None:
    model = string_graph(columns=None)
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(InvalidModel, match=r'could not open model file "m.onnx"') as caught:
        package_from_onnx(save(tmp_path, model), work)
    assert "NoSuchOperator" in str(caught.value.detail)
