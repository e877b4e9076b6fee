"""The nearest of many clips by cosine: FAISS's flat index, and above 100,000 clips IVF-PQ (Jegou et al., TPAMI 2011).

IVF-PQ only proposes: its best candidates are compared anew by their exact vectors, which lie on the disk. Chosen by
`posebridge bench search` on a million generated vectors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import PosebridgeError
from pipeline.files.device import CPU
from pipeline.files.durable import draft_for_people

FLAT = 100_000  # clips that are all compared
PROBED = 256  # of the lists
CANDIDATES = 1024  # that are compared anew
BLOCK = 1 << 16  # rows in memory together
SAMPLED = 64  # vectors a list that k-means sees


def load_faiss() -> Any:
    """The module. Raises PosebridgeError where it is not installed."""
    try:
        import faiss
    except ImportError:
        raise PosebridgeError(
            "A search needs FAISS, an extra; install it with `pip install 'posebridge[cpu]'`."
        ) from None
    return faiss


class Nearest:
    """Asked about unit vectors `vectors` [N, D] float16, which may be mapped from the disk; `path` is the file that
    `write_index` made of them where they are more than FLAT. The flat index lies on a GPU where faiss-gpu is installed;
    IVF-PQ does not, since FAISS has there shared memory for codes of 48 bytes, and ours have a quarter of D.
    """

    def __init__(self, vectors: np.ndarray, path: Path | None = None, device: torch.device = CPU):
        faiss, self._vectors = load_faiss(), vectors
        self._exact = path is None
        if path is None:
            index = faiss.IndexFlatIP(vectors.shape[1])
            for block in blocks(vectors):
                index.add(block)
            if device.type == "cuda" and hasattr(faiss, "StandardGpuResources"):
                index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device.index or 0, index)
        else:
            index = read_index(path)
            index.nprobe = PROBED
        self._index = index

    def find(self, asked: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines [k] and rows [k] of the clips nearest to any of the unit vectors `asked` [Q, D], the nearest first;
        fewer where there are fewer clips.
        """
        asked = np.ascontiguousarray(asked, np.float32)
        wanted = k if self._exact else max(CANDIDATES, 4 * k)
        scores, rows = self._index.search(asked, min(wanted, len(self._vectors)))
        if self._exact:
            scores, rows = scores.ravel(), rows.ravel()
            order = np.argsort(-scores, kind="stable")
            rows, first = np.unique(rows[order], return_index=True)  # several may have found the same clip
            scores = scores[order][first]
        else:
            rows = np.unique(rows[rows >= 0])
            scores = (asked @ self._vectors[rows].astype(np.float32).T).max(0)
        best = np.argsort(-scores, kind="stable")[:k]
        return scores[best], rows[best]


def write_index(vectors: np.ndarray, path: Path, known: Path | None = None) -> None:
    """IVF-PQ of unit vectors [N, D] float16, as a file; or of those that `known`, an index of the first of them, lacks,
    in addition to it.
    """
    faiss = load_faiss()
    index = read_index(known) if known else train_index(vectors)
    for block in blocks(vectors, index.ntotal):
        index.add(block)
    with draft_for_people(path) as draft:
        faiss.write_index(index, str(draft))


def train_index(vectors: np.ndarray) -> Any:
    """An empty index, whose lists and codes are of a sample of the vectors. About sqrt(N) lists; four
    numbers share a byte, or as many of them as divide D.
    """
    faiss, (count, width) = load_faiss(), vectors.shape
    lists = 1 << round(math.log2(math.sqrt(count)))
    lists = max(min(lists, count // SAMPLED), 1)
    index = faiss.IndexIVFPQ(faiss.IndexFlatIP(width), width, lists, width // math.gcd(width, 4), 8,
                             faiss.METRIC_INNER_PRODUCT)  # fmt: skip
    index.pq.cp.max_points_per_centroid = SAMPLED
    rows = np.random.default_rng(0).choice(count, min(count, max(SAMPLED * lists, 1 << 14)), replace=False)
    index.train(np.ascontiguousarray(vectors[np.sort(rows)], np.float32))
    return index


def read_index(path: Path) -> Any:
    """The index of a file whose hash is known to be right: FAISS trusts what it reads."""
    try:
        return load_faiss().read_index(str(path))
    except RuntimeError:
        raise PosebridgeError(f"{path} is of another version of FAISS; delete it and search again.") from None


def blocks(vectors: np.ndarray, start: int = 0) -> Iterator[np.ndarray]:
    """The rows from `start` on as float32, so many at a time."""
    for first in range(start, len(vectors), BLOCK):
        yield np.ascontiguousarray(vectors[first : first + BLOCK], np.float32)
