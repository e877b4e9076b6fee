"""When each frame of a video is on display, from the time stamps of its packets, however odd these are.

* Stamps that begin again or wrap (recordings put together, a clock of 33 bits): what follows goes on one usual interval
  after what was before. The seconds of such a video are those of its parts in a row.
* A few packets stamped far away, between others that go on as if nothing were: they are put where they were found.
* Stamps that some packets lack: put between their neighbours. Where most lack them, frames are counted at the frame
  rate.
* A pause, more than PAUSE seconds and ten usual intervals ahead, stays in the timeline, since a player shows it and
  the `start` and `end` of segments are a player's seconds. Sampling leaves it out: see `sampling`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.video.sampling import longest_step

NONE = np.iinfo(np.int64).min  # no stamp
LOOK_BACK = 8  # runs of packets that may lie between a run and the one that it continues


@dataclass(frozen=True)
class Timeline:
    """The frames in the order of display.

    order [n] int64: where they are in decoding order; stamps [n] int64: as in the file, NONE where there is none, for
    finding a decoded frame again; times [n] float64: seconds from the first frame, ascending; timing: see `ClipRecord`.
    """

    order: np.ndarray
    stamps: np.ndarray
    times: np.ndarray
    timing: str


def arrange(pts: np.ndarray, dts: np.ndarray, tick: float, interval: float) -> Timeline:
    """The timeline of packets.

    Args:
        pts, dts: [n] int64, in decoding order; NONE where there is none.
        tick: seconds of one unit of them.
        interval: seconds of a frame, where stamps do not tell.
    """
    count = len(pts)
    raw = np.where(pts != NONE, pts, dts)
    known = raw != NONE
    distinct = np.unique(raw[known])
    if 2 * known.sum() <= count or 2 * np.count_nonzero(np.diff(raw)) < count - 1:
        return Timeline(np.arange(count), np.full(count, NONE), np.arange(count) * interval, "counted")
    by_dts = bool((dts != NONE).all())
    steps = np.diff(dts if by_dts else distinct)
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else interval / tick
    limit = longest_step(usual * tick) / tick
    stamps = raw if known.all() else _filled(raw, known, usual)
    clock = dts if by_dts else stamps  # what ascends in decoding order, but for the reordering of frames
    slack = (2 if by_dts else 20) * usual
    step = np.diff(clock)
    breaks = np.flatnonzero((step < -slack) | (step > limit)) + 1
    wrong = _far_from_clock(stamps, clock, limit)
    if known.all() and not len(breaks) and not wrong.any():
        order = np.argsort(stamps, kind="stable")
        return Timeline(order, raw[order], (stamps[order] - stamps[order[0]]) * tick, "stamps")
    runs, outside = _runs(clock, breaks, usual, limit, slack)
    delay = float(np.median((stamps - clock)[~(wrong | outside)]))
    places = np.arange(count)
    clock = np.where(outside, np.interp(places, places[~outside], clock[~outside]), clock)
    stamps = np.where(wrong | outside, clock + delay, stamps).astype(np.float64)
    order, ticks, end = np.empty(count, np.int64), np.empty(count), None
    begun = [0, *(first for first, before in runs if before > clock[first] + slack), count]
    for first, last in zip(begun, begun[1:], strict=False):
        part = stamps[first:last]
        shift = 0.0 if end is None else end + usual - part.min()
        places = np.argsort(part, kind="stable")
        order[first:last], ticks[first:last] = first + places, part[places] + shift
        end = ticks[last - 1]
    mended = len(begun) > 2 or bool(wrong.any() or outside.any()) or not known.all()
    times = (ticks - ticks[0]) * tick
    return Timeline(order, raw[order], times, "mended" if mended else "stamps")


def _filled(raw: np.ndarray, known: np.ndarray, usual: float) -> np.ndarray:
    """Stamps with those that are missing put between, before or after those that are known."""
    places = np.arange(len(raw))
    at = places[known]
    filled = np.interp(places, at, raw[known].astype(np.float64))
    filled[: at[0]] -= usual * np.arange(at[0], 0, -1)
    filled[at[-1] + 1 :] += usual * np.arange(1, len(raw) - at[-1])
    return np.rint(filled).astype(np.int64)


def _far_from_clock(stamps: np.ndarray, clock: np.ndarray, limit: float) -> np.ndarray:
    """[n] bool: which stamps are of no time at which any packet is decoded, though the packet's own clock is right."""
    delay = np.median(stamps - clock)
    ascending = np.sort(clock)
    wanted = stamps - delay
    right = np.searchsorted(ascending, wanted).clip(0, len(clock) - 1)
    left = (right - 1).clip(0)
    nearest = np.minimum(np.abs(ascending[right] - wanted), np.abs(ascending[left] - wanted))
    return (nearest > limit) & (np.abs(wanted - clock) > limit)


def _runs(
    clock: np.ndarray, breaks: np.ndarray, usual: float, limit: float, slack: float
) -> tuple[list[tuple[int, float]], np.ndarray]:
    """Runs of packets whose clock goes on, as (first packet, the clock before it); and [n] bool, packets between two
    runs that belong together, which are stamped elsewhere.
    """
    outside = np.zeros(len(clock), bool)
    starts = [0, *breaks.tolist()]
    kept: list[tuple[int, int]] = []
    for first, last in zip(starts, [*starts[1:], len(clock)], strict=True):
        for back in range(2, min(len(kept), LOOK_BACK) + 1):
            end = kept[-back][1]
            hole = clock[first] - clock[end - 1]
            if -slack <= hole <= limit and first - end <= max(hole, 0) / usual + 2:
                outside[end:first] = True
                del kept[1 - back :]
                break
        kept.append((first, last))
    return [(b[0], float(clock[a[1] - 1])) for a, b in zip(kept, kept[1:], strict=False)], outside
