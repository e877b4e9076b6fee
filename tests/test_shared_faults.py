"""The odd videos of ../shared/faults through the commands, from a folder of files to an answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fakes import FakeEstimator

from pipeline.cache.reader import CacheReader
from pipeline.files.tensors import save_tensors
from pipeline.manifest.clips import read_clips
from stages.cli import main

FAULTS = Path(__file__).parents[2] / "shared/faults/videos"
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not FAULTS.is_dir(), reason=f"{FAULTS} is not there: no odd videos to try"),
]
PARAMS = """
datasets: {odd: {root: videos}}
recipes: {fake: {weights: fake.safetensors, cues: levels, frames: 8, cue_frames: 4}}
extract: {max_failures: 2}
"""
# file -> frames that a player shows, and what its record has to say
RIGHT: dict[str, tuple[int, dict[str, object]]] = {
    "base.mp4": (60, {"timing": "stamps", "lost": 0, "tracks": 1, "orientation": ""}),
    "trim13.mp4": (47, {"timing": "stamps", "lost": 0}),
    "hflip.mp4": (60, {"orientation": "hflip"}),
    "twotracks.mp4": (60, {"tracks": 2, "track": 1}),
    "two2.ts": (120, {}),
    "sar.mp4": (60, {"pixel_aspect": 2.0}),
    "cat.ts": (120, {"timing": "mended"}),
    "raw.h264": (60, {"timing": "counted"}),
    "bad2.mp4": (60, {"lost": 1}),
    "gap.mp4": (60, {"distinct": 8}),
    "alpha_png.mov": (10, {"alpha": True}),
    "corrupt_mid.ts": (97, {"timing": "mended", "distinct": 8}),
    "palette.avi": (10, {}),
    "secret_beside.mp4": (40, {}),
}
REFUSED = {"ffconcat_named.mp4": "not a readable video", "trunc.mkv": "truncated"}


def run(*words: str) -> dict:
    done = CliRunner().invoke(main, [*words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "videos" / "odd").mkdir(parents=True)
    for name in (*RIGHT, *REFUSED):
        shutil.copyfile(FAULTS / name, tmp_path / "videos" / "odd" / name)
    (tmp_path / "params.yaml").write_text(PARAMS)
    save_tensors({"w": torch.zeros(1)}, tmp_path / "fake.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stages.extract.build_estimator", lambda recipe: FakeEstimator())
    return tmp_path


def test_odd_videos_are_read_as_players_show_them_or_refused_with_a_reason(project: Path) -> None:
    listed = run("ingest", "--dataset", "odd")
    assert {Path(each["path"]).name for each in listed["unreadable"]} <= set(REFUSED)
    done = run("extract", "--dataset", "odd", "--recipe", "fake")
    reasons = {Path(each["path"]).name: each["reason"] for each in listed["unreadable"]}
    with CacheReader(Path("cache/odd/fake/index.json")) as reader:
        names = {clip.clip_id: Path(clip.path).name for clip in read_clips(Path("manifests/odd/clips.csv"))}
        counts = reader.read(reader.clip_ids, ("video_frames",))["video_frames"]
        found = {names[c]: (int(n), reader.record(c)) for c, n in zip(reader.clip_ids, counts, strict=True)}
    reasons |= {names[failure["clip_id"]]: failure["reason"] for failure in done["failures"]}
    assert set(reasons) == set(REFUSED) and set(found) == set(RIGHT)
    assert all(said in reasons[name] for name, said in REFUSED.items()), reasons
    for name, (frames, facts) in RIGHT.items():
        count, record = found[name]
        assert count == frames and record is not None, name
        assert {key: getattr(record, key) for key in facts} == facts, name


def test_odd_videos_are_examples_and_questions(project: Path) -> None:
    for action in ("one", "two"):
        shutil.copytree("videos/odd", f"examples/{action}")
    found = run("predict", "videos", "--examples", "examples", "--recipe", "fake")
    assert {Path(each["clip_id"]).name for each in found["examples_left_out"]} == set(REFUSED)
    assert {Path(each["video"]).name for each in found["predictions"]} == set(RIGHT)
    assert all(each["ranking"] for each in found["predictions"]) and found["failures"] == len(REFUSED)
