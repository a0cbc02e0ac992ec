"""Pictures of how well a recommender learned, as PNG, and a page with them that needs no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pythiadb.recommend.evaluation import Evaluation
from pythiadb.recommend.extra import train_extra
from pythiadb.recommend.files import replacing
from pythiadb.recommend.ratings import Ratings
from pythiadb.recommend.training import Epoch, Trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TRAINING, _HELD_OUT, _MARK = "#4269d0", "#e15759", "#777777"  # told apart in print, and by the colour-blind
_BARS = ("#4269d0", "#efb118", "#9498a0")
_DPI = 120

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1e23; background: #fff; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; font-weight: 600; margin-bottom: 0; }
h2 { font-size: 1.1rem; font-weight: 600; margin-top: 2.2rem; }
p.under { color: #5b616b; margin-top: .2rem; }
figure { margin: 1rem 0; }
figcaption { color: #5b616b; font-size: .9rem; }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem 1.2rem .25rem 0; border-bottom: 1px solid #e3e5e8; text-align: right; font-weight: 400; }
thead th { color: #5b616b; border-bottom-color: #9aa0a9; }
th:first-child { text-align: left; }
"""


@dataclass(frozen=True, slots=True)
class Report:
    """Where the report was written."""

    page: Path
    curves: Path
    rankings: Path | None  # None where lists could not be judged


def write_report(
    folder: Path,
    trained: Trained,
    evaluation: Evaluation,
    ratings: Ratings,
    *,
    overfitting: Trained | None = None,
    title: str = "Recommender",
) -> Report:
    """Write report.html, curves.png and ranking.png into a folder, which is made where it is missing.

    `overfitting` is a training on the same split with evaluation.overfitting_settings(); its curves stand beside. Raise
    FeatureNotSupported when matplotlib is not installed.
    """
    curves = curves_png(trained, overfitting)
    bars = ranking_png(evaluation)
    report = Report(folder / "report.html", folder / "curves.png", folder / "ranking.png" if bars else None)
    page = html_page(trained, evaluation, ratings, curves=curves, bars=bars, title=title)
    contents = {report.curves: curves, report.rankings: bars, report.page: page.encode()}
    for path, content in contents.items():
        if path and content:
            with replacing(path) as draft:
                draft.write_bytes(content)
    return report


def curves_png(trained: Trained, overfitting: Trained | None = None) -> bytes:
    """Return the loss of each pass on training and held-out ratings as PNG; with `overfitting`, that run beside it at the same scale."""
    with train_extra("drawing curves"):
        from matplotlib.figure import Figure
    runs = [("regularised", trained)]
    if overfitting:
        runs.append(("no dropout, no regularization, no early stopping", overfitting))
    figure = Figure(figsize=(4.6 * len(runs) + 0.6, 4), dpi=_DPI, layout="constrained")
    axes = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
    for axis, (name, run) in zip(axes, runs, strict=True):
        _draw_curves(axis, name, run)
    axes[0].set_ylabel("mean squared error")
    axes[0].legend(frameon=False)
    return _png(figure)


def ranking_png(evaluation: Evaluation) -> bytes | None:
    """Return recall and nDCG of the model and the baselines as a bar chart, None where lists could not be judged."""
    with train_extra("drawing charts"):
        from matplotlib.figure import Figure
    judged = [(line.name, line.ranking) for line in evaluation.lines if line.ranking]
    if not judged:
        return None
    figure = Figure(figsize=(6.4, 3.4), dpi=_DPI, layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(judged)
    for number, ((name, found), colour) in enumerate(zip(judged, _BARS, strict=False)):
        places = [group + (number - (len(judged) - 1) / 2) * width for group in range(2)]
        bars = axis.bar(places, [found.recall, found.ndcg], width * 0.92, label=name, color=colour)
        axis.bar_label(bars, fmt="%.3f", padding=2, fontsize=9)
    axis.set_xticks([0, 1], [f"recall@{evaluation.k}", f"nDCG@{evaluation.k}"])
    axis.margins(y=0.15)
    axis.legend(frameon=False)
    _plain(axis)
    return _png(figure)


def html_page(
    trained: Trained,
    evaluation: Evaluation,
    ratings: Ratings,
    *,
    curves: bytes,
    bars: bytes | None,
    title: str,
) -> str:
    """Return the page; pictures are in it, nothing is fetched."""
    best = trained.history[trained.best_epoch - 1]
    facts = (
        f"{len(ratings):,} ratings of {len(ratings.user_ids):,} users for {len(ratings.item_ids):,} items; "
        f"{evaluation.held_out:,} held out"
    )
    stopped = (
        f"Mean squared error of each pass. The dotted line marks pass {best.number}, the weights of which were kept (RMSE "
        f"{best.validation_rmse:.4f} on held-out ratings). In training, components of the vectors are left out, so that its loss can be above that of the held-out ratings."
    )
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="under">{escape(facts)}</p>',
        "<h2>How well it predicts</h2>",
        _table(*evaluation.table()),
        f"<p>{escape(_how_measured(evaluation))}</p>",
        *([_figure(bars, "Ranking metrics", "Lists of the model beside those of the baselines.")] if bars else []),
        "<h2>How it learned</h2>",
        _figure(curves, "Loss curves", stopped),
        _table(*_epochs(trained.history)),
        "<h2>Settings</h2>",
        _table(["setting", "value"], [[name, _setting(value)] for name, value in asdict(trained.settings).items()]),
        "<h2>Notes</h2>",
        _list(list(dict.fromkeys([*ratings.notes, *trained.notes, *evaluation.notes]))),
    ]  # fmt: skip
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _draw_curves(axis: Axes, name: str, run: Trained) -> None:
    numbers = [epoch.number for epoch in run.history]
    dots: dict[str, Any] = {"marker": "o", "markersize": 3}  # of a single pass there is no line
    train, held_out = (
        [getattr(e, f"{which}_loss") for e in run.history] for which in ("train", "validation")
    )
    axis.plot(numbers, train, color=_TRAINING, label="training", **dots)
    axis.plot(numbers, held_out, "--", color=_HELD_OUT, label="held out", **dots)
    best = run.history[run.best_epoch - 1]
    axis.axvline(best.number, color=_MARK, linewidth=0.8, linestyle=":", label="pass that was kept")
    last = run.history[-1]
    axis.set_title(
        f"{name}\nRMSE held out: best {best.validation_rmse:.3f}, last {last.validation_rmse:.3f}",
        fontsize=10,
        loc="left",
    )
    axis.set_xlabel("pass over the ratings")
    axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)  # type: ignore[call-arg]
    _plain(axis)


def _plain(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e3e5e8", linewidth=0.8)
    axis.set_axisbelow(True)


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _how_measured(evaluation: Evaluation) -> str:
    users = next((line.ranking.users for line in evaluation.lines if line.ranking), None)
    text = "RMSE and MAE are errors of predicted ratings, lower is better."
    if users is None:
        return text
    return (
        f"{text} Recall and nDCG judge lists of {evaluation.k} out of all items that a user has not rated in training, by the held-out "
        f"ratings of at least {evaluation.relevant:g}; means over {users:,} users, higher is better."
    )


def _epochs(history: Sequence[Epoch]) -> tuple[list[str], list[list[Any]]]:
    columns = ["pass", "loss, training", "loss, held out", "RMSE, training", "RMSE, held out", "learning rate", "seconds"]  # fmt: skip
    return columns, [
        [e.number, e.train_loss, e.validation_loss, e.train_rmse, e.validation_rmse, f"{e.learning_rate:.2g}", f"{e.seconds:.1f}"]
        for e in history
    ]  # fmt: skip


def _setting(value: Any) -> str:
    return "chosen by itself" if value is None else str(value)


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "\n".join(
        f'<tr><th scope="row">{_cell(first)}</th>{"".join(f"<td>{_cell(value)}</td>" for value in rest)}</tr>'
        for first, *rest in rows
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _cell(value: Any) -> str:
    if value is None:
        return "—"
    return f"{value:.4f}" if isinstance(value, float) else escape(str(value))


def _figure(png: bytes, name: str, caption: str) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{data}">\n'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _list(sentences: Iterable[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "\n</ul>"
