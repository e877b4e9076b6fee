"""Memory of decoding and sampling against the length of the video.

Writes to a temporary folder only. Command: posebridge bench memory
"""

from __future__ import annotations

import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.video.noise import write_noise


def peak_rss_mb() -> float:
    """The largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


@dataclass(frozen=True)
class MemoryBench:
    """Peak resident memory of a process that samples frames from a short and from a long video, in MB."""

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


def bench_memory(folder: Path, frames: int = 300, factor: int = 10, sampled: int = 64) -> MemoryBench:
    """Measure a video of `frames` frames and one `factor` times as long, each in a process of its own."""
    peaks = []
    for count in (frames, frames * factor):
        path = folder / f"{count}.mp4"
        write_noise(path, count)
        command = [sys.executable, "-c", _SAMPLE, str(path), str(sampled)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
        if done.returncode:
            raise PosebridgeError(f"The measurement of {path.name} failed: {done.stderr.strip().splitlines()[-1]}.")
        peaks.append(float(done.stdout))
    return MemoryBench(frames, frames * factor, peaks[0], peaks[1], peaks[1] / peaks[0])
