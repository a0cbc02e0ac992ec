"""Statements that must run as they stand in the Oracle dialect."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psycopg
import pytest
import shop_models

import pythiadb
from pythiadb.models.export import export_augmented
from pythiadb.models.loading import read_packages
from pythiadb.sql import split_statements

HERE = Path(__file__).parent
FOUNDATION = split_statements((HERE / "acceptance_foundation.sql").read_text(), dialect="oracle")
INDEXES = split_statements((HERE / "acceptance_indexes.sql").read_text(), dialect="oracle")
MODELS = split_statements((HERE / "acceptance_models.sql").read_text(), dialect="oracle")


def test_foundation_statements_run_as_they_stand(oracle: pythiadb.Connection) -> None:
    """Every statement runs, with `:q` bound where it stands, and the searches find the right row first."""
    first: dict[str, Any] = {}
    for statement in FOUNDATION:
        params = {"q": "why does my laptop keep rebooting"} if ":q" in statement else None
        cursor = oracle.execute(statement, params)
        if cursor.description is not None:
            first[statement] = cursor.fetchall()[0]
    searches = [row for statement, row in first.items() if "FETCH FIRST 10" in statement]
    assert [row[0] for row in searches] == [1, 1, 1]
    assert [row for statement, row in first.items() if "EUCLIDEAN" in statement] == [(8**0.5, 3, "[1,2,3]")]
    assert [row[:3] for statement, row in first.items() if "user_mining_models" in statement] == [
        ("MINILM", "EMBEDDING", "ONNX")
    ]


@pytest.fixture(scope="module")
def model_files(minilm_folder: Path) -> Iterator[Path]:
    """A folder with minilm.onnx, which takes strings and has its weights beside it, and cf_recommender.onnx."""
    folder = Path(tempfile.mkdtemp(prefix="pythia-files-"))
    with tempfile.TemporaryDirectory() as work:
        package = read_packages(minilm_folder, Path(work))[""]
        export_augmented(package, Path(work) / "whole.onnx")
        whole = onnx.load(Path(work) / "whole.onnx")
    onnx.save_model(whole, folder / "minilm.onnx", save_as_external_data=True, location="minilm.weights")
    (folder / "cf_recommender.onnx").write_bytes(shop_models.recommender())
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def scoring(oracle: pythiadb.Connection, model_files: Path) -> Iterator[pythiadb.Connection]:
    """The tables and models that the statements name, except those that they load themselves."""
    for name in ("churn", "segments", "reranker"):
        made = getattr(shop_models, name)()
        oracle.execute(
            "CALL dbms_vector.load_onnx_model(:name, :graph, :metadata)",
            (name, made.graph, made.metadata_text),
        )
    oracle.execute("CREATE TABLE customer_features (id NUMBER PRIMARY KEY, age NUMBER, visits NUMBER)")
    rows = [(number, float(age), float(visits)) for number, (age, visits) in enumerate(shop_models.FEATURES)]
    with oracle.cursor() as cursor:
        cursor.executemany("INSERT INTO customer_features VALUES (:1, :2, :3)", rows)
    oracle.execute("CREATE TABLE documents (id NUMBER PRIMARY KEY, body VARCHAR2(200))")
    bodies = ["the screen is black", "battery heat and a loud fan", "fan noise", "delivery was late"]
    with oracle.cursor() as cursor:
        cursor.executemany("INSERT INTO documents VALUES (:1, :2)", list(enumerate(bodies)))
    oracle.execute(f"CREATE OR REPLACE DIRECTORY model_dir AS '{model_files}'")
    yield oracle
    oracle.execute("DROP OWNED BY vector_role")
    oracle.execute("DROP ROLE vector_role")


def test_model_statements_run_as_they_stand(scoring: pythiadb.Connection, model_files: Path) -> None:
    """Every statement runs, and what it gives agrees with scikit-learn and numpy."""
    notices: list[str] = []
    scoring.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    binds = {"base_uri": f"file://{model_files}/", "q": "loud fan noise"}
    load = next(statement for statement in MODELS if "LOAD_ONNX_MODEL('MODEL_DIR'" in statement)
    given: list[list[Any]] = []
    for statement in MODELS:
        if "INMEMORY_ONNX_MODEL" in statement:
            scoring.execute(load)  # the statements drop the model, and use it afterwards
        names = {name: value for name, value in binds.items() if re.search(rf"[^:]:{name}\b", statement)}
        cursor = scoring.execute(statement, names or None)
        if cursor.description is not None:
            given.append(cursor.fetchall())
    predicted, churned, sets, segments, relevant, sizes, memory = given
    assert notices == ["loading CF_RECOMMENDER"]
    np.testing.assert_allclose(predicted, shop_models.ratings([0], [0])[None, :], rtol=1e-6)
    check_churn(churned, sets)
    numbers = shop_models.SEGMENTS.predict(shop_models.FEATURES) + 1
    assert {int(number): count for number, count in segments} == dict(
        zip(*map(np.ndarray.tolist, np.unique(numbers, return_counts=True)), strict=True)
    )
    assert [(int(number), relevance) for number, relevance in relevant[:2]] == [(1, 2.0), (2, 2.0)] or [
        (int(number), relevance) for number, relevance in relevant[:2]
    ] == [(2, 2.0), (1, 2.0)]
    assert {"CHURN", "SEGMENTS", "RERANKER", "CF_RECOMMENDER", "MINILM"} <= {row[0] for row in sizes}
    assert sorted(row[2] for row in memory) == ["INITIALIZER", "METADATA", "PREPACKED WEIGHTS"]


def check_churn(churned: list[Any], sets: list[Any]) -> None:
    """The labels, probabilities and sets of all rows are scikit-learn's."""
    model, features = shop_models.CHURN, shop_models.FEATURES
    by_class = model.predict_proba(features)
    yes = by_class[:, list(model.classes_).index("yes")]
    assert sorted(row[0] for row in churned) == sorted(model.predict(features))
    np.testing.assert_allclose(sorted(row[1] for row in churned), np.sort(yes), atol=1e-6)
    assert len(sets) == 2 * len(features)
    np.testing.assert_allclose(sorted(row[1] for row in sets), np.sort(by_class.ravel()), atol=1e-6)


def test_a_granted_role_scores(scoring: pythiadb.Connection) -> None:
    """The statements about privileges do what they say."""
    for statement in (
        "CREATE ROLE vector_role NOT IDENTIFIED",
        "GRANT SELECT ON MINING MODEL churn TO vector_role",
    ):
        scoring.execute(statement)
    schema = scoring.execute("SELECT current_schema()").fetchone()
    assert schema is not None
    scoring.execute(f"GRANT USAGE ON SCHEMA {schema[0]} TO vector_role")
    scoring.execute("SET SESSION AUTHORIZATION vector_role")
    try:
        row = scoring.execute("SELECT PREDICTION(churn USING 20 AS age, 1 AS visits) FROM dual").fetchone()
        assert row == tuple(shop_models.CHURN.predict([[20, 1]]))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            scoring.execute("SELECT CLUSTER_ID(segments USING 20 AS age, 1 AS visits) FROM dual")
    finally:
        scoring.execute("RESET SESSION AUTHORIZATION")


@pytest.fixture
def incidents(oracle: pythiadb.Connection) -> pythiadb.Connection:
    """The tables of the foundation's statements, with keys: an index needs one."""
    for statement in FOUNDATION:
        oracle.execute(statement, {"q": "a black screen"} if ":q" in statement else None)
    oracle.execute("ALTER TABLE incident_copy ADD PRIMARY KEY (id)")
    return oracle


def test_statements_about_indexes_run_as_they_stand(incidents: pythiadb.Connection) -> None:
    """Every statement runs; the searches find what exact ones find, and the plan names the index."""
    row = incidents.execute(
        "SELECT VECTOR_EMBEDDING(minilm USING 'a black screen' AS data) FROM dual"
    ).fetchone()
    assert row is not None
    answers: dict[str, list[Any]] = {}
    for statement in INDEXES:
        values = {
            name: value for name, value in (("v", row[0]), ("q", "a black screen")) if f":{name}" in statement
        }
        cursor = incidents.execute(statement, values or None)
        if cursor.description is not None:
            answers[statement] = cursor.fetchall()
    recent, near, joined, plan, accuracy, indexes = answers.values()
    assert recent[0] == near[0] == (2,)
    assert joined == [(1, "Taller Jalisco")]
    assert any("VECTOR INDEX HNSW SCAN" in line for (line,) in plan)
    assert accuracy == [("Accuracy achieved (100%) is 5% higher than the Target Accuracy requested (95%)",)]
    assert sorted(indexes)[0][:3] == ("COPY_IVF", 2, 90)
    assert sorted(indexes)[1][:3] == ("INCIDENT_GRAPH", 2, 95)
