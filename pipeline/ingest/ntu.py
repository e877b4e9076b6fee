"""NTU RGB+D 60 and 120: `SsssCcccPpppRrrrAaaa_rgb.avi`, flat or in folders of any names.

A setup and a performer who was recorded in it make 360 videos: 3 cameras, 2 replications, 60 actions (1 to 60 in
setups 1 to 17, 61 to 120 in setups 18 to 32). There are 158 such pairs in NTU-60 and 318 in NTU-120, which follows from
their 56 880 and 114 480 videos. Which performers a setup has is told by its videos only, so a pair of which nothing is
there is counted, and not named. Sources: Shahroudy et al., CVPR 2016; Liu et al., TPAMI 2020.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.files.tables import read_lines
from pipeline.ingest.base import Entry, Folder, Layout, Listing, stem

NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})(_rgb|_ir)?")
CAMERAS, REPLICATIONS = (1, 2, 3), (1, 2)
SETUPS_60, SETUPS_120 = 17, 32
PERFORMERS_60, PERFORMERS_120 = 40, 106
PAIRS = {60: 158, 120: 318}
# The official training performers: the first row alone is NTU-60's, both together are NTU-120's.
TRAINING_PERFORMERS = frozenset({
    1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38,
    45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94, 95,
    97, 98, 100, 103,
})  # fmt: skip

Sample = tuple[int, int, int, int, int]  # setup, camera, performer, replication, action; 1-based


def read_ntu(folder: Folder, classes: Sequence[str], split: str, actions: int) -> Listing:
    """List NTU-60 (`actions` 60) or NTU-120 (120). Videos of actions 61 to 120 are counted, and no part of NTU-60."""
    listing = Listing()
    samples: dict[Sample, str] = {}
    others = infrared = 0
    for path in folder.videos:
        match = NAME.fullmatch(stem(path))
        if match is None:
            listing.left_out.append((path, "the name is not of the form SsssCcccPpppRrrrAaaa_rgb"))
            continue
        if match[6] == "_ir":
            infrared += 1
            continue
        numbers = [int(text) for text in match.groups()[:5]]
        sample: Sample = (numbers[0], numbers[1], numbers[2], numbers[3], numbers[4])
        if reason := impossible(sample):
            listing.left_out.append((path, reason))
        elif sample[4] > actions:
            others += 1
        elif sample in samples:
            listing.left_out.append((path, f"the sample is there already, as {samples[sample]}"))
        else:
            samples[sample] = path
    for sample, path in samples.items():
        setup, camera, performer, _, action = sample
        listing.entries.append(
            Entry(
                path,
                label=classes[action - 1],
                subject=f"P{performer:03d}",
                camera=f"S{setup:03d}C{camera:03d}",  # another setup is another place of the cameras
                part="train" if trains(sample, split) else "test",
                clip_id=name_of(sample),
            )
        )
    if others:
        listing.remarks.append(f"{others} videos of the actions 61 to 120 are no part of NTU-60 and were not listed.")
    if infrared:
        listing.remarks.append(f"{infrared} infrared videos were not listed.")
    _find_gaps(samples, actions, listing)
    return listing


def impossible(sample: Sample) -> str:
    """Why there is no such sample, or an empty string."""
    setup, camera, performer, replication, action = sample
    if not 1 <= setup <= SETUPS_120:
        return f"there is no setup {setup}"
    if camera not in CAMERAS:
        return f"there is no camera {camera}"
    if not 1 <= performer <= (PERFORMERS_60 if setup <= SETUPS_60 else PERFORMERS_120):
        return f"there is no performer {performer} in setup {setup}"
    if replication not in REPLICATIONS:
        return f"there is no replication {replication}"
    if action not in actions_of(setup):
        return f"action {action} was not recorded in setup {setup}"
    return ""


def trains(sample: Sample, split: str) -> bool:
    """Whether a sample is of the training part of `split`."""
    setup, camera, performer, _, _ = sample
    if split == "cross-subject":
        return performer in TRAINING_PERFORMERS
    if split == "cross-view":
        return camera in (2, 3)
    assert split == "cross-setup"
    return setup % 2 == 0


def name_of(sample: Sample) -> str:
    """SsssCcccPpppRrrrAaaa."""
    return "S{:03d}C{:03d}P{:03d}R{:03d}A{:03d}".format(*sample)


def read_missing_skeletons(path: Path) -> set[str]:
    """The samples of a published list. Raises PosebridgeError for a missing file or a line that is no sample."""
    names = set()
    for line, text in enumerate(read_lines(path, "bring it back with git, or leave out --without-missing"), start=1):
        name = text.partition("#")[0].strip()
        if name and not NAME.fullmatch(name):
            raise PosebridgeError(f"{path}, line {line}: {name!r} is not of the form SsssCcccPpppRrrrAaaa.")
        names.add(name)
    return names - {""}


def actions_of(setup: int) -> range:
    """The actions that were recorded in a setup."""
    return range(1, 61) if setup <= SETUPS_60 else range(61, 121)


def _find_gaps(samples: dict[Sample, str], actions: int, listing: Listing) -> None:
    pairs = sorted({(setup, performer) for setup, _, performer, _, _ in samples})
    setups = {setup for setup, _ in pairs}
    for setup in range(1, (SETUPS_60 if actions == 60 else SETUPS_120) + 1):
        if setup not in setups:
            listing.missing.append((f"S{setup:03d}", "no video of this setup is there"))
    for setup, performer in pairs:
        for camera, replication, action in product(CAMERAS, REPLICATIONS, actions_of(setup)):
            sample = (setup, camera, performer, replication, action)
            if sample not in samples:
                reason = "other videos of this setup and performer are there"
                listing.missing.append((f"{name_of(sample)}_rgb.avi", reason))
    if len(pairs) != PAIRS[actions]:
        listing.remarks.append(
            f"{len(pairs)} of the {PAIRS[actions]} pairs of setup and performer are there; of the others there is no "
            "file, and nothing else tells their names."
        )


NTU60 = Layout(partial(read_ntu, actions=60), ("cross-subject", "cross-view"), large=True, skeleton_list=True)
NTU120 = Layout(partial(read_ntu, actions=120), ("cross-subject", "cross-setup"), large=True, skeleton_list=True)
