"""A few frames of a clip, for pictures beside its answers, with the joints that the extraction saw in them.

Reads the data set's root or <videos>/<dataset>[@<variant>]/..., manifests/<dataset>/clips.csv and extractions; writes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from pipeline.cache.index import index_path
from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.files.shipped import dataset_file
from pipeline.manifest.clips import Clip, read_clips
from pipeline.manifest.variants import of_variant
from pipeline.report.joints import Row, draw_joints, frame_steps, read_row
from pipeline.video.decode import VideoError
from pipeline.video.image_folder import open_video
from pipeline.video.reader import FrameReader
from pipeline.video.sampling import SegmentError

# dataset, variant, clip ids, frames of each, recipe of the joints that are drawn, empty for none
#   -> clip_id -> [frames, H, W, 3] uint8 RGB, of those whose video is there
FramesOf = Callable[[str, str, Sequence[str], int, str], dict[str, np.ndarray]]


class ClipFrames:
    """Frames of the clips of any data set in `manifests`, from its root (name -> folder), or where it has none, or of a
    variant, from `videos`; lists are read once each. `cache` is where extractions are, for joints.
    """

    def __init__(
        self, videos: Path, manifests: Path, roots: Mapping[str, Path] = MappingProxyType({}),
        cache: Path | None = None, store_root: Path | None = None,
    ):  # fmt: skip
        self.videos, self.manifests, self.roots = videos, manifests, roots
        self.cache, self.store_root = cache, store_root
        self._lists: dict[str, dict[str, Clip]] = {}
        self._readers: dict[tuple[str, str], CacheReader | None] = {}

    def __call__(
        self, dataset: str, variant: str, clip_ids: Sequence[str], count: int, recipe: str = ""
    ) -> dict[str, np.ndarray]:
        """clip_id -> [count, H, W, 3] uint8 RGB, evenly in time; without the clips whose video is not there or broken.
        """
        clips, root = self._clips(dataset), self.root(of_variant(dataset, variant))
        reader = self.reader(dataset, of_variant(recipe, variant)) if recipe else None
        found = {}
        for clip_id in clip_ids:
            frames = None
            if clip_id in clips and (row := read_row(reader, clip_id)) is not None and reader is not None:
                steps = [int(len(row["frame_index"]) * (i + 0.5) / count) for i in range(count)]
                frames = _drawn(clips[clip_id], root, reader, row, steps)
            if clip_id in clips and frames is None:
                frames = _evenly(clips[clip_id], root, count)
            if frames is not None:
                found[clip_id] = frames
        return found

    def cue_frames(self, dataset: str, clip_id: str, recipe: str) -> tuple[np.ndarray, Row] | None:
        """The frames [S, H, W, 3] that cues were taken of, with joints, and the clip's row of the extraction; None
        where either is not there.
        """
        reader, clip = self.reader(dataset, recipe), self._clips(dataset).get(clip_id)
        row = read_row(reader, clip_id)
        if reader is None or clip is None or row is None or "cue_frame" not in row:
            return None
        steps = row["cue_frame"].tolist()
        if not frame_steps(row, steps):
            return None
        frames = _drawn(clip, self.root(dataset), reader, row, steps)
        return None if frames is None else (frames, row)

    def reader(self, dataset: str, recipe: str) -> CacheReader | None:
        """An extraction, opened once; None where it is not there, or damaged: others tell of that."""
        if self.cache is None:
            return None
        if (dataset, recipe) not in self._readers:
            try:
                self._readers[dataset, recipe] = CacheReader(index_path(self.cache, dataset, recipe), self.store_root)
            except PosebridgeError:
                self._readers[dataset, recipe] = None
        return self._readers[dataset, recipe]

    def root(self, dataset: str) -> Path:
        """Where the videos of a data set, or of a variant of it, lie."""
        return self.roots.get(dataset, self.videos / dataset)

    def _clips(self, dataset: str) -> dict[str, Clip]:
        if dataset not in self._lists:
            try:
                listed = read_clips(dataset_file(self.manifests, dataset, "clips.csv"))
            except PosebridgeError:  # a report is made where the data set is not, too
                listed = []
            self._lists[dataset] = {clip.clip_id: clip for clip in listed}
        return self._lists[dataset]


def _drawn(clip: Clip, root: Path, reader: CacheReader, row: Row, steps: Sequence[int]) -> np.ndarray | None:
    """The frames that the extraction looked at in these steps of T, with the joints that it saw."""
    positions = frame_steps(row, steps)
    if not positions:
        return None
    path = clip.file(root)
    frames = frames_at(path, lambda video: positions if max(positions) < len(video.times) else [], clip.image_fps)
    return None if frames is None else draw_joints(frames, row, steps, reader.recipe.layout)


def _evenly(clip: Clip, root: Path, count: int) -> np.ndarray | None:
    return frames_at(clip.file(root), lambda video: video.sample(count, clip.start, clip.end).tolist(), clip.image_fps)


def frames_at(
    path: Path, choose: Callable[[FrameReader], Sequence[int]], image_fps: float | None = None
) -> np.ndarray | None:
    """The frames [n, H, W, 3] uint8 RGB at the positions that are chosen of a video, or of a folder of images at its
    rate `image_fps`; None where it is not there or broken, or none is chosen.
    """
    try:
        with open_video(path, image_fps=image_fps) as video:
            positions = choose(video)
            frames = {position: frame for position, _, frame in video.frames(sorted(set(positions)))}
    except (VideoError, SegmentError):
        return None
    there = len(positions) > 0 and set(positions) <= set(frames)
    return np.stack([frames[position] for position in positions]) if there else None
