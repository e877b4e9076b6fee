"""A few frames of a clip, for pictures beside its answers.

Reads <videos>/<dataset>[@<variant>]/... and manifests/<dataset>/clips.csv; writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.manifest.clips import Clip, read_clips
from pipeline.manifest.variants import of_variant
from pipeline.video.decode import VideoError
from pipeline.video.image_folder import open_video
from pipeline.video.reader import FrameReader


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
        clips, found = self._clips(dataset), {}
        for clip_id in clip_ids:
            if clip_id not in clips:
                continue
            path = clips[clip_id].file(self.root(of_variant(dataset, variant)))
            if (frames := frames_at(path, lambda video: video.sample(count).tolist())) is not None:
                found[clip_id] = frames
        return found

    def root(self, dataset: str) -> Path:
        """Where the videos of a data set, or of a variant of it, lie."""
        return self.roots.get(dataset, self.videos / dataset)

    def _clips(self, dataset: str) -> dict[str, Clip]:
        if dataset not in self._lists:
            try:
                listed = read_clips(self.manifests / dataset / "clips.csv")
            except PosebridgeError:  # a report is made where the data set is not, too
                listed = []
            self._lists[dataset] = {clip.clip_id: clip for clip in listed}
        return self._lists[dataset]


def frames_at(path: Path, choose: Callable[[FrameReader], Sequence[int]]) -> np.ndarray | None:
    """The frames [n, H, W, 3] uint8 RGB at the positions that are chosen of a video, or of a folder of images; None
    where it is not there or broken, or none is chosen.
    """
    try:
        with open_video(path) as video:
            positions = choose(video)
            frames = {position: frame for position, _, frame in video.frames(sorted(set(positions)))}
    except VideoError:
        return None
    there = len(positions) > 0 and set(positions) <= set(frames)
    return np.stack([frames[position] for position in positions]) if there else None
