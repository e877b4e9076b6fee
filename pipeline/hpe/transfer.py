"""Crops to the device and answers back: one copy each way a batch, so that a GPU does not wait for many small ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_device(crops: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor on `device`; to a GPU from pinned memory, without waiting for it."""
    tensor = torch.from_numpy(crops)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def to_arrays(*tensors: Tensor) -> list[np.ndarray]:
    """Tensors of one device and type as arrays, in one copy."""
    together = torch.cat([tensor.flatten() for tensor in tensors]).cpu().numpy()
    parts = np.split(together, np.cumsum([tensor.numel() for tensor in tensors])[:-1])
    return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
