"""Copies of a video are found by its thumbnails, different clips of one class and one camera are not."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from pipeline.protocol.films import LIMIT, Film, distance, signature
from pipeline.protocol.neighbours import nearest, projection
from pipeline.synth.catalogue import DATASETS
from pipeline.synth.scene import ClipSpec, render_clip
from pipeline.video.decode import Video
from pipeline.video.thumbnail import SIDE, thumbnail

REAL = Path(__file__).parents[2] / "shared" / "real" / "videos" / "ut-interaction-set1"
FPS = 16.0
KINDS = ("crf 34", "smaller", "brighter", "mirrored", "cropped", "begun later", "ended sooner", "all")


def film(frames, fps=FPS, samples=32):
    """As the cache holds it."""
    rows = np.linspace(0, len(frames) - 1, min(samples, len(frames))).round().astype(int)
    return Film.of(np.stack([thumbnail(frames[row]) for row in rows]), rows / fps)


def scene(path, background, size=72, count=32):
    """A blob before a background, at `path(t)` -> x, y in 0..1 for t in 0..1: uint8 [F, size, size, 3]."""
    frames = np.repeat(background[None], count, 0).copy()
    for frame, t in zip(frames, np.linspace(0, 1, count), strict=True):
        x, y = path(t)
        cv2.circle(frame, (int(x * size), int(y * size)), size // 7, (230, 210, 190), -1)
    return frames


def background(seed=0, size=72):
    rough = np.random.default_rng(seed).integers(30, 180, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(rough, (size, size), interpolation=cv2.INTER_CUBIC)


def copies(frames, cut):
    """Kind -> frames. `cut` frames are taken off."""
    h, w = frames.shape[1:3]
    a, b = h // 20, w // 20

    def smaller(x):
        return np.stack([cv2.resize(f, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA) for f in x])

    def brighter(x):
        return np.clip(x * 1.15 + 10.0, 0, 255).astype(np.uint8)

    cropped = frames[:, a // 2 : h - a - a // 2, b : w - b]
    return {
        "crf 34": frames, "smaller": smaller(frames), "brighter": brighter(frames), "mirrored": frames[:, :, ::-1],
        "cropped": cropped, "begun later": frames[cut:], "ended sooner": frames[:-cut],
        "all": brighter(smaller(cropped[cut // 2 : -(cut // 2), :, ::-1])),
    }  # fmt: skip


def either_way(one, other):
    return min(distance(one, other), distance(one, other.mirrored()))


@pytest.mark.unit
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_near_and_another_performance_before_the_same_camera_is_not(kind):
    frames = scene(lambda t: (0.2 + 0.5 * t, 0.6 - 0.3 * np.sin(3 * t)), background())
    copy = film(copies(frames, 4)[kind])
    assert either_way(film(frames), copy) < LIMIT
    for other in (lambda t: (0.6 - 0.3 * t, 0.7 - 0.4 * t), lambda t: (0.4, 0.5 + 0.2 * np.sin(12 * t))):
        assert either_way(film(scene(other, background())), copy) > 2 * LIMIT


@pytest.mark.unit
def test_the_same_movement_elsewhere_is_another_clip():
    def path(t):
        return 0.2 + 0.5 * t, 0.6 - 0.3 * np.sin(3 * t)

    assert either_way(film(scene(path, background(0))), film(scene(path, background(1)))) > LIMIT


@pytest.mark.unit
def test_what_does_not_move_is_like_no_other():
    still = Film.of(np.repeat(thumbnail(background())[None], 32, 0), np.arange(32) / FPS)
    assert distance(still, still) > 0.9 and np.isfinite(signature(still)).all()
    for times in (np.zeros(32), np.arange(32) / FPS):
        black = Film.of(np.zeros((32, SIDE, SIDE), np.uint8), times)
        assert distance(black, black) == 1.0 and np.isfinite(signature(black)).all()


@pytest.mark.unit
def test_a_projection_keeps_lengths_and_is_the_same_each_time():
    ones = np.ones(4096, np.float32) @ projection(4096, 128)
    assert ones.shape == (128,) and 0.85 < np.linalg.norm(ones) / 64 < 1.15
    projection.cache_clear()
    assert np.array_equal(np.ones(4096, np.float32) @ projection(4096, 128), ones)


@pytest.mark.unit
def test_a_signature_weighs_movement_and_what_stands_still_by_hand():
    """What flickers by a, and a pattern that is a above and below the mean, have the length a / (a + noise); what
    stands still counts half.
    """
    flicker, pattern = np.resize([1, -1], 8)[:, None, None], np.resize([1, 1, 1, -1, -1, -1], SIDE)
    for kind, share in ((flicker, 1.0), (pattern, 0.5)):
        weak, strong, brighter = (
            signature(Film(np.zeros((8, SIDE, SIDE), np.float32) + mean + a * kind, np.arange(8.0)))
            for mean, a in ((100, 0.15), (100, 9.85), (150, 9.85))
        )
        np.testing.assert_allclose(weak, strong * 0.5 / 0.985, atol=1e-4)
        np.testing.assert_allclose(brighter, strong, atol=1e-4)
        assert np.linalg.norm(strong) == pytest.approx(share * 0.985, rel=0.2)


@pytest.mark.unit
def test_clips_of_other_length_are_other_clips():
    frames = scene(lambda t: (0.2 + 0.5 * t, 0.5), background())
    assert distance(film(frames), film(frames[:16])) == 1.0


@pytest.mark.unit
def test_another_frame_rate_and_other_samples_make_no_other_clip():
    frames = scene(lambda t: (0.2 + 0.5 * t, 0.6 - 0.3 * np.sin(3 * t)), background(), count=64)
    assert distance(film(frames, 32.0), film(frames[::2], 16.0, samples=20)) < LIMIT


def encoded(frames, path, crf, fps):
    """The film of frames after H.264."""
    h, w = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = h, w, "yuv420p"
        for frame in frames:
            image = np.ascontiguousarray(frame[:h, :w])
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())
    return sampled(path)


def sampled(path):
    """The film of a file, as extraction samples it."""
    with Video(path) as video:
        positions = video.sample(32)
        small = {asked: thumbnail(frame) for asked, _, frame in video.frames(sorted(set(positions.tolist())))}
        return Film.of(np.stack([small[position] for position in positions]), video.times[positions])


def searched(known, asked):
    """Of every film asked for the distances from its candidates, {row of known: distance}, as duplicates.py looks."""
    signatures = np.stack([signature(one) for one in known])
    found = []
    for one in asked:
        best: dict[int, float] = {}
        for seen in (one, one.mirrored()):
            for row in nearest(signatures, signature(seen)[None], 5)[1][0]:
                best[int(row)] = min(best.get(int(row), 9.0), distance(known[row], seen))
        found.append(best)
    return found


def calibrate(known, videos, tmp_path, fps):
    """{kind: share of copies found}, and the smallest distance from a clip that is another. videos: row -> frames."""
    shares, others = {kind: [] for kind in KINDS}, []
    for row, frames in videos.items():
        kinds = copies(frames, len(frames) // 10)
        asked = [encoded(kinds[k], tmp_path / "copy.mp4", 34 if k == "crf 34" else 26, fps) for k in KINDS]
        for kind, best in zip(KINDS, searched(known, asked), strict=True):
            shares[kind].append(best.pop(row, 9.0) < LIMIT)
            others += best.values()
    return {kind: np.mean(found) for kind, found in shares.items()}, others


@pytest.mark.e2e
def test_copies_of_generated_clips_are_found_and_other_clips_of_their_class_are_not(tmp_path):
    """Twenty clips of one class, each with a subject, camera and background of its own; the copies are real files."""
    action = DATASETS["skelgap-mini"][0]
    specs = [ClipSpec(action.motion, action.object, i % 8, i, i, i, i, i) for i in range(20)]
    rendered = [render_clip(spec).frames for spec in specs]
    known = [film(frames) for frames in rendered]
    shares, others = calibrate(known, {3: rendered[3], 11: rendered[11]}, tmp_path, 16)
    assert all(share == 1 for share in shares.values()), shares
    assert min(others) > LIMIT


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/real, with real videos, is absent")
def test_copies_of_real_clips_are_found_before_a_static_camera(tmp_path):
    """60 clips of 6 classes and 10 scenes: at least 95 % of copies of each kind, and no different pair."""
    paths = sorted(REAL.glob("*.avi"))
    known = [sampled(path) for path in paths]
    videos = {}
    for row in range(0, len(paths), 6):
        with av.open(str(paths[row])) as file:
            videos[row] = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    shares, others = calibrate(known, videos, tmp_path, 30)
    assert all(share >= 0.95 for share in shares.values()), shares
    different = [d for row, best in enumerate(searched(known, known)) for other, d in best.items() if other != row]
    assert min(others + different) > LIMIT
