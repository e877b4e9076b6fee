"""Folders of images as videos: `0.jpg 1.jpg …` and mmaction2's rawframes, wherever a video is taken."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEstimator, write_video
from PIL import Image, ImageOps

from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.extract.again import frames_again
from pipeline.extract.extract import Extraction, extract
from pipeline.ingest.ingest import Ingestion, ingest
from pipeline.manifest.clips import Clip, read_clips, write_classes, write_clips
from pipeline.params import ExtractParams
from pipeline.predict.live import find_videos, windows
from pipeline.protocol.duplicates import find_duplicates
from pipeline.recipe import Recipe
from pipeline.video.identity import GONE, UNREADABLE, identify, sha256_video
from pipeline.video.image import read_image
from pipeline.video.image_folder import ImageFolder, open_video
from pipeline.video.names import images_of
from pipeline.video.open import VideoError
from pipeline.video.picture import PictureError

RECIPE = Recipe(frames=8, cue_frames=4, weights_sha256="0" * 64)


def write_images(folder: Path, count: int = 20, name: str = "{}.jpg", offset: int = 0) -> Path:
    """Grey images of 64 x 48 pixels; the i-th has the brightness `offset + 5 * i` mod 250."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", (64, 48), ((offset + 5 * i) % 250,) * 3).save(folder / name.format(i))
    return folder


def seen(reader: ImageFolder, positions) -> list[tuple[int, int, int]]:
    """(asked, shown, brightness at the centre)."""
    return [(a, s, int(p[p.shape[0] // 2, p.shape[1] // 2, 0])) for a, s, p in reader.frames(positions)]


@pytest.mark.unit
def test_images_are_frames_in_the_natural_order_of_their_names(tmp_path):
    folder = write_images(tmp_path / "a", 12)
    with open_video(folder, image_fps=10) as video:
        assert (len(video.times), video.fps, video.duration) == (12, 10, 1.2)
        assert video.times == pytest.approx(np.arange(12) / 10)
        assert video.header == (10, 12, [48, 64]) and video.record.container == "images"
        assert video.sample(4).tolist() == [1, 4, 7, 10] and video.sample(2, 0.5, 0.7).tolist() == [5, 6]
        assert video.available(0.5, 0.7) == 2
        assert seen(video, [2, 9, 10, 11]) == [(2, 2, 10), (9, 9, 45), (10, 10, 50), (11, 11, 55)]


@pytest.mark.unit
def test_what_is_no_frame_does_not_count(tmp_path):
    folder = write_images(tmp_path / "a", 3, "img_{:05d}.jpg")
    for name in ("Thumbs.db", ".DS_Store", "._img_00001.jpg", "notes.txt", "flow_x_00001.jpg", "flow_y_00001.jpg"):
        (folder / name).write_bytes(b"odd")
    (folder / "old.jpg").mkdir()
    assert images_of(folder) == ["img_00000.jpg", "img_00001.jpg", "img_00002.jpg"]
    with open_video(folder) as video:
        assert len(video.times) == 3 and video.fps == 25


@pytest.mark.unit
@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ("a.mp4", r"holds images and a video \(a.mp4\); keep them apart"),
        ("1.png", "two images for one frame, 1.jpg and 1.png"),
        ("01.jpg", "two images for one frame, 01.jpg and 1.jpg"),
        ("1.JPG", "two images for one frame, 1.JPG and 1.jpg"),
    ],
)
def test_a_folder_that_cannot_be_told_is_refused(tmp_path, extra, reason):
    folder = write_images(tmp_path / "a", 3)
    (folder / extra).write_bytes(b"")
    with pytest.raises(VideoError, match=reason):
        open_video(folder)
    (empty := tmp_path / "b").mkdir()
    with pytest.raises(VideoError, match="the folder holds no images"):
        open_video(empty)


@pytest.mark.unit
def test_one_image_is_a_clip_of_one_frame_and_four_thousand_are_as_many(tmp_path):
    with open_video(write_images(tmp_path / "one", 1)) as video:
        assert seen(video, np.unique(video.sample(8))) == [(0, 0, 0)]
    many = write_images(tmp_path / "many", 1)
    for i in range(1, 4000):
        os.link(many / "0.jpg", many / f"{i}.jpg")
    with open_video(many, image_fps=25) as video:
        assert len(video.times) == 4000 and video.duration == 160
        assert [asked for asked, *_ in video.frames(video.sample(4))] == [500, 1500, 2500, 3500]


@pytest.mark.unit
def test_frames_are_looked_at_again_by_their_positions_and_a_shorter_clip_is_told(tmp_path):
    write_images(tmp_path / "a", count=3)
    clip = Clip("take", "a/")
    frames = frames_again(clip, tmp_path, [2, 0, 2])
    assert set(frames) == {0, 2} and all(frame.dtype == np.uint8 and frame.ndim == 3 for frame in frames.values())
    with pytest.raises(PosebridgeError, match="take.*3 frames and no frame 6"):
        frames_again(clip, tmp_path, [0, 1, 5])


@pytest.mark.unit
def test_another_size_is_fitted_into_that_of_the_first(tmp_path):
    folder = write_images(tmp_path / "a", 2)
    Image.new("RGB", (100, 300), (200, 200, 200)).save(folder / "1.jpg")
    with open_video(folder) as video:
        (_, _, first), (_, _, other) = video.frames([0, 1])
        assert first.shape == other.shape == (48, 64, 3) and video.treatment.resized
        assert (other[:, :20] == 0).all() and other[24, 32, 0] == pytest.approx(200, abs=3)


@pytest.mark.unit
def test_a_broken_image_counts_as_a_lost_frame(tmp_path):
    folder = write_images(tmp_path / "a", 20)
    (folder / "7.jpg").write_bytes((folder / "7.jpg").read_bytes()[:300])
    (folder / "0.jpg").write_bytes(b"no image")
    with open_video(folder) as video:
        assert seen(video, range(20))[:8] == [(0, 1, 5), (1, 1, 5), *((i, i, 5 * i) for i in range(2, 7)), (7, 6, 30)]
        assert video.record.lost == 2
    with open_video(folder) as video, pytest.raises(VideoError, match="2 of 4 images cannot be read; first 0.jpg"):
        list(video.frames([0, 1, 7]))
    with pytest.raises(VideoError, match="1 of 20 images cannot be read; first 0.jpg"):
        open_video(folder, max_lost=0)
    with open_video(folder, max_lost=1) as video:
        assert seen(video, [0, 7]) == [(0, 1, 5), (7, 6, 30)]


@pytest.mark.unit
def test_every_kind_of_image_is_shown_as_a_viewer_shows_it(tmp_path):
    ramp = np.add.outer(np.arange(40), np.arange(64)).astype(np.uint8) * 2
    colour = np.stack([ramp, ramp[::-1], 255 - ramp], -1)
    kinds = {
        "grey.png": (Image.fromarray(ramp), np.repeat(ramp[..., None], 3, -1)),
        "deep.png": (Image.fromarray(ramp.astype(np.uint16) * 257), np.repeat(ramp[..., None], 3, -1)),
        "colour.bmp": (Image.fromarray(colour), colour),
        "colour.webp": (Image.fromarray(colour), colour),
        "palette.png": (Image.fromarray(ramp).convert("P"), np.repeat(ramp[..., None], 3, -1)),
        "print.jpg": (Image.fromarray(colour).convert("CMYK"), colour),
    }
    for name, (image, wanted) in kinds.items():
        image.save(tmp_path / name, lossless=True)
        shown, treatment = read_image(tmp_path / name)
        assert shown.dtype == np.uint8 and shown.flags.c_contiguous and not treatment.alpha, name
        assert np.abs(shown.astype(int) - wanted).mean() < 3, name
    alpha = np.dstack([colour, np.where(ramp > 100, 255, 51).astype(np.uint8)])
    for name in ("alpha.png", "alpha.webp"):
        Image.fromarray(alpha).save(tmp_path / name, lossless=True)
        shown, treatment = read_image(tmp_path / name)
        assert treatment.alpha and np.abs(shown - colour * (alpha[..., 3:] / 255)).max() <= 1, name


@pytest.mark.unit
@pytest.mark.parametrize("tag", range(1, 9))
def test_images_stand_upright(tmp_path, tag):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = tag
    image.save(tmp_path / "0.png", exif=exif)
    with Image.open(tmp_path / "0.png") as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored))
    with open_video(tmp_path) as video:
        ((_, _, shown),) = video.frames([0])
        assert (shown == upright).all() and video.shape == upright.shape[:2]
        assert (video.treatment.orientation == "") == (tag == 1)


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, and has none."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.unit
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png_header(30_000, 30_000), "pixels are too many"),
        (png_header(11_000, 12_500), "pixels are too many"),
        (png_header(40_000, 10), "pixels are too many"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is HEIC, which is not read; save it as JPEG or PNG"),
        (b"", "it is no JPEG, PNG, WebP or BMP"),
        (b"%PDF-1.7", "it is no JPEG, PNG, WebP or BMP"),
    ],
    ids=["bomb", "large", "long", "heic", "empty", "pdf"],
)
def test_what_cannot_be_shown_is_refused_before_memory_is_taken(tmp_path, content, reason):
    (tmp_path / "0.jpg").write_bytes(content)
    with pytest.raises(PictureError, match=reason):
        read_image(tmp_path / "0.jpg")
    with pytest.raises(VideoError, match=f"1 of 1 images cannot be read; first 0.jpg: .*{reason}"):
        open_video(tmp_path)


@pytest.mark.unit
def test_an_error_without_words_is_told_by_its_name(tmp_path, monkeypatch):
    def full(image, mode):
        raise MemoryError

    write_images(tmp_path, 1)
    monkeypatch.setattr(Image.Image, "convert", full)
    with pytest.raises(PictureError, match=r"it cannot be read \(MemoryError\)"):
        read_image(tmp_path / "0.jpg")


@pytest.mark.unit
def test_a_name_that_is_no_text_is_told(tmp_path):
    (tmp_path / os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    with pytest.raises(VideoError, match=r"first \\xff.jpg: it is no JPEG"):
        open_video(tmp_path)


@pytest.mark.unit
def test_a_pipe_among_the_images_is_no_frame(tmp_path):
    folder = write_images(tmp_path / "a", 2)
    os.mkfifo(folder / "1a.jpg")
    assert images_of(folder) == ["0.jpg", "1.jpg"]


@pytest.mark.unit
def test_a_folder_is_known_by_its_images(tmp_path):
    folder = write_images(tmp_path / "a", 3)
    record = identify(folder)
    copy = tmp_path / "b"
    copy.mkdir()
    for i in range(3):
        shutil.copy(folder / f"{i}.jpg", copy / f"img_{i}.jpg")
    assert identify(copy).identity == record.identity and sha256_video(copy) == sha256_video(folder)
    assert identify(copy, record) != record, "only the very same files are taken for untouched"
    assert identify(folder, replace(record, identity="as noted")).identity == "as noted"
    (folder / ".DS_Store").write_bytes(b"odd")
    assert identify(folder, record) == record
    (folder / "2.jpg").write_bytes((folder / "1.jpg").read_bytes())
    changed = identify(folder, record)
    assert changed.identity != record.identity and sha256_video(copy) != sha256_video(folder)
    (folder / "2.jpg").unlink()
    assert identify(folder, changed).identity not in (changed.identity, record.identity)
    assert identify(tmp_path / "none") == GONE
    (empty := tmp_path / "c").mkdir()
    assert identify(empty) == UNREADABLE


class Gallery:
    """A data set of folders of images, and runs over it."""

    def __init__(self, folder: Path):
        self.folder, self.root = folder, folder / "videos"
        self.index = folder / "cache/d/r/index.json"
        for i in range(4):
            write_images(self.root / f"{'wave' if i % 2 else 'bow'}/clip.{i}", offset=30 * i)

    def ingest(self, **options) -> Ingestion:
        return ingest("d", self.root, manifests=self.folder / "manifests", **options)

    def run(self) -> Extraction:
        return extract(
            "d", "r", RECIPE, self.root, params=ExtractParams(), build_estimator=lambda _: FakeEstimator(),
            manifests=self.folder / "manifests", cache=self.folder / "cache",
        )  # fmt: skip


@pytest.mark.e2e
def test_folders_of_images_are_listed_and_extracted_as_videos_are(tmp_path):
    gallery = Gallery(tmp_path)
    listed = gallery.ingest(image_fps=10, hash_files=True)
    clips = read_clips(listed.clips_csv)
    assert [(c.clip_id, c.path, c.label, c.fps, c.frames, c.height, c.width) for c in clips[:2]] == [
        ("bow/clip.0", "bow/clip.0/", 0, 10, 20, 48, 64),
        ("bow/clip.2", "bow/clip.2/", 0, 10, 20, 48, 64),
    ]
    assert all(c.sha256 for c in clips) and not listed.unreadable
    assert gallery.run().estimated == 4 and gallery.run().estimated == 0
    with CacheReader(gallery.index) as reader:
        row = reader.read(["wave/clip.1"], reader.names)
        assert row["timestamp"][0] == pytest.approx(row["frame_index"][0] / 10)
        assert row["cues"][0, 0, :, 0, 0] == pytest.approx(30 + 5 * np.array([3, 8, 13, 18]), abs=2)
        assert row["video_fps"][0] == 10

    Image.new("RGB", (64, 48)).save(gallery.root / "bow/clip.0/3.jpg")
    result = gallery.run()
    assert result.estimated == 1
    assert "changed since ingest (other sha256)" in result.failures[0].reason
    assert gallery.ingest(image_fps=10).clips and gallery.run().estimated == 1

    gallery.ingest(image_fps=5)
    assert gallery.run().estimated == 4, "their seconds are others"
    with CacheReader(gallery.index) as reader:
        row = reader.read(["wave/clip.1"], ("timestamp", "frame_index"))
        assert row["timestamp"][0] == pytest.approx(row["frame_index"][0] / 5)


@pytest.mark.e2e
def test_a_slash_that_somebody_left_out_is_written_again(tmp_path):
    gallery = Gallery(tmp_path)
    path = gallery.ingest(image_fps=10).clips_csv
    first, *others = read_clips(path)
    write_clips(path, [replace(first, path="./bow/clip.0"), *others])
    assert "other frame rate, 25 for 10" in gallery.run().failures[0].reason
    gallery.ingest(image_fps=10)
    assert read_clips(path)[0].path == "bow/clip.0/" and not gallery.run().failures


@pytest.mark.e2e
def test_a_folder_that_fails_is_a_failure_and_stops_no_other(tmp_path):
    gallery = Gallery(tmp_path)
    gallery.ingest()
    for i in range(10):
        (gallery.root / f"bow/clip.0/{i}.jpg").write_bytes(b"broken")
    (gallery.root / "wave/clip.1/5.jpg").write_bytes(b"broken, and not looked at")
    shutil.rmtree(gallery.root / "wave/clip.3")
    (gallery.root / "wave/clip.3").mkdir()
    result = gallery.run()
    assert [(f.clip_id, f.stage) for f in result.failures] == [("bow/clip.0", "decode"), ("wave/clip.3", "open")]
    assert "3 of 20 images cannot be read; first 0.jpg: it is no JPEG" in result.failures[0].reason
    assert result.failures[1].reason == "the folder holds no images" and result.clips == 2


@pytest.mark.e2e
def test_the_same_images_in_train_and_test_are_told(tmp_path):
    gallery = Gallery(tmp_path)
    shutil.copytree(gallery.root / "bow/clip.0", gallery.root / "wave/copy")
    listed = gallery.ingest()
    clips = [replace(c, part="test" if c.clip_id == "wave/copy" else "train") for c in read_clips(listed.clips_csv)]
    write_clips(listed.clips_csv, clips)
    gallery.run()
    with CacheReader(gallery.index) as reader:
        (pair,) = find_duplicates(reader, clips)
    assert (pair.test, pair.train, pair.kind) == ("wave/copy", "bow/clip.0", "same video")


@pytest.mark.e2e
def test_folders_beside_videos_are_clips_only_where_they_are_named(tmp_path):
    gallery = Gallery(tmp_path)
    write_video(gallery.root / "bow/a.mp4")
    for hidden in (".trash/x", "@eaDir"):
        write_images(gallery.root / hidden, 1)
    listed = gallery.ingest()
    assert [c.path for c in read_clips(listed.clips_csv)] == ["bow/a.mp4"]
    assert listed.remarks[0].startswith("4 folders of images beside the videos, first 'bow/clip.0/', are clips only")
    write_images(gallery.root / "mixed", 2)
    write_video(gallery.root / "mixed/a.mp4")
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\nbow/a.mp4,bow\n./bow/clip.0,bow\nwave/clip.1/,wave\nmixed/,wave\nnone/,wave\n")
    (tmp_path / "manifests/d/classes.csv").unlink()
    listed = gallery.ingest(labels=labels)
    assert [c.path for c in read_clips(listed.clips_csv)] == ["bow/a.mp4", "bow/clip.0/", "wave/clip.1/"]
    assert dict(listed.left_out) == {
        "mixed": "it is a folder without images, or with a video", "none": "the file does not exist",
    }  # fmt: skip


@pytest.mark.e2e
def test_a_published_data_set_may_lie_in_folders_of_images(tmp_path):
    write_images(tmp_path / "k/rawframes_train/waving_hand/abcdefghijk_000001_000011", 3, "img_{:05d}.jpg")
    write_images(tmp_path / "k/rawframes_val/waving_hand/abcdefghijx_000001_000011", 3, "img_{:05d}.jpg")
    write_classes(tmp_path / "m/kinetics400/classes.csv", ["waving hand"])
    listed = ingest("kinetics400", tmp_path / "k", image_fps=30, manifests=tmp_path / "m")
    assert [(c.clip_id, c.label, c.part, c.fps) for c in read_clips(listed.clips_csv)] == [
        ("abcdefghijk_000001_000011", 0, "train", 30), ("abcdefghijx_000001_000011", 0, "test", 30),
    ]  # fmt: skip


@pytest.mark.unit
@pytest.mark.parametrize("suffix", ["tif", "TIFF", "gif", "avif", "ppm"])
def test_a_folder_of_images_that_are_not_read_is_told_and_does_not_vanish(tmp_path, suffix):
    (tmp_path / "data/wave/old").mkdir(parents=True)
    for frame in range(3):
        (tmp_path / f"data/wave/old/{frame}.{suffix}").write_bytes(b"II*\0 or whatever")
    write_images(tmp_path / "data/wave/new", 3)
    (tmp_path / "data/wave/new/preview.gif").write_bytes(b"GIF89a")  # no frame, beside images that are read
    result = ingest("mine", tmp_path / "data", manifests=tmp_path / "manifests")
    why = f"1 of 3 images cannot be read; first 0.{suffix}: it is no JPEG, PNG, WebP or BMP"
    assert result.clips == 2 and result.unreadable == (("wave/old/", why),)
    with open_video(tmp_path / "data/wave/new") as video:
        assert len(video.times) == 3


@pytest.mark.e2e
def test_an_empty_data_set_says_what_a_clip_is(tmp_path):
    write_images(tmp_path / "videos", 2)
    with pytest.raises(PosebridgeError, match="nor a folder of images below it"):
        ingest("d", tmp_path / "videos", manifests=tmp_path / "m")


@pytest.mark.unit
def test_predict_takes_a_folder_of_images_for_a_video(tmp_path):
    folder = write_images(tmp_path / "a/b", 20)
    write_images(tmp_path / "a/c", 1)
    assert find_videos(folder) == [folder] and find_videos(tmp_path / "a") == [folder, tmp_path / "a/c"]
    (clip,) = windows(folder, image_fps=10)
    assert (clip.path, clip.start, clip.end, clip.image_fps) == (f"{folder}/", 0, 2, 10)
    assert [(c.start, c.end) for c in windows(folder, 1.0, image_fps=10)] == [(0, 1), (0.5, 1.5), (1, 2)]
    write_video(tmp_path / "a/v.mp4")
    assert find_videos(tmp_path / "a") == [tmp_path / "a/v.mp4"]
