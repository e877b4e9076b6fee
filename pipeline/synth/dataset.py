"""Writing skelgap: H.264 videos, exact ground truth, and test clips that are twins.

Reads nothing but its settings; writes `<root>/{train,test}/<class>/*.mp4`, `labels.csv` (for ingest), `twins.csv` and
`ground_truth.h5`; a variant is a folder of test clips and `ground_truth.h5`.
Command: `posebridge synth --dataset skelgap-mini`.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.files.ahead import ahead
from pipeline.files.durable import write_for_people
from pipeline.files.hdf5 import hdf5_bytes
from pipeline.files.tables import write_table
from pipeline.params import SynthParams
from pipeline.synth.catalogue import DATASETS, PROTOCOLS, ActionClass
from pipeline.synth.knobs import AS_IT_IS, Knobs
from pipeline.synth.motions import MOTIONS
from pipeline.synth.scene import FPS, FRAMES, ClipSpec, Rendered, render_clip

TRAIN_SUBJECTS, TEST_SUBJECTS = tuple(range(8)), tuple(range(8, 12))


@dataclass(frozen=True)
class PlannedClip:
    """A clip to be rendered. `tuple_id` is shared by twins, empty in the train part."""

    clip_id: str
    action: ActionClass
    part: str
    spec: ClipSpec
    tuple_id: str = ""

    @property
    def path(self) -> str:
        return f"{self.part}/{self.action.name.replace(' ', '-')}/{self.clip_id}.mp4"


def plan(dataset: str, settings: SynthParams) -> list[PlannedClip]:
    """Every clip of the data set, in order; deterministic in the settings.

    Classes that are unseen in every protocol have no train clip. Classes that are unseen in any have `twins` test clips
    instead of `test_clips`. Test clips with one motion and one number are twins: equal in all but the held object.
    Raises PosebridgeError for an unknown data set.
    """
    if dataset not in DATASETS:
        raise PosebridgeError(f"There is no generated data set named {dataset!r}; there are {', '.join(DATASETS)}.")
    unseen = [set(split.unseen) for split in PROTOCOLS[dataset].values()]
    never_seen, sometimes_unseen = set.intersection(*unseen), set.union(*unseen)
    clips: list[PlannedClip] = []
    for index, action in enumerate(DATASETS[dataset]):
        for number in range(0 if action.name in never_seen else settings.train_clips):
            spec = _draw(np.random.default_rng([settings.seed, 11, index, number]), action, TRAIN_SUBJECTS)
            clips.append(PlannedClip(f"train-{index:02d}-{number:03d}", action, "train", spec))
        for number in range(settings.twins if action.name in sometimes_unseen else settings.test_clips):
            # Seeded by the motion instead of the class: that is what makes twins.
            rng = np.random.default_rng([settings.seed, 12, list(MOTIONS).index(action.motion), number])
            twins, spec = f"{action.motion}-{number:03d}", _draw(rng, action, TEST_SUBJECTS)
            clips.append(PlannedClip(f"test-{twins}-{action.object}", action, "test", spec, twins))
    return clips


def _draw(rng: np.random.Generator, action: ActionClass, subjects: tuple[int, ...]) -> ClipSpec:
    """A random clip of an action: nothing but motion and object depends on the class."""
    subject = int(rng.choice(subjects))
    trajectory, camera, background, look, distractors = (int(v) for v in rng.integers(1 << 40, size=5))
    return ClipSpec(action.motion, action.object, subject, trajectory, camera, background, look, distractors)


def write_dataset(
    dataset: str, root: Path, settings: SynthParams, progress: Callable[[Iterator], Iterator] = iter
) -> dict[str, int]:
    """Render a data set to `root`, replacing what was there only when all is written; returns counts.

    `progress` wraps the iteration over clips. Raises PosebridgeError for an unknown data set or a folder of others.
    """
    clips = plan(dataset, settings)
    with _replacing(root) as partial:
        _render(partial, clips, AS_IT_IS, progress)
        columns = ("clip_id", "path", "label", "subject", "camera", "part")
        rows = ((c.clip_id, c.path, c.action.name, f"s{c.spec.subject:02d}", "c0", c.part) for c in clips)
        write_table(partial / "labels.csv", columns, rows)
        twins = ((c.clip_id, c.tuple_id) for c in clips if c.tuple_id)
        write_table(partial / "twins.csv", ("clip_id", "tuple"), twins)
    return _counts(clips)


def plan_variant(dataset: str, settings: SynthParams, knobs: Knobs, classes: Collection[str]) -> list[PlannedClip]:
    """The test clips of these classes, with the ids and paths that they have in the data set."""
    clips = [c for c in plan(dataset, settings) if c.part == "test" and c.action.name in classes]
    return [replace(c, spec=_redrawn(c.spec, knobs.redraw)) for c in clips] if knobs.redraw else clips


def write_variant(
    root: Path, clips: Sequence[PlannedClip], knobs: Knobs, progress: Callable[[Iterator], Iterator] = iter
) -> dict[str, int]:
    """Render the clips of `plan_variant` to `root`, with a ground truth of their own; returns counts."""
    with _replacing(root) as partial:
        _render(partial, clips, knobs, progress)
    return _counts(clips)


def _redrawn(spec: ClipSpec, field: str) -> ClipSpec:
    """The counterfactual clip: `field` drawn anew, the same for all twins; the subject stays a test subject."""
    rng = np.random.default_rng([spec.trajectory, 24])
    if field == "subject":
        return replace(spec, subject=int(rng.choice([s for s in TEST_SUBJECTS if s != spec.subject])))
    another: dict[str, Any] = {field: int(rng.integers(1 << 40))}
    return replace(spec, **another)


@contextmanager
def _replacing(root: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `root` only when all went well.

    Raises PosebridgeError where anything but a rendered data set is there, since it would be gone.
    """
    root = root.resolve()
    there = root.is_file() or root.is_dir() and any(root.iterdir())
    if there and not (root / "ground_truth.h5").is_file():
        raise PosebridgeError(f"{root} holds what was not rendered, and would be replaced; correct its root.")
    partial = root.with_name(root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    yield partial
    shutil.rmtree(root, ignore_errors=True)
    partial.rename(root)


def _render(
    root: Path, clips: Sequence[PlannedClip], knobs: Knobs, progress: Callable[[Iterator], Iterator]
) -> None:
    truth: dict[str, list] = defaultdict(list)
    drawn = ahead(((clip, render_clip(clip.spec, knobs=knobs)) for clip in clips), 1)  # while the last one is encoded
    for clip, rendered in progress(drawn):
        write_video(root / clip.path, rendered.frames, crf=knobs.crf)
        _note(truth, clip, rendered)
    _write_truth(root / "ground_truth.h5", truth)


def _counts(clips: Sequence[PlannedClip]) -> dict[str, int]:
    tuples = {clip.tuple_id for clip in clips} - {""}
    return {"clips": len(clips), "frames": len(clips) * FRAMES, "tuples": len(tuples)}


def write_video(path: Path, frames: np.ndarray, fps: int = FPS, crf: int = 20) -> None:
    """Write frames [F, H, W, 3] uint8 RGB as H.264, reproducibly: one thread, bit-exact flags, no time stamps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"fflags": "+bitexact", "movflags": "+faststart"}) as container:
        options = {"crf": str(crf), "preset": "veryfast", "threads": "1", "flags": "+bitexact"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _note(truth: dict[str, list], clip: PlannedClip, rendered: Rendered) -> None:
    camera = rendered.camera
    values = {
        "clip_id": clip.clip_id,
        "keypoints": rendered.keypoints,
        "visible": rendered.visible,
        "boxes": rendered.boxes,
        "object_boxes": rendered.object_boxes,
        "object": clip.action.object,
        "motion": clip.action.motion,
        "camera": np.array([camera.yaw, camera.distance, camera.height, camera.focal], np.float32),
        "caption": f"a person in a {rendered.subject.pattern} shirt, {clip.action.name}",
    }
    for key, value in values.items():
        truth[key].append(value)


def _write_truth(path: Path, truth: dict[str, list]) -> None:
    meanings = {
        "keypoints": "[N, F, 17, 2] pixels",
        "visible": "[N, F, 17] inside the frame and not behind the trunk, the head or a thing in the foreground",
        "boxes": "[N, F, 4] x y w h of the joints, pixels",
        "object_boxes": "[N, F, 4] x y w h, pixels; zero where nothing is held",
        "camera": "[N, 4] yaw in radians, distance and height in metres, focal length in pixels",
    }

    def fill(file: h5py.File) -> None:
        for key, values in truth.items():
            if isinstance(values[0], str):
                file.create_dataset(key, data=values, dtype=h5py.string_dtype("utf-8"))
            else:
                file.create_dataset(key, data=np.stack(values)).attrs["meaning"] = meanings[key]

    write_for_people(path, hdf5_bytes(fill, track_order=True))
