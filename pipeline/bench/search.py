"""How fast and how right a search among many clips is, on generated embeddings. Writes to a temporary folder only.

Command: posebridge bench search
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.bench.memory import peak_rss_mb
from pipeline.bench.timing import seconds_of
from pipeline.search.nearest import BLOCK, Nearest, blocks, load_faiss, write_index

CLUSTERS = 5000
NEAR, FAR = 0.8, 2.0  # length of the noise beside a centre: of clips and half of the questions, and of the other half
FOUND = 10


@dataclass(frozen=True)
class SearchBench:
    """`recall`: share of the exact ten nearest that are among the ten found, mean over questions that are like clips;
    `recall_far` of those that are like no clip, as sentences are. Milliseconds are of one question.
    """

    clips: int
    width: int
    build_seconds: float
    open_seconds: float
    index_mb: float
    vectors_mb: float
    milliseconds: float  # median
    slow_milliseconds: float  # 95th percentile
    recall: float
    recall_far: float
    missed: float  # 1 - the lower of the two
    peak_mb: float
    cores: int


def bench_search(folder: Path, clips: int, width: int, questions: int = 200, seed: int = 0) -> SearchBench:
    """Build, open and ask an IVF-PQ index; what is right says a flat comparison with every vector."""
    generator = np.random.default_rng(seed)
    centres = _unit(generator.standard_normal((CLUSTERS, width), np.float32))
    vectors = np.memmap(folder / "vectors.f16", np.float16, "w+", shape=(clips, width))
    for start in range(0, clips, BLOCK):
        part = vectors[start : start + BLOCK]
        part[:] = _around(centres, len(part), NEAR, generator)
    asked = np.concatenate([_around(centres, questions // 2, noise, generator) for noise in (NEAR, FAR)])
    path = folder / "ivfpq.faiss"
    built = seconds_of(lambda: write_index(vectors, path))
    opened = []
    open_seconds = seconds_of(lambda: opened.append(Nearest(vectors, path)))
    (nearest,) = opened
    found, seconds = [], []
    for one in asked:
        begun = time.perf_counter()
        found.append(nearest.find(one[None], FOUND)[1])
        seconds.append(time.perf_counter() - begun)
    exact = _exact(vectors, asked)
    hits = np.array([len(set(a.tolist()) & set(b.tolist())) / FOUND for a, b in zip(found, exact, strict=True)])
    near, far = (float(part.mean()) for part in np.split(hits, 2))
    median, slow = (float(np.quantile(seconds[1:], q)) * 1e3 for q in (0.5, 0.95))
    return SearchBench(
        clips, width, built, open_seconds, path.stat().st_size / 1e6, vectors.nbytes / 1e6, median, slow, near, far,
        1 - min(near, far), peak_rss_mb(), os.cpu_count() or 1,
    )  # fmt: skip


def _exact(vectors: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The rows [Q, 10] of the nearest, block by block."""
    faiss = load_faiss()
    scores, rows = np.empty((len(asked), 0), np.float32), np.empty((len(asked), 0), np.int64)
    for number, block in enumerate(blocks(vectors)):
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(block)
        score, row = index.search(asked, FOUND)
        scores, rows = np.hstack([scores, score]), np.hstack([rows, row + number * BLOCK])
        best = np.argsort(-scores, 1)[:, :FOUND]
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    return rows


def _around(centres: np.ndarray, count: int, noise: float, generator: np.random.Generator) -> np.ndarray:
    """Unit vectors [count, D] around centres chosen by lot."""
    width = centres.shape[1]
    away = generator.standard_normal((count, width), np.float32) * (noise / width**0.5)
    return _unit(centres[generator.integers(len(centres), size=count)] + away)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
