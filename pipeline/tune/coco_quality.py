"""How good a pose model is on COCO's val people: OKS-AP and PCK of its keypoints, and whether its cues know captions.

Reads the images of val2017; writes nothing. Everybody is seen in the true box and counts as an image of one person,
so the AP is that of the pose model alone, without a detector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.hpe.crops import crop_matrix, to_frame
from pipeline.hpe.model import PoseBridgeHPE
from pipeline.tune.coco import CocoPeople
from pipeline.tune.coco_crops import person_crop
from pipeline.tune.quality import THRESHOLD, WRISTS, Change, oks_ap, retrieve
from pipeline.tune.text import TextVectors


@torch.no_grad()
def measure_coco(
    model: PoseBridgeHPE,
    people: CocoPeople,
    text: TextVectors | None = None,
    sigma: float = 0.08,
    batch_size: int = 32,
    progress: Callable[[range], Iterator[int]] = iter,
    change: Change | None = None,
) -> dict[str, float]:
    """Of people as they are, or with their crops changed: `oks_ap`; `pck` at 0.1 of the box's larger side and its value
    on wrists; the mean score of labelled joints.

    With `text`, whose captions [I, d_t] are one of each image of `people`, and a model that still has its text
    projection, `caption_r1`: how often a body's cue finds its image's caption among 100 (absent below 100 images).
    """
    model.eval()
    size, device = model.pose.crop_size, model.pose.mean.device
    keypoints, scores, bodies = [], [], []
    rows = progress(range(len(people)))
    picture, shown, rng = np.empty(0), -1, np.random.default_rng(0)
    while batch := list(islice(rows, batch_size)):
        crops = []
        for person in batch:
            if people.image[person] != shown:
                shown = int(people.image[person])
                picture = people.picture(shown)
            seen = person_crop(people, person, picture, size)[0]
            crops.append(change(seen, rng) if change else seen)
        output, features = model.pose(model.pose.normalise(torch.from_numpy(np.stack(crops)).to(device)))
        places, raw = model.pose.decode(output)
        matrices = [crop_matrix(people.boxes[person], size) for person in batch]
        keypoints += list(to_frame(places.cpu().numpy(), np.stack(matrices)))
        scores.append(raw.clamp(0, 1).cpu().numpy())
        if text is not None and model.to_text is not None:
            cues, _ = model.cue.cues(features, places, raw.clamp(0, 1), ("body",), sigma)
            bodies.append(F.normalize(model.to_text(cues[:, 0]), dim=-1).cpu())
    result = keypoint_quality(people, np.stack(keypoints), np.concatenate(scores))
    if text is not None and bodies:
        vectors = dict(zip(people.files, text.captions, strict=True))
        hits = retrieve(torch.cat(bodies), [people.files[i] for i in people.image], vectors)
        if len(hits):
            result["caption_r1"] = float(hits.mean())
    return result


def keypoint_quality(people: CocoPeople, keypoints: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Quality of estimates: keypoints [P, 17, 2] in pixels of the image, scores [P, 17] in 0..1."""
    limit = THRESHOLD * people.boxes[:, 2:].max(-1)
    near = np.linalg.norm(keypoints - people.keypoints, axis=-1) <= limit[:, None]  # [P, 17]
    wrists = people.labelled[:, WRISTS]
    result = {
        "people": float(len(people)),
        "oks_ap": oks_ap(keypoints, people.keypoints, people.labelled, people.areas, scores.mean(-1)),
        "pck": float(near[people.labelled].mean()),
        "mean_score": float(scores[people.labelled].mean()),
    }
    if wrists.any():
        result["pck_wrists"] = float(near[:, WRISTS][wrists].mean())
    return result
