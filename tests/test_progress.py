"""One count of clips over all workers: what they tell of their shards, here and through their leases."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace

import pytest

from pipeline.extract.progress import Tally, listening

pytestmark = pytest.mark.unit


def test_clips_are_counted_over_shards_and_totals_follow_what_is_found():
    told = []
    tally = Tally({0: 3, 1: 2, 2: 4}, lambda done, total: told.append((done, total)))
    tally.told(1, 1, 2)
    tally.told(0, 1, 3)
    tally.told(1, 2, 2)
    tally.ended(1, 2)
    assert told == [(1, 9), (2, 9), (3, 9)], "the end of a shard is no news"
    tally.ended(2, 0)  # another worker has sealed it
    tally.told(0, 2, 5)  # two clips more than the plan knew
    tally.told(1, 1, 2)  # an old lease
    tally.ended(0, 5)
    tally.told(9, 1, 2)  # a shard of another run's share
    assert told[3:] == [(3, 5), (4, 7), (7, 7)]


def test_nothing_is_shown_before_the_first_clip():
    told = []
    tally = Tally({0: 3, 1: 2}, lambda *numbers: told.append(numbers))
    tally.ended(1, 0)
    tally.told(0, 0, 3)
    assert told == []


def test_leases_tell_of_clips_in_other_processes(tmp_path):
    said = threading.Event()
    told = []
    tally = Tally({7: 10}, lambda *numbers: (told.append(numbers), said.set()))
    holder = json.dumps({"machine": "elsewhere", "pid": 1, "version": ""})
    (tmp_path / "shard-00003.lease").write_text("{")
    (tmp_path / "shard-00007.lease").write_text(f"{holder}\n1 4 10")
    with listening(tally, SimpleNamespace(folder=tmp_path), 0.001):
        assert said.wait(60)
    assert told == [(4, 10)]
