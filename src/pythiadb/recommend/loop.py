"""The training loop: mini-batches, dropout, regularization, a falling learning rate, early stopping, checkpoints.

What is minimised is the mean over the training ratings of

    (rating - prediction)²

and of lambda times the mean of each table's squared rows, in which a row with n ratings has the weight √n; for the two tables of biases
of 0.3 lambda. Ratings are in a unit of their own, in which they spread as MovieLens' do, whatever their scale: loop_examples.py. What is told
of errors is in the ratings' units. Weights between n (each rating brings the penalty of its rows) and 1 (each row has one) err less than both on MovieLens;
Salakhutdinov and Srebro, "Collaborative filtering in a non-uniform world", 2010, tell why.

Every pass draws its random numbers from the seed and its own number, so that one that goes on from a checkpoint is the one that would
have followed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pythiadb.errors import InvalidParameter
from pythiadb.recommend import checkpoints
from pythiadb.recommend.devices import chosen_device, limited_threads
from pythiadb.recommend.factors import Factors
from pythiadb.recommend.loop_examples import Examples, Unit
from pythiadb.recommend.network import Network, factors
from pythiadb.recommend.ratings import Ratings
from pythiadb.recommend.split import Split
from pythiadb.recommend.training import BIAS_PENALTY, Epoch, Settings, Step

OnStep = Callable[[Step], None]
OnEpoch = Callable[[Epoch], None]

_STEPS_A_PASS = 64  # batches that a pass is cut into when their size is not given
_BATCH_ROWS = (256, 131_072)  # the least and the most of it
_ALONE = 16_384  # rows of a batch under which one thread is quicker: several wait for each other longer than they compute
_FALL = 0.3  # what the learning rate is multiplied with on a plateau
_LEAST_RATE = 0.005  # share of the first learning rate under which nothing is learned any more
_PLATEAU = 1e-3  # share by which a pass has to lower the error so that there is none
_MEASURED = 1_000_000  # training ratings on which the error is measured
_BLOCK = 1 << 16  # ratings predicted at once
_TELL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training gave: the weights of its best pass."""

    factors: Factors
    history: tuple[Epoch, ...]
    best_epoch: int


def run(
    ratings: Ratings,
    split: Split,
    settings: Settings,
    *,
    fingerprint: str,
    folder: Path | None,
    resume: bool,
    on_step: OnStep | None,
    on_epoch: OnEpoch | None,
) -> Outcome:
    """Train until the error on the validation ratings no longer falls; see training.train(). `fingerprint` is that of the ratings."""
    with limited_threads(_threads(settings, len(split.train))):
        loop = _Loop(ratings, split, settings)
        if folder and resume and (found := checkpoints.read(folder)):
            checkpoints.check_continues(found[0], asdict(settings), fingerprint)
            loop.restore(*found)
        while not loop.ended:
            epoch = loop.run_epoch(on_step)
            if folder:
                checkpoints.write(folder, {**loop.facts(), "ratings": fingerprint}, loop.tensors())
            if on_epoch:
                on_epoch(epoch)
        return loop.outcome()


class _Loop:
    """A training between two passes."""

    def __init__(self, ratings: Ratings, split: Split, settings: Settings) -> None:
        self.settings = settings
        self.device = chosen_device(settings.device)
        self.training = Examples.of(ratings, split.train, self.device)
        self.validation = Examples.of(ratings, split.validation, self.device)
        self.unit = Unit.of(self.training.values)
        for examples in (self.training, self.validation):
            examples.measure(self.unit)
        self.measured = self._measured()
        self.network = Network(
            len(ratings.user_ids),
            len(ratings.item_ids),
            settings.dimensions,
            dropout=settings.dropout,
        )
        self.network.begin(self._generator(0, torch.device("cpu")))
        self.network.to(self.device)
        self.penalties = self._penalties()
        self.optimizer = torch.optim.Adam(self.network.parameters(), settings.learning_rate, fused=True)
        patience = 0 if settings.falling_rate else settings.max_epochs
        self.plateau = ReduceLROnPlateau(self.optimizer, factor=_FALL, patience=patience, threshold=_PLATEAU)
        self.history: list[Epoch] = []
        self.best = self.network.copy()

    @property
    def best_epoch(self) -> int:
        """The pass with the lowest error on the validation ratings; the last one where there are none."""
        if not len(self.validation):
            return len(self.history)
        return min(self.history, key=lambda epoch: epoch.validation_rmse).number if self.history else 0

    @property
    def ended(self) -> bool:
        done = len(self.history)
        learned = self._rate() < _LEAST_RATE * self.settings.learning_rate
        return learned or done >= self.settings.max_epochs or done - self.best_epoch >= self.settings.patience

    def outcome(self) -> Outcome:
        return Outcome(factors(self.best, self.unit), tuple(self.history), self.best_epoch)

    def run_epoch(self, on_step: OnStep | None) -> Epoch:
        """Run one pass, measure, lower the learning rate where that is due, keep the weights when they are the best."""
        begun = time.perf_counter()
        number = len(self.history) + 1
        rate = self._rate()
        loss = self._pass(number, on_step)
        passed = time.perf_counter()
        _, train_rmse = self._errors(self.measured)
        validation_loss, validation_rmse = self._errors(self.validation)
        if not math.isfinite(train_rmse):
            raise self._diverged(number)
        epoch = Epoch(
            number=number,
            train_rmse=train_rmse,
            validation_rmse=validation_rmse,
            train_loss=loss,
            validation_loss=validation_loss,
            learning_rate=rate,
            seconds=time.perf_counter() - begun,
            ratings_per_second=len(self.training) / (passed - begun),
        )
        self._append(epoch)
        if self.best_epoch == number:
            self.best = self.network.copy()
        return epoch

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint says beside its tensors."""
        steps = next(iter(self.optimizer.state.values()))["step"]
        return {
            "settings": asdict(self.settings),
            "history": [asdict(epoch) for epoch in self.history],
            "steps": float(steps),
            "unit": asdict(self.unit),
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint: weights, the optimizer's moments, and the best weights."""
        found = {f"best.{name}": weight for name, weight in self.best.items()}
        for name, weight in self.network.tables():
            moments = self.optimizer.state[weight]
            found[f"weights.{name}"] = weight.detach()
            found[f"first.{name}"] = moments["exp_avg"]
            found[f"second.{name}"] = moments["exp_avg_sq"]
        return found

    def restore(self, facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Go back to where a checkpoint was written. Raises InvalidParameter for one whose weights are in another unit."""
        if "unit" not in facts:
            raise InvalidParameter(
                "the checkpoint is of an earlier version, which trained otherwise",
                hint="Train without resuming.",
            )
        for values in facts["history"]:
            self._append(Epoch.from_json(values))
        self.best = {name: tensors[f"best.{name}"] for name in self.best}
        for name, weight in self.network.tables():
            weight.data.copy_(tensors[f"weights.{name}"])
            self.optimizer.state[weight] = {
                "step": torch.tensor(facts["steps"], dtype=torch.float32, device=self.device),
                "exp_avg": tensors[f"first.{name}"].to(self.device, copy=True),
                "exp_avg_sq": tensors[f"second.{name}"].to(self.device, copy=True),
            }

    def _rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _append(self, epoch: Epoch) -> None:
        self.history.append(epoch)
        self.plateau.step(epoch.validation_rmse if len(self.validation) else epoch.train_loss)

    def _pass(self, number: int, on_step: OnStep | None) -> float:
        """Take a step for each batch of all training ratings, in a new order; return the mean loss, in the ratings' units."""
        self.network.train()
        generator = self._generator(number, self.device)
        order = torch.randperm(len(self.training), generator=generator, device=self.device)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        done, told = 0, time.perf_counter()
        # Parts of like length: a short last one would have a large say.
        for batch in order.tensor_split(math.ceil(len(order) / _batch_rows(self.settings, len(order)))):
            total += self._step(self.training.take(batch), generator) * len(batch)
            done += len(batch)
            if on_step and time.perf_counter() - told > _TELL_SECONDS:
                on_step(Step(number, done / len(order), self._loss(total, number) / done))
                told = time.perf_counter()
        return self._loss(total, number) / done

    def _step(self, batch: Examples, generator: torch.Generator) -> Tensor:
        self.optimizer.zero_grad()
        predicted = self.network(batch.users, batch.items, generator)
        loss: Tensor = (predicted - batch.values).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        for weight, penalty in self.penalties:
            assert weight.grad is not None
            weight.grad.addcmul_(weight.detach(), penalty)
        self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def _errors(self, examples: Examples) -> tuple[float, float]:
        """Return the mean squared error before clipping, and the root of it after clipping; NaN where there are no ratings.

        Both are in the ratings' own units.
        """
        self.network.eval()
        raw = torch.zeros((), dtype=torch.float64, device=self.device)
        clipped = torch.zeros_like(raw)
        for block in examples.blocks(_BLOCK):
            predicted = self.network(block.users, block.items)
            raw += (predicted - block.values).square().sum(dtype=torch.float64)
            clipped += (predicted.clamp_(*self.unit.range) - block.values).square().sum(dtype=torch.float64)
        if not len(examples):
            return math.nan, math.nan
        size = self.unit.size
        return size**2 * float(raw) / len(examples), size * math.sqrt(float(clipped) / len(examples))

    def _penalties(self) -> list[tuple[Tensor, Tensor]]:
        """Return each table with the factors [rows, 1] that make the penalty's gradient of its rows."""
        network, found = self.network, []
        for positions, tables in (
            (self.training.users, (network.user_vectors, network.user_bias)),
            (self.training.items, (network.item_vectors, network.item_bias)),
        ):
            weights = torch.bincount(positions, minlength=tables[0].num_embeddings).to(torch.float32).sqrt()
            weights *= 2 * self.settings.regularization / weights.sum()
            vectors, bias = tables
            found += [(vectors.weight, weights[:, None]), (bias.weight, BIAS_PENALTY * weights[:, None])]
        return found

    def _measured(self) -> Examples:
        count = len(self.training)
        if count <= _MEASURED:
            return self.training
        chosen = torch.randint(count, (_MEASURED,), generator=self._generator(0, torch.device("cpu")))
        return self.training.take(chosen.to(self.device))

    def _generator(self, number: int, device: torch.device) -> torch.Generator:
        seed = np.random.SeedSequence((self.settings.seed, number)).generate_state(1, np.uint64)
        return torch.Generator(device).manual_seed(int(seed[0]) >> 1)

    def _loss(self, total: Tensor, number: int) -> float:
        """Return a loss in the ratings' own units. Raises InvalidParameter when it is no number."""
        value = self.unit.size**2 * float(total)
        if not math.isfinite(value):
            raise self._diverged(number)
        return value

    def _diverged(self, number: int) -> InvalidParameter:
        return InvalidParameter(
            f"the training diverged: in pass {number} the loss is not a number any more",
            hint=f"Lower the learning rate, now {self.settings.learning_rate:g}.",
        )


def _batch_rows(settings: Settings, count: int) -> int:
    """Return how many of `count` training ratings a step takes."""
    least, most = _BATCH_ROWS
    return settings.batch_rows or min(most, max(least, count // _STEPS_A_PASS))


def _threads(settings: Settings, count: int) -> int | None:
    """Return how many threads to compute with; None: all that PyTorch has."""
    if settings.threads is None and _batch_rows(settings, count) < _ALONE:
        return 1
    return settings.threads
