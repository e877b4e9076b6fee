"""Several videos are decoded at a time, and persons looked for in several frames: results do not depend on how many."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEstimator, write_video
from onnx import helper
from test_extraction import RECIPE
from test_onnx import graph

import pipeline.hpe.detector
from pipeline.cache.reader import CacheReader
from pipeline.extract.boxes import DetectedBoxes
from pipeline.extract.extract import extract
from pipeline.files.ahead import ahead_of_each
from pipeline.hpe.detector import Detector
from pipeline.ingest.ingest import ingest
from pipeline.manifest.clips import read_clips, write_clips
from pipeline.params import ExtractParams
from pipeline.recipe import Recipe


@pytest.mark.unit
def test_sources_are_worked_through_together_within_bounds_and_come_in_their_order():
    begun, made = [], []

    def source(number: int):
        begun.append(number)
        for item in range(20):
            made.append(number)
            yield number, item

    stream = ahead_of_each(map(source, range(10)), workers=3, depth=4)
    taken = [next(stream) for _ in range(30)]
    assert taken == [(0, item) for item in range(20)] + [(1, item) for item in range(10)]
    assert set(begun) <= {0, 1, 2, 3} and made.count(2) <= 4 + 1 and made.count(3) <= 4 + 1
    stream.close()
    assert not any(thread.name == "ahead" for thread in threading.enumerate()), "leaving the loop stops the threads"
    assert [number for number, _ in ahead_of_each(map(source, range(10)), 3, 4)] == sorted(20 * list(range(10)))


@pytest.mark.unit
@pytest.mark.parametrize("items", [2, 0])
def test_short_sources_are_begun_while_nobody_asks_and_no_more_wait_than_have_room(items: int) -> None:
    """As with videos of few frames: the pose model is busy with a batch, and several of them are decoded meanwhile."""
    begun = []

    def source(number: int):
        begun.append(number)
        yield from [number] * (items if number else 1)

    stream = ahead_of_each(map(source, range(100)), workers=1, depth=6)
    assert next(stream) == 0
    most = 4 if items else 6  # one item waits of the first, two of the next ones; or each may have one
    until = time.monotonic() + 20
    while len(begun) < most and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    assert begun == list(range(most))
    assert list(stream) == [number for number in range(1, 100) for _ in range(items)]


@pytest.mark.unit
def test_leaving_stops_what_a_thread_itself_waits_for() -> None:
    ended = []

    def source(number: int):
        try:
            yield from range(20)
        finally:
            ended.append(number)

    stream = ahead_of_each([(item for item in ahead_of_each(map(source, range(5)), 2, 1))], 1, 1)
    assert next(stream) == 0
    stream.close()
    assert ended and not any(thread.name == "ahead" for thread in threading.enumerate())


@pytest.mark.unit
def test_an_error_comes_in_its_place_and_ends_the_others():
    def source(number: int):
        yield number
        if number == 1:
            raise KeyError("in the second")
        yield number

    stream = ahead_of_each(map(source, range(5)), workers=4, depth=2)
    assert [next(stream) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(KeyError, match="in the second"):
        next(stream)
    assert not any(thread.name == "ahead" for thread in threading.enumerate())


@pytest.mark.unit
def test_a_source_that_cannot_be_closed_says_so_and_nobody_waits_for_its_end():
    def source():
        try:
            yield 1
            yield 2
        finally:
            raise KeyError("while closing")

    stream = ahead_of_each([source()], workers=1, depth=2)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(KeyError, match="while closing"):
        next(stream)


def bright_detector(path: Path, batch: int | str) -> Path:
    """A detector that finds one person in every frame, the wider the brighter the frame is: one map of stride 8."""
    cells = np.full((1, 8, 8, 5), -9, np.float32)
    cells[0, 4, 2] = [2, 8, 16, 8, 24]
    wider = np.zeros((1, 8, 8, 5), np.float32)
    wider[..., 3] = 1
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "wider"], ["added"]),
        helper.make_node("Add", ["added", "cells"], ["map"]),
    ]
    constants = {"cells": cells, "wider": wider}
    return graph(path, {"map": (batch, 8, 8, 5)}, nodes, constants, (batch, 3, 64, 64))


def detecting(detector: Path) -> Recipe:
    return replace(RECIPE, boxes="detector", detector=str(detector), persons=2)


def extracted(folder: Path, recipe: Recipe, name: str, **knobs: int) -> tuple[bytes, dict[str, np.ndarray]]:
    """The index of a run over `folder`, and all rows."""
    done = extract(
        "d", "r", recipe, folder / "videos", params=ExtractParams(**({"batch_size": 5} | knobs)),
        build_estimator=lambda recipe: FakeEstimator(), manifests=folder / "manifests", cache=folder / name,
    )  # fmt: skip
    with CacheReader(done.index) as reader:
        rows = reader.read(sorted(reader.clip_ids), reader.names)
    return done.index.read_bytes(), rows


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Seven videos of different lengths, the second one damaged, the last one with two segments."""
    for i in range(7):
        write_video(tmp_path / f"videos/{i}.mp4", frames=6 + 5 * i, offset=7 * i)
    (tmp_path / "videos/1.mp4").write_bytes((tmp_path / "videos/1.mp4").read_bytes()[:700])
    ingest("d", tmp_path / "videos", manifests=tmp_path / "manifests")
    path = tmp_path / "manifests/d/clips.csv"
    clips = read_clips(path)
    write_clips(path, [*clips, replace(clips[-1], clip_id="6b", start=0.2, end=0.9)])
    return tmp_path


@pytest.mark.e2e
@pytest.mark.parametrize("detector", [None, 1, "N"])
def test_a_shard_has_the_same_bytes_whatever_the_number_of_decoders(videos: Path, tmp_path: Path, detector) -> None:
    recipe = RECIPE if detector is None else detecting(bright_detector(tmp_path / "d.onnx", detector))
    indexes = [extracted(videos, recipe, f"cache{decoders}", decoders=decoders)[0] for decoders in (1, 3, 16)]
    assert b'"6b"' in indexes[0] and b'"open"' in indexes[0] and len(set(indexes)) == 1


@pytest.mark.e2e
def test_a_detector_takes_frames_of_several_clips_and_finds_in_each_what_it_finds_alone(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = extracted(videos, detecting(bright_detector(tmp_path / "one.onnx", 1)), "one")[1]
    sizes, clips = [], []
    run, find = pipeline.hpe.detector.run_session, DetectedBoxes.find

    def counted(session, outputs, inputs, name):
        sizes.append(len(inputs["x"]))
        return run(session, outputs, inputs, name)

    def seen(self, frames):
        clips.append({clip.clip_id for _, _, wanted in frames for clip in wanted})
        return find(self, frames)

    monkeypatch.setattr(pipeline.hpe.detector, "run_session", counted)
    monkeypatch.setattr(DetectedBoxes, "find", seen)
    together = extracted(videos, detecting(bright_detector(tmp_path / "many.onnx", "N")), "many")[1]
    assert set(sizes) == {8} and max(map(len, clips)) > 1, "one size of batch, filled across clips"
    assert len(sizes) - 1 == len(clips) < 10, "8 frames each of 6 videos, and some of a segment"
    assert len(np.unique(alone["boxes"][:, 0, :, 2])) > 20, "frames differ in what is found"
    for name, values in alone.items():
        assert np.array_equal(values, together[name], equal_nan=values.dtype.kind == "f"), name


@pytest.mark.unit
def test_a_graph_that_declares_any_number_and_is_made_for_one_is_given_one(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Add", ["mean", "cells"], ["map"]),
    ]
    cells = np.full((1, 8, 8, 5), -9, np.float32)
    path = graph(tmp_path / "g.onnx", {"map": ("N", 8, 8, 5)}, nodes, {"cells": cells}, ("N", 3, 64, 64))
    assert Detector(path).together == 1
    assert Detector(bright_detector(tmp_path / "any.onnx", "N")).together == 8
    assert Detector(bright_detector(tmp_path / "four.onnx", 4)).together == 4


@pytest.mark.e2e
def test_a_frame_is_searched_once_for_all_clips_that_want_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "videos/0.mp4")
    ingest("d", tmp_path / "videos", manifests=tmp_path / "manifests")
    path = tmp_path / "manifests/d/clips.csv"
    write_clips(path, [replace(read_clips(path)[0], clip_id=str(i)) for i in range(3)])
    calls = []
    detect = Detector.detect_together
    monkeypatch.setattr(Detector, "detect_together", lambda *given: calls.append(1) or detect(*given))
    rows = extracted(tmp_path, detecting(bright_detector(tmp_path / "d.onnx", 1)), "cache")[1]
    assert len(calls) == 8 and np.array_equal(rows["boxes"][0], rows["boxes"][2])
