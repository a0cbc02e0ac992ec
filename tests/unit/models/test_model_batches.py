"""A batch answers as its rows do alone, and a matrix as records do: properties, with any values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn_models import export, fit
from small_models import (
    WORDS,
    bert_config,
    bert_weights,
    pair_graph,
    string_graph,
    tabular_graph,
    write_folder,
)

from pythiadb.errors import InvalidParameter
from pythiadb.models.folder import package_from_folder
from pythiadb.models.onnx_file import package_from_onnx
from pythiadb.models.operators import answers, answers_literal
from pythiadb.models.probe import probe
from pythiadb.models.session import Model, Scores, open_model

KINDS = [
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "UINT16",
    "UINT32",
    "UINT64",
    "FLOAT16",
    "FLOAT",
    "DOUBLE",
    "BOOL",
]
CITIES = ["Lima", "Oslo", "Bonn"]
words = st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)
numbers = st.floats(-1e6, 1e6, width=32)


def ask(model: Model, operator: str, asked: list[Any]) -> list[str | None]:
    outputs = model.run(model.prepare(asked))
    found = [text for output in outputs for text in answers(operator, [], model.spec, output)]
    assert len(found) == len(asked)
    return found


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A pipeline of one text and two numbers."""
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    rng = np.random.default_rng(0)
    x = np.column_stack([rng.choice(CITIES, 60), rng.integers(18, 90, 60), rng.normal(size=60)]).astype(
        object
    )
    encoder = OneHotEncoder(handle_unknown="ignore")
    columns = ColumnTransformer([("c", encoder, [0]), ("n", StandardScaler(), [1, 2])])
    pipeline = fit(make_pipeline(columns, LogisticRegression()), x, np.arange(60) % 3)
    kinds = [("city", StringTensorType([None, 1]))]
    kinds += [(name, FloatTensorType([None, 1])) for name in ("age", "spent")]
    work = tmp_path_factory.mktemp("mixed")
    package = package_from_onnx(export(pipeline, kinds, zipmap=False), work, {"function": "classification"})
    probe(package)
    return open_model(package.files, package.spec, threads=1)


@given(
    st.lists(
        st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "CITY": st.none() | st.sampled_from(CITIES) | st.text(max_size=9),
                "Age": st.none() | st.integers(0, 120) | st.integers(0, 9).map(str),
                "spent": st.none() | numbers,
                "other": st.just([1]),
            },
        ),
        max_size=12,
    )
)
@settings(deadline=None, max_examples=60)
def test_texts_and_numbers(mixed: Model, asked: list[Any]) -> None:
    gone = [record is None or record.get("CITY") is None for record in asked]
    together = ask(mixed, "prediction", asked)
    assert together == [ask(mixed, "prediction", [record])[0] for record in asked]
    assert all(text is None for text, lost in zip(together, gone, strict=True) if lost)
    chances = ask(mixed, "prediction_probability", asked)
    assert [text is None for text in chances] == [text is None for text in together]
    for record, text in zip(asked, chances, strict=True):
        (alone,) = ask(mixed, "prediction_probability", [record])
        assert (text is None) == (alone is None)
        if text is not None and alone is not None:  # kernels differ by batch in the last digit
            assert float(text) == pytest.approx(float(alone), abs=1e-6, nan_ok=True)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = write_folder(tmp_path_factory.mktemp("small"), bert_config(), bert_weights())
    package = package_from_folder(folder, tmp_path_factory.mktemp("work"))
    return open_model(package.files, package.spec, threads=1)


@given(st.lists(st.none() | words, min_size=1, max_size=90))
@settings(deadline=None, max_examples=30)
def test_texts(embedder: Model, texts: list[str | None]) -> None:
    """Texts of any length, NULL among them; items keep their places."""
    outputs = embedder.run(embedder.prepare([None if text is None else {"DATA": text} for text in texts]))
    together = np.concatenate([output for output in outputs if not isinstance(output, Scores)])
    assert [bool(np.isnan(row).all()) for row in together] == [text is None for text in texts]
    given_texts = [text for text in texts if text is not None]
    alone = [embedder.embed([text])[0] for text in given_texts]
    for row, single in zip(together[~np.isnan(together[:, 0])], alone, strict=True):
        assert float(row @ single) > 0.99999


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Model:
    metadata = {"function": "regression", "input": {"first_input": ["A"], "second_input": ["B"]}}
    package = package_from_onnx(pair_graph().SerializeToString(), tmp_path_factory.mktemp("pairs"), metadata)
    return open_model(package.files, package.spec, threads=1)


@given(st.lists(st.tuples(st.none() | st.text(max_size=3), st.none() | st.text(max_size=3)), max_size=30))
@example([("a" * 200_000, "a" * 200_000)] * 3)
@settings(deadline=None, max_examples=50)
def test_pairs(pairs: Model, asked: list[tuple[str | None, str | None]]) -> None:
    found = ask(pairs, "prediction", [{"A": one, "B": two} for one, two in asked])
    expected = [None if None in pair else f"{float(pair[0] == pair[1])}" for pair in asked]
    assert found == expected


MODELS: dict[str, Model] = {}


@pytest.fixture(scope="module", autouse=True)
def _sums(tmp_path_factory: pytest.TempPathFactory) -> None:
    for kind in KINDS:
        source = tabular_graph(getattr(onnx.TensorProto, kind), ("batch", 3)).SerializeToString()
        metadata = {"function": "regression", "input": {"x": ["A", "B", "C"]}, "defaultOnNull": {"C": "1"}}
        package = package_from_onnx(source, tmp_path_factory.mktemp(kind), metadata)
        MODELS[kind] = open_model(package.files, package.spec, threads=1)


cells = (
    st.none()
    | st.integers(-300, 300).map(float)
    | st.floats(-70_000, 70_000)
    | st.sampled_from(
        [0.5, -0.5, 1.5, 2.5, 2.0**31, 2.0**53, 2.0**63, 2.0**64, 1e300, float("inf"), float("nan")]
    )
)


@given(st.sampled_from(KINDS), st.permutations("ABC"), st.lists(st.tuples(cells, cells, cells), max_size=20))
@settings(deadline=None, max_examples=200)
def test_a_matrix_answers_as_records_do(kind: str, order: list[str], table: list[Any]) -> None:
    """What a matrix cannot carry exactly is without an answer; everything else is the same, errors too."""
    check_matrix(MODELS[kind], order, table, {})


@given(
    st.sampled_from(KINDS),
    st.permutations("ABC"),
    cells | st.sampled_from(["2", " 1.5 ", "-1e1", "nan", "inf", "abc", "", "1_0", True]),
    st.lists(st.tuples(cells, cells), min_size=1, max_size=20),
)
@settings(deadline=None, max_examples=200)
def test_a_constant_beside_a_matrix_is_read_as_in_a_record(
    kind: str, order: list[str], constant: Any, table: list[Any]
) -> None:
    check_matrix(MODELS[kind], order[:2], table, {order[2]: constant})


def check_matrix(model: Model, order: list[str], table: list[Any], constants: dict[str, Any]) -> None:
    """Compare the answers for a matrix, beside constants, with those for its rows as records."""
    expected: list[str | InvalidParameter | None] = []
    for row in table:
        try:
            expected += ask(model, "prediction", [{**dict(zip(order, row, strict=True)), **constants}])
        except InvalidParameter as error:
            expected.append(error)
    shape = (-1, len(order))
    values = np.array([[0 if v is None else v for v in row] for row in table], np.float64).reshape(shape)
    nulls = np.array([[v is None for v in row] for row in table], np.bool_).reshape(shape)
    given_constants = {name.lower(): value for name, value in constants.items()}
    try:
        items = model.prepare_matrix([name.lower() for name in order], values, nulls, given_constants)
        outputs = model.run(items)
    except InvalidParameter:
        assert any(isinstance(entry, InvalidParameter) for entry in expected)
        return
    found = [text for output in outputs for text in answers("prediction", [], model.spec, output)]
    for row, text, wanted in zip(table, found, expected, strict=True):
        if text is None:  # the row is scored alone afterwards
            assert (
                wanted is None
                or isinstance(wanted, InvalidParameter)
                or max(abs(v or 0) for v in row) > 2.0**52
            )
        else:  # sums are taken in an order that goes by the batch
            assert isinstance(wanted, str)
            assert float(text) == pytest.approx(float(wanted), rel=1e-12, abs=1e-9, nan_ok=True)


@given(st.lists(st.none() | st.lists(st.none() | numbers, min_size=3, max_size=3), max_size=20))
@settings(deadline=None, max_examples=60)
def test_the_literal_says_what_the_answers_say(table: list[Any]) -> None:
    """`{…}` of PostgreSQL, read by hand."""
    model = MODELS["DOUBLE"]
    asked = [None if row is None else dict(zip("ABC", row, strict=True)) for row in table]
    for output in model.run(model.prepare(asked)):
        texts = answers("prediction", [], model.spec, output)
        literal = answers_literal("prediction", [], model.spec, output).decode()
        assert literal == "{" + ",".join("NULL" if text is None else text for text in texts) + "}"


@pytest.mark.parametrize("shape", [("batch",), ("batch", 1), (1,), (3,), (4, 1)])
def test_fixed_and_variable_batches_of_texts(tmp_path_factory: pytest.TempPathFactory, shape: Any) -> None:
    package = package_from_onnx(string_graph(shape).SerializeToString(), tmp_path_factory.mktemp("s"))
    model = open_model(package.files, package.spec, threads=1)
    texts = ["cat", "dog", "zebra", "fish", "dog"] * 7
    expected = [[float(text == animal) for animal in ("cat", "dog", "fish")] for text in texts]
    assert model.embed(texts).tolist() == expected


def test_a_vectorizer_of_texts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A bag of words: scikit-learn's tokenizer inside the graph; lower case would need a locale of the machine."""
    from skl2onnx.common.data_types import StringTensorType

    texts = [" ".join(WORDS[n : n + 3]) for n in range(len(WORDS) - 3)]
    labels = np.arange(len(texts)) % 2
    pipeline = fit(make_pipeline(CountVectorizer(lowercase=False), LogisticRegression()), texts, labels)
    source = export(pipeline, [("text", StringTensorType([None]))], zipmap=False)
    package = package_from_onnx(source, tmp_path_factory.mktemp("bag"), {"function": "classification"})
    probe(package)
    model = open_model(package.files, package.spec, threads=1)
    wanted = list(map(str, pipeline.predict(texts)))
    assert ask(model, "prediction", [{"TEXT": text} for text in texts]) == wanted
