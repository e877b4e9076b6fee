"""Frames of a clip once more, after its extraction: for what the cache does not hold. Reads the video."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.manifest.clips import Clip
from pipeline.video.decode import VideoError
from pipeline.video.image_folder import open_video


def frames_again(clip: Clip, root: Path, positions: Iterable[int]) -> dict[int, np.ndarray]:
    """uint8 RGB frames [H, W, 3] by their positions on the video's timeline (`frame_index` of an extraction).

    Raises PosebridgeError, naming the clip, where the video cannot be read any more, or is shorter than it was.
    """
    wanted = sorted(set(positions))
    try:
        with open_video(clip.file(root), image_fps=clip.image_fps) as video:
            if wanted and wanted[-1] >= len(video.times):
                raise VideoError("open", f"it has {len(video.times)} frames and no frame {wanted[-1] + 1}")
            return {asked: picture for asked, _, picture in video.frames(wanted)}
    except VideoError as error:
        raise PosebridgeError(
            f"The clip {clip.clip_id!r} cannot be read any more, as it was extracted ({error}); bring it again."
        ) from None
