"""What every skeleton encoder is, and what both Shift-GCNs are: residual blocks on the joints of each person.

shift_gcn.py is the paper's, light_shift_gcn.py a smaller one for CPUs, dense.py one for clips of a few frames;
encoders.py knows them by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.skeleton.persons import mean_over_persons

OUT_CHANNELS = 256


class Norm(nn.BatchNorm1d):
    """Batch norm over the last axis. One vector alone, as an epoch's last clip or a batch's only second person can be,
    has no statistics: it is normed by those of before.
    """

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        if self.training and len(flat) == 1:
            told = self.running_mean, self.running_var, self.weight, self.bias
            return F.batch_norm(flat, *told, eps=self.eps).view_as(x)
        return super().forward(flat).view_as(x)


class Project(nn.Module):
    """A residual path that changes width or stride."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.linear, self.norm, self.stride = nn.Linear(channels_in, channels, bias=bias), Norm(channels), stride

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x[:, :: self.stride]))


class SkeletonEncoder(nn.Module, ABC):
    """The contract. An encoder is made of (joints, classes, width, blocks, dropout, inputs, persons): `inputs` are the
    channels of a joint (C + 1), `persons` how many there may be in a clip.

    The map always has 256 channels, so that what follows does not depend on `width`.
    """

    dropout: nn.Dropout
    classifier: nn.Linear  # [256 -> classes]

    def feature_map(self, x: Tensor, person: Tensor) -> Tensor:
        """Normalised skeletons [B, M, T, V, C + 1] and who is there, person [B, M] bool, to the map [B, 256, T', V].

        The mean over persons; a clip without any person gives zeros, never NaN. Who is not there is not computed, and
        in training the batch norms see only those who are. `person` may stay on the CPU, as `places` prefers.
        """
        return self._map(x, person).permute(0, 3, 1, 2)

    @abstractmethod
    def _map(self, x: Tensor, person: Tensor) -> Tensor:
        """The same as it is made, [B, T', V, 256]."""

    def forward(self, x: Tensor, person: Tensor) -> Tensor:
        """Class scores [B, C] from the pooled map [B, 256]; only the training of the encoder uses them."""
        return self.classifier(self.dropout(self._map(x, person).mean(dim=(1, 2))))


class ShiftEncoder(SkeletonEncoder):
    """`width` is the first channel count (64 in the paper), `blocks` those per stage (4, 3, 3 there). T' = T / 4."""

    def __init__(
        self, joints: int, classes: int, width: int = 64, blocks: tuple[int, ...] = (4, 3, 3), dropout: float = 0.0,
        inputs: int = 3, persons: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        plan = [(width << stage, 2 if stage and not i else 1) for stage, n in enumerate(blocks) for i in range(n)]
        self.input_norm = self.norm_of_input(joints * inputs, persons)
        layers: list[nn.Module] = []
        channels_in = inputs
        for channels, stride in plan:
            layers.append(self.block(joints, channels_in, channels, stride, first=not layers))
            channels_in = channels
        if channels_in != OUT_CHANNELS:  # a narrow network: widen once, at the cheap end
            layers.append(nn.Sequential(Project(channels_in, OUT_CHANNELS), nn.ReLU()))
        self.blocks = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(OUT_CHANNELS, classes)

    @abstractmethod
    def norm_of_input(self, channels: int, persons: int) -> nn.Module:
        """The batch norm, or norms, of the V (C + 1) numbers of a frame."""

    @abstractmethod
    def block(self, joints: int, channels_in: int, channels: int, stride: int, first: bool) -> nn.Module:
        """A block [P, T, V, C_in] -> [P, ceil(T / stride), V, C]."""

    @abstractmethod
    def packed(self, x: Tensor, person: Tensor) -> tuple[Tensor, Tensor]:
        """Those of x [B, M, T, V, C + 1] who are there, normed: [P, T, V, C + 1], and their places among all B * M."""

    def _map(self, x: Tensor, person: Tensor) -> Tensor:
        y, place = self.packed(x, person)
        return mean_over_persons(self.blocks(y), place, person)  # of [P, T/4, V, 256]


def those(x: Tensor, place: Tensor) -> Tensor:
    """The rows `place` of x, which may be on another device."""
    return x.index_select(0, place.to(x.device, non_blocking=True))
