"""Samples: read from extractions and joined by clip, told apart byte by byte, and how well they are seen."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.errors import PosebridgeError
from pipeline.learn.dataset import label_rows, train_labels
from pipeline.learn.features import Samples, load_samples
from pipeline.manifest.clips import Clip
from pipeline.protocol.training_set import Phase

pytestmark = pytest.mark.unit


class Extraction:
    """An extraction of clips whose numbers are all the number in the clip's name."""

    names = ("keypoints", "scores", "person_valid", "cues", "cue_scores")

    def __init__(self, *clip_ids, joints=17, names=names):
        self.recipe, self.clip_ids, self.names, self.joints = SimpleNamespace(layout="coco17"), clip_ids, names, joints

    def read(self, clip_ids, names, persons=None):
        if persons is not None:
            self.asked = (names, persons.tolist())
        shapes = {"keypoints": (1, 2, self.joints, 2), "scores": (1, 2, self.joints), "person_valid": (1, 2)}
        shapes |= {"cues": (1, 1, 3, 4), "cue_scores": (1, 1, 3)}
        return {name: np.stack([np.full(shapes[name], float(clip_id[1:])) for clip_id in clip_ids]) for name in names}


def test_clips_are_joined_by_their_id_in_the_order_asked_and_those_that_failed_are_left_out():
    found = load_samples(["c3", "c1", "c0", "c2"], Extraction("c0", "c1", "c3"), Extraction("c3", "c2", "c0"))
    assert found.clip_ids == ("c3", "c0") and len(found) == 2
    assert found.keypoints[:, 0, 0, 0].tolist() == [[3, 3], [0, 0]]
    assert found.scores[:, 0, 0, 0].tolist() == [1, 0], "within 0..1"
    assert found.person_valid[:, 0, 0].tolist() == [True, False]
    assert found.cues[:, 0, 0, 0, 0].tolist() == found.cue_scores[:, 0, 0, 0].tolist() == [3, 0]
    alone = load_samples(["c3", "c1", "c0", "c2"], Extraction("c0", "c1", "c3"))
    assert alone.clip_ids == ("c3", "c1", "c0") and alone.cues is alone.cue_scores is None


def test_cues_are_read_of_persons_who_have_any():
    cues = Extraction("c0", "c2")
    load_samples(["c2", "c0"], Extraction("c0", "c2"), cues)
    assert cues.asked == (("cues",), [[True], [False]])


def test_rows_are_taken_in_the_order_asked_wherever_they_lie():
    every = load_samples(["c1", "c2", "c3"], whole := Extraction("c1", "c2", "c3"), whole)
    some = every.take([2, 0, 2])
    assert some.clip_ids == ("c3", "c1", "c3") and some.keypoints[:, 0, 0, 0, 0].tolist() == [3, 1, 3]
    assert some.cues.dtype == torch.float16 and some.cues[:, 0, 0, 0, 0].tolist() == [3, 1, 3]
    some.keypoints.zero_()
    assert every.keypoints.all(), "they are copies"
    assert every.take([]).keypoints.shape == (0, *every.keypoints.shape[1:])


def test_what_cannot_be_joined_is_one_sentence():
    with pytest.raises(PosebridgeError, match="None of the 2 clips wanted is in the cache"):
        load_samples(["c1", "c2"], Extraction("c1"), Extraction("c2"))
    with pytest.raises(PosebridgeError, match="have 16 joints, but their recipe's layout coco17 has 17"):
        load_samples(["c1"], Extraction("c1", joints=16))
    with pytest.raises(PosebridgeError, match="holds no cues"):
        load_samples(["c1"], Extraction("c1"), Extraction("c1", names=Extraction.names[:3]))


def samples(valid, scores, clip_ids):
    scores = torch.tensor(scores)[..., None].repeat(1, 1, 1, 2)  # of two joints
    scores += torch.tensor([0.1, -0.1])
    return Samples(clip_ids, torch.zeros(*scores.shape, 2), scores, torch.tensor(valid))


def test_quality_is_the_mean_score_where_a_person_is_and_the_share_of_such_frames_by_hand():
    valid = [[[True, True, True, False], [False, True, False, False]], [[False] * 4, [True] * 4]]
    scores = [[[0.9, 0.3, 0.6, 0.2], [0.4, 0.8, 0.4, 0.4]], [[0.5] * 4, [0.1, 0.2, 0.3, 0.4]]]
    quality = samples(valid, scores, ("a", "b")).quality
    torch.testing.assert_close(quality, torch.tensor([[[0.6, 0.75], [0.8, 0.25]], [[0.0, 0.0], [0.25, 1.0]]]))


def test_equal_samples_are_one_and_every_clip_finds_its_own():
    one, other = [[0.5, 0.25]], [[0.5, 0.75]]
    found = samples([[[True, True]]] * 4, [one, other, one, other], ("a", "b", "c", "d"))
    distinct, where = found.unique()
    assert distinct.clip_ids == ("a", "b") and where.tolist() == [0, 1, 0, 1]
    assert torch.equal(distinct.scores[where], found.scores)
    taken = found.take([3, 0])
    assert taken.clip_ids == ("d", "a") and torch.equal(taken.scores, found.scores[[3, 0]])


def test_a_class_of_which_no_train_clip_was_extracted_is_named():
    """One that was kept out of training may be there."""
    phase = Phase("select", (2, 7), (Clip("a", "a.mp4", label=7), Clip("b", "b.mp4", label=2)))
    assert train_labels(phase, ["b", "a", "b"], "abcdefgh").tolist() == [0, 1, 0]
    with pytest.raises(PosebridgeError, match="No clip of 'c' that the phase 'select' trains on"):
        train_labels(phase, ["a"], "abcdefgh")


def test_labels_are_the_places_of_classes_among_those_named():
    clips = [Clip("a", "a.mp4", label=7), Clip("b", "b.mp4", label=2), Clip("c", "c.mp4")]
    assert label_rows(clips, ["b", "a", "b"], (4, 7, 2)).tolist() == [2, 1, 2]
