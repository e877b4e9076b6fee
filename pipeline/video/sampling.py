"""Which frames of a clip are looked at: T for the skeleton, S of those for the cues. Pure arithmetic on times."""

from __future__ import annotations

import numpy as np

PAUSE = 2.0  # seconds


class SegmentError(ValueError):
    """A segment without a frame; the message tells why."""


def sample_positions(
    times: np.ndarray, duration: float, count: int, start: float | None = None, end: float | None = None
) -> np.ndarray:
    """The frames on display at the centres of `count` equal parts of [start, end).

    By time and not by number, so a variable frame rate is sampled evenly in seconds; where the segment has fewer
    frames than `count`, frames repeat. A segment that reaches beyond the end of the video is cut there.

    A pause (a paused recording; see `longest_step`) counts as one usual interval, so that not all samples show the
    frame before it; `start` and `end` are seconds of the video as a player shows it, pauses included.

    Args:
        times: [n] float64, ascending, seconds from the first frame.
        duration: seconds, the end of the last frame.
        count: T.
        start, end: seconds; None means the beginning and the end of the video.

    Returns:
        [count] int32, ascending indices into `times`.

    Raises:
        SegmentError: the segment is empty or begins after the video's end.
    """
    first = 0.0 if start is None else max(start, 0.0)
    last = duration if end is None else min(end, duration)
    if end is not None and start is not None and end <= start:
        raise SegmentError(f"the segment ends at {end:g} s, before it starts at {start:g} s")
    if first >= duration or last <= first:
        raise SegmentError(f"the segment starts at {first:g} s but the video ends at {duration:g} s")
    clock = without_pauses(times)
    if clock is not times:
        length = clock[-1] + duration - times[-1]
        first, last = np.interp([first, last], [*times, duration], [*clock, length])
        times, duration = clock, length
    centres = first + (np.arange(count) + 0.5) * (last - first) / count
    # A centre often falls exactly where two frames meet; the nudge makes that the later frame, whatever the rounding.
    nudge = 1e-3 * duration / len(times)
    return np.clip(np.searchsorted(times, centres + nudge, side="right") - 1, 0, len(times) - 1).astype(np.int32)


def longest_step(usual: float) -> float:
    """Seconds between two frames above which they are apart by a pause, for frames that are usually `usual` apart."""
    return max(PAUSE, 10 * usual)


def without_pauses(times: np.ndarray) -> np.ndarray:
    """[n] float64: the times with every pause as long as the usual interval; the very same array where is none."""
    steps = np.diff(times)
    if not len(steps):
        return times
    usual = float(np.median(steps))
    pauses = steps > longest_step(usual)
    if not pauses.any():
        return times
    return times[0] + np.concatenate(([0.0], np.cumsum(np.where(pauses, usual, steps))))


def cue_positions(frames: int, cue_frames: int) -> np.ndarray:
    """The centre frames of S uniform parts of the T sampled frames: [S] int32 indices into T."""
    return ((2 * np.arange(cue_frames) + 1) * frames // (2 * cue_frames)).astype(np.int32)
