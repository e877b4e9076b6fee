"""Exact nearest neighbours by Euclidean distance: by FAISS, or by blocks of PyTorch where FAISS is not installed."""

from __future__ import annotations

import functools

import numpy as np

BLOCK = 256  # rows asked for at a time


def nearest(known: np.ndarray, asked: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of every row of `asked` [Q, D] the distances [Q, k] to its nearest rows of `known` [N, D], and which they are
    [Q, k], the nearest first; fewer columns where N < k. All float32.
    """
    k = min(k, len(known))
    known, asked = np.ascontiguousarray(known, np.float32), np.ascontiguousarray(asked, np.float32)
    try:
        import faiss
    except ImportError:  # an extra: pip install 'posebridge[cpu]' or [gpu]
        return _by_blocks(known, asked, k)
    index = faiss.IndexFlatL2(known.shape[1])
    index.add(known)
    squared, rows = index.search(asked, k)
    return np.sqrt(np.maximum(squared, 0)), rows


@functools.cache  # the matrix is as large as the widest input, and the same for every batch
def projection(rows: int, columns: int) -> np.ndarray:
    """[rows, columns] float32: a fixed random projection, which keeps lengths on average."""
    return np.random.default_rng(0).normal(0, columns**-0.5, (rows, columns)).astype(np.float32)


def _by_blocks(known: np.ndarray, asked: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    import torch  # late, since FAISS is the rule

    distances, rows, among = [], [], torch.from_numpy(known)
    for block in torch.from_numpy(asked).split(BLOCK):
        found = torch.cdist(block, among, compute_mode="donot_use_mm_for_euclid_dist").topk(k, largest=False)
        distances.append(found.values)
        rows.append(found.indices)
    return torch.cat(distances).numpy(), torch.cat(rows).numpy()
