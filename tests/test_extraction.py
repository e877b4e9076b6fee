"""Stage one with a fake pose model: what is estimated when, and what lands in the cache."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from fakes import FakeEstimator, write_odd, write_video

from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.extract.extract import extract
from pipeline.extract.ground_truth import GroundTruth, ground_truth_rows
from pipeline.files.memory import keep_freed_memory
from pipeline.ingest.ingest import ingest
from pipeline.manifest.clips import Clip, read_clips, write_clips
from pipeline.params import ExtractParams
from pipeline.recipe import Recipe
from pipeline.skeleton.unseen import repeat_last_valid
from pipeline.video.decode import Video
from pipeline.video.record import ClipRecord
from stages.cli import main
from stages.extract import warn_of_few_frames

RECIPE = Recipe(frames=8, cue_frames=4, weights_sha256="0" * 64)


class Corridor:
    """A data set of little videos, and runs over it."""

    def __init__(self, folder: Path, videos: int = 6, recipe: Recipe = RECIPE):
        self.folder, self.root, self.recipe = folder, folder / "videos", recipe
        self.index = folder / "cache/d/r/index.json"
        for i in range(videos):
            write_video(self.root / f"{i}.mp4", offset=7 * i)
        if videos:
            self.ingest()

    @classmethod
    def over(cls, folder: Path) -> Corridor:
        """One that another process has made."""
        return cls(folder, videos=0)

    def ingest(self) -> None:
        ingest("d", self.root, manifests=self.folder / "manifests")

    def edit_clips(self, edit) -> None:
        path = self.folder / "manifests/d/clips.csv"
        write_clips(path, edit(read_clips(path)))

    def run(
        self,
        estimator: FakeEstimator | None = None,
        batch_size: int = 5,
        clips_per_shard: int = 3,
        build: Callable[[Recipe], FakeEstimator] | None = None,
        **options,
    ):
        self.estimator = estimator or FakeEstimator()
        return extract(
            "d",
            "r",
            self.recipe,
            self.root,
            params=ExtractParams(batch_size=batch_size, clips_per_shard=clips_per_shard),
            build_estimator=build or (lambda recipe: self.estimator),
            manifests=self.folder / "manifests",
            cache=self.folder / "cache",
            **options,
        )

    def reader(self) -> CacheReader:
        return CacheReader(self.index)


@pytest.fixture
def corridor(tmp_path):
    return Corridor(tmp_path)


@pytest.mark.e2e
def test_rows_hold_what_the_pose_model_saw_in_the_sampled_frames(corridor):
    result = corridor.run()
    assert (result.clips, result.estimated, result.failures) == (6, 6, ())
    assert corridor.estimator.crops == 6 * 8 and corridor.estimator.calls == 6 * 8 // 5 + 2, "batches fill across clips"
    with corridor.reader() as reader:
        batch = reader.read(["3", "0"], reader.names)
    for i, offset in enumerate((21, 0)):
        seen = offset + 5 * np.array([1, 3, 6, 8, 11, 13, 16, 18])
        assert batch["frame_index"][i].tolist() == [1, 3, 6, 8, 11, 13, 16, 18]
        assert batch["timestamp"][i] == pytest.approx(batch["frame_index"][i] / 25)
        assert batch["cue_frame"][i].tolist() == [1, 3, 5, 7]
        assert batch["cues"][i, 0, :, 0, 0] == pytest.approx(seen[[1, 3, 5, 7]], abs=3)
        # The fake's keypoint lies at the crop's centre, 1/256 of a crop pixel lower for each step of brightness; the
        # box is the frame, 64 x 48, so the crop of 24 x 32 shows 80 pixels across.
        assert batch["keypoints"][i, 0, :, 0, 0] == pytest.approx(32, abs=1e-3)
        assert batch["keypoints"][i, 0, :, 0, 1] == pytest.approx(24 + seen / 256 * 80 / 24, abs=0.05)
    assert (batch["boxes"][0, 0] == [0, 0, 64, 48]).all() and batch["person_valid"].all()
    assert (batch["video_frames"] == 20).all() and batch["video_width"].tolist() == [64, 64]
    with corridor.reader() as reader:
        assert reader.record("3") == ClipRecord("mov,mp4,m4a,3gp,3g2,mj2", distinct=8, available=20)


@pytest.mark.e2e
def test_batch_size_does_not_change_the_result(corridor, tmp_path):
    corridor.run(batch_size=1)
    shutil.copytree(corridor.root, tmp_path / "other" / "videos")
    other = Corridor(tmp_path / "other", videos=0)
    other.ingest()
    other.run(batch_size=64)
    assert corridor.index.read_bytes() == other.index.read_bytes()


@pytest.mark.fault
def test_one_unreadable_video_is_one_failure_and_is_tried_again_when_it_can_be_read(corridor, monkeypatch):
    real = os.open

    def refuse(path, *rest, **options):
        if str(path).endswith("2.mp4"):
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **options)

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.files.plain_file.os.open", refuse)
        result = corridor.run()
    assert result.clips == 5 and [(f.clip_id, f.stage) for f in result.failures] == [("2", "open")]
    assert "Permission denied" in result.failures[0].reason
    assert corridor.run().clips == 6 and corridor.run().failures == ()


@pytest.mark.e2e
def test_a_second_run_does_nothing_and_leaves_the_index_alone(corridor):
    assert corridor.run().changed
    before, stamp = corridor.index.read_bytes(), corridor.index.stat().st_mtime_ns
    result = corridor.run()
    assert not result.changed and result.estimated == 0 and corridor.estimator.calls == 0
    assert (corridor.index.read_bytes(), corridor.index.stat().st_mtime_ns) == (before, stamp)
    corridor.edit_clips(lambda clips: [dataclasses.replace(c, label=None, subject="x", part="test") for c in clips])
    assert not corridor.run().changed, "labels and splits are no business of the cache"
    shutil.rmtree(corridor.root)
    assert not corridor.run().changed, "what is in the cache needs no video"


@pytest.mark.e2e
def test_one_more_video_costs_one_video(corridor):
    corridor.run()
    with corridor.reader() as reader:
        before = reader.read(reader.clip_ids, ["keypoints", "cues"])
        ids = reader.clip_ids
    write_video(corridor.root / "new.mp4", offset=99)
    corridor.ingest()
    result = corridor.run()
    assert result.estimated == 1 and corridor.estimator.crops == 8 and result.clips == 7
    with corridor.reader() as reader:
        after = reader.read(ids, ["keypoints", "cues"])
    assert all((before[name] == after[name]).all() for name in before)


@pytest.mark.e2e
def test_a_changed_video_is_noticed_and_a_touched_one_is_not_estimated(corridor):
    corridor.run()
    (corridor.root / "1.mp4").touch()
    assert corridor.run().estimated == 0, "a new time stamp alone is no change"
    write_video(corridor.root / "2.mp4", offset=100)
    result = corridor.run()
    assert result.estimated == 1 and corridor.estimator.crops == 8 and result.changed
    write_video(corridor.root / "3.mp4", frames=10)  # not what ingest saw
    result = corridor.run()
    assert [f.clip_id for f in result.failures] == ["3"] and "changed since ingest" in result.failures[0].reason
    corridor.ingest()
    assert corridor.run().failures == (), "ingest again is the remedy"


@pytest.mark.e2e
def test_a_removed_clip_leaves_the_cache_without_estimating(corridor):
    corridor.run()
    corridor.edit_clips(lambda clips: clips[1:])
    result = corridor.run()
    assert (result.clips, result.estimated, corridor.estimator.calls) == (5, 0, 0) and result.changed


@pytest.mark.e2e
def test_segments_of_one_video_are_decoded_in_one_pass(tmp_path, monkeypatch):
    opened = []
    from pipeline.extract import stream

    real = stream.open_video
    monkeypatch.setattr(stream, "open_video", lambda path, *rest: opened.append(path.name) or real(path, *rest))
    corridor = Corridor.over(tmp_path)
    write_video(corridor.root / "long.mp4", frames=49, keyframe_every=7)
    write_clips(
        tmp_path / "manifests/d/clips.csv",
        [
            Clip("b", "long.mp4", 0.4, 1.04),
            Clip("a", "long.mp4", 0.0, 0.32),
            Clip("overlap", "long.mp4", 0.0, 1.6),
            Clip("late", "long.mp4", 7.0, 8.0),
            Clip("beyond", "long.mp4", 1.64, 99.0),
        ],
    )
    result = corridor.run()
    assert opened == ["long.mp4"]
    assert [(f.clip_id, f.stage) for f in result.failures] == [("late", "sample")]
    with corridor.reader() as reader:
        batch = reader.read(["a", "b", "overlap", "beyond"], ["frame_index", "cues"])
    assert batch["frame_index"][0].tolist() == list(range(8))
    assert batch["frame_index"][1].tolist() == [11, 13, 15, 17, 19, 21, 23, 25]
    assert batch["frame_index"][3].tolist() == list(range(41, 49)), "cut at the end of the video"
    frames = np.take_along_axis(batch["frame_index"], np.array([[1, 3, 5, 7]]), 1)
    assert batch["cues"][:, 0, :, 0, 0] == pytest.approx(5 * frames % 250, abs=3)


@pytest.mark.e2e
def test_a_clip_shorter_than_t_repeats_frames_and_estimates_each_once(corridor):
    write_video(corridor.root / "short.mp4", frames=3)
    corridor.ingest()
    corridor.edit_clips(lambda clips: [c for c in clips if c.clip_id == "short"])
    corridor.run()
    assert corridor.estimator.crops == 3
    with corridor.reader() as reader:
        assert reader.read(["short"], ["frame_index"])["frame_index"].tolist() == [[0, 0, 0, 1, 1, 2, 2, 2]]


class Blind(FakeEstimator):
    """Sees no joint in dark crops, and gives numbers that are none there."""

    def estimate(self, crops, cue_rows):
        answer = super().estimate(crops, cue_rows)
        dark = crops[:, 16, 12, 0] < 50
        answer.scores[dark] = 0
        answer.keypoints[dark] = np.nan
        answer.scores[~dark] = 7.0  # SimCC maxima have no upper bound
        return answer


@pytest.mark.e2e
def test_keypoints_are_finite_and_scores_between_0_and_1(corridor):
    corridor.run(Blind())
    with corridor.reader() as reader:
        batch = reader.read(["0"], ["keypoints", "scores", "person_valid"])
    assert np.isfinite(batch["keypoints"]).all()
    assert batch["person_valid"][0, 0].tolist() == [False] * 4 + [True] * 4
    assert (batch["keypoints"][0, 0, :4] == [32, 24]).all(), "before a joint was ever seen: the centre of the box"
    assert set(np.unique(batch["scores"])) == {0, 1}


@pytest.mark.unit
@pytest.mark.parametrize("wrong", [{"backend": "ground_truth"}, {"backend": "import"}, {"layout": "ntu25"}])
def test_a_recipe_that_cannot_be_followed_is_refused(corridor, wrong):
    corridor.recipe = dataclasses.replace(RECIPE, **wrong)
    with pytest.raises(PosebridgeError, match="recipe"):
        corridor.run()
    assert not (corridor.folder / "cache").exists()


@pytest.mark.unit
def test_planning_loads_neither_the_detector_nor_what_reads_videos():
    heavy = ("av", "cv2", "onnx", "onnxruntime", "torch")
    code = f"import sys, pipeline.extract.plan; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.unit
def test_freed_memory_is_kept_where_the_c_library_is_able_to(monkeypatch):
    told = []
    monkeypatch.setattr("ctypes.CDLL", lambda name: SimpleNamespace(mallopt=lambda *option: told.append(option)))
    keep_freed_memory()
    assert told == [(-1, 1 << 30), (-3, 1 << 30)]
    monkeypatch.setattr("ctypes.CDLL", lambda name: SimpleNamespace())
    keep_freed_memory()


@pytest.mark.unit
def test_an_unseen_joint_repeats_its_last_place():
    keypoints = np.arange(8, dtype=np.float32).reshape(1, 4, 1, 2)
    repeat_last_valid(keypoints, np.array([0, 1, 0, 1.0]).reshape(1, 4, 1), np.tile([0, 0, 10, 20.0], (1, 4, 1)))
    assert keypoints[0, :, 0].tolist() == [[5, 10], [2, 3], [2, 3], [6, 7]]


def write_ground_truth(root: Path, ids: list[str], frames: int = 20) -> np.ndarray:
    keypoints = np.random.default_rng(0).uniform(0, 48, (len(ids), frames, 17, 2)).astype("f4")
    low, high = keypoints.min(2), keypoints.max(2)
    with h5py.File(root / "ground_truth.h5", "w") as file:
        file["clip_id"] = ids
        file["keypoints"] = keypoints
        file["visible"] = np.ones(keypoints.shape[:3], bool)
        file["boxes"] = np.concatenate([low, high - low], -1)
    return keypoints


@pytest.mark.e2e
def test_ground_truth_goes_through_the_same_store(tmp_path):
    corridor = Corridor(tmp_path, recipe=Recipe(backend="ground_truth", cues="none", frames=8, boxes="manifest"))
    with pytest.raises(PosebridgeError, match="posebridge synth"):
        corridor.run()
    truth = write_ground_truth(corridor.root, list("543210"))
    result = corridor.run()
    assert (result.clips, corridor.estimator.calls) == (6, 0)
    with corridor.reader() as reader:
        batch = reader.read(["1"], ["keypoints", "scores", "frame_index", "timestamp"])
        assert "cues" not in reader.names and reader.record("1") is None
    assert (batch["keypoints"][0, 0] == truth[4, [1, 3, 6, 8, 11, 13, 16, 18]]).all() and (batch["scores"] == 1).all()
    assert batch["frame_index"].tolist() == [[1, 3, 6, 8, 11, 13, 16, 18]]
    assert corridor.run().changed is False


@pytest.mark.unit
def test_the_true_skeletons_of_a_clip_without_a_rate_and_at_its_end(tmp_path):
    write_ground_truth(tmp_path, ["a"])
    truth = GroundTruth(tmp_path / "ground_truth.h5")
    assert all((truth.box("a", position) == truth.boxes[0, 19]).all() for position in (19, 99))
    with pytest.raises(PosebridgeError, match="knows no clip 'b'; make it again"):
        truth.row("b")
    recipe = Recipe(backend="ground_truth", cues="none", frames=4, persons=2)
    (row,) = ground_truth_rows([Clip("a", "a.mp4")], truth, recipe)
    assert row["timestamp"] == pytest.approx(np.array([2, 7, 12, 17]) / 25) and row["track_id"].tolist() == [0, -1]


@pytest.mark.fault
def test_a_segment_without_a_true_skeleton_is_a_failure(tmp_path):
    corridor = Corridor(tmp_path, videos=2, recipe=Recipe(backend="ground_truth", cues="none", frames=8))
    write_ground_truth(corridor.root, list("01"))
    corridor.edit_clips(lambda clips: [clips[0], dataclasses.replace(clips[1], start=5.0)])
    result = corridor.run()
    assert result.clips == 1 and [(f.clip_id, f.stage) for f in result.failures] == [("1", "sample")]


@pytest.mark.fault
@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.__delitem__("boxes"),
        lambda file: replaced(file, "keypoints", np.ones(3)),
        lambda file: replaced(file, "keypoints", np.ones((6, 20, 17, 3))),
        lambda file: replaced(file, "keypoints", np.full((6, 20, 17, 2), np.nan)),
        lambda file: replaced(file, "boxes", np.ones((6, 19, 4))),
        lambda file: replaced(file, "boxes", ["a", "b"]),
        lambda file: replaced(file, "clip_id", "0"),
        lambda file: replaced(file, "clip_id", list("01")),
        lambda file: replaced(file, "clip_id", None),
        lambda file: (file.__delitem__("boxes"), file.create_dataset("boxes", (6, 10**12, 4), "f4", chunks=(1, 64, 4))),
    ],
)
def test_an_odd_file_of_true_skeletons_is_one_sentence(tmp_path, change):
    corridor = Corridor(tmp_path, videos=1, recipe=Recipe(backend="ground_truth", cues="none", frames=8))
    write_ground_truth(corridor.root, list("012345"))
    with h5py.File(corridor.root / "ground_truth.h5", "r+") as file:
        change(file)
    with pytest.raises(PosebridgeError, match="is not a ground truth file.*posebridge synth"):
        corridor.run()


def replaced(file: h5py.File, name: str, values) -> None:
    del file[name]
    if values is None:
        file.create_group(name)
    else:
        file[name] = values


@pytest.mark.e2e
def test_boxes_from_the_manifest(tmp_path):
    corridor = Corridor(tmp_path, recipe=dataclasses.replace(RECIPE, boxes="manifest"))
    truth = write_ground_truth(corridor.root, list("012345"))
    corridor.run()
    with corridor.reader() as reader:
        boxes = reader.read(["2"], ["boxes"])["boxes"][0, 0]
    joints = truth[2, [1, 3, 6, 8, 11, 13, 16, 18]]
    assert boxes == pytest.approx(np.concatenate([joints.min(1), np.ptp(joints, axis=1)], -1), abs=1e-4)
    with h5py.File(corridor.root / "ground_truth.h5", "r+") as file:
        file["boxes"][2] += 1
    assert corridor.run().estimated == 1, "the one clip whose boxes have changed"
    with h5py.File(corridor.root / "ground_truth.h5", "r+") as file:
        file["boxes"][4] = 0
    result = corridor.run()
    assert result.clips == 5 and [(f.clip_id, f.stage) for f in result.failures] == [("4", "track")]


@pytest.mark.e2e
def test_the_command_gives_what_the_function_gives(corridor, monkeypatch, tmp_path):
    from stages import extract as stage

    corridor.run()
    params = tmp_path / "params.yaml"
    params.write_text(
        f"datasets: {{d: {{root: {corridor.root}}}}}\nextract: {{batch_size: 5, clips_per_shard: 3}}\n"
        "recipes: {r: {frames: 8, cue_frames: 4}}\n"
    )
    monkeypatch.setattr(
        "pipeline.hpe.weights.resolve_weights", lambda r: dataclasses.replace(r, weights_sha256="0" * 64)
    )
    monkeypatch.setattr(stage, "build_estimator", lambda recipe: FakeEstimator())
    options = [
        "--manifests",
        str(tmp_path / "manifests"),
        "--params",
        str(params),
        "--cache",
        str(tmp_path / "other"),
        "--json",
    ]
    result = CliRunner().invoke(stage.command, ["--dataset", "d", "--recipe", "r", *options])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["clips"] == 6
    assert (tmp_path / "other/d/r/index.json").read_bytes() == corridor.index.read_bytes()
    (corridor.root / "1.mp4").write_text("broken now")
    result = CliRunner().invoke(stage.command, ["--dataset", "d", "--recipe", "r", *options])
    assert result.exit_code == 1 and "--max-failures 0" in result.stderr and "'1'" in result.stderr
    result = CliRunner().invoke(stage.command, ["--dataset", "d", "--recipe", "r", "--max-failures", "1", *options])
    assert result.exit_code == 0


@pytest.mark.e2e
def test_few_different_frames_are_a_warning_with_the_clips_name(corridor, monkeypatch):
    """In the result, from `extract`, and in the table and the JSON of `cache stats`, with what else was odd."""
    write_video(corridor.root / "turned.mp4", rotation=90)
    corridor.ingest()
    assert corridor.run().few_frames == ()
    shutil.rmtree(corridor.folder / "cache")
    monkeypatch.setattr(Video, "sample", lambda video, count, *segment: np.zeros(count, np.int32))
    result = corridor.run()
    assert sorted(result.few_frames) == ["0", "1", "2", "3", "4", "5", "turned"]
    options = ["cache", "stats", "--dataset", "d", "--recipe", "r", "--cache", str(corridor.folder / "cache")]
    values = json.loads(CliRunner().invoke(main, [*options, "--json"]).stdout)["videos"]
    assert (values["few_frames"], values["few_frames_first"]) == (7, ["0", "1", "2", "3", "4"])
    assert (values["clips_of_videos"], values["mirrored_or_turned"], values["lost_packets"]) == (7, 1, 0)
    assert values["orientations"] == {"rotate90": 1} and values["containers"] == {"mov,mp4,m4a,3gp,3g2,mj2": 7}
    table = CliRunner().invoke(main, options).stdout
    assert values["timing"] == values["tone"] == {} and "stamps" not in table
    assert "rotate90" in table and "first '0', '1'" in table and "{" not in table
    lines = [line for line in table.splitlines() if not line.startswith("Warning")]
    assert len({re.match(r" *\S.*?\s{2,}", line).end() for line in lines}) == 1, "columns"


@pytest.mark.e2e
def test_packets_that_are_lost_on_the_way_are_in_the_record(corridor, monkeypatch):
    frames = Video.frames

    def lossy(video, positions):
        for found in frames(video, positions):
            video.record.lost += 1
            yield found

    monkeypatch.setattr(Video, "frames", lossy)
    corridor.run()
    with corridor.reader() as reader:
        assert [reader.record(clip_id).lost for clip_id in reader.clip_ids] == [8] * 6


@pytest.mark.unit
def test_the_warning_names_a_few_and_counts_all(capsys):
    warn_of_few_frames([f"clip{i}" for i in range(9)])
    said = capsys.readouterr().err
    assert "9 ('clip0', 'clip1', 'clip2', ...)" in said and said.count("\n") == 1
    warn_of_few_frames([])
    assert not capsys.readouterr().err


@pytest.mark.e2e
def test_the_rows_of_odd_videos_depend_on_no_batch_and_no_other_clip(tmp_path):
    """Mirrored, of pixels twice as wide as high, and of two sizes: alone, together, in batches of 1 and 64."""
    rows = {}
    for name, batch_size in (("one", 1), ("many", 64)):
        corridor = Corridor(tmp_path / name, videos=0)
        write_odd(corridor.root)
        corridor.ingest()
        corridor.run(batch_size=batch_size)
        with corridor.reader() as reader:
            for clip_id in reader.clip_ids:
                row = reader.read([clip_id], reader.names)
                rows.setdefault(clip_id, []).append((row, reader.record(clip_id)))
    for clip_id in list(rows):
        corridor = Corridor(tmp_path / f"only-{clip_id}", videos=0)
        write_odd(corridor.root)
        for path in corridor.root.iterdir():
            if path.stem != clip_id:
                path.unlink()
        corridor.ingest()
        corridor.run()
        with corridor.reader() as reader:
            rows[clip_id].append((reader.read([clip_id], reader.names), reader.record(clip_id)))
    assert len(rows) == 3
    for clip_id, ((first, record), *others) in rows.items():
        for row, other in others:
            assert other == record
            assert all(np.array_equal(row[name], first[name], equal_nan=True) for name in row), clip_id
    assert rows["mirrored"][0][1].orientation == "hflip"
    assert rows["wide"][0][1].pixel_aspect == 2 and rows["wide"][0][0]["video_width"].tolist() == [128]
    assert rows["two"][0][1].size_changes == 4 and rows["two"][0][0]["video_width"].tolist() == [64]


class TwoAtATime(FakeEstimator):
    """Takes two calls at a time, and answers the second before the first; of the calls `lost` it knows no number."""

    at_once = 2

    def __init__(self, lost: tuple[int, ...] = ()):
        super().__init__()
        self.lost, self.now, self.most = lost, 0, 0
        self._lock, self._second = threading.Lock(), threading.Event()

    def estimate(self, crops: np.ndarray, cue_rows: np.ndarray):
        with self._lock:
            call, found = self.calls, super().estimate(crops, cue_rows)
            self.now += 1
            self.most = max(self.most, self.now)
        if call == 0:
            self._second.wait(20)
        if call in self.lost:
            found.keypoints[:] = np.nan
        with self._lock:
            self.now -= 1
        if call == 1:
            self._second.set()
        return found


@pytest.mark.e2e
def test_a_pose_model_that_takes_two_batches_is_given_two_and_rows_are_the_same(corridor, tmp_path):
    corridor.run()
    shutil.copytree(corridor.root, tmp_path / "other" / "videos")
    other = Corridor(tmp_path / "other", videos=0)
    other.ingest()
    other.run(TwoAtATime())
    assert other.estimator.most == 2
    assert corridor.index.read_bytes() == other.index.read_bytes()


@pytest.mark.e2e
def test_of_two_batches_the_first_says_whether_a_pose_model_knows_any_number(corridor):
    """Also where the second is answered before it: here nothing is known of that one's crops."""
    assert len(corridor.run(TwoAtATime(lost=(1,)), batch_size=8, clips_per_shard=100).failures) == 1


@pytest.mark.e2e
def test_a_first_batch_without_a_number_ends_the_run_whatever_the_second_has(corridor):
    with pytest.raises(PosebridgeError, match="gives no finite number for any of its first 8 crops"):
        corridor.run(TwoAtATime(lost=(0,)), batch_size=8, clips_per_shard=100)
