"""A trained model beside the baselines on ratings whose structure is known, and the pictures and page made of it."""

from __future__ import annotations

import base64
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from low_rank import NOISE, low_rank
from matplotlib.figure import Figure
from PIL import Image

from pythiadb.errors import InvalidParameter
from pythiadb.recommend import report as report_module
from pythiadb.recommend.evaluation import Evaluation, evaluate, overfitting_settings
from pythiadb.recommend.metrics import mae, ranking, rmse
from pythiadb.recommend.ratings import Ratings
from pythiadb.recommend.report import curves_png, ranking_png, write_report
from pythiadb.recommend.split import split_ratings
from pythiadb.recommend.training import Epoch, Settings, Trained, train

SETTINGS = Settings(dimensions=16, max_epochs=25, seed=3, threads=1)


@pytest.fixture(scope="module")
def ratings() -> Ratings:
    return low_rank()


@pytest.fixture(scope="module")
def trained(ratings: Ratings) -> Trained:
    return train(ratings, SETTINGS)


@pytest.fixture(scope="module")
def overfitting(ratings: Ratings) -> Trained:
    return train(ratings, overfitting_settings(SETTINGS, 30))


@pytest.fixture(scope="module")
def evaluation(trained: Trained, ratings: Ratings) -> Evaluation:
    return evaluate(trained, ratings)


def test_the_model_is_better_than_each_items_mean(evaluation: Evaluation) -> None:
    model, means, popular = evaluation.lines
    assert [line.name for line in evaluation.lines] == ["trained model", "item mean", "popularity"]
    assert NOISE < model.rmse < 0.85 * means.rmse
    assert model.mae < 0.85 * means.mae
    assert (popular.rmse, popular.mae) == (None, None)
    assert model.ranking.ndcg > popular.ranking.ndcg  # here all items are rated equally often
    assert any("at least as good as popularity" in note for note in evaluation.notes)


def test_figures_are_those_of_the_split_that_was_trained_on(
    evaluation: Evaluation, trained: Trained, ratings: Ratings
) -> None:
    split = split_ratings(ratings, share=SETTINGS.validation_share, by="random", seed=SETTINGS.seed)
    model = evaluation.lines[0]
    assert evaluation.held_out == len(split.validation)
    assert model.rmse == pytest.approx(trained.history[trained.best_epoch - 1].validation_rmse, rel=1e-5)
    assert (model.rmse, model.mae) == (
        rmse(trained.factors, ratings, split.validation),
        mae(trained.factors, ratings, split.validation),
    )
    assert model.ranking == ranking(trained.factors.scores, ratings, split)
    assert evaluate(trained, ratings, split) == evaluation


def test_the_table_has_a_row_for_each(evaluation: Evaluation) -> None:
    columns, rows = evaluation.table()
    assert columns == ["", "RMSE", "MAE", "recall@10", "nDCG@10"]
    model = evaluation.lines[0]
    assert rows[0] == ["trained model", model.rmse, model.mae, model.ranking.recall, model.ranking.ndcg]
    assert rows[2][:3] == ["popularity", None, None]


def test_where_popularity_wins_it_is_said_with_figures() -> None:
    """A few items get nearly all ratings, and users do not differ in taste: nothing but popularity is to be known."""
    draw = np.random.default_rng(1)
    weights = 1 / np.arange(1, 121) ** 1.5
    users, items = np.nonzero(draw.random((200, 120)) < weights / weights.max())
    values = draw.choice([3.0, 4.0, 5.0], len(users)).astype(np.float32)
    made = Ratings(
        users.astype(np.int32), items.astype(np.int32), values, None,
        pa.array(range(200), pa.int64()), pa.array(range(120), pa.int64()),
    )  # fmt: skip
    found = evaluate(train(made, replace(SETTINGS, max_epochs=5)), made)
    model, _, popular = (line.ranking for line in found.lines)
    assert model.ndcg < popular.ndcg
    said = next(note for note in found.notes if "loses to popularity" in note)
    assert f"{model.ndcg:.3f} against {popular.ndcg:.3f}" in said


def test_overfitting_is_seen(trained: Trained, overfitting: Trained) -> None:
    def best(run: Trained) -> float:
        return min(epoch.validation_rmse for epoch in run.history)

    assert len(overfitting.history) == 30
    last = overfitting.history[-1]
    assert last.train_rmse < 0.7 * trained.history[-1].train_rmse
    assert last.validation_rmse > 1.1 * best(overfitting)
    assert best(trained) < best(overfitting)


def test_other_ratings_are_refused(trained: Trained, ratings: Ratings) -> None:
    with pytest.raises(InvalidParameter, match="not the ratings of the training"):
        evaluate(trained, low_rank(users=299))
    with pytest.raises(InvalidParameter, match="not the ratings of the training"):
        evaluate(trained, replace(ratings, item_ids=pa.array([f"f{n}" for n in range(200)])))


def test_ratings_that_would_hold_out_others_are_refused(trained: Trained, ratings: Ratings) -> None:
    """The same users and items with other ratings, or in another order: the model has seen what would be held out."""
    order = np.random.default_rng(1).permutation(len(ratings))
    shuffled = replace(
        ratings, users=ratings.users[order], items=ratings.items[order], values=ratings.values[order], times=None
    )  # fmt: skip
    for others in (shuffled, replace(ratings, values=ratings.values[::-1].copy())):
        with pytest.raises(
            InvalidParameter, match="not the ratings of the training, or they are in another order"
        ):
            evaluate(trained, others)
    own = split_ratings(ratings, share=0.2, seed=8)
    by_own = train(ratings, replace(SETTINGS, max_epochs=1), split=own)
    assert evaluate(by_own, ratings, own).held_out == len(own.validation)
    with pytest.raises(InvalidParameter, match="not the ratings of the training") as caught:
        evaluate(by_own, ratings)
    assert "give that split" in (caught.value.hint or "")


def test_without_held_out_ratings_nothing_is_measured(ratings: Ratings) -> None:
    without = train(ratings, replace(SETTINGS, max_epochs=1, validation_share=0))
    with pytest.raises(InvalidParameter, match="no ratings were held out"):
        evaluate(without, ratings)


def test_lists_without_relevant_items_are_not_judged(
    trained: Trained, ratings: Ratings, tmp_path: Path
) -> None:
    found = evaluate(trained, ratings, relevant=100)
    assert [line.ranking for line in found.lines] == [None] * 3
    assert any("No held-out rating reaches 100" in note for note in found.notes)
    assert ranking_png(found) is None
    report = write_report(tmp_path, trained, found, ratings)
    assert report.rankings is None
    assert sorted(file.name for file in tmp_path.iterdir()) == ["curves.png", "report.html"]


class Page(HTMLParser):
    """What a browser would see: the tags, what they refer to, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_report_is_whole_in_one_file(
    trained: Trained, overfitting: Trained, evaluation: Evaluation, ratings: Ratings, tmp_path: Path
) -> None:
    noted = replace(ratings, notes=("12 rows & <b>more</b> were duplicates",))
    folder = tmp_path / "new" / "report"
    report = write_report(folder, trained, evaluation, noted, overfitting=overfitting, title='<script>"&')
    assert sorted(file.name for file in folder.iterdir()) == ["curves.png", "ranking.png", "report.html"]
    page = Page(report.page.read_text("utf-8"))
    assert not {"script", "link", "b"} & set(page.tags)
    assert [page.tags.count(tag) for tag in ("h1", "table", "img")] == [1, 3, 2]
    text = "\n".join(page.texts)
    assert '<script>"&' in text
    assert "12 rows & <b>more</b> were duplicates" in text
    for cell in (
        f"{evaluation.lines[0].rmse:.4f}",
        "learning_rate",
        "12,000 ratings of 300 users for 200 items",
    ):
        assert cell in text
    pictures = [base64.b64decode(src.removeprefix("data:image/png;base64,")) for src in page.references]
    assert pictures == [report.rankings.read_bytes(), report.curves.read_bytes()]
    assert not re.search(r"https?://", text)


def _pixels(png: bytes, colour: str) -> int:
    """Count what has a colour, as #rrggbb."""
    with Image.open(io.BytesIO(png)) as image:
        counted = image.convert("RGB").getcolors(1 << 20)
    wanted = tuple(bytes.fromhex(colour.removeprefix("#")))
    return sum(count for count, found in counted or () if found == wanted)


def test_a_single_pass_is_seen_too(trained: Trained) -> None:
    """A line of one point has no length: dots are drawn, and the pass has its number below."""
    alone = replace(trained, history=trained.history[:1], best_epoch=1)
    png = curves_png(alone)
    for colour in (report_module._TRAINING, report_module._HELD_OUT):
        in_legend = _pixels(curves_png(replace(alone, history=_beyond(alone.history))), colour)
        assert _pixels(png, colour) > in_legend
    axis = Figure().subplots()
    report_module._draw_curves(axis, "one pass", alone)
    low, high = axis.get_xlim()
    assert [tick for tick in axis.get_xticks() if low <= tick <= high] == [1]


def _beyond(history: tuple[Epoch, ...]) -> tuple[Epoch, ...]:
    """The passes with losses that cannot be drawn, so that only the legend is."""
    return tuple(replace(epoch, train_loss=math.nan, validation_loss=math.nan) for epoch in history)


def test_pictures_are_pictures(trained: Trained, overfitting: Trained, evaluation: Evaluation) -> None:
    alone, beside = curves_png(trained), curves_png(trained, overfitting)
    sizes = []
    for png in (alone, beside, ranking_png(evaluation)):
        with Image.open(io.BytesIO(png)) as image:
            image.load()
            sizes.append(image.size)
            colours = image.convert("RGB").getcolors(1 << 20)
        assert len(colours) > 20  # lines and letters, not an empty sheet
    assert sizes[0][0] < sizes[1][0]
    assert curves_png(trained) == alone  # nothing of the hour or the machine is in it
