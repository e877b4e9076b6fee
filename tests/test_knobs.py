"""Variants of skelgap's test clips: each changes what it says and nothing else, and twins stay twins."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.errors import PosebridgeError
from pipeline.params import SynthParams
from pipeline.synth.dataset import TEST_SUBJECTS, plan, plan_variant, write_variant
from pipeline.synth.knobs import COUNTERFACTUALS, VARIANTS, Knobs, choose_variant
from pipeline.synth.scene import FRAMES, ClipSpec, Rendered, render_clip
from stages.synth import command

pytestmark = pytest.mark.unit
SPEC = ClipSpec("chop", "cup", 9, 1, 2, 3, 4, 5)
SIZES = SynthParams(train_clips=1, test_clips=1, twins=2)
PLAIN = render_clip(SPEC, frames=6)


def rendered(frames: int = 6, **knobs: float) -> Rendered:
    return render_clip(SPEC, frames=frames, knobs=Knobs(**knobs))  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", VARIANTS)
def test_twins_stay_twins_in_every_variant(variant: str) -> None:
    """Equal skeletons, boxes and visibility; pictures that differ at the object only, but where noise is drawn."""
    knobs = VARIANTS[variant]
    clips = plan_variant("skelgap-mini", SIZES, knobs, {"strike with a bottle", "strike with a book"})
    one, other = (clip for clip in clips if clip.tuple_id == "chop-001")
    assert replace(one.spec, object="") == replace(other.spec, object="")
    bottle, book = (render_clip(clip.spec, frames=3, knobs=knobs) for clip in (one, other))
    for name in ("keypoints", "visible", "boxes"):
        assert np.array_equal(getattr(bottle, name), getattr(book, name)), name
    assert (bottle.frames != book.frames).any()
    assert np.array_equal(bottle.frames[:, :, :12], book.frames[:, :, :12]) or knobs.bystander or knobs.gain < 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_changes_the_skeleton_only_where_it_says_so(variant: str) -> None:
    knobs = VARIANTS[variant]
    before = next(c for c in plan("skelgap-mini", SIZES) if c.tuple_id == "lift-001")
    after = plan_variant("skelgap-mini", SIZES, knobs, {before.action.name})[1]
    assert (after.clip_id, after.path) == (before.clip_id, before.path)
    plain, changed = render_clip(before.spec, frames=3), render_clip(after.spec, frames=3, knobs=knobs)
    same = [np.array_equal(getattr(plain, name), getattr(changed, name)) for name in ("keypoints", "object_boxes")]
    assert same == [not variant.startswith(("small", "subject"))] * 2
    assert (plain.frames != changed.frames).any() or variant.startswith("compression")


@pytest.mark.parametrize("field", COUNTERFACTUALS)
def test_a_counterfactual_clip_differs_in_one_draw(field: str) -> None:
    before = [c for c in plan("skelgap", SIZES) if c.part == "test"]
    after = plan_variant("skelgap", SIZES, VARIANTS[field], {c.action.name for c in before})
    for old, new in zip(before, after, strict=True):
        assert getattr(old.spec, field) != getattr(new.spec, field)
        assert replace(old.spec, **{field: 0}) == replace(new.spec, **{field: 0})
        assert new.spec.subject in TEST_SUBJECTS


def test_occluders_cover_what_they_should_and_hide_the_joints_behind() -> None:
    shares, hidden = [], []
    for k in (1, 2, 3):
        knobs = VARIANTS[f"occlusion-{k}"]
        picture = render_clip(SPEC, frames=6, knobs=knobs)
        low, high = PLAIN.boxes[:, :2].min(0).astype(int), (PLAIN.boxes[:, :2] + PLAIN.boxes[:, 2:]).max(0).astype(int)
        changed = (picture.frames != PLAIN.frames).any(-1)[:, low[1] : high[1], low[0] : high[0]]
        shares.append(changed.mean())
        assert abs(changed.mean() - knobs.occlusion) < 0.12
        hidden.append(int((PLAIN.visible & ~picture.visible).sum()))
        assert not (picture.visible & ~PLAIN.visible).any()
    assert shares == sorted(shares) and hidden == sorted(hidden) and hidden[-1] > 0


def test_a_shutter_smears_what_moves_and_nothing_else() -> None:
    sharp = [np.abs(np.diff(rendered(exposure=e).frames.astype(float), axis=2)).mean() for e in (0.0, 0.5, 1.0, 2.0)]
    assert sharp == sorted(sharp, reverse=True) and len(set(sharp)) == 4
    still = replace(SPEC, motion="clap", object="none")
    blurred = render_clip(still, frames=6, knobs=Knobs(exposure=1.0)).frames.astype(int)
    box = PLAIN.boxes[0].astype(int)
    corner = np.abs(blurred - render_clip(still, frames=6).frames)[:, : box[1] - 40, :20]
    assert np.median(corner) == 0


def test_low_light_is_dark_and_noisy() -> None:
    dark = rendered(gain=0.25).frames.astype(float)
    assert abs(dark.mean() / PLAIN.frames.mean() - 0.25) < 0.02
    residue = dark - 0.25 * PLAIN.frames
    assert 2.5 < residue.std() < 8 and np.array_equal(dark, rendered(gain=0.25).frames)


def test_small_is_small() -> None:
    assert np.allclose(rendered(zoom=0.5).boxes[:, 2:], PLAIN.boxes[:, 2:] * 0.5, rtol=0.02)


def test_a_bystander_is_seen_and_never_hides_the_person() -> None:
    for aside in (1.0, 0.45, 0.0):
        both = rendered(bystander=aside)
        assert (both.frames != PLAIN.frames).any(-1).mean() > 0.004
        assert np.array_equal(both.keypoints, PLAIN.keypoints)
        for f in range(6):  # the middle of what covers a joint of the person
            columns, rows = PLAIN.keypoints[f][[0, 5, 6, 7, 8, 13, 14]].astype(int).T
            assert np.array_equal(both.frames[f, rows, columns], PLAIN.frames[f, rows, columns])


def test_a_variant_has_the_paths_of_the_data_set_and_a_ground_truth_of_its_own(tmp_path: Path) -> None:
    settings = SynthParams(train_clips=1, test_clips=0, twins=1)
    clips = plan_variant("skelgap-mini", settings, Knobs(crf=44), {"strike with a bottle", "strike with a book"})
    assert {c.clip_id for c in clips} == {"test-chop-000-bottle", "test-chop-000-book"}
    for name, crf in (("plain", 20), ("coarse", 44)):
        counts = write_variant(tmp_path / name, clips, Knobs(crf=crf))
        assert counts == {"clips": 2, "frames": 2 * FRAMES, "tuples": 1}
    for clip in clips:
        size = [(tmp_path / name / clip.path).stat().st_size for name in ("plain", "coarse")]
        assert size[1] < size[0] / 3
    with h5py.File(tmp_path / "coarse" / "ground_truth.h5") as file:
        assert sorted(file["clip_id"].asstr()) == sorted(c.clip_id for c in clips)


def test_the_command_renders_the_unseen_classes_of_a_protocol(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(
        f"datasets: {{skelgap-mini: {{root: {tmp_path}/mini}}}}\nsynth: {{train_clips: 1, test_clips: 1, twins: 1}}\n"
    )
    words = ["--variant", "small-3", "--protocol", "compositional_18_6", "--params", str(params), "--json"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["clips"] == 6
    assert len(list((tmp_path / "mini@small-3" / "test").rglob("*.mp4"))) == 6
    for wrong, code in ((["--variant", "small-9"], 1), (["--protocol", "compositional_18_6"], 2)):
        assert CliRunner().invoke(command, [*wrong, "--params", str(params)]).exit_code == code


def test_an_unknown_variant_is_told_the_known_ones() -> None:
    with pytest.raises(PosebridgeError, match="no variant named 'fog'; there are occlusion-1, "):
        choose_variant("fog")
