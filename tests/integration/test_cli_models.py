"""The command line for models: from load to drop, towers, names on the hub, export."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import ok, pythia
from onnx import TensorProto, helper, numpy_helper

import pythiadb
from tests.unit.models.small_models import (
    bert_config,
    bert_weights,
    string_graph,
    tabular_graph,
    token_graph,
    write_folder,
    write_tokenizer,
)


def test_models_from_load_to_drop(data: tuple[str, str], tmp_path: Path, drop: list[str]) -> None:
    name = f"bert_{uuid.uuid4().hex[:8]}"
    drop.append(name)
    folder = write_folder(tmp_path / name, bert_config(), bert_weights())
    assert ok("model", "load", folder, *data).startswith(
        f"loaded model {name}: 24 dimensions, attribute DATA, "
    )
    listed = {m["model"]: m for m in json.loads(ok("model", "list", "--json", *data))}
    assert listed[name]["dimensions"] == 24
    assert listed[name]["in memory"] is False
    assert name in ok("model", "list", *data)
    shown = json.loads(ok("model", "show", name, "--json", *data))
    assert shown["attributes"] == ["DATA"]
    assert "max_tokens" in ok("model", "show", name, *data)
    again = pythia("model", "load", folder, *data)
    assert again.exit_code == 1
    assert again.stderr.splitlines()[0] == f'ERROR:  relation "{name}" already exists'
    assert again.stderr.splitlines()[1].startswith("HINT:  CALL dbms_vector.drop_onnx_model")
    assert ok("model", "drop", name, *data) == f"dropped model {name}\n"
    for command in ("show", "drop"):
        gone = pythia("model", command, name, *data)
        assert gone.exit_code == 1
        assert f'model "{name}" does not exist' in gone.stderr


def test_onnx_file_with_metadata(data: tuple[str, str], tmp_path: Path, drop: list[str]) -> None:
    drop.append("cli_animals")
    path = tmp_path / "Cli-Animals.onnx"
    path.write_bytes(string_graph(output="out").SerializeToString())
    metadata = '{"function":"embedding","embeddingOutput":"out","input":{"input":["DATA"]}}'
    assert "loaded model cli_animals: 3 dimensions" in ok(
        "model", "load", path, "--metadata", metadata, *data
    )
    rows = json.loads(
        ok("sql", "--json", "-c", "SELECT VECTOR_EMBEDDING(cli_animals USING 'dog' AS data) AS v", *data)
    )
    assert rows == [{"v": [0, 1, 0]}]


@pytest.mark.parametrize("metadata", ["{", "[]", '{"function": "embeding"}'])
def test_metadata_that_are_wrong(data: tuple[str, str], tmp_path: Path, metadata: str) -> None:
    path = tmp_path / "animals.onnx"
    path.write_bytes(string_graph().SerializeToString())
    result = pythia("model", "load", path, "cli_bad", "--metadata", metadata, *data)
    assert result.exit_code in (1, 2)
    assert re.search("metadata|embeding", result.stderr)


def test_missing_and_bad_files(data: tuple[str, str], tmp_path: Path) -> None:
    missing = pythia("model", "load", tmp_path / "nowhere", *data)
    assert missing.exit_code == 1
    assert "does not exist" in missing.stderr
    (tmp_path / "bad.onnx").write_text("no model")
    bad = pythia("model", "load", tmp_path / "bad.onnx", *data)
    assert bad.exit_code == 1
    assert bad.stderr.startswith('ERROR:  "bad.onnx" is not an ONNX model\nDETAIL:  ')


def test_function_and_metadata_of_other_models(
    data: tuple[str, str], tmp_path: Path, drop: list[str]
) -> None:
    """What is loaded tells its attributes, which the call has to name."""
    drop.append("cli_sum")
    path = tmp_path / "sum.onnx"
    path.write_bytes(tabular_graph().SerializeToString())
    wishes = ("--function", "regression", "--metadata", '{"input": {"x": ["A", "B", "C"]}}')
    loaded = json.loads(ok("model", "load", path, "cli_sum", *wishes, "--json", *data))
    assert [(m["model_name"], m["function"], m["dimensions"], m["attributes"]) for m in loaded] == [
        ("cli_sum", "regression", None, ["A", "B", "C"])
    ]
    statement = "SELECT PREDICTION(cli_sum USING 1 AS a, 2 AS b, 3.5 AS c) AS p"
    assert json.loads(ok("sql", "--json", "-c", statement, *data)) == [{"p": 6.5}]
    wrong = pythia("model", "load", path, "cli_other", "--function", "rregression", *data)
    assert wrong.exit_code == 2
    assert "'rregression' is not one of" in wrong.stderr


def test_prompt_of_a_folder(data: tuple[str, str], tmp_path: Path, drop: list[str]) -> None:
    drop += ["cli_plain", "cli_query", "cli_default"]
    folder = write_folder(tmp_path / "prompts", bert_config(), bert_weights())
    prompts = {"prompts": {"query": "the cat runs "}}
    settings = folder / "config_sentence_transformers.json"
    settings.write_text(json.dumps(prompts))
    ok("model", "load", folder, "cli_plain", *data)
    ok("model", "load", folder, "cli_query", "--prompt", "query", *data)
    settings.write_text(json.dumps(prompts | {"default_prompt_name": "query"}))
    ok("model", "load", folder, "cli_default", *data)
    for model in ("cli_query", "cli_default"):
        statement = (
            f"SELECT VECTOR_DISTANCE(VECTOR_EMBEDDING({model} USING 'quickly' AS data), "
            "VECTOR_EMBEDDING(cli_plain USING :1 AS data), COSINE) < 1e-6 AS same"
        )
        for text, same in (("the cat runs quickly", True), ("quickly", False)):
            found = ok("sql", "--json", "-c", statement.replace(":1", f"'{text}'"), *data)
            assert json.loads(found) == [{"same": same}]
    wrong = pythia("model", "load", folder, "cli_wrong", "--prompt", "passage", *data)
    assert wrong.exit_code == 1
    assert (
        wrong.stderr == 'ERROR:  prompt "passage" does not exist\nHINT:  The folder\'s prompts are query.\n'
    )


def test_shared_weights_or_nothing(
    data: tuple[str, str], tmp_path: Path, minilm_folder: Path, drop: list[str]
) -> None:
    drop.append("cli_shared")
    ok("model", "load", minilm_folder, "cli_shared", "--inmemory", *data)
    listed = {m["model"]: m for m in json.loads(ok("model", "list", "--json", *data))}
    assert listed["cli_shared"]["in memory"] is True
    statement = "SELECT populate_status FROM v$im_onnx_model WHERE name = 'CLI_SHARED'"
    assert json.loads(ok("sql", "--json", "-c", statement, *data)) == [{"populate_status": "ENABLED"}]
    small = write_folder(tmp_path / "small", bert_config(), bert_weights())
    refused = pythia("model", "load", small, "cli_small", "--inmemory", *data)
    assert refused.exit_code == 1
    assert 'model "public.cli_small" has no external data' in refused.stderr
    assert pythia("model", "show", "cli_small", *data).exit_code == 1


def towers(folder: Path) -> Path:
    """A CLIP folder with two ready graphs: the first token's vector, and the mean colour of a picture."""
    (folder / "onnx").mkdir(parents=True)
    write_tokenizer(folder)
    text = token_graph(pooled=True)
    text.graph.node[-1].output[0] = "text_embeds"
    del text.graph.output[:]
    text.graph.output.append(helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, ["batch", 24]))
    onnx.save_model(text, folder / "onnx" / "text_model.onnx")
    colors = np.random.default_rng(4).normal(size=(3, 24)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixel_values"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "colors"], ["image_embeds"]),
    ]
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, 8, 8])
    given = helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", 24])
    graph = helper.make_graph(
        nodes, "picture", [pixels], [given], [numpy_helper.from_array(colors, "colors")]
    )
    picture = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(picture, folder / "onnx" / "vision_model.onnx")
    processor = {
        "size": {"height": 8, "width": 8},
        "do_normalize": False,
        "image_processor_type": "CLIPImageProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def test_a_clip_folder_makes_two_models(data: tuple[str, str], tmp_path: Path, drop: list[str]) -> None:
    drop += ["cli_clip_text", "cli_clip_image"]
    loaded = ok("model", "load", towers(tmp_path / "cli-clip"), *data)
    assert [line.partition(",")[0] for line in loaded.splitlines()] == [
        "loaded model cli_clip_text: 24 dimensions",
        "loaded model cli_clip_image: 24 dimensions",
    ]
    listed = {m["model"] for m in json.loads(ok("model", "list", "--json", *data))}
    assert {"cli_clip_text", "cli_clip_image"} <= listed
    taken = pythia("model", "load", tmp_path / "cli-clip", *data)
    assert taken.exit_code == 1
    assert taken.stderr.startswith('ERROR:  relation "cli_clip_text" already exists')


def test_a_name_on_the_hub(data: tuple[str, str], tmp_path: Path, drop: list[str]) -> None:
    """Out of the hub's cache, without a network; the model gets the repository's name."""
    drop.append("tiny_encoder")
    snapshot = tmp_path / "models--org--tiny-encoder" / "snapshots" / ("0" * 40)
    write_folder(snapshot, bert_config(), bert_weights())
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text(snapshot.name)

    def load(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pythiadb.cli", "model", "load", name, *data],
            env={**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    loaded = load("org/tiny-encoder")
    assert loaded.stdout.startswith("loaded model tiny_encoder: 24 dimensions"), loaded.stderr
    missing = load("org/other")
    assert missing.returncode == 1
    assert missing.stderr.startswith('ERROR:  could not fetch "org/other" from the hub\nDETAIL:  ')
    ok("model", "drop", "tiny_encoder", *data)
    assert ok("model", "load", snapshot, *data).startswith("loaded model tiny_encoder:")


# Export -------------------------------------------------------------------------------------------------------------------

SAME = """
SELECT min(1 - VECTOR_DISTANCE(VECTOR_EMBEDDING({0} USING body AS data), VECTOR_EMBEDDING(minilm USING body AS data), COSINE)) AS cosine
FROM unnest(ARRAY['How can I reset my password?', 'naïve café, 北京', 'word ' || repeat('and ', 600)]) AS t(body)
"""


def test_exported_files_load_again(data: tuple[str, str], tmp_path: Path, drop: list[str]) -> None:
    drop.append("cli_again")
    out = tmp_path / "out"
    assert ok("model", "export", "minilm", out, *data) == f"exported model minilm to {out}\n"
    ok("model", "load", out, "cli_again", *data)
    shown = [
        json.loads(ok("model", "show", name, "--json", *data)) for name in ("public.minilm", "cli_again")
    ]
    for fact in ("metadata", "facts", "dimensions", "max_tokens", "model_size"):
        assert shown[0][fact] == shown[1][fact]
    packages = "SELECT count(DISTINCT package) AS n FROM pythia.model WHERE relation::text IN ('minilm', 'cli_again')"
    assert json.loads(ok("sql", "--json", "-c", packages, *data)) == [{"n": 1}]
    full = pythia("model", "export", "minilm", out, *data)
    assert full.exit_code == 1
    assert f'folder "{out}" is not empty' in full.stderr


def test_augmented_file_loads_by_oracle_s_procedure(
    data: tuple[str, str], db: pythiadb.Connection, tmp_path: Path, drop: list[str]
) -> None:
    drop.append("cli_augmented")
    out = tmp_path / "out"
    path = out / "minilm.onnx"
    exported = pythia("model", "export", "public.minilm", out, "--augmented", *data)
    assert exported.stdout == f"exported model public.minilm to {path}\n"
    assert exported.stderr.startswith("WARNING:  the file gives other vectors than the model for: Polish, ")
    db.execute("CALL dbms_vector.load_onnx_model('cli_augmented', %b::bytea)", [path.read_bytes()])
    row = db.execute(SAME.format("cli_augmented")).fetchone()
    assert row is not None
    assert row[0] >= 0.9999
    again = pythia("model", "export", "minilm", out, "--augmented", *data)
    assert again.exit_code == 1
    assert f'file "{path}" exists' in again.stderr


def test_what_cannot_be_exported(data: tuple[str, str], tmp_path: Path, drop: list[str]) -> None:
    missing = pythia("model", "export", "nosuch", tmp_path / "out", *data)
    assert missing.exit_code == 1
    assert missing.stderr.startswith('ERROR:  model "nosuch" does not exist\nHINT:  ')
    drop.append("cli_strings")
    path = tmp_path / "strings.onnx"
    path.write_bytes(string_graph().SerializeToString())
    ok("model", "load", path, "cli_strings", *data)
    refused = pythia("model", "export", "cli_strings", tmp_path / "out", "--augmented", *data)
    assert refused.exit_code == 1
    assert "only models that embed a text with a tokenizer" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_only_the_owner_exports(data: tuple[str, str], db: pythiadb.Connection, tmp_path: Path) -> None:
    role = f"reader_{uuid.uuid4().hex[:8]}"
    db.execute(f"CREATE ROLE {role} LOGIN".encode())
    db.execute(f"GRANT SELECT ON public.minilm TO {role}".encode())
    try:
        url = f"postgresql://postgres@/postgres?host={db.info.host}&options=-crole%3D{role}"
        refused = pythia("model", "export", "public.minilm", tmp_path / "out", "--dsn", url)
        assert refused.exit_code == 1
        assert refused.stderr == "ERROR:  must be owner of model public.minilm\n"
    finally:
        db.execute(f"DROP OWNED BY {role}".encode())
        db.execute(f"DROP ROLE {role}".encode())
