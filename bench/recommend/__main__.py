"""The recommender, measured: `python -m bench.recommend [--only SECTION,…] [--quick] [--peers]`, `make bench-recommend`.

- folds: errors and lists on MovieLens 100k in five folds, beside baselines; with --peers also `implicit`, installed into .cache/peers.
- speed: ratings a second of training beside a loop of PyTorch written by hand, in turns.
- large: memory and time for a file of 32 million ratings in MovieLens' format.
- scoring: one user and ten thousand items in SQL, beside bare ONNX Runtime and numpy.

Each writes bench/results/recommend-SECTION.json.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.common import asked_sections
from bench.ratings_file import RATINGS
from bench.recommend import folds, large, scoring, speed

SECTIONS: dict[str, Callable[[bool, bool], None]] = {
    "folds": lambda quick, peers: folds.measure(1 if quick else folds.FOLDS, peers=peers),
    "speed": lambda quick, _: speed.measure(quick=quick),
    "large": lambda quick, _: large.measure(1_000_000 if quick else RATINGS),
    "scoring": lambda quick, _: scoring.measure(20 if quick else scoring.CALLS),
}


def main() -> None:
    """Run the sections that are asked for."""
    names, given = asked_sections("python -m bench.recommend", __doc__, SECTIONS)
    for name in names:
        SECTIONS[name](given.quick, given.peers)


if __name__ == "__main__":
    main()
