"""skelgap: what must be true of the generator so that a ceiling can be claimed."""

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import av
import h5py
import numpy as np
import pytest

from pipeline.errors import PosebridgeError
from pipeline.params import SynthParams
from pipeline.synth.catalogue import DATASETS, PROTOCOLS
from pipeline.synth.dataset import TEST_SUBJECTS, TRAIN_SUBJECTS, plan, write_dataset, write_video
from pipeline.synth.motions import MOTIONS
from pipeline.synth.objects import OBJECTS
from pipeline.synth.scene import FRAMES, SIZE, ClipSpec, _visible, render_clip
from pipeline.synth.stills import HELD_OUT_STREAM, TRAIN_STREAM, _place_of, every_caption, stills, training_crop

pytestmark = pytest.mark.unit
SPEC = ClipSpec("lift", "cup", 9, 1, 2, 3, 4, 5)


def test_twins_have_equal_skeletons_and_differ_in_pixels() -> None:
    cup, book = render_clip(SPEC, frames=8), render_clip(replace(SPEC, object="book"), frames=8)
    for name in ("keypoints", "visible", "boxes"):
        assert np.array_equal(getattr(cup, name), getattr(book, name)), name
    assert (cup.frames != book.frames).any()
    # Only around the object: far from both objects' boxes the frames are the same.
    for frame in range(8):
        changed = np.argwhere((cup.frames[frame] != book.frames[frame]).any(-1))[:, ::-1]
        boxes = np.stack([cup.object_boxes[frame], book.object_boxes[frame]])
        low, high = boxes[:, :2].min(0) - 4, (boxes[:, :2] + boxes[:, 2:]).max(0) + 4
        assert ((changed >= low) & (changed <= high)).all()


@pytest.mark.parametrize("motion", MOTIONS)
def test_rendering_is_deterministic_and_in_the_frame(motion: str) -> None:
    spec = replace(SPEC, motion=motion, object="none" if motion in ("clap", "bow", "jump", "walk", "kick") else "flag")
    first, again = render_clip(spec, frames=6), render_clip(spec, frames=6)
    assert np.array_equal(first.frames, again.frames)
    assert first.keypoints.dtype == np.float32 and np.isfinite(first.keypoints).all()
    assert ((first.keypoints > -20) & (first.keypoints < SIZE + 20)).all()
    low, size = first.boxes[..., :2], first.boxes[..., 2:]
    assert np.allclose(first.keypoints.min(1), low) and np.allclose(first.keypoints.max(1), low + size, atol=1e-3)


def test_every_object_looks_different() -> None:
    pictures = {name: render_clip(replace(SPEC, object=name), frames=1).frames[0].astype(int) for name in OBJECTS}
    for a in OBJECTS:
        for b in OBJECTS:
            if a < b:
                assert np.abs(pictures[a] - pictures[b]).sum() > 10_000, (a, b)


@pytest.mark.parametrize("dataset", DATASETS)
def test_test_clips_of_a_motion_are_twins(dataset: str) -> None:
    """Tuple t holds a clip of every class of the motion that has more than t test clips, equal but for the object."""
    clips = plan(dataset, SynthParams(train_clips=3, test_clips=2, twins=5))
    assert len({clip.clip_id for clip in clips}) == len({clip.path for clip in clips}) == len(clips)
    ever_unseen = {name for split in PROTOCOLS[dataset].values() for name in split.unseen}
    tuples = defaultdict(list)
    for clip in clips:
        assert bool(clip.tuple_id) == (clip.part == "test")
        tuples[clip.tuple_id].append(clip)
    del tuples[""]
    for twins in tuples.values():
        assert len({replace(t.spec, object="") for t in twins}) == 1, "twins differ in more than the held object"
        assert len({t.action.object for t in twins}) == len(twins)
    for motion in {action.motion for action in DATASETS[dataset]}:
        group = {action.name for action in DATASETS[dataset] if action.motion == motion}
        for number in range(5):
            expected = group if number < 2 else group & ever_unseen
            assert {t.action.name for t in tuples.get(f"{motion}-{number:03d}", [])} == expected
    assert len({replace(t[0].spec, object="") for t in tuples.values()}) == len(tuples), "two tuples are one scene"


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_protocol_has_the_clips_that_it_needs(dataset: str) -> None:
    """Train clips for seen and validation classes, test clips for unseen ones, no subject in both parts."""
    clips = plan(dataset, SynthParams(train_clips=3, test_clips=2, twins=5))
    there = {part: Counter(c.action.name for c in clips if c.part == part) for part in ("train", "test")}
    for split in PROTOCOLS[dataset].values():
        for action in DATASETS[dataset]:
            assert there["train"][action.name] == 3 or action.name in split.unseen
            assert there["test"][action.name] == 5 or action.name not in split.unseen
    subjects = {part: {c.spec.subject for c in clips if c.part == part} for part in ("train", "test")}
    assert subjects["train"] <= set(TRAIN_SUBJECTS) and subjects["test"] <= set(TEST_SUBJECTS)
    assert not set(TRAIN_SUBJECTS) & set(TEST_SUBJECTS) and len({*TRAIN_SUBJECTS, *TEST_SUBJECTS}) == 12
    for field in ("trajectory", "camera", "background", "look", "distractors"):
        train, test = ({getattr(c.spec, field) for c in clips if c.part == part} for part in ("train", "test"))
        assert not train & test, f"a {field} occurs in both parts"


def test_classes_that_no_protocol_sees_do_not_train() -> None:
    """The demo's unseen classes are unseen in all its protocols; every class of the full set trains in some."""
    for dataset, untrained in (("skelgap", 0), ("skelgap-mini", 6)):
        clips = plan(dataset, SynthParams(train_clips=1, test_clips=1, twins=1))
        assert len(DATASETS[dataset]) - len({c.action.name for c in clips if c.part == "train"}) == untrained


def test_files_say_what_was_drawn(tmp_path: Path) -> None:
    root = tmp_path / "mini"
    counts = write_dataset("skelgap-mini", root, SynthParams(train_clips=1, test_clips=0, twins=1))
    assert counts == {"clips": 24, "frames": 24 * FRAMES, "tuples": 2}
    assert not list(tmp_path.glob("*.partial"))
    with h5py.File(root / "ground_truth.h5") as file:
        assert file["keypoints"].shape == (24, FRAMES, 17, 2)
        assert file["boxes"].dtype == np.float32
        assert Counter(file["object"].asstr()[:])["none"] == 2
    video = next((root / "train" / "wave-a-flag").glob("*.mp4"))
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == FRAMES and frames[0].shape == (SIZE, SIZE, 3)
    drawn = render_clip(next(c for c in plan("skelgap-mini", SynthParams(1, 0, 1)) if c.clip_id == video.stem).spec)
    assert np.abs(frames[5].astype(int) - drawn.frames[5]).mean() < 6  # H.264 loses a little


def test_a_folder_of_others_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine/a.mp4", "file"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for root in (tmp_path / "mine", Path(), Path("mine/../mine"), tmp_path / "file"):
        with pytest.raises(PosebridgeError, match="holds what was not rendered, and would be replaced; correct"):
            write_dataset("skelgap-mini", root, SynthParams(train_clips=1, test_clips=0, twins=1))
    assert {path.name for path in tmp_path.rglob("*")} == {"mine", "a.mp4", "file"}


def test_writing_again_yields_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, render_clip(SPEC).frames)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_stills_are_apart_from_each_other_and_captions_are_known() -> None:
    captions = set(every_caption(tuple(OBJECTS)))
    train, held_out = list(stills(TRAIN_STREAM, 0)), list(stills(HELD_OUT_STREAM, 0))
    assert all(still.caption in captions for still in train + held_out)
    assert not np.array_equal(train[0].image, held_out[0].image)
    crop, keypoints = training_crop(train[0], np.random.default_rng(0), (192, 256))
    assert crop.shape == (256, 192, 3) and keypoints.shape == (17, 2)


def test_a_caption_says_where_the_hand_is() -> None:
    """Metres from the middle, above the floor and in front; the left hand and the right one."""
    places = {
        "above the head": (0, 2.1, 0.1), "in front of the face": (0.05, 1.55, 0.3), "beside the head": (0.5, 1.55, 0),
        "stretched out in front": (0.1, 1.25, 0.6), "in front of the chest": (0.1, 1.25, 0.2),
        "out to the side": (0.6, 1.25, 0), "at the hip": (0.25, 0.9, 0.1),
    }  # fmt: skip
    for place, (x, y, z) in places.items():
        assert _place_of(np.array([x, y, z]), False) == _place_of(np.array([-x, y, z]), False) == place
    assert _place_of(np.array([0, 2.1, 0.1]), True) == "above the head with both hands"


def test_a_joint_is_hidden_outside_the_frame_and_behind_trunk_or_head() -> None:
    """The trunk's own joints hide nothing of themselves, however it is turned."""
    pixels, depths = np.full((1, 22, 2), 50.0), np.full((1, 22), 3.0)
    pixels[0, [5, 6, 11, 12]] = [[40, 30], [60, 30], [42, 70], [58, 70]]
    assert _visible(pixels, depths, 100).all()
    depths[0, 9] = depths[0, 5] = depths[0, 12] = 3.3  # a wrist, a shoulder and a hip are farther away
    depths[0, 4] = 3.1  # and so is an ear, behind the middle of the head
    pixels[0, 15] = [50, 101]
    assert np.flatnonzero(~_visible(pixels, depths, 100)).tolist() == [4, 9, 15]
    pixels[0, 9] = [80, 50]  # beside the trunk
    pixels[0, 6] = [57, 35]  # a trunk that is askew: this shoulder lies within the others' box
    depths[0, 6] = 3.4
    assert np.flatnonzero(~_visible(pixels, depths, 100)).tolist() == [4, 15]


def test_an_object_left_out_is_never_drawn_or_named() -> None:
    objects = tuple(name for name in OBJECTS if name != "umbrella")
    drawn = [still for group in range(12) for still in stills(TRAIN_STREAM, group, objects)]
    assert all(still.held != "umbrella" and "umbrella" not in still.caption for still in drawn)
