"""How good a pose model is on held-out stills: PCK and OKS-AP of its keypoints, and what its cues know in words.

Held-out stills have subjects, clothes, backgrounds and poses of their own random stream.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.hpe.crops import crop, crop_matrix
from pipeline.hpe.model import PoseBridgeHPE
from pipeline.hpe.topdown import TopdownModel
from pipeline.recipe import ANCHORS
from pipeline.synth.objects import OBJECTS
from pipeline.synth.stills import HELD_OUT_STREAM, Still, stills
from pipeline.tune.data import inside

THRESHOLD = 0.1  # of the larger side of the person's box
WRISTS = (9, 10)
BODY_SHARE = 0.53  # of a box that a body covers: what mmpose takes for COCO's area where nothing is segmented
GALLERY = 100  # captions among which one is to be found

Progress = Callable[[Iterator[Still]], Iterator[Still]]
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # of a crop, see degrade.py


def stills_of(stream: int, count: int) -> Iterator[Still]:
    """The first `count` stills of a stream."""
    return islice((still for group in range(count) for still in stills(stream, group)), count)


@dataclass
class Seen:
    """A batch of stills as a pose model sees them, in true boxes; all places in pixels of the crop."""

    stills: list[Still]
    truth: np.ndarray  # [N, 17, 2]
    labelled: np.ndarray  # [N, 17] bool: inside the crop
    scale: np.ndarray  # [N] crop pixels of a pixel of the still
    keypoints: Tensor  # [N, 17, 2]
    scores: Tensor  # [N, 17], 0..1
    features: list[Tensor]  # tapped maps [N, C, H, W]


@torch.no_grad()
def look(
    pose: TopdownModel, source: Iterator[Still], batch_size: int = 20, change: Change | None = None
) -> Iterator[Seen]:
    """Run a pose model over stills, or over their crops changed, each alike in every run."""
    device, rng = pose.mean.device, np.random.default_rng(0)
    while batch := list(islice(source, batch_size)):
        matrices = np.stack([crop_matrix(still.box, pose.crop_size) for still in batch])  # [N, 2, 3]
        pictures = [crop(s.image, m, pose.crop_size) for s, m in zip(batch, matrices, strict=True)]
        crops = np.stack([change(each, rng) for each in pictures] if change else pictures)
        output, features = pose(pose.normalise(torch.from_numpy(crops).to(device)))
        keypoints, raw = pose.decode(output)
        scale = matrices[:, 0, 0]
        truth = np.stack([still.keypoints for still in batch]) * scale[:, None, None] + matrices[:, None, :, 2]
        labelled = inside(truth, pose.crop_size)
        yield Seen(batch, truth, labelled, scale, keypoints, raw.clamp(0, 1), features)


class KeypointQuality:
    """Collects batches; `result` is PCK@0.1 of the person's box, of all joints and of wrists, OKS-AP and mean score.

    Joints inside the crop count, hidden ones too: a drawn person's joints are all known.
    """

    def __init__(self) -> None:
        self._batches: list[tuple[np.ndarray, ...]] = []

    def add(self, seen: Seen) -> None:
        sides = np.stack([still.box[2:] for still in seen.stills]) * seen.scale[:, None]  # [N, 2]
        found = seen.keypoints.cpu().numpy(), seen.scores.cpu().numpy()
        self._batches.append((*found, seen.truth, seen.labelled, sides))

    def result(self) -> dict[str, float]:
        keypoints, scores, truth, labelled, sides = (np.concatenate(each) for each in zip(*self._batches, strict=True))
        near = np.linalg.norm(keypoints - truth, axis=-1) <= THRESHOLD * sides.max(-1)[:, None]  # [N, 17]
        return {
            "stills": float(len(near)),
            "pck": float(near[labelled].mean()),
            "pck_wrists": float(near[:, WRISTS][labelled[:, WRISTS]].mean()),
            "oks_ap": oks_ap(keypoints, truth, labelled, BODY_SHARE * sides.prod(-1), scores.mean(-1)),
            "mean_score": float(scores.mean()),
        }


def oks_ap(
    keypoints: np.ndarray, truth: np.ndarray, labelled: np.ndarray, areas: np.ndarray, scores: np.ndarray
) -> float:
    """COCO's average precision over OKS .50:.05:.95, one person an image, by COCO's own evaluation.

    keypoints and truth [N, 17, 2], labelled [N, 17] bool, areas [N] in square pixels, scores [N] that rank the images.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = range(len(truth))
    low, high = truth.min(1), truth.max(1)
    true, found = COCO(), []
    true.dataset = {
        "images": [{"id": i} for i in rows],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {
                "id": i + 1, "image_id": i, "category_id": 1, "iscrowd": 0, "area": float(areas[i]),
                "bbox": [*low[i].tolist(), *(high[i] - low[i]).tolist()], "num_keypoints": int(labelled[i].sum()),
                "keypoints": np.column_stack([truth[i], 2 * labelled[i]]).ravel().tolist(),
            }
            for i in rows
        ],
    }  # fmt: skip
    for i in rows:
        triplets = np.column_stack([keypoints[i], np.ones(len(keypoints[i]))]).ravel().tolist()
        found.append({"image_id": i, "category_id": 1, "keypoints": triplets, "score": float(scores[i])})
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        true.createIndex()
        evaluation = COCOeval(true, true.loadRes(found), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def retrieve(cues: Tensor, captions: Sequence[str], vectors: Mapping[str, Tensor], size: int = GALLERY) -> np.ndarray:
    """For every cue of a full gallery of `size` different captions, whether its own caption is the nearest; bool [n].

    cues [N, d_t] in the space of `vectors`, caption -> normalised [d_t]. Galleries fill in the order of the cues, each
    caption going to the first one that has it not; cues of the galleries that do not fill are left out.
    """
    galleries: list[dict[str, int]] = []
    for row, caption in enumerate(captions):
        gallery = next((g for g in galleries if caption not in g and len(g) < size), None)
        if gallery is None:
            galleries.append(gallery := {})
        gallery[caption] = row
    hits = []
    for gallery in (g for g in galleries if len(g) == size):
        texts = torch.stack([vectors[caption] for caption in gallery]).to(cues.device)
        nearest = (F.normalize(cues[list(gallery.values())], dim=-1) @ texts.T).argmax(-1).cpu()
        hits.append(nearest.numpy() == np.arange(size))
    return np.concatenate(hits) if hits else np.zeros(0, bool)


@torch.no_grad()
def measure(
    model: PoseBridgeHPE,
    count: int = 1000,
    phrases: Tensor | None = None,
    captions: Mapping[str, Tensor] | None = None,
    batch_size: int = 20,
    progress: Progress = iter,
    sigma: float = 0.08,
    change: Change | None = None,
) -> dict[str, float]:
    """`KeypointQuality` on held-out stills, or on their crops changed; of a model that still has its text projection
    also what its cues say.

    With `phrases` [13, d_t], how often the hands' cues find the phrase of the held object (`object_readout`); with
    `captions`, caption -> [d_t], how often the body's cue finds its caption among 100 (`caption_r1`). All normalised;
    `sigma` is that of the pooling.
    """
    model.eval()
    quality, found, bodies, said = KeypointQuality(), [], [], []
    for seen in look(model.pose, progress(stills_of(HELD_OUT_STREAM, count)), batch_size, change):
        quality.add(seen)
        if model.to_text is None:
            continue
        cues, _ = model.cue.cues(seen.features, seen.keypoints, seen.scores, ANCHORS, sigma)
        text = F.normalize(model.to_text(cues), dim=-1)  # [N, A, d_t]
        bodies.append(text[:, ANCHORS.index("body")])
        said += [still.caption for still in seen.stills]
        if phrases is not None:
            hands = text[:, [ANCHORS.index("left_hand"), ANCHORS.index("right_hand")]]
            answers = (hands @ phrases.to(text.device).T).amax(1).argmax(-1).tolist()
            found += [a == held_index(s) for a, s in zip(answers, seen.stills, strict=True)]
    result = quality.result()
    if found:
        result["object_readout"] = float(np.mean(found))
    if captions is not None and bodies and len(hits := retrieve(torch.cat(bodies), said, captions)):
        result["caption_r1"] = float(hits.mean())
    return result


def held_index(still: Still) -> int:
    """0 for empty hands, else 1 + the object's place in OBJECTS."""
    return 0 if still.held == "none" else 1 + list(OBJECTS).index(still.held)
