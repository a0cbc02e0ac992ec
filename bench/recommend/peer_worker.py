"""`implicit` in its own Python: `peer_worker.py FOLDER` learns from FOLDER's users, items, values and shape (.npy), and prints JSON.

It writes user_vectors.npy and item_vectors.npy there. Alternating least squares with the library's own settings, but for the length of
the vectors; ratings are its confidence values. It needs numpy, scipy and implicit only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

DIMENSIONS = 64


def main() -> None:
    """Learn, and write the vectors."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the library asks for; its own threads stay
    import implicit.als  # type: ignore[import-not-found,import-untyped,unused-ignore]
    import numpy as np
    import scipy.sparse  # type: ignore[import-not-found,import-untyped,unused-ignore]

    folder = Path(sys.argv[1])
    users, items, values = (np.load(folder / f"{name}.npy") for name in ("users", "items", "values"))
    started = time.perf_counter()
    matrix = scipy.sparse.csr_matrix((values, (users, items)), shape=np.load(folder / "shape.npy"))
    model: Any = implicit.als.AlternatingLeastSquares(factors=DIMENSIONS, random_state=0)
    model.fit(matrix, show_progress=False)
    seconds = time.perf_counter() - started
    np.save(folder / "user_vectors.npy", model.user_factors)
    np.save(folder / "item_vectors.npy", model.item_factors)
    print(json.dumps({"seconds": seconds, "passes": model.iterations, "version": version("implicit")}))


if __name__ == "__main__":
    main()
