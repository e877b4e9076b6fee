"""A skeleton encoder for clips of a few frames, of which there are few a class: dense layers over all joints at once.

Ours. A Shift-GCN mixes joints a channel at a time and pools over them, and asks for many clips to learn which joint
matters; where a class has one clip of two photos (gym), it learns next to nothing. This one sees where every joint is
at a few moments. Its map is the same at every joint: methods that weigh joints have nothing to weigh.
"""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.skeleton.base import OUT_CHANNELS, Norm, SkeletonEncoder, those
from pipeline.skeleton.persons import mean_over_persons, places
from pipeline.skeleton.resample import resample

MOMENTS = 4  # evenly in time, from the first frame to the last
WIDER = 8  # hidden numbers for each of `width`


class Dense(SkeletonEncoder):
    """The skeleton encoder `dense`; it has no `blocks`. T' = 1."""

    def __init__(
        self, joints: int, classes: int, width: int = 64, blocks: tuple[int, ...] = (), dropout: float = 0.0,
        inputs: int = 3, persons: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        everything, hidden = MOMENTS * joints * inputs, WIDER * width
        self.layers = nn.Sequential(
            Norm(everything),
            nn.Dropout(dropout),
            nn.Linear(everything, hidden),
            Norm(hidden),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, OUT_CHANNELS),
            Norm(OUT_CHANNELS),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(OUT_CHANNELS, classes)

    def _map(self, x: Tensor, person: Tensor) -> Tensor:
        place = places(person)
        y = those(resample(x, MOMENTS).flatten(0, 1), place)  # [P, 4, V, C + 1]
        mean = mean_over_persons(self.layers(y.flatten(1)), place, person)  # of [P, 256]
        return mean[:, None, None, :].expand(-1, 1, x.shape[3], -1)
