"""What the records of a cache's clips say, summed up: which clips came from odd videos, and of which kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

NAMED = 5  # clips that are named where many are counted


def sum_up(clips: DataFrame) -> dict[str, Any]:
    """Counts of clips (a table of `CacheReader.frame`) by what their records say, and of what they lost; clips without
    a video are not counted.

    `few_frames` are clips whose T samples show less than a quarter of the frames that they could have shown; the first
    are named.
    """
    videos = clips[clips["video"]]
    traits = {
        "clips_of_videos": videos["video"],
        "several_tracks": videos["tracks"] > 1,
        "mirrored_or_turned": videos["orientation"] != "",
        "pixels_not_square": videos["pixel_aspect"] != 1,
        "size_changes": videos["size_changes"] > 0,
        "packets_lost": videos["lost"] > 0,
        "transparent": videos["alpha"],
        "interlaced": videos["interlaced"],
        "joints_without_numbers": videos["joints_lost"] > 0,
        "cues_without_numbers": videos["cues_lost"] > 0,
        "lost_packets": videos["lost"],
        "lost_joints": videos["joints_lost"],
        "lost_cues": videos["cues_lost"],
        "few_frames": videos["few_frames"],
    }
    kinds = {
        "containers": videos["container"],
        "orientations": videos["orientation"],
        "timing": videos["timing"].replace("stamps", ""),
        "tone": videos["tone"],
    }
    return {
        **{name: int(values.sum()) for name, values in traits.items()},
        **{name: values[values != ""].value_counts().sort_index().to_dict() for name, values in kinds.items()},
        "few_frames_first": videos.index[videos["few_frames"]][:NAMED].to_list(),
    }
