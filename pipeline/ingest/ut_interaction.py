"""UT-Interaction, segmented: `<number>_<sequence>_<class>.avi`, the class 0-based.

Twenty sequences (1 to 10 are set 1, 11 to 20 are set 2), each with every one of the six interactions: 120 videos.
Published results leave one sequence of a set out at a time: `leave-out-<k>` tests the k-th sequence of either set. The
default, `halves`, is ours: the first five sequences of either set train, the other five test.
Source: Ryoo and Aggarwal, UT-Interaction Dataset, ICPR contest on Semantic Description of Human Activities, 2010.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

from pipeline.ingest.base import Entry, Folder, Layout, Listing, stem

NAME = re.compile(r"(\d+)_(\d+)_(\d+)")
SEQUENCES = range(1, 21)
TEST_SEQUENCES = {
    "halves": frozenset({6, 7, 8, 9, 10, 16, 17, 18, 19, 20}),
    **{f"leave-out-{k}": frozenset({k, k + 10}) for k in range(1, 11)},
}


def read_ut_interaction(folder: Folder, classes: Sequence[str], split: str) -> Listing:
    """List the segmented videos; every (sequence, class) without one is missing."""
    listing = Listing()
    taken: dict[str, str] = {}
    found: set[tuple[int, int]] = set()
    for path in folder.videos:
        name = stem(path)
        match = NAME.fullmatch(name)
        if match is None:
            listing.left_out.append((path, "the name is not of the form <number>_<sequence>_<class>"))
            continue
        sequence, label = int(match[2]), int(match[3])
        if sequence not in SEQUENCES or label >= len(classes):
            what = f"class {label}" if label >= len(classes) else f"sequence {sequence}"
            listing.left_out.append((path, f"there is no {what}"))
        elif name in taken:
            listing.left_out.append((path, f"the video is there already, as {taken[name]}"))
        else:
            taken[name] = path
            found.add((sequence, label))
            part = "test" if sequence in TEST_SEQUENCES[split] else "train"
            listing.entries.append(Entry(path, classes[label], subject=f"seq{sequence:02d}", part=part, clip_id=name))
    for sequence, label in product(SEQUENCES, range(len(classes))):
        if (sequence, label) not in found:
            reason = f"sequence {sequence} has no video of {classes[label]!r}"
            listing.missing.append((f"*_{sequence}_{label}.avi", reason))
    return listing


UT_INTERACTION = Layout(read_ut_interaction, tuple(TEST_SEQUENCES))
