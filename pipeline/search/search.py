"""Which clips of a cache are like a sentence, or like an example? Cosines, over any number of data sets.

Reads what `build` wrote; writes nothing. Command: posebridge search "a person lifts a barbell"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import PosebridgeError
from pipeline.files.device import CPU
from pipeline.search.build import folder_of, is_current
from pipeline.search.embedders import Embedder
from pipeline.search.nearest import Nearest
from pipeline.search.vectors import Vectors


@dataclass(frozen=True)
class Hit:
    """A clip. `score` is a cosine, comparable within one question only; times are seconds of the video, None where the
    clip is the whole of it; `path` is below the root of its data set, empty where no clips.csv tells.
    """

    dataset: str
    clip_id: str
    path: str
    start: float | None
    end: float | None
    score: float


class Search:
    """The vectors of these data sets, opened once for any number of questions. Raises PosebridgeError where those of
    one are not there, or are of another model or extraction than there is now.
    """

    def __init__(
        self, embedder: Embedder, names: Sequence[str], cache: Path = Path("cache"), device: torch.device = CPU
    ):  # fmt: skip
        self._opened = []
        for name in names:
            vectors = Vectors(folder_of(cache, embedder, name))
            if not is_current(vectors, cache, embedder, name):
                raise PosebridgeError(
                    f"{vectors.folder} is missing, or is of another run, encoder or extraction than there is now; "
                    "`posebridge search` brings it up to date."
                )
            if not vectors.known.index:
                vectors.check()  # all are compared; else an answer's are
            nearest = Nearest(vectors.mapped(), vectors.index_file(), device) if vectors.known.clips else None
            self._opened.append((name, vectors, nearest))

    @property
    def clips(self) -> int:
        """How many are searched."""
        return sum(vectors.known.clips for _, vectors, _ in self._opened)

    def find(self, asked: np.ndarray, top: int = 10) -> list[Hit]:
        """The `top` clips nearest to any of the unit vectors `asked` [Q, D], the nearest first."""
        found = []
        for name, vectors, nearest in self._opened:
            if nearest is not None:
                scores, rows = nearest.find(asked, top)
                found += [(float(s), name, vectors, int(r)) for s, r in zip(scores, rows, strict=True)]
        found.sort(key=lambda each: -each[0])
        return [Hit(name, *vectors.entry(row), round(score, 4)) for score, name, vectors, row in found[:top]]
