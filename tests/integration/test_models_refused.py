"""Files and metadata that are refused at loading, without a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from onnx import TensorProto, helper, numpy_helper

import pythiadb
from tests.integration.fetching_calls import ANIMALS
from tests.integration.model_loading import embed, load, traces
from tests.unit.models.small_models import bert_config, bert_weights, string_graph, write_folder


def custom_operator() -> bytes:
    model = string_graph()
    model.graph.node[-1].domain = "evil.example"
    model.opset_import.append(helper.make_opsetid("evil.example", 1))
    return bytes(model.SerializeToString())


def external(location: str) -> bytes:
    """Return a graph one of whose weights lies in another file."""
    model = string_graph()
    weight = numpy_helper.from_array(np.zeros(16, np.float32), "weight")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    model.graph.initializer.append(weight)
    return bytes(model.SerializeToString())


def fails_when_run() -> bytes:
    """Return a graph that ONNX Runtime opens and that fails on every input."""
    model = string_graph()
    model.graph.initializer.append(numpy_helper.from_array(np.array([7, 7], np.int64), "seven"))
    model.graph.node.insert(0, helper.make_node("Reshape", ["input", "seven"], ["unused"]))
    model.graph.node[1].input[0] = "unused"
    return bytes(model.SerializeToString())


BAD = {
    "empty": (b"", "empty"),
    "text": (b"hello, I am a model " * 50, "is not an ONNX model"),
    "truncated": (ANIMALS[: len(ANIMALS) // 2], "is not an ONNX model"),
    "custom operator": (custom_operator(), 'custom operator "Cast" of domain "evil.example"'),
    "external data elsewhere": (external("../../secret"), "outside the model folder"),
    "external data absolute": (external("/etc/passwd"), "outside the model folder"),
    "external data missing": (external("weights.bin"), "is missing"),
    "no embedding": (string_graph(kind=TensorProto.INT64).SerializeToString(), "floating-point"),
    "fails when run": (fails_when_run(), "model"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("by", ["bytes", "file"])
def test_bad_file_is_named_and_leaves_no_trace(
    clean: pythiadb.Connection, model_dir: Path, case: str, by: str
) -> None:
    data, message = BAD[case]
    before = traces(clean)
    with pytest.raises(psycopg.DatabaseError, match=message) as caught:
        if by == "bytes":
            load(clean, "bad", data)
        else:
            (model_dir / "bad.onnx").write_bytes(data)
            clean.execute("CALL dbms_vector.load_onnx_model('MODEL_DIR', 'bad.onnx', 'bad')")
    assert caught.value.sqlstate not in (None, "XX000", "58X02"), "an internal error is no answer"
    assert traces(clean) == before
    assert embed(clean, "public.minilm", "still there")


def test_result_that_is_no_number_fails_its_call_only(clean: pythiadb.Connection) -> None:
    """The square root of -1 for known animals, 0 for all others: the engine goes on."""
    model = string_graph()
    model.graph.node.append(helper.make_node("Neg", ["embedding"], ["negative"]))
    model.graph.node.append(helper.make_node("Sqrt", ["negative"], ["root"]))
    model.graph.output.append(helper.make_tensor_value_info("root", TensorProto.FLOAT, ["batch", 3]))
    metadata = '{"function":"embedding","embeddingOutput":"root","input":{"input":["DATA"]}}'
    load(clean, "roots", model.SerializeToString(), metadata)
    clean.execute("SET statement_timeout = '10s'")
    with pytest.raises(psycopg.DataError, match="NaN"):
        embed(clean, "roots", "cat")
    assert np.abs(embed(clean, "roots", "unknown")).tolist() == [0, 0, 0]
    assert embed(clean, "public.minilm", "still there")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("[]", "metadata"),
        ('{"function":"embeding"}', "embeding"),
        ('{"function":"embedding","input":{"nosuch":["DATA"]}}', "nosuch"),
        ('{"function":"embedding","embeddingOutput":"nosuch"}', "nosuch"),
        ('{"function":"embedding","maxSequenceLength":1e400}', "number is out of range"),
        (None, "metadata"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(
    clean: pythiadb.Connection, metadata: Any, message: str
) -> None:
    before = traces(clean)
    with pytest.raises(psycopg.DatabaseError, match=message) as caught:
        load(clean, "bad", metadata=metadata)
    assert caught.value.sqlstate not in ("XX000", "58X02")
    assert traces(clean) == before


def test_failed_load_aborts_only_its_transaction(clean: pythiadb.Connection) -> None:
    before = traces(clean)
    with pytest.raises(psycopg.DataError), clean.transaction():
        load(clean, "good")
        load(clean, "bad", b"no model")
    assert traces(clean) == before
    load(clean, "good")
    assert embed(clean, "good", "cat") == [1, 0, 0]


def test_folder_without_tokenizer_is_refused(clean: pythiadb.Connection, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "bert", bert_config(), bert_weights())
    (source / "tokenizer.json").unlink()
    before = traces(clean)
    with pytest.raises(pythiadb.Error, match=r"tokenizer\.json"):
        pythiadb.load_model(clean, source, "bert")
    with pytest.raises(pythiadb.Error, match="does not exist"):
        pythiadb.load_model(clean, tmp_path / "nowhere", "bert")
    assert traces(clean) == before
