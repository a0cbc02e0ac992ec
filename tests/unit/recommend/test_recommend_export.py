from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pythiadb.recommend.export import METADATA, onnx_model
from pythiadb.recommend.factors import Factors
from tests.unit.models.small_models import random_factors


def run(factors: Factors, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
    session = ort.InferenceSession(onnx_model(factors), providers=["CPUExecutionProvider"])
    (rating,) = session.run(["rating"], {"user_input": users[:, None], "movie_input": items[:, None]})
    assert rating.shape == (len(users), 1)
    assert rating.dtype == np.float32
    return np.asarray(rating[:, 0])


@settings(deadline=None, max_examples=50)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 70)),
    st.integers(0, 9),
    st.integers(0, 50),
)
def test_the_graph_predicts_as_the_factors_do(size: tuple[int, int, int], seed: int, rows: int) -> None:
    factors = random_factors(*size, seed)
    rng = np.random.default_rng(seed)
    users, items = rng.integers(-1, size[0], rows), rng.integers(-1, size[1], rows)
    np.testing.assert_allclose(run(factors, users, items), factors.predict(users, items), atol=1e-5)


def test_one_past_the_last_is_unknown_too() -> None:
    factors = random_factors(5, 4, 3)
    users, items = np.array([5, 5, 0, -1]), np.array([4, 1, 4, -1])
    expected = factors.predict(np.array([-1, -1, 0, -1]), np.array([-1, 1, -1, -1]))
    np.testing.assert_allclose(run(factors, users, items), expected, rtol=1e-6)
    assert expected[0] == expected[3] == np.float32(factors.mean)


@pytest.mark.parametrize(
    ("user", "item"), [(6, 0), (0, 5), (-2, 0), (0, -2), (-5, -4), (2**40, 0), (-(2**63), 0)]
)
def test_other_positions_are_refused(user: int, item: int) -> None:
    """Gather alone would take -2 for the last user."""
    with pytest.raises(Exception, match="indices element out of data bounds"):
        run(random_factors(5, 4, 3), np.array([0, user]), np.array([0, item]))


def test_ratings_are_clipped_to_the_range() -> None:
    factors = Factors(
        3.0, 1.0, 5.0, np.array([9, -9], np.float32), np.zeros(1, np.float32), np.zeros((2, 2), np.float32),
        np.zeros((1, 2), np.float32),
    )  # fmt: skip
    assert run(factors, np.array([0, 1, -1]), np.array([0, 0, 0])).tolist() == [5.0, 1.0, 3.0]


def test_the_file_is_one_that_others_can_read() -> None:
    model = onnx.load_from_string(onnx_model(random_factors(3, 3, 2)))
    onnx.checker.check_model(model, full_check=True)
    assert [item.name for item in model.graph.input] == list(METADATA["input"])
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert not any(node.domain for node in model.graph.node)


def test_the_same_factors_give_the_same_file() -> None:
    assert onnx_model(random_factors(3, 3, 2)) == onnx_model(random_factors(3, 3, 2))
