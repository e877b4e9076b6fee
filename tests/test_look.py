"""What the report's page shows beside tables: where the bridge looks, maps, curves, what an extraction yielded and what
failed in it; all of it bounded, and nothing of it a traceback.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from fabricated import CLASSES, write_run
from fakes import FakeEstimator, write_video

from pipeline.errors import PosebridgeError
from pipeline.extract.extract import extract
from pipeline.learn.glimpse import evenly, principal
from pipeline.manifest.clips import Clip, write_clips
from pipeline.methods.base import Features, Shapes
from pipeline.methods.bridge import BridgeLayer
from pipeline.methods.posebridge import PoseBridge
from pipeline.params import ExtractParams
from pipeline.protocol.duplicates import Duplicate
from pipeline.recipe import Recipe
from pipeline.report.answers import NOTHING
from pipeline.report.attention import _attended, box_of_people, read_attention
from pipeline.report.classes import MOST_CLASSES, by_class
from pipeline.report.clip_frames import ClipFrames
from pipeline.report.clip_map import draw_map, read_map
from pipeline.report.epochs import draw_epochs, scores_of
from pipeline.report.extraction import read_extractions, reason_kind, reasons
from pipeline.report.failed import failed_cards, refused
from pipeline.report.gzsl_curves import draw_gzsl, read_curve
from pipeline.report.helped import helped_clips, pictures
from pipeline.report.page import templates
from pipeline.report.repeated import MOST_ROWS, Repeated
from pipeline.report.report import make_report
from pipeline.report.runs import read_runs
from pipeline.skeleton.graph import COCO_17
from pipeline.skeleton.picture import draw_skeleton

pytestmark = pytest.mark.unit
MANIFESTS = Path(__file__).parent.parent / "manifests"
PLACE = Path("skelgap/compositional_30_10")


def features(batch: int = 3) -> tuple[Features, Shapes]:
    rng = torch.Generator().manual_seed(0)
    scores = torch.rand(batch, 1, 4, 2, generator=rng)
    scores[0, 0, 1] = 0  # anchors that have vanished
    cues = torch.randn(batch, 1, 4, 2, 5, generator=rng).half()
    shapes = Shapes(6, 1, cue_frames=4, anchors=("left_hand", "right_hand"), d_cue=5)
    return Features(torch.randn(batch, 256, 8, 17, generator=rng), torch.rand(batch, 1, 2), cues, scores), shapes


def test_attention_is_the_one_that_the_bridge_computes_with() -> None:
    """Its shares, by hand, give what the layer's own fused attention gives."""
    layer = BridgeLayer(8, 2, 0.0).eval()
    q, x = torch.randn(2, 1, 8), torch.randn(2, 5, 8)
    hidden = torch.tensor([[False] * 5, [False, True, True, False, False]])
    looks = layer.looks(q, x, hidden)
    assert looks.sum(1).tolist() == pytest.approx([1, 1]) and looks[1, 1:3].tolist() == [0, 0]
    one = BridgeLayer(8, 1, 0.0).eval()
    value = one.key_value(x).chunk(2, dim=-1)[1]
    by_hand = one.norm(q + one.out(one.looks(q, x, hidden)[:, None] @ value))
    assert torch.allclose(one(q, x, hidden, torch.ones(2, 1)), by_hand, atol=1e-5)


def test_attention_is_by_person_frame_and_anchor_and_nothing_goes_to_what_is_not_seen() -> None:
    shown, shapes = features()
    method = PoseBridge(shapes, 4, {}).eval()
    found = method.attention(shown)
    assert method.attends and found.shape == (3, 1, 4, 2)
    assert (found[0, 0, 1] == 0).all() and (found.flatten(1).sum(1) < 1).all() and (found >= 0).all()
    assert not PoseBridge(shapes, 4, {"bridge": False}).attends and not PoseBridge(shapes, 4, {"cues": False}).attends


def test_a_map_is_the_same_every_time_and_samples_are_even() -> None:
    points = np.random.default_rng(0).normal(size=(40, 7)) * [9, 5, 1, 1, 1, 1, 1]
    found = principal(points)
    assert np.allclose(found, principal(points)) and found.shape == (40, 2) and np.allclose(found.mean(0), 0)
    assert found.var(0)[0] > found.var(0)[1] > 9 and principal(points[:, :1]).shape == (40, 2)
    assert np.allclose(principal(points[::-1])[::-1], found), "an axis has one sign, whatever the order"
    assert evenly(range(1000), 3) == [0, 500, 999] and evenly([1, 2], 3) == [1, 2] and evenly([], 3) == []


@pytest.fixture
def looked(tmp_path: Path) -> Path:
    """Results of two runs with all that `evaluate` leaves for people to look at."""
    root = tmp_path / "results"
    names, labels = ["one", "<b>two</b>"], list(CLASSES)
    for run, method in (("posebridge", "posebridge"), ("skeleton", "skeleton")):
        write_run(root, run, 0.9, 0.6, method=method, tuples=3)
        for place in (root / PLACE / run).iterdir():
            told = json.loads((place / "metrics.json").read_text())
            told["selection"] |= {"scores_by_epoch": [0.2, 0.5, 0.4], "epochs": 2}
            (place / "metrics.json").write_text(json.dumps(told))
            write(place / "gzsl_curve.csv", ["seen,unseen", "1,0", "0.8,0.5", "0,0.9"])
    place = root / PLACE / "posebridge/seed-0"
    rows = [f"{clip},0,{s},{anchor},0.0{s + 1}" for clip in names for s in range(4) for anchor in ("head", "<i>")]
    write(place / "attention.csv", ["clip_id,person,cue_frame,anchor,share", *rows])
    rows = [f"{kind},x,{c},{c / 9},{-c}" for kind in ("clip", "prototype") for c in (0, 1, *labels)]
    write(place / "map.csv", ["kind,clip_id,label,x,y", *rows])
    return root


def write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n")


def test_all_of_it_is_on_the_page_and_names_are_escaped(looked: Path, tmp_path: Path) -> None:
    report = make_report(looked, tmp_path / "report", MANIFESTS)
    assert not report.complaints
    page = report.html.read_text()
    for title in ("Where the bridge looks", "A map of clips and classes", "Accuracy by class", "Seen against unseen",
                  "Training", "Cost against accuracy", "The extraction"):  # fmt: skip
        assert f">{title}" in page, title
    assert "&lt;b&gt;two&lt;/b&gt;" in page and "<b>two" not in page and "&lt;i&gt; 10 %" in page
    assert page.count('<i style="--w:') == 2 * 4 * 2 and "head 10 %" in page and "nothing 80 %" in page
    assert "are not here, so nothing is told of them" in page and "Its video is not here" in page
    pictures = {path.name for path in (tmp_path / "report" / "figures" / PLACE).iterdir()}
    assert {"map.png", "gzsl.png", "epochs.png", "cost.png"} <= pictures


def test_what_no_run_tells_is_left_out_with_a_sentence(tmp_path: Path) -> None:
    write_run(tmp_path / "results", "posebridge", 0.9, 0.6, seeds=(0,), tuples=2, gzsl=None)
    report = make_report(tmp_path / "results", tmp_path / "report", MANIFESTS)
    page = report.html.read_text()
    assert not report.complaints and "There is no map of clips and classes" in page
    assert "Where the bridge looks is not known here" in page and "There is no generalised figure" in page
    for title in (">Where the bridge looks<", "Seen against unseen", ">Training<", "Cost against accuracy"):
        assert title not in page, title


LOOKS, POINTS, BOTH = b"clip_id,person,cue_frame,anchor,share\n", b"kind,label,x,y\n", b"seen,unseen\n"
ODD = {"empty": b"", "nul": b"a\0b", "other": b"a,b\n1,2\n", "words": LOOKS + b"a,x,0,head,1\n",
       "huge": LOOKS + b"a,0,999999999,head,1\n", "long": LOOKS + b"a,0,0," + b"x" * 100 + b",1\n",
       "no number": POINTS + b"clip,1,nan,0\n",
       "far": POINTS + b"clip,1,1e30,0\n", "beyond": BOTH + b"2,0\n", "cell": BOTH + b",0\n"}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_table_is_one_sentence(tmp_path: Path, kind: str) -> None:
    readers: dict[str, Callable[[Path], object]] = {
        "attention.csv": read_attention, "map.csv": read_map, "gzsl_curve.csv": read_curve
    }  # fmt: skip
    for name, read in readers.items():
        path = tmp_path / name
        path.write_bytes(ODD[kind])
        with pytest.raises(PosebridgeError, match=rf"{name} is not as `posebridge evaluate` .*run it again\.$"):
            read(path)


def test_the_page_goes_on_without_what_is_odd(looked: Path, tmp_path: Path) -> None:
    for name in ("attention.csv", "map.csv", "gzsl_curve.csv"):
        (looked / PLACE / "posebridge/seed-0" / name).write_bytes(b"\0")
    report = make_report(looked, tmp_path / "report", MANIFESTS)
    assert len(report.complaints) == 3 and len(report.runs) == 2 and ">Training<" in report.html.read_text()


def test_scores_by_epoch_of_any_kind_are_drawn_or_not(looked: Path) -> None:
    (run, *_) = read_runs(looked)[0]
    assert scores_of(run)[0] == ([0.2, 0.5, 0.4], 2) and draw_epochs([run]) is not None
    for odd in ([], "x", [0.5, None], [float("nan")], [7.0], [[0.5]], [0.1] * 10**4):
        for result in run.results:
            result.selection["scores_by_epoch"] = odd
        assert scores_of(run) == {} and draw_epochs([run]) is None


def test_curves_and_maps_are_of_many_runs_and_classes_at_most(looked: Path) -> None:
    runs = read_runs(looked)[0]
    figure = draw_gzsl(runs * 30)
    assert figure is not None and len(figure.axes[0].get_legend_handles_labels()[1]) == 8
    points = pd.DataFrame({"kind": "clip", "label": range(500), "x": 0.0, "y": 1.0})
    (axes,) = draw_map(points, range(100, 500), []).axes
    assert len(axes.get_legend_handles_labels()[1]) <= 4, "not a colour for each of 400 classes"


def test_accuracy_by_class_is_of_the_confusion_and_of_a_bounded_number_of_classes() -> None:
    names = [f"class {i}" for i in range(200)]
    right = pd.DataFrame(np.diag(np.arange(200)), names, names)
    right.iloc[0, 1] = 1
    wrong = pd.DataFrame(np.roll(right.to_numpy(), 1, 1), names, names)
    table, in_all = by_class({"good": right, "bad": wrong})
    assert (len(table), in_all) == (MOST_CLASSES, 200) and list(table) == ["class", "answers", "good", "bad"]
    assert table.iloc[0].tolist() == ["class 0", "1", "0.0", "0.0"] and table.iloc[1].good == "100.0"
    assert by_class({}) [1] == 0
    table, _ = by_class(dict.fromkeys(("class", "answers", "posebridge"), right))
    assert list(table) == ["class", "answers", "run class", "run answers", "posebridge"]


def extract_toy(root: Path, videos: Path) -> None:
    recipe = Recipe(backend="mmpose", weights="fake", persons=1, frames=8, cue_frames=4, weights_sha256="0" * 64)
    extract("toy", "toyish", recipe, videos, params=ExtractParams(), build_estimator=lambda recipe: FakeEstimator(),
            manifests=root / "manifests", cache=root / "cache")  # fmt: skip


@pytest.fixture
def extracted(tmp_path: Path) -> Path:
    """A project of four clips, of which one is no video, and one is empty."""
    root = tmp_path / "project"
    write_video(root / "videos/a.mp4", frames=12)
    write_video(root / "videos/b.mp4", frames=12, offset=90)
    (root / "videos/bad.mp4").write_text("no video")
    (root / "videos/gone.mp4").touch()
    clips = [Clip(name, f"{name}.mp4", part=part, label=0) for name, part in
             (("a", "train"), ("b", "test"), ("bad", "test"), ("gone", "test"))]  # fmt: skip
    write_clips(root / "manifests/toy/clips.csv", clips)
    (root / "manifests/toy/classes.csv").write_text("index,name\n0,wave\n")
    odd = [f"skeleton,n{i}<b>{'n' * 9999},odd" for i in range(50)]
    write(root / "manifests/toy/missing.csv", ["kind,name,reason", *odd])
    extract_toy(root, root / "videos")
    return root


def test_an_extraction_is_counted_and_its_failures_have_reasons_and_cards(extracted: Path, tmp_path: Path) -> None:
    found, complaints = read_extractions(extracted / "cache", None, "toy", {"toyish": 0, "absent": None})
    (one,) = found
    assert not complaints and one.clips == 2 and not one.sampled and len(one.failures) == 2
    assert one.cells["failed"] == "2" and one.cells["persons a frame"] == "1.00" and one.cells["mean keypoint score"]
    assert reasons(found)["clips"].astype(int).sum() == 2
    frames = ClipFrames(extracted / "videos", extracted / "manifests", {"toy": extracted / "videos"})
    cards = failed_cards(found, tmp_path, frames)
    assert {card.title for card in cards} == {"bad", "gone"} and all(card.note for card in cards)
    table, in_all = refused(extracted / "manifests/toy")
    assert (len(table), in_all) == (40, 50) and max(map(len, table.name)) < 250
    (extracted / "cache/toy/toyish/index.json").write_text("{")
    (sentence,) = read_extractions(extracted / "cache", None, "toy", {"toyish": None})[1]
    assert "index.json" in sentence


def test_failures_are_counted_by_reason_without_their_numbers() -> None:
    told = [{"clip_id": str(i), "stage": "decode", "reason": f"frame {i} of 1,0{i}0 is damaged"} for i in range(300)]
    assert len({reason_kind(failure) for failure in told}) == 1


def test_frames_have_the_joints_that_the_extraction_saw_in_them(tmp_path: Path) -> None:
    write_video(tmp_path / "videos/toy/a.mp4", frames=12, size=(64, 48))
    clips = [Clip("a", "a.mp4", part="train", label=0)]
    write_clips(tmp_path / "manifests/toy/clips.csv", clips)
    extract_toy(tmp_path, tmp_path / "videos/toy")
    frames = ClipFrames(tmp_path / "videos", tmp_path / "manifests", cache=tmp_path / "cache")
    plain, drawn = (frames("toy", "", ["a"], 2, name)["a"] for name in ("", "toyish"))
    assert plain.shape == drawn.shape == (2, 48, 64, 3)
    assert plain.max() < 100 < 250 < drawn.max(), "white joints in dark frames"
    assert frames("toy", "", ["a"], 2, "never")["a"].shape == (2, 48, 64, 3), "without an extraction without joints"
    shown = frames.cue_frames("toy", "a", "toyish")
    assert shown is not None and len(shown[0]) == 4
    x, y, width, height = box_of_people(shown[1], 48, 64)
    assert 0 <= x < x + width <= 64 and 0 <= y < y + height <= 48
    assert frames.cue_frames("toy", "b", "toyish") is None is frames.cue_frames("toy", "a", "never")
    first = SimpleNamespace(run="posebridge", dataset="toy", recipe="toyish")
    run = SimpleNamespace(first=first, results=[SimpleNamespace(answers=NOTHING)])
    looks = _attended(run, "a", {(0, 1, "head"): 0.5}, [], tmp_path / "strip.jpg", frames)  # type: ignore[arg-type]
    assert looks.frames == 4 and looks.strip is not None and looks.shares == {"head": (0, 0.5, 0, 0)}, "none after it"


def test_joints_far_beyond_any_picture_are_drawn_without_a_word() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    with warnings.catch_warnings(action="error"):
        draw_skeleton(picture, np.full((17, 2), 1e30, np.float32), np.ones(17), COCO_17, (1, 2, 3), 1)
    assert not picture.any()


def test_of_thousands_of_repeated_clips_the_page_has_the_first() -> None:
    many = Repeated("fast", (Duplicate("test/a", "train/a", "same video", 0.0, 0, 0),) * 20_000, (), ("wave",))
    text = templates().get_template("repeated.html").render(section=SimpleNamespace(repeated=[many]))
    assert len(text) < 100_000 and f"The table has the first {MOST_ROWS} pairs" in text and "20000 test clips" in text


def test_attention_is_drawn_on_clips_that_cues_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "results"
    write_run(root, "posebridge", 0.9, 0.6, seeds=(0,), tuples=3)
    write_run(root, "skeleton", 0.3, 0.1, seeds=(0,), method="skeleton", tuples=3)
    found = {run.first.run: run for run in read_runs(root / "skelgap")[0]}
    cued, plain = found["posebridge"], found["skeleton"]
    table = helped_clips(plain, cued, [])[:2]
    one, other = table.clip_id
    place = root / PLACE / "posebridge/seed-0/attention.csv"
    write(place, ["clip_id,person,cue_frame,anchor,share", f"{one},0,0,left_hand,0.9", f"{one},0,1,left_hand,0.1"])
    row = {"cue_frame": np.array([0, 1]), "keypoints": np.full((1, 2, 17, 2), 30.0), "scores": np.zeros((1, 2, 17)),
           "person_valid": np.ones((1, 2), bool)}  # fmt: skip
    frames_of = ClipFrames(tmp_path, tmp_path)
    monkeypatch.setattr(frames_of, "cue_frames", lambda *_: (np.zeros((2, 48, 64, 3), np.uint8), row))
    grey = np.zeros((2, 9, 9, 3), np.uint8)
    monkeypatch.setattr(ClipFrames, "__call__", lambda self, d, v, clips, n, r: dict.fromkeys(clips, grey))
    drawn, bare = pictures(table, (plain, cued), [], frames_of)
    assert drawn.note.startswith(one) and bare.note.startswith(other) and bare.frames.shape == (2, 9, 9, 3)
    lit = [frame.any(-1).sum() for frame in drawn.frames]
    assert drawn.frames.shape == (2, 48, 64, 3) and lit[0] > lit[1] > 0, "the more attention, the larger a circle"
    place.write_bytes(b"\0")
    assert [each.frames.shape for each in pictures(table, (plain, cued), [], frames_of)] == [(2, 9, 9, 3)] * 2


def test_what_a_protocol_keeps_together_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "manifests/skelgap"
    (folder / "protocols").mkdir(parents=True)
    names = [f"class {i}" for i in range(40)]
    write(folder / "classes.csv", ["index,name", *(f"{i},{name}" for i, name in enumerate(names))])
    for end, few in (("", CLASSES), (".val", range(3))):
        write(folder / f"protocols/shoot_1{end}.txt", [f"{i} {names[i]}" for i in few])
    shoots = [f"{i},a,b,{'<x>' if i < 38 else i}" for i in range(40)]
    write(folder / "attributes.csv", ["index,motion,object,shoot", *shoots])
    root = tmp_path / "results"
    write_run(root, "posebridge", 0.9, 0.6, seeds=(0,), tuples=2)
    (root / PLACE).rename(root / "skelgap/shoot_1")
    told = root / "skelgap/shoot_1/posebridge/seed-0/metrics.json"
    told.write_text(told.read_text().replace("compositional_30_10", "shoot_1"))
    grey = lambda d, v, clips, n, r: {c: np.full((n, 30, 90, 3), 99, np.uint8) for c in clips}  # noqa: E731
    report = make_report(root, tmp_path / "report", tmp_path / "manifests", frames_of=grey)
    page = report.html.read_text()
    assert not report.complaints and "10 unseen classes are of 3 values, 2 of which have one class here" in page
    assert "shoot &lt;x&gt;" in page and "class 30, class 31, class 32, class 33 and 4 more" in page
    assert (tmp_path / "report/figures/skelgap/shoot_1/together-3.jpg").is_file()
    write(folder / "attributes.csv", ["index,motion,object,shoot", "x,a,b,c"])
    report = make_report(root, tmp_path / "report", tmp_path / "manifests")
    assert "attributes.csv" in report.complaints[0] and "unseen together" not in report.html.read_text()
