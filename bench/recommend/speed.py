"""Training beside a loop over the same model that one would write by hand with PyTorch: ratings a second, in turns.

Both have the same vectors, biases and dropout, the same optimizer and size of batches, and as many threads: those that `train` takes. The loop by hand does
nothing but train. Of `train` two times are taken: of its passes alone, and of everything it does for them: errors on the training
ratings, and the copy of the best weights.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from importlib.metadata import version
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.common import machine, report, spread
from bench.recommend.data import generated, movielens
from pythiadb.recommend.devices import limited_threads
from pythiadb.recommend.ratings import Ratings
from pythiadb.recommend.training import Settings, train

ROUNDS = 5
TARGET = 0.8
GENERATED = 2_000_000  # ratings of the second case
COLUMNS = ["ratings", "batch", "threads", "by hand, ratings/s", "train()", "÷ by hand", "target", "with all it does", "÷ by hand"]  # fmt: skip


class ByHand(nn.Module):
    """Matrix factorization with biases."""

    def __init__(self, users: int, items: int, dimensions: int, mean: float, dropout: float) -> None:
        super().__init__()
        self.mean, self.dropout = mean, dropout
        self.user_vectors, self.item_vectors = (
            nn.Embedding(users, dimensions),
            nn.Embedding(items, dimensions),
        )
        self.user_bias, self.item_bias = nn.Embedding(users, 1), nn.Embedding(items, 1)
        for table in (self.user_vectors, self.item_vectors):
            nn.init.normal_(table.weight, std=0.1)
        for table in (self.user_bias, self.item_bias):
            nn.init.zeros_(table.weight)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the ratings [n]."""
        left = functional.dropout(self.user_vectors(users), self.dropout, self.training)
        right = functional.dropout(self.item_vectors(items), self.dropout, self.training)
        bias = (self.user_bias(users) + self.item_bias(items)).squeeze(1)
        ratings: Tensor = (left * right).sum(1) + bias + self.mean
        return ratings


def by_hand(ratings: Ratings, settings: Settings, batch_rows: int) -> tuple[float, float]:
    """Train for the settings' passes; return ratings a second (the median of the passes) and the last pass's loss."""
    with limited_threads(settings.threads):
        return _by_hand(ratings, settings, batch_rows)


def _by_hand(ratings: Ratings, settings: Settings, batch_rows: int) -> tuple[float, float]:
    torch.manual_seed(settings.seed)
    users, items = torch.from_numpy(ratings.users), torch.from_numpy(ratings.items)
    values = torch.from_numpy(ratings.values)
    model = ByHand(
        len(ratings.user_ids),
        len(ratings.item_ids),
        settings.dimensions,
        float(values.mean()),
        settings.dropout,
    )
    optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate, weight_decay=1e-5, fused=True)
    speeds, loss = [], torch.zeros(())
    for _ in range(settings.max_epochs):
        started = time.perf_counter()
        total = torch.zeros(())
        for batch in torch.randperm(len(values)).split(batch_rows):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            loss = functional.mse_loss(model(users[batch], items[batch]), values[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach() * len(batch)
        speeds.append(len(values) / (time.perf_counter() - started))
    return median(speeds), float(total) / len(values)


def ours(ratings: Ratings, settings: Settings) -> tuple[float, float, float]:
    """Return ratings a second of the passes alone, of all that belongs to them (medians), and the last pass's loss."""
    history = train(ratings, settings).history
    return (
        median(epoch.ratings_per_second for epoch in history),
        len(ratings) / median(epoch.seconds for epoch in history),
        history[-1].train_loss,
    )


def measure(*, quick: bool) -> None:
    """Print and keep the table; ratios are taken within a round."""
    facts = machine()
    facts["versions"] |= {"torch": version("torch")}
    cases = [(movielens(), 512, 1, 1)]
    if not quick:
        cases = [(movielens(), 512, 6, 1), (generated(GENERATED), 16_384, 2, torch.get_num_threads())]
    rows, raw = [], {}
    for ratings, batch_rows, passes, threads in cases:
        settings = Settings(batch_rows=batch_rows, max_epochs=passes, validation_share=0, threads=threads)
        by_hand(
            ratings, replace(settings, max_epochs=1), batch_rows
        )  # what PyTorch sets up at first is nobody's
        turns = []
        for _ in range(1 if quick else ROUNDS):
            hand, hand_loss = by_hand(ratings, settings, batch_rows)
            passed, whole, loss = ours(ratings, settings)
            turns.append(
                {"by_hand": hand, "passes": passed, "all": whole, "loss": loss, "loss_by_hand": hand_loss}
            )
        raw[f"{len(ratings)} ratings"] = {"settings": asdict(settings), "turns": turns}
        rows.append([
            f"{len(ratings):,}", batch_rows, threads,
            spread([turn["by_hand"] for turn in turns]), spread([turn["passes"] for turn in turns]),
            spread([turn["passes"] / turn["by_hand"] for turn in turns]), f"≥ {TARGET}",
            spread([turn["all"] for turn in turns]), spread([turn["all"] / turn["by_hand"] for turn in turns]),
        ])  # fmt: skip
    report("recommend-speed", COLUMNS, rows, raw, facts)
