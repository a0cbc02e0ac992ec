"""The best plain Python loop: tokenizers and ONNX Runtime alone, with the engine's session settings."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from bench.common import MODEL
from pythiadb.models.folder import package_from_folder
from tools.fetch_models import fetch_minilm


class PlainLoop:
    """What a careful Python programmer writes without a database."""

    def __init__(self, threads: int | None = None) -> None:
        """Open the model on all cores, or on so many threads."""
        folder = fetch_minilm(MODEL)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with TemporaryDirectory() as work:
            graph = package_from_folder(folder, Path(work)).files["model.onnx"]
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._names = [item.name for item in self._session.get_inputs()]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(256)

    def embed(self, texts: list[str], batch_size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the embeddings in order."""
        encoded = [e.ids for e in self._tokenizer.encode_batch(texts)]
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
        vectors = np.empty((len(texts), 384), np.float32)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            ids = np.zeros((len(rows), len(encoded[rows[-1]])), np.int64)
            mask = np.zeros_like(ids)
            for n, row in enumerate(rows):
                ids[n, : len(encoded[row])] = encoded[row]
                mask[n, : len(encoded[row])] = 1
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            vectors[rows] = self._session.run(None, {name: feed[name] for name in self._names})[0]
        return vectors

    def lengths(self, texts: list[str]) -> list[int]:
        """Return how many tokens the model reads of each text."""
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch(texts)]
