"""Memory of decoding and sampling, or of a whole worker, against the length of the video.

Writes to a temporary folder only. Commands: posebridge bench memory
    posebridge bench memory --recipe refined --size 1920x1080 --frames 1500     (the long one takes ten minutes)
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.video.noise import write_again, write_noise


def peak_rss_mb() -> float:
    """The largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


@dataclass(frozen=True)
class MemoryBench:
    """Peak resident memory, in MB, of a process that samples frames from a short and from a long video, or that
    extracts them.
    """

    short_frames: int
    long_frames: int
    short_mb: float
    long_mb: float
    ratio: float


_SAMPLE = """
import sys
from pathlib import Path
from pipeline.bench.memory import peak_rss_mb
from pipeline.video.decode import Video
with Video(Path(sys.argv[1])) as video:
    for _ in video.frames(sorted(set(video.sample(int(sys.argv[2])).tolist()))):
        pass
print(peak_rss_mb())
"""


_EXTRACT = """
import sys
from dataclasses import replace
from pathlib import Path
from pipeline.bench.memory import peak_rss_mb
from pipeline.extract.extract import extract
from pipeline.hpe.factory import build_estimator
from pipeline.hpe.weights import resolve_weights
from pipeline.ingest.ingest import ingest
from pipeline.params import load_params
root, params, name = Path(sys.argv[1]).parent, load_params(Path(sys.argv[3])), sys.argv[4]
recipe = resolve_weights(params.recipes[name])
recipe = replace(recipe, boxes="full_frame") if recipe.boxes == "manifest" else recipe
ingest("bench", root, manifests=root)
done = extract("bench", name, recipe, root, params=params.extract, build_estimator=build_estimator, manifests=root,
               cache=root)
if done.failures:
    sys.exit(done.failures[0].reason)
print(peak_rss_mb())
"""


def bench_memory(
    folder: Path,
    frames: int = 300,
    factor: int = 10,
    sampled: int = 64,
    *,
    size: tuple[int, int] = (640, 360),
    video: Path | None = None,
    recipe: tuple[Path, str] | None = None,
) -> MemoryBench:
    """Measure a video of `frames` frames and one `factor` times as long, each in a process of its own.

    Args:
        folder: empty and temporary.
        size: width and height of the videos.
        video: what they show, over and over; by default noise, in which no detector finds anybody.
        recipe: a file of parameters and a recipe in it: a worker extracts the video by it, instead of decoding alone.
            What it takes from a manifest, persons' boxes, is the whole frame here.
    """
    peaks = []
    for count in (frames, frames * factor):
        path = folder / str(count) / "video.mp4"
        path.parent.mkdir()
        write_noise(path, count, *size) if video is None else write_again(path, count, *size, video)
        more = map(str, recipe or ())
        command = [sys.executable, "-c", _EXTRACT if recipe else _SAMPLE, str(path), str(sampled), *more]
        places = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        found = os.environ | {"PYTHONPATH": os.pathsep.join(places)}  # this very code, from whatever folder
        done = subprocess.run(command, capture_output=True, text=True, env=found)
        if done.returncode:
            said = done.stderr.strip() or f"its process ended with {done.returncode}"  # killed, by want of memory say
            last = said.splitlines()[-1].rstrip(".")
            raise PosebridgeError(f"The measurement of {count} frames failed: {last}.")
        peaks.append(float(done.stdout.splitlines()[-1]))
    return MemoryBench(frames, frames * factor, peaks[0], peaks[1], peaks[1] / peaks[0])
