"""Pose models and detectors that others have published: where each is, under which licence, and what it must be.

`posebridge weights get NAME` fetches one to `cache/weights`, under the name that recipes give it. An address without a
known sha256 is trusted at first use and never again (`hpe/keep.py`). Addresses are those of OpenMMLab's model zoo, of
mmpose's own metafiles (what `weights: auto` looks up), and of the one public ONNX export of PP-TinyPose whose maker
publishes its sha256. Hashes of ONNX files are of the file in the archive, as several public projects pin them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DOWNLOADS = Path("cache/weights")
_ZOO = "https://download.openmmlab.com/mmpose/v1/projects"
_ONNX, _TORCH = f"{_ZOO}/rtmposev1/onnx_sdk", f"{_ZOO}/rtmposev1"


@dataclass(frozen=True)
class Published:
    """One file of weights. `member` is its name in the zip at `url`, if that is one; `megabytes` what about is fetched;
    `sha256` its first digits, at least: OpenMMLab's checkpoints bear eight in their names.
    """

    file: str
    what: str
    url: str
    sha256: str
    megabytes: float
    member: str = ""
    licence: str = "Apache-2.0"  # of the code that it came with; none publishes another one for its weights

    @property
    def path(self) -> Path:
        """Where it lies in the project."""
        return DOWNLOADS / self.file


def _packed(file: str, what: str, name: str, sha256: str, megabytes: float) -> Published:
    return Published(file, what, f"{_ONNX}/{name}.zip", sha256, megabytes, member="end2end.onnx")


def _checkpoint(what: str, name: str, sha256: str, megabytes: float) -> Published:
    return Published(f"{name}.pth", what, f"{_TORCH}/{name}.pth", sha256, megabytes)


PUBLISHED = {
    "rtmdet-nano": _packed(
        "rtmdet-nano.onnx", "person detector RTMDet-nano, 320x320: the `detector` of all recipes for real people",
        "rtmdet_nano_8xb32-100e_coco-obj365-person-05d8511e",
        "8297e829ccc5590c8e2d32d5a211f322a0585fb7467eec85eb12c9525b0b95d6", 4,
    ),
    "rtmpose-t": _packed(
        "rtmpose-t.onnx", "RTMPose-t, 17 joints, 256x192, for `backend: onnx`",
        "rtmpose-t_simcc-body7_pt-body7_420e-256x192-026a1439_20230504",
        "a6c2f6a3896a4d51131d14d7a80a3d08b50f559af5a58a45d5b098aef510a70f", 12.5,
    ),
    "rtmpose-s": _packed(
        "rtmpose-s.onnx", "RTMPose-s, likewise",
        "rtmpose-s_simcc-body7_pt-body7_420e-256x192-acd4a1ef_20230504",
        "9aeb635b83f86aea45cf45d85798f7eba1a162de8e0d721c44e54fe5eebaf47d", 20,
    ),
    "rtmpose-m": _packed(
        "rtmpose-m.onnx", "RTMPose-m, likewise",
        "rtmpose-m_simcc-body7_pt-body7_420e-256x192-e48f03d0_20230504",
        "5c0a4bf67953e6d2ac43ce15e77dc9d5d354ae18430a47d2c5963a7bc5683e3c", 50,
    ),
    "rtmpose-t-coco": _checkpoint(
        "RTMPose-t on COCO, for `backend: mmpose`: what `weights: auto` takes for rtmpose-t_8xb256-420e_coco-256x192",
        "rtmpose-tiny_simcc-coco_pt-aic-coco_420e-256x192-e613ba3f_20230127", "e613ba3f", 14,
    ),
    "rtmpose-s-coco": _checkpoint(
        "RTMPose-s on COCO, likewise: the papers' `levels`",
        "rtmpose-s_simcc-coco_pt-aic-coco_420e-256x192-8edcf0d7_20230127", "8edcf0d7", 22,
    ),
    "rtmpose-m-coco": _checkpoint(
        "RTMPose-m on COCO, likewise",
        "rtmpose-m_simcc-coco_pt-aic-coco_420e-256x192-d8dd5ca4_20230127", "d8dd5ca4", 55,
    ),
    "pp-tinypose": Published(
        "pp-tinypose-enhanced_256x192.onnx",
        "PP-TinyPose, 17 joints, 256x192: another export than that of the recipe `tinypose`, whose taps it has not",
        "https://www.modelscope.cn/models/chenmohan/web-sdk-pp-tinypose/resolve/"
        "68e7b987b5daf36080fb16ed90bf67b64d722b20/tinypose-256x192/0.1.0/tinypose-256x192-fp32.onnx",
        "7614d17acbe957200a8505e11a4fb8445103f9e44a7087115d8a1ea85f88b1b9", 5.7, licence="Apache-2.0 (PaddleDetection)",
    ),
}  # fmt: skip


def how_to_get(place: str) -> str:
    """What somebody does who lacks the file at this place."""
    for name, published in PUBLISHED.items():
        if Path(place) == published.path:
            return f"fetch it with `posebridge weights get {name}`"
    return "bring the file (`posebridge weights ls` lists public ones)"
