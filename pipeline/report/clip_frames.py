"""A few frames of a generated clip, for pictures beside its answers.

Reads <videos>/<dataset>[@<variant>]/... and manifests/<dataset>/clips.csv; writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.files.names import is_file
from pipeline.manifest.clips import Clip, read_clips
from pipeline.manifest.variants import of_variant
from pipeline.video.decode import VideoError
from pipeline.video.image_folder import open_video


class ClipFrames:
    """Frames of the clips of any data set in `manifests`, from its videos in `videos`; lists are read once each."""

    def __init__(self, videos: Path, manifests: Path):
        self.videos, self.manifests = videos, manifests
        self._lists: dict[str, dict[str, Clip]] = {}

    def __call__(self, dataset: str, variant: str, clip_ids: Sequence[str], count: int) -> dict[str, np.ndarray]:
        """clip_id -> [count, H, W, 3] uint8 RGB, evenly in time; without the clips whose video is not there or broken.
        """
        clips, found = self._clips(dataset), {}
        for clip_id in clip_ids:
            if clip_id not in clips:
                continue
            path = clips[clip_id].file(self.videos / of_variant(dataset, variant))
            if not is_file(path):
                continue
            try:
                with open_video(path) as video:
                    positions = video.sample(count).tolist()
                    frames = {position: frame for position, _, frame in video.frames(sorted(set(positions)))}
            except VideoError:
                continue
            found[clip_id] = np.stack([frames[position] for position in positions])
        return found

    def _clips(self, dataset: str) -> dict[str, Clip]:
        if dataset not in self._lists:
            try:
                listed = read_clips(self.manifests / dataset / "clips.csv")
            except PosebridgeError:  # a report is made where the data set is not, too
                listed = []
            self._lists[dataset] = {clip.clip_id: clip for clip in listed}
        return self._lists[dataset]
