"""Killed, concurrent, out of disk, broken input: stage one goes on, or says why not."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from fakes import FakeEstimator, write_audio, write_video
from test_extraction import RECIPE, Corridor
from test_workers import sealed, until

from pipeline.cache.store import open_store
from pipeline.cache.verify import orphans, verify_index, verify_store
from pipeline.errors import PosebridgeError
from pipeline.files.durable import temporary

# One run over the corridor in argv[1], with a pose model of argv[2] seconds a batch; prints the crops it was given.
SCRIPT = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from fakes import FakeEstimator
from test_extraction import Corridor, RECIPE

class Slow(FakeEstimator):
    def estimate(self, crops, cue_rows):
        sealed = any(Path(sys.argv[1]).glob("cache/store/d/*/shard-*.json"))
        time.sleep(float(sys.argv[2]) if sealed else 0.02)
        return super().estimate(crops, cue_rows)

corridor = Corridor.over(Path(sys.argv[1]))
corridor.run(Slow())
print(corridor.estimator.crops)
"""


def start(folder: Path, seconds: float) -> subprocess.Popen:
    """Another process that extracts, and takes so long for every batch once a first shard is sealed."""
    here = Path(__file__).parent
    command = [sys.executable, "-c", SCRIPT, str(folder), str(seconds), str(here), str(here.parent)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def store_of(corridor: Corridor) -> Path:
    (folder,) = (corridor.folder / "cache/store/d").iterdir()
    return folder


@pytest.mark.fault
def test_killed_in_the_middle_it_goes_on_where_it_was(tmp_path):
    corridor = Corridor(tmp_path / "killed", videos=12)
    process = start(corridor.folder, 60)  # it is in the middle, however slow this machine
    until(lambda: sealed(corridor.folder))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    store = store_of(corridor)
    done = len(list(store.glob("shard-*.json")))
    assert 0 < done < 4 and not corridor.index.exists(), "killed in the middle"
    left = temporary(store / "shard-00003.h5")  # as if it had been killed a moment later, and an hour ago
    left = left.with_name(left.name.replace(f"-{os.getpid()}-", f"-{process.pid}-"))
    left.write_text("half a shard")
    os.utime(left, (0, 0))
    result = corridor.run()
    assert 0 < corridor.estimator.crops < 12 * 8 and result.clips == 12
    assert not left.exists() and verify_store(store) == []
    opened = open_store(store)
    assert orphans(opened, opened.receipts(opened.layout())) == []
    whole = Corridor(tmp_path / "whole", videos=12)
    whole.run()
    with corridor.reader() as one, whole.reader() as other:
        assert one.clip_ids == other.clip_ids
        rows = [reader.read(reader.clip_ids, reader.names) for reader in (one, other)]
    assert all((rows[0][name] == rows[1][name]).all() for name in rows[0]), "as if it had never been killed"


@pytest.mark.fault
def test_two_workers_on_one_store_share_the_work(tmp_path):
    corridor = Corridor(tmp_path)
    workers = [start(corridor.folder, 0.02) for _ in range(2)]
    crops = [int(worker.communicate(timeout=200)[0]) for worker in workers]
    assert sum(crops) == 6 * 8 and [worker.returncode for worker in workers] == [0, 0]
    store = store_of(corridor)
    assert verify_store(store) == [] and not [*store.glob("*.tmp-*"), *store.glob("*.lease")]
    assert verify_index(corridor.index, corridor.folder / "cache/store") == []
    assert not corridor.run().changed


@pytest.mark.fault
def test_what_another_worker_has_sealed_meanwhile_is_not_made_again(tmp_path):
    corridor = Corridor(tmp_path)

    class Overtaken(FakeEstimator):
        """While it looks at its first crops, another worker makes the other shard."""

        def estimate(self, crops, cue_rows):
            if not self.calls:
                (lease,) = store_of(corridor).glob("*.lease")
                Corridor.over(tmp_path).run(share=(1 - int(lease.stem[-1]), 2))
            return super().estimate(crops, cue_rows)

    told = []
    result = corridor.run(Overtaken(), progress=lambda done, total: told.append((done, total)))
    assert 0 < corridor.estimator.crops < 6 * 8 and result.estimated == corridor.estimator.crops / 8
    assert (result.clips, result.changed) == (6, True) and told[0] == (1, 6)
    assert verify_store(store_of(corridor)) == []


@pytest.mark.fault
def test_bad_files_are_rows_among_the_failures_and_the_rest_goes_on(tmp_path):
    corridor = Corridor(tmp_path, videos=3)
    (corridor.root / "text.mp4").write_text("no video")
    (corridor.root / "empty.mp4").touch()
    write_audio(corridor.root / "audio.mp4")
    write_video(corridor.root / "none.avi", frames=0, codec="mpeg4")
    front = write_video(corridor.root / "cut.mp4", frames=60, options={"movflags": "faststart"})
    front.write_bytes(front.read_bytes()[:-300])
    corridor.ingest()
    result = corridor.run()
    reasons = {failure.clip_id: (failure.stage, failure.reason) for failure in result.failures}
    assert set(reasons) == {"text", "empty", "audio", "none", "cut"} and result.clips == 3
    assert all(stage == "open" and reason and str(tmp_path) not in reason for stage, reason in reasons.values())
    assert corridor.run().estimated == 0, "a failure is not tried again by itself"
    result = corridor.run(retry_failed=True)
    assert result.estimated == 5 and not result.changed, "tried again with the same outcome, the index is the same"
    write_video(corridor.root / "text.mp4")
    assert len(corridor.run().failures) == 4, "another file under the name is tried without being asked"


@pytest.mark.fault
def test_a_damaged_shard_is_made_again_and_never_copied_from(tmp_path):
    corridor = Corridor(tmp_path)
    corridor.run()
    before = corridor.index.read_bytes()
    store = store_of(corridor)
    victim = max(store.glob("shard-*.h5"), key=lambda path: path.stat().st_size)
    whole = victim.read_bytes()
    victim.unlink()
    assert 0 < corridor.run().estimated < 6 and corridor.index.read_bytes() == before
    assert victim.read_bytes() == whole
    broken = bytearray(whole)
    broken[-1] ^= 1
    victim.write_bytes(broken)
    for name in "abcdefghijkl":  # one of them is sure to fall into the damaged shard
        write_video(corridor.root / f"{name}.mp4", offset=60)
    corridor.ingest()
    corridor.run()
    assert verify_store(store) == []


@pytest.mark.fault
def test_a_gone_video_or_a_small_disk_is_one_sentence_and_nothing_is_written(tmp_path, monkeypatch):
    corridor = Corridor(tmp_path)
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 1000))
        with pytest.raises(PosebridgeError, match=r"needs .* GB .*--cache-root"):
            corridor.run()
    (corridor.root / "4.mp4").unlink()
    with pytest.raises(PosebridgeError, match="1 clips of d have lost their video since ingest, first '4'"):
        corridor.run()
    assert not (tmp_path / "cache").exists()


@pytest.mark.fault
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES])
def test_a_disk_that_fails_is_one_sentence_and_the_sealed_shards_stay(tmp_path, monkeypatch, number):
    corridor = Corridor(tmp_path)
    real, written = os.fsync, []

    def fsync(handle):
        name = Path(f"/proc/self/fd/{handle}").readlink().name
        if ".h5.tmp-" in name:
            written.append(name)
            if len(written) == 2:
                raise OSError(number, os.strerror(number))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(PosebridgeError) as caught:
            corridor.run()
    assert str(caught.value).startswith("Writing ") and str(caught.value).endswith(
        f" failed ({os.strerror(number)}); put the disk right and run the same command again: sealed shards stay."
    )
    assert not list(store_of(corridor).glob("*.tmp-*")) and len(list(store_of(corridor).glob("*.h5"))) == 1
    assert corridor.run().estimated < 6


@pytest.mark.fault
def test_a_disk_that_is_really_full_is_one_sentence(tmp_path):
    corridor = Corridor(tmp_path)
    store = tmp_path / "small"
    store.mkdir()
    mounting = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", store], capture_output=True)
    if mounting.returncode:
        pytest.skip("this user may not mount a small disk")

    class Filling(FakeEstimator):
        def estimate(self, crops, cue_rows):
            (store / "of somebody else").write_bytes(bytes(shutil.disk_usage(store).free))
            return super().estimate(crops, cue_rows)

    try:
        with pytest.raises(PosebridgeError, match=r"\(No space left on device\).*: sealed shards stay\."):
            corridor.run(Filling(), cache_root=store)
        (store / "of somebody else").unlink()
        assert not list(store.rglob("*.tmp-*")) and corridor.run(cache_root=store).clips == 6
        subprocess.run(["mount", "-o", "remount,ro", store], check=True)
        corridor.edit_clips(lambda clips: clips[1:])
        with pytest.raises(PosebridgeError, match=r"Writing .*\(Read-only file system\)"):
            corridor.run(cache_root=store)
    finally:
        subprocess.run(["umount", "--lazy", store], check=True)  # what was read of it may still be mapped


@pytest.mark.fault
def test_a_crash_of_the_pose_model_leaves_no_half_written_shard(tmp_path):
    class Crashing(FakeEstimator):
        def estimate(self, crops, cue_rows):
            if self.calls == 3:
                raise MemoryError
            return super().estimate(crops, cue_rows)

    corridor = Corridor(tmp_path)
    with pytest.raises(MemoryError):
        corridor.run(Crashing())
    assert not list(store_of(corridor).glob("*.tmp-*")) and not corridor.index.exists()
    corridor.run()
    assert verify_store(store_of(corridor)) == [] and RECIPE.fingerprint[:12] in store_of(corridor).name
