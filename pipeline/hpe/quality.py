"""How good a pose model is on held-out stills: PCK of its keypoints, and what its hand cues know of the held object.

Held-out stills have subjects, clothes, backgrounds and poses of their own random stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.hpe.crops import crop, crop_matrix
from pipeline.hpe.model import PoseBridgeHPE
from pipeline.recipe import ANCHORS
from pipeline.synth.objects import OBJECTS
from pipeline.synth.stills import HELD_OUT_STREAM, Still, stills

THRESHOLD = 0.1  # of the larger side of the person's box
WRISTS = (9, 10)


def held_out_stills(count: int) -> Iterator[Still]:
    """The first `count` stills of the held-out stream."""
    return islice((still for group in range(count) for still in stills(HELD_OUT_STREAM, group)), count)


@torch.inference_mode()
def measure(
    model: PoseBridgeHPE,
    count: int = 1000,
    phrases: Tensor | None = None,
    batch_size: int = 20,
    progress: Callable[[Iterator[Still]], Iterator[Still]] = iter,
) -> dict[str, float]:
    """PCK@0.1 of the person box (joints inside the crop), its value on wrists, the mean score, and with `phrases`
    [13, d_t] and a model that still has its text projection, how often the hands' cues find the phrase of the object.
    """
    model.eval()
    hits, found, answered = [], [], 0
    scores = []
    source = progress(held_out_stills(count))
    while batch := list(islice(source, batch_size)):
        matrices = [crop_matrix(still.box, model.pose.crop_size) for still in batch]
        crops = np.stack([crop(s.image, m, model.pose.crop_size) for s, m in zip(batch, matrices, strict=True)])
        output, features = model.pose(model.pose.normalise(torch.from_numpy(crops)))
        keypoints, raw = model.pose.decode(output)
        scores.append(raw.clamp(0, 1).mean().item())
        for row, (still, matrix) in enumerate(zip(batch, matrices, strict=True)):
            true = still.keypoints @ matrix[:, :2].T + matrix[:, 2]
            inside = ((true >= 0) & (true < model.pose.crop_size)).all(-1)
            limit = THRESHOLD * still.box[2:].max() * matrix[0, 0]
            hits.append(np.where(inside, np.linalg.norm(keypoints[row].numpy() - true, axis=-1) <= limit, np.nan))
        if phrases is not None and model.to_text is not None:
            cues, _ = model.cues(features, keypoints, raw.clamp(0, 1), ANCHORS, 0.08)
            text = F.normalize(model.to_text(cues), dim=-1)
            hands = text[:, [ANCHORS.index("left_hand"), ANCHORS.index("right_hand")]]
            answers = (hands @ phrases.T).amax(1).argmax(-1).tolist()
            truth = [0 if s.held == "none" else 1 + list(OBJECTS).index(s.held) for s in batch]
            found += [a == t for a, t in zip(answers, truth, strict=True)]
        answered += len(batch)
    table = np.array(hits)
    result = {
        "stills": float(answered),
        "pck": float(np.nanmean(table)),
        "pck_wrists": float(np.nanmean(table[:, WRISTS])),
        "mean_score": float(np.mean(scores)),
    }
    if found:
        result["object_readout"] = float(np.mean(found))
    return result
