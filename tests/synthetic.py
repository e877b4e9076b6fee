"""A made-up data set for stage two: actions are (motion, object), the skeleton shows one and the cue the other.

Sixteen classes, twelve seen. The four unseen ones are two motions by two objects, so skeletons alone reach 1/2 and cues
alone 1/2. Unseen test clips are twins: equal skeletons, another object. It takes well under a second to make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np

from pipeline.learn.dataset import Dataset, open_dataset
from pipeline.manifest.clips import Clip, write_classes, write_clips
from pipeline.params import EncodeParams, Params, TrainParams
from pipeline.recipe import Recipe
from pipeline.skeleton.graph import COCO_17

SEEN = ["Ar", "As", "Br", "Bs", "Cp", "Cq", "Cr", "Dp", "Dq", "Dr", "Ep", "Eq"]
UNSEEN = ["Ap", "Aq", "Bp", "Bq"]
VALIDATION = ["Cp", "Cq", "Dp", "Dq"]
CLASSES = SEEN + UNSEEN
PROTOCOL = "compositional_12_4"
ANCHORS = ("body", "left_hand", "right_hand")
T, S, D, D_TEXT = 8, 4, 24, 32
PARAMS = Params(
    encode=EncodeParams(epochs=20, batch_size=16, lr=1e-2, width=8, blocks=(1, 1, 1), seeds=(0,)),
    train=TrainParams(epochs=20, batch_size=16, lr=1e-2, views=2),
)
FLAGS = {"width": 16, "heads": 2, "layers": 1}


class FakeReader:
    """The contract of the cache reader, over arrays in memory."""

    def __init__(self, recipe: Recipe, clip_ids: list[str], arrays: dict[str, np.ndarray]) -> None:
        self.recipe, self.clip_ids, self.arrays, self.names = recipe, clip_ids, arrays, tuple(arrays)
        self.fingerprint, self.failures = recipe.fingerprint, []
        self.cue_width = arrays["cues"].shape[-1] if "cues" in arrays else 0
        self.rows = {clip_id: row for row, clip_id in enumerate(clip_ids)}

    def read(self, clip_ids, names, persons=None):
        return {name: self.arrays[name][[self.rows[c] for c in clip_ids]] for name in names}


@dataclass(frozen=True)
class FakeDataset(Dataset):
    """A data set whose extractions are in memory."""

    readers: dict[str, FakeReader]

    def reader(self, recipe: str) -> FakeReader:  # type: ignore[override]
        return self.readers[recipe]


def make_world(root: Path, train: int = 8, test: int = 2, twins: int = 6, seed: int = 0) -> FakeDataset:
    """Write manifests and a text bank under `root`; return the data set `toy` with its extractions `refined`, `gt`."""
    rng = np.random.default_rng(seed)
    folder = root / "manifests" / "toy"
    write_classes(folder / "classes.csv", CLASSES)
    rows = [f"{i},{name[0]},{name[1]}" for i, name in enumerate(CLASSES)]
    (folder / "attributes.csv").write_text("\n".join(["index,motion,object", *rows]) + "\n")
    (folder / "protocols").mkdir()
    for suffix, names in ((".txt", UNSEEN), (".val.txt", VALIDATION)):
        lines = ["# made up", *(f"{CLASSES.index(name)} {name}" for name in names)]
        (folder / "protocols" / f"{PROTOCOL}{suffix}").write_text("\n".join(lines) + "\n")

    clips: list[Clip] = []
    trajectory: list[int] = []
    tuples = ["clip_id,tuple"]
    for label, name in enumerate(CLASSES):
        for part, count in (("train", train if name in SEEN else 0), ("test", test if name in SEEN else twins)):
            for i in range(count):
                clips.append(Clip(f"{name}-{part}-{i}", f"{name}-{part}-{i}.mp4", label=label, part=part))
                twin = name in UNSEEN
                trajectory.append(ord(name[0]) * 1000 + i if twin else len(clips))
                if twin:
                    tuples.append(f"{clips[-1].clip_id},{name[0]}-{i}")
    write_clips(folder / "clips.csv", clips)
    (root / "cache/videos/toy").mkdir(parents=True)
    (root / "cache/videos/toy/twins.csv").write_text("\n".join(tuples) + "\n")

    true = np.stack([skeleton(CLASSES[c.label][0], seed) for c, seed in zip(clips, trajectory, strict=True)])
    objects = {o: rng.normal(size=D) for o in "pqrs"}
    cues = rng.normal(size=(len(clips), 1, S, len(ANCHORS), D)) * 0.8
    for i, clip in enumerate(clips):
        cues[i, 0, :, 1 + trajectory[i] % 2] += objects[CLASSES[clip.label][1]]
    n = len(clips)
    gt = {
        "keypoints": true.astype(np.float32),
        "scores": np.ones((n, 1, T, 17), np.float16),
        "person_valid": np.ones((n, 1, T), bool),
    }
    estimated = {
        **gt,
        "keypoints": (true + rng.normal(size=true.shape)).astype(np.float32),
        "scores": rng.uniform(0.5, 1, (n, 1, T, 17)).astype(np.float16),
        "cues": cues.astype(np.float16),
        "cue_scores": rng.uniform(0.5, 1, (n, 1, S, len(ANCHORS))).astype(np.float16),
    }
    recipe = Recipe(frames=T, cue_frames=S, anchors=ANCHORS)
    ids = [clip.clip_id for clip in clips]
    readers = {
        "refined": FakeReader(recipe, ids, estimated),
        "gt": FakeReader(replace(recipe, backend="ground_truth", cues="none"), ids, gt),
    }
    write_bank(root / "cache/text/minilm/toy.h5", rng)
    opened = open_dataset("toy", root / "manifests", root / "cache")
    return FakeDataset(opened.name, opened.manifests, opened.cache, opened.class_names, opened.clips, readers)


def skeleton(motion: str, seed: int) -> np.ndarray:
    """True keypoints [1, T, 17, 2] in pixels: a standing person of random size and place; the wrist does the motion."""
    rng = np.random.default_rng(seed)
    pose = np.zeros((17, 2))
    for joint, name in enumerate(COCO_17.joints):
        side = 1 if name.startswith("left") else -1 if name.startswith("right") else 0
        part = name.split("_")[-1]
        y = {
            "nose": 0,
            "eye": -1,
            "ear": -1,
            "shoulder": 5,
            "elbow": 12,
            "wrist": 18,
            "hip": 20,
            "knee": 32,
            "ankle": 44,
        }[part]
        pose[joint] = (side * {"nose": 0, "eye": 1, "ear": 2, "hip": 4}.get(part, 6), y)
    x = np.tile(pose, (T, 1, 1))
    phase = np.linspace(0, 2 * np.pi, T) + rng.uniform(0, 0.6)
    hand = "left" if rng.random() < 0.5 else "right"
    out = 1 if hand == "left" else -1
    swing = {
        "A": (0 * phase, -30 + 0 * phase),  # above the head
        "B": (0 * phase, -15 + 15 * np.cos(2 * phase)),  # up and down
        "C": (-5 * out + 0 * phase, -18 + 0 * phase),  # at the mouth
        "D": (14 * out + 0 * phase, -12 + 0 * phase),  # stretched out
        "E": (0 * phase, 0 * phase),  # hanging
    }[motion]
    x[:, COCO_17.joints.index(f"{hand}_wrist")] += np.stack(swing, -1)
    x += rng.normal(size=x.shape) * 0.4
    return (x * rng.uniform(1.5, 3) + rng.uniform(60, 120, 2))[None]


def write_bank(path: Path, rng: np.random.Generator, slots: Sequence[str] = ("one_line", "hands", "global")) -> None:
    """A text bank [16, slots, D_TEXT] whose vectors are put together from those of motion and object."""
    part = {letter: rng.normal(size=D_TEXT) for letter in "ABCDEpqrs"}
    base = np.stack([part[name[0]] + part[name[1]] for name in CLASSES]) + rng.normal(size=D_TEXT)  # a common direction
    vectors = base[:, None] + 0.3 * rng.normal(size=(len(CLASSES), len(slots), D_TEXT))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file.attrs.update(schema=2, dataset="toy", encoder="minilm", encoder_sha256="0" * 64)
        file["embeddings"], file["mask"] = vectors.astype(np.float32), np.ones(vectors.shape[:2], bool)
        strings = h5py.string_dtype()
        file.create_dataset("slots", data=list(slots), dtype=strings)
        file.create_dataset("class_names", data=CLASSES, dtype=strings)
