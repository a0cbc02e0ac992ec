"""The model as PyTorch trains it: an embedding and a bias for every user and item."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from pythiadb.recommend.factors import Factors
from pythiadb.recommend.loop_examples import Unit

_SPREAD = 0.1  # standard deviation of the first vectors; biases begin at 0


class Network(nn.Module):
    """rating = bias of the user + bias of the item + dot product of their vectors, less the mean and in a unit as loop_examples.py has them.

    While it is trained, each component of a rating's two vectors is left out with the probability `dropout`.
    """

    def __init__(self, users: int, items: int, dimensions: int, *, dropout: float) -> None:
        super().__init__()
        self.kept = (1 - dropout) ** 2
        self.user_vectors = _table(users, dimensions)
        self.item_vectors = _table(items, dimensions)
        self.user_bias = _table(users, 1)
        self.item_bias = _table(items, 1)

    @torch.no_grad()
    def begin(self, generator: torch.Generator) -> None:
        """Set the first weights: small random vectors, biases of 0. The generator is the processor's, whatever the device."""
        for weight in (self.user_vectors.weight, self.item_vectors.weight):
            weight.normal_(0.0, _SPREAD, generator=generator)
        for weight in (self.user_bias.weight, self.item_bias.weight):
            weight.zero_()

    def forward(self, users: Tensor, items: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the ratings [n] of users [n] for items [n]; `generator` draws what is left out in training."""
        products = self.user_vectors(users) * self.item_vectors(items)
        if self.training and self.kept < 1:
            # A component counts when neither vector leaves it out, and its vectors meet nowhere else:
            # one draw for the product has the same distribution as a draw for each.
            kept = torch.empty_like(products).bernoulli_(self.kept, generator=generator)
            dots = (products * kept).sum(1) / self.kept
        else:
            dots = products.sum(1)
        biases = self.user_bias(users) + self.item_bias(items)
        ratings: Tensor = dots + biases.squeeze(1)
        return ratings

    def tables(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the names and weights of the four tables."""
        for name, weight in self.named_parameters():
            yield name.removesuffix(".weight"), weight

    def copy(self) -> dict[str, Tensor]:
        """Return copies of the tables in memory."""
        return {name: weight.detach().to("cpu", copy=True) for name, weight in self.tables()}


def _table(rows: int, width: int) -> nn.Embedding:
    """Return a table whose weights are not set yet: setting them would draw from random numbers that all share."""
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))


def factors(tables: dict[str, Tensor], unit: Unit) -> Factors:
    """Return copied tables as arrays, in the ratings' own units: the size of the unit goes into the users' vectors."""
    return Factors(
        mean=unit.mean,
        lowest=unit.lowest,
        highest=unit.highest,
        user_bias=tables["user_bias"].squeeze(1).numpy() * np.float32(unit.size),
        item_bias=tables["item_bias"].squeeze(1).numpy() * np.float32(unit.size),
        user_vectors=tables["user_vectors"].numpy() * np.float32(unit.size),
        item_vectors=tables["item_vectors"].numpy(),
    )
