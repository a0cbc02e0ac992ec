"""What the commands that learn share: options for settings and ratings, reading ratings, a bar that follows a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pythiadb import recommend as learning
from pythiadb.cli.display import error_console
from pythiadb.cli.target import current_target
from pythiadb.recommend.training import Epoch, Settings, Step

if TYPE_CHECKING:
    from pythiadb.recommend import Ratings, Trained

F = TypeVar("F", bound=Callable[..., Any])
KINDS = ("user", "item", "rating", "timestamp")
CHOICES = {"split": click.Choice(["random", "time"]), "device": click.STRING}
SETTINGS = {
    "dimensions": "Length of a vector.",
    "dropout": "Share of a vector's components that is left out of each step.",
    "learning_rate": "Of Adam.",
    "falling_rate": "Whether the learning rate falls when the error no longer does.",
    "regularization": "How strongly weights are drawn to 0, whatever the scale of the ratings.",
    "batch_rows": "Ratings a step. By default as their number suggests.",
    "max_epochs": "Passes over the ratings at most.",
    "patience": "Passes without a better error before training ends.",
    "validation_share": "Share of the ratings that is held out.",
    "split": "Which ratings are held out; with time, the latest.",
    "seed": "The same seed gives the same weights on the same machine.",
    "threads": "Processors to use. By default one for batches of fewer than 16,384 ratings, else all.",
    "device": "cpu, cuda, or auto: a GPU where there is one.",
}


def settings_options(command: F) -> F:
    """Add an option for each of the training's settings."""
    for field in reversed(fields(Settings)):
        name, default = field.name, field.default
        written = name.replace("_", "-")
        if isinstance(default, bool):
            option = click.option(f"--{written}/--no-{written}", name, default=default, help=SETTINGS[name])
        else:
            kind = CHOICES.get(name, click.FLOAT if isinstance(default, float) else click.INT)
            option = click.option(
                f"--{written}", name, type=kind, default=default, show_default=default is not None, help=SETTINGS[name]
            )  # fmt: skip
        command = option(command)
    return command


def lists_options(command: F) -> F:
    """Add how lists are judged: their length, and `relevant`, None for `relevant_rating`."""
    for option in (
        click.option(
            "--relevant", type=float, show_default="three quarters of the way from the lowest to the highest",
            help="The rating from which an item should have been recommended.",
        ),
        click.option(
            "-k", "k", type=click.IntRange(min=1), default=10, show_default=True,
            help="Length of the lists that are judged.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def relevant_rating(trained: Trained, ratings: Ratings) -> float:
    """Return the least rating that is at least three quarters of the way from the lowest to the highest: 4 stars of 5, of 0 and 1 the 1."""
    lowest, highest = trained.factors.lowest, trained.factors.highest
    # A hair less: 0.1 + 0.3 and the rating 0.4, of four bytes, differ by their rounding.
    high = ratings.values >= lowest + (0.75 - 1e-6) * (highest - lowest)
    return float(ratings.values[high].min(initial=highest))


def ratings_options(command: F) -> F:
    """Add what says where ratings are: FILE or --query (which needs a target), and how to read them, for `read_ratings`."""
    for option in (
        click.option(
            "--duplicates", type=click.Choice(["last", "mean", "error"]), default="last", show_default=True,
            help="What counts when a user rated an item twice.",
        ),
        click.option(
            "--column", "columns", multiple=True, metavar="KIND=NAME",
            help=f"A column with an unusual name; KIND is {', '.join(KINDS)}.",
        ),
        click.option("--query", metavar="SQL", help="Read the ratings by a query instead of a file."),
        click.argument("file", required=False, type=click.Path(path_type=Path)),
    ):  # fmt: skip
        command = option(command)
    return command


def read_ratings(file: Path | None, query: str | None, columns: Sequence[str], duplicates: Any) -> Ratings:
    """Read the ratings that the options name. Raises click.UsageError unless they name one source."""
    if (file is None) == (query is None):
        raise click.UsageError("Give either FILE or --query SQL.")
    names = dict(named(pair, "--column", KINDS) for pair in columns)
    if query is None:
        return learning.read_ratings(str(file), columns=names, duplicates=duplicates)
    with current_target().connect() as connection:
        return learning.read_ratings(query, columns=names, query_connection=connection, duplicates=duplicates)


def named(pair: str, option: str, names: Sequence[str]) -> tuple[str, str]:
    """Split NAME=VALUE. Raises click.UsageError for another form or a name that is none of `names`."""
    name, equals, value = pair.partition("=")
    if not (equals and value and name in names):
        raise click.UsageError(f'{option} takes NAME=VALUE with {" or ".join(names)}, not "{pair}".')
    return name, value


@contextmanager
def training_bar(settings: Settings, title: str = "") -> Iterator[Follower]:
    """Show a bar a pass on standard error, which disappears when done; none where no one looks."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        console=error_console,
        transient=True,
        disable=not error_console.is_terminal,
    ) as bar:
        yield Follower(bar, settings, title)


class Follower:
    """Lets a bar follow a training, by its callbacks `on_step` and `on_epoch`."""

    def __init__(self, bar: Progress, settings: Settings, title: str) -> None:
        self._bar = bar
        self._title = title
        self._passes = settings.max_epochs
        self._task = bar.add_task(f"{title}beginning", total=1, figures="")
        self._before = ""

    def on_step(self, step: Step) -> None:
        """Move the bar to where the pass is."""
        self._show(step.epoch, step.share, f"loss {step.loss:.4f}{self._before}")

    def on_epoch(self, epoch: Epoch) -> None:
        """Show what the pass came to, and keep it to show it during the next one."""
        self._show(epoch.number, 1.0, f"loss {epoch.train_loss:.4f}, {figures(epoch)}")
        self._before = f", before: {figures(epoch)}"

    def _show(self, number: int, share: float, text: str) -> None:
        description = f"{self._title}pass {number} of at most {self._passes}"
        self._bar.update(self._task, description=description, completed=share, figures=text)


def figures(epoch: Epoch) -> str:
    """Return the errors after a pass as text; without held-out ratings there is one."""
    trained = f"RMSE {epoch.train_rmse:.4f} in training"
    if math.isnan(epoch.validation_rmse):
        return trained
    return f"{trained}, {epoch.validation_rmse:.4f} on ratings held out"
