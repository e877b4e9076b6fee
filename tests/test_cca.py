"""Kernel canonical correlation: what it finds, what it does not look at, and where it ends."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from pipeline.errors import PosebridgeError
from pipeline.methods import cca, find_method
from pipeline.methods.base import Features, Shapes
from pipeline.skeleton.mirror import mirror

pytestmark = pytest.mark.unit
ANCHORS = ("body", "left_hand", "right_hand")
SHAPES = Shapes(d_text=12, persons=1, cue_frames=2, anchors=ANCHORS, d_cue=6)
SEEN, UNSEEN, PARTS = 120, 20, 4
FLAGS = {"waves": 512, "text_slots": ["one_line", "hands"]}


def world(seed=0):
    """One clip a class: skeletons tell two of four numbers behind a class, cues the others, each slot of its text too;
    all with noise.
    """
    g = torch.Generator().manual_seed(seed)
    count = SEEN + UNSEEN
    behind = torch.randn(count, PARTS, generator=g)
    at = torch.randn(2, 2 * 17 * 2, generator=g), torch.randn(2, 18, generator=g), torch.randn(2, 2, 12, generator=g)
    joints = (behind[:, :2] @ at[0]).view(count, 1, 2, 17, 2)
    x = torch.cat([joints, torch.ones(count, 1, 2, 17, 1)], -1)
    cues = (behind[:, 2:] @ at[1]).view(count, 1, 1, 3, 6).expand(-1, -1, 2, -1, -1)
    cues = cues + 0.3 * torch.randn(cues.shape, generator=g)
    text = torch.stack([behind[:, :2] @ at[2][0], behind[:, 2:] @ at[2][1]], 1)
    text = F.normalize(text + 0.3 * torch.randn(text.shape, generator=g), dim=-1)
    return Features(x, torch.ones(count, 1, 2), cues.half(), torch.ones(count, 1, 2, 3)), text


def rows(features, which):
    return Features(*(getattr(features, field.name)[which] for field in dataclasses.fields(features)))


def solved(seed=0, labels=None, **flags):
    """The method, solved on the seen classes, and features and text of the unseen ones."""
    features, text = world(seed)
    torch.manual_seed(0)
    method = find_method("cca")(SHAPES, SEEN, FLAGS | flags)
    method.see_text(text[:SEEN])
    parts = torch.arange(SEEN).split(50)
    labels = torch.arange(SEEN) if labels is None else labels
    method.solve((rows(features, part) for part in parts), labels, text[:SEEN])
    return method.eval(), rows(features, slice(SEEN, None)), text[SEEN:]


def right(method, features, text):
    """The share of clips, the i-th of class i, whose class is among the first two."""
    scores = method.scores(features, text)
    return float(((scores > scores.diag()[:, None]).sum(1) < 2).float().mean())


def test_it_names_unseen_classes_by_both_parts_and_better_than_by_one():
    both = right(*solved())
    one, other = right(*solved(cues=False)), right(*solved(skeleton=False))
    assert both > max(one, other) and min(one, other) > 2 / UNSEEN
    shuffled = torch.randperm(SEEN, generator=torch.Generator().manual_seed(3))
    assert right(*solved(labels=shuffled)) < both / 2


def test_directions_correlate_as_they_say():
    """With next to no ridge and fewer numbers than clips, coordinates of both sides are one another's, on the first
    axes, where text is a linear map of the cues.
    """
    g = torch.Generator().manual_seed(0)
    cues = torch.randn(SEEN, 1, 2, 3, 6, generator=g)
    method = find_method("cca")(SHAPES, SEEN, FLAGS | {"skeleton": False, "ridge": 1e-6, "text_ridge": 1e-6})
    features = Features(torch.zeros(SEEN, 1, 2, 17, 3), torch.ones(SEEN, 1, 2), cues, torch.ones(SEEN, 1, 2, 3))
    seen = F.normalize(cues.mean((1, 2)), dim=-1).flatten(1)
    text = (seen @ torch.randn(18, 24, generator=g)).view(SEEN, 2, 12)
    method.see_text(text)
    method.solve([features], torch.arange(SEEN), text)
    own, theirs = method.embed(features), method.prototypes(text)
    torch.testing.assert_close((own * theirs).sum(1), torch.ones(SEEN), atol=1e-3, rtol=0)


def test_a_clip_and_its_mirror_image_are_one_to_the_skeleton():
    method, features, text = solved(cues=False)
    other = dataclasses.replace(features, skeleton=mirror(features.skeleton, method.graph))
    torch.testing.assert_close(method.scores(features, text), method.scores(other, text), atol=1e-4, rtol=0)


def test_what_nobody_sees_has_no_say():
    method, features, text = solved()
    features.cue_scores[:, :, 1] = 0
    other = dataclasses.replace(features, cues=features.cues.clone())
    other.cues[:, :, 1] = 9
    torch.testing.assert_close(method.scores(features, text), method.scores(other, text))
    none = dataclasses.replace(features, cues=None, cue_scores=None)
    nobody = dataclasses.replace(none, skeleton=torch.zeros_like(none.skeleton))
    assert method.scores(none, text).isfinite().all() and method.scores(nobody, text).isfinite().all()


def test_too_many_clips_and_flags_that_cannot_be_are_one_sentence(monkeypatch):
    monkeypatch.setattr(cca, "MOST_CLIPS", SEEN - 1)
    with pytest.raises(PosebridgeError, match="there may be 119 and are 120; use posebridge"):
        solved()
    for flags, words in (
        ({"cues": False, "skeleton": False}, "both off"),
        ({"level_widths": [2, 3]}, "level_widths sums to 5, but the recipe's cues are 6 wide"),
    ):
        with pytest.raises(PosebridgeError, match=words):
            find_method("cca")(SHAPES, SEEN, flags)
