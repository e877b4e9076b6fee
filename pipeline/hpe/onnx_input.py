"""The one input of somebody's ONNX pose model, bounded before anything is made of its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pipeline.errors import PosebridgeError

if TYPE_CHECKING:
    import onnxruntime

# beyond that a file is no pose model, and memory is short
MOST_SIDE, MOST_BATCH = 2048, 1024
MOST_PIXELS = 1 << 27  # of a batch: 1.6 GB, 1024 crops of 384 x 288 take less


@dataclass(frozen=True)
class Input:
    """`crop_size` is (width, height); `batch` the fixed number of crops of a call, None where it is free."""

    name: str
    channels_first: bool
    crop_size: tuple[int, int]
    batch: int | None
    dtype: torch.dtype

    def shape(self, count: int) -> tuple[int, int, int, int]:
        """Of so many crops."""
        width, height = self.crop_size
        return (count, 3, height, width) if self.channels_first else (count, height, width, 3)


def input_of(session: onnxruntime.InferenceSession, name: str) -> Input:
    """What a session is to be given. Raises PosebridgeError where that is not one batch of crops of a fixed size."""
    inputs = session.get_inputs()
    shape = list(inputs[0].shape) if inputs else []
    if len(inputs) != 1 or len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise PosebridgeError(
            f"{name} should have one input of shape [N, 3, H, W] or [N, H, W, 3]; it has "
            f"{', '.join(f'{i.name} {i.shape}' for i in inputs)}."
        )
    channels_first = shape[1] == 3
    height, width = shape[2:] if channels_first else shape[1:3]
    if not (isinstance(height, int) and isinstance(width, int)):
        raise PosebridgeError(
            f"The input of {name} has no fixed size ({shape}); export it with a fixed height and width."
        )
    batch = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None
    fits = 0 < height <= MOST_SIDE and 0 < width <= MOST_SIDE and (batch or 1) <= MOST_BATCH
    if not fits or (batch or 1) * height * width > MOST_PIXELS:
        raise PosebridgeError(
            f"The input of {name} is {shape}; a pose model takes at most {MOST_BATCH} crops of at most "
            f"{MOST_SIDE} x {MOST_SIDE} pixels, in all {MOST_PIXELS / 1e6:.0f} million: bring another file."
        )
    dtype = torch.float16 if inputs[0].type == "tensor(float16)" else torch.float32
    return Input(inputs[0].name, channels_first, (width, height), batch, dtype)
