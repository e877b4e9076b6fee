"""The measurements of stage one: that they measure, not how fast this machine is."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace

import pytest
from click.testing import CliRunner
from fakes import FakeEstimator
from test_extraction import RECIPE, Corridor

from pipeline.bench.cache import bench_cache
from pipeline.bench.extract import bench_extract
from pipeline.bench.memory import bench_memory
from pipeline.bench.ways import bench_ways
from pipeline.errors import PosebridgeError
from pipeline.manifest.clips import read_clips
from pipeline.params import ExtractParams
from pipeline.video.decode import Video
from pipeline.video.noise import write_again, write_noise
from stages.cli import main


@pytest.mark.e2e
def test_extraction_is_measured_on_the_same_clips(tmp_path):
    corridor, estimator = Corridor(tmp_path), FakeEstimator()
    clips = read_clips(tmp_path / "manifests/d/clips.csv")
    params = ExtractParams(batch_size=5)
    result = bench_extract(clips, corridor.root, RECIPE, estimator, tmp_path / "bench", params, rounds=2)
    assert (result.clips, result.crops) == (6, 48)
    assert estimator.crops == 8 + 2 * 4 * 48, "a first clip; forward alone, with cues and without, and the extraction"
    assert 0 < result.ratio_least <= result.ratio <= result.ratio_most and result.boxes_seconds == 0
    assert result.cpu_ratio > 0 and result.cues_least <= result.cues_most and result.cues_cpu_share > -1
    once = bench_extract(clips[:1], corridor.root, RECIPE, estimator, tmp_path / "once", params, rounds=1)
    alone = once.decode_seconds + once.boxes_seconds + once.forward_seconds
    assert once.ratio == pytest.approx(once.wall_seconds / alone) == once.ratio_least
    cache = bench_cache(tmp_path / "bench/0/bench/bench/index.json", batch=2, rounds=1)
    assert cache.clips == 6 and cache.bytes_per_clip == 8 * 17 * (8 + 2) + 4 * 6 * (8 * 2 + 2)


@pytest.mark.e2e
def test_what_cannot_be_measured_is_one_sentence(tmp_path):
    corridor, params = Corridor(tmp_path, videos=1), ExtractParams()
    clips = read_clips(tmp_path / "manifests/d/clips.csv")
    (corridor.root / "0.mp4").write_text("no video")
    for listed, said in ((clips, r"clip 0 cannot be measured .*--clips\.$"), ([], r"no clip to measure.*ingest`\.$")):
        with pytest.raises(PosebridgeError, match=said):
            bench_extract(listed, corridor.root, RECIPE, FakeEstimator(), tmp_path / "bench", params)
    corridor.run()
    with pytest.raises(PosebridgeError, match=r"index.json has no clip to read.*cache stats`\.$"):
        bench_cache(corridor.index)
    done = CliRunner().invoke(main, ["bench", "memory", "--frames", "10", "--factor", "2", "--limit", "nan"])
    assert done.exit_code == 1 and "above its limit nan" in done.stderr
    for odd in ("-1", "nan"):
        assert CliRunner().invoke(main, ["tune-hpe", "--out", "x.safetensors", "--lr", odd]).exit_code == 2
        assert CliRunner().invoke(main, ["cache", "estimate", "--seconds", odd]).exit_code == 2


@pytest.mark.e2e
def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path):
    result = bench_memory(tmp_path, frames=60, factor=10, sampled=32)
    assert result.long_frames == 600 and result.ratio < 1.1


@pytest.mark.e2e
def test_ways_of_one_pose_model_stand_beside_the_first(tmp_path):
    class Moved(FakeEstimator):
        def estimate(self, crops, cue_rows):
            found = super().estimate(crops, cue_rows)
            return replace(found, keypoints=found.keypoints + [3, 4], cues=found.cues * 1.1)

    corridor, ways = Corridor(tmp_path, videos=1), {"as it is": FakeEstimator(), "moved": Moved()}
    clips = read_clips(tmp_path / "manifests/d/clips.csv")
    first, moved = bench_ways(clips, corridor.root, RECIPE, ways, 5, rounds=1)
    assert (first.name, first.speedup, first.joints, first.cues) == ("as it is", 1, 0, 0)
    assert moved.joints == pytest.approx(5, abs=1e-3) and moved.cues == pytest.approx(0.1, abs=1e-3)
    assert moved.speedup == pytest.approx(moved.crops_per_second / first.crops_per_second)
    ways["moved"].crop_size = (8, 8)
    with pytest.raises(PosebridgeError, match="The way moved has other crops"):
        bench_ways(clips, corridor.root, RECIPE, ways, 5)


@pytest.mark.unit
def test_a_video_is_shown_over_and_over_in_the_size_that_is_asked_for(tmp_path):
    write_noise(tmp_path / "a.mp4", 5, 64, 48)
    write_again(tmp_path / "b.mp4", 12, 32, 16, tmp_path / "a.mp4")
    with Video(tmp_path / "b.mp4") as video:
        frames = [frame for *_, frame in video.frames(range(12))]
        assert len(video.times) == 12 and frames[0].shape == (16, 32, 3)
    (tmp_path / "odd.mp4").write_text("no video")
    with pytest.raises(PosebridgeError, match="odd.mp4 cannot be measured with .*; name another one"):
        write_again(tmp_path / "c.mp4", 12, 32, 16, tmp_path / "odd.mp4")
    for size in ("640", "640x361", "axb", "4x4"):
        done = CliRunner().invoke(main, ["bench", "memory", "--size", size])
        assert done.exit_code == 2 and "two even numbers like 1920x1080" in done.stderr


@pytest.mark.unit
def test_a_measurement_that_the_system_ends_is_one_sentence(tmp_path, monkeypatch):
    killed = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr("pipeline.bench.memory.subprocess.run", lambda *_, **__: killed)
    with pytest.raises(PosebridgeError, match="The measurement of 2 frames failed: its process ended with -9.$"):
        bench_memory(tmp_path, frames=2, factor=2, size=(32, 32))


@pytest.mark.slow
def test_the_memory_of_a_worker_does_not_grow_with_the_length_of_a_video(tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text("recipes: {r: {weights: skelgap-sem, frames: 8, cue_frames: 4}}")
    result = bench_memory(tmp_path, frames=50, factor=8, recipe=(params, "r"))
    assert result.long_frames == 400 and result.ratio < 1.1


@pytest.mark.e2e
def test_the_hands_cues_know_more_of_the_object_than_the_whole_map():
    done = CliRunner().invoke(main, ["bench", "cues", "--weights", "skelgap-sem", "--stills", "100", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["train"], result["test"], result["hpe_text"]) == (300, 100, "captions")
    found = {(r["map"], r["place"]): r["accuracy"] for r in result["readings"]}
    levels = ["levels", "stride 4", "stride 8", "stride 16", "stride 32"]
    assert list(dict.fromkeys(name for name, _ in found)) == [*levels, "refined 16"]
    assert found["refined 16", "hands"] > found["refined 16", "global"] + 0.05
    assert found["refined 16", "hands"] > 3 * result["chance"]
    assert result["captions_asked"] == 0, "a hundred stills repeat captions: no gallery fills"


@pytest.mark.unit
def test_a_step_of_the_encoder_stands_beside_its_matrix_products():
    """Five layers on 2 x 8 x 17 joints and one on 2 clips; each makes three products a step."""
    small = "bench encoder --width 4 --blocks 1 --clips 2 --persons 1 --frames 8 --rounds 1 --json --limit"
    done = CliRunner().invoke(main, [*small.split(), "1e9"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["joints"] == 17 and result["ratio"] == result["step_seconds"] / result["product_seconds"] > 0
    weights = {272: [3 * 4] * 3 + [4 * 4, 4 * 256], 2: [256 * 60]}
    assert result["gflop"] == pytest.approx(sum(3 * 2 * rows * sum(sizes) for rows, sizes in weights.items()) / 1e9)
    published = CliRunner().invoke(main, [*small.split(), "1e9", "--encoder", "shift_gcn"])
    without = 3 * 2 * 272 * 3 * 4 / 1e9  # its first block has one path less
    assert json.loads(published.stdout)["gflop"] == pytest.approx(result["gflop"] - without)
    failed = CliRunner().invoke(main, [*small.split(), "0"])
    assert failed.exit_code == 1 and "ratio" in failed.output
    wrong = CliRunner().invoke(main, ["bench", "encoder", "--blocks", "4,x"])
    assert wrong.exit_code == 1 and "numbers like 4,3,3" in wrong.output
