"""A few frames of a clip, for pictures beside its answers.

Reads the data set's root or <videos>/<dataset>[@<variant>]/..., and manifests/<dataset>/clips.csv; writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.files.shipped import dataset_file
from pipeline.manifest.clips import Clip, read_clips
from pipeline.manifest.variants import of_variant
from pipeline.video.decode import VideoError
from pipeline.video.image_folder import open_video
from pipeline.video.reader import FrameReader
from pipeline.video.sampling import SegmentError


class ClipFrames:
    """Frames of the clips of any data set in `manifests`, from its root (name -> folder), or where it has none, or of a
    variant, from `videos`; lists are read once each.
    """

    def __init__(self, videos: Path, manifests: Path, roots: Mapping[str, Path] = MappingProxyType({})):
        self.videos, self.manifests, self.roots = videos, manifests, roots
        self._lists: dict[str, dict[str, Clip]] = {}

    def __call__(self, dataset: str, variant: str, clip_ids: Sequence[str], count: int) -> dict[str, np.ndarray]:
        """clip_id -> [count, H, W, 3] uint8 RGB, evenly in time; without the clips whose video is not there or broken.
        """
        clips, root = self._clips(dataset), self.root(of_variant(dataset, variant))
        found = {clip_id: _evenly(clips[clip_id], root, count) for clip_id in clip_ids if clip_id in clips}
        return {clip_id: frames for clip_id, frames in found.items() if frames is not None}

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
