"""HDR to SDR: what a picture that was graded for a bright screen looks like on a usual one.

Signal -> light: PQ or HLG by ITU-R BT.2100 (HLG with the system gamma 1.2 of a screen of 1,000 cd/m2). Highlights: the
curve of ITU-R BT.2390, section "EETF", from a peak of 1,000 cd/m2 down to 203, for red, green and blue each; 203 is the
white of HDR by ITU-R BT.2408 and becomes the peak of SDR. Below about 96 cd/m2 the light is unchanged. Colours: BT.2020
to BT.709 by ITU-R BT.2407, what lies outside is cut. Light -> signal: the inverse of ITU-R BT.1886, gamma 2.4.
No metadata is looked at, so equal frames of any file give equal pictures.
"""

from __future__ import annotations

from functools import cache

import numpy as np

CURVES = {16: "pq", 18: "hlg"}  # FFmpeg's numbers of the transfer characteristics
BT709 = 1  # FFmpeg's number of the primaries
PEAK, WHITE = 1000.0, 203.0  # cd/m2
ROWS = 128  # converted at a time, so that an 8K picture is never held in floating point
STEPS = 4096  # of tables that go by the square root of the light

TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)  # of linear light in BT.2020
LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020
M1, M2 = 2610 / 16384, 2523 / 4096 * 128  # of PQ
C1, C2, C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def to_sdr(picture: np.ndarray, curve: str, primaries: int) -> np.ndarray:
    """uint16 R'G'B' [H, W, 3] of the `curve` pq or hlg to uint8 of SDR; primaries but BT.709 are taken for BT.2020."""
    shown = np.empty(picture.shape, np.uint8)
    for top in range(0, len(picture), ROWS):
        light = light_of(curve)[picture[top : top + ROWS]]  # [rows, W, 3], 1 is SDR's white or, for HLG, the peak
        if curve == "hlg":
            light *= np.maximum(light @ LUMINANCE, 1e-6)[..., None] ** 0.2
            light = below_white()[_by_root(light)]
        if primaries != BT709:
            light = light @ TO_BT709.T
        shown[top : top + ROWS] = signal_of_sdr()[_by_root(light)]
    return shown


def _by_root(light: np.ndarray) -> np.ndarray:
    """Indices into a table of `STEPS` by the square root of light in [0, 1]."""
    return (np.sqrt(light.clip(0, 1)) * (STEPS - 1) + 0.5).astype(np.uint16)


@cache
def light_of(curve: str) -> np.ndarray:
    """float32 [65536]: the light of a signal. For PQ, mapped to 1 = SDR's white; for HLG, of the scene, at most 1."""
    signal = np.arange(65536) / 65535
    if curve == "pq":
        return (compressed(pq_light(signal)) / WHITE).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)


@cache
def below_white() -> np.ndarray:
    """float32 [STEPS]: light as a share of the peak, by its root, mapped to 1 = SDR's white."""
    return (compressed(PEAK * (np.arange(STEPS) / (STEPS - 1)) ** 2) / WHITE).astype(np.float32)


@cache
def signal_of_sdr() -> np.ndarray:
    """uint8 [STEPS]: the signal for light by its root."""
    return np.round(255 * (np.arange(STEPS) / (STEPS - 1)) ** (2 / 2.4)).astype(np.uint8)


def compressed(light: np.ndarray) -> np.ndarray:
    """cd/m2 of a screen with the peak `PEAK` to those of one with `WHITE`."""
    most = pq_signal(np.array(PEAK))
    e, high = np.minimum(pq_signal(light) / most, 1), pq_signal(np.array(WHITE)) / most
    knee = 1.5 * high - 0.5
    t = (e - knee) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * high
    return pq_light(np.where(e < knee, e, spline) * most)


def pq_light(signal: np.ndarray) -> np.ndarray:
    """cd/m2 of a PQ signal in [0, 1]."""
    root = signal ** (1 / M2)
    return 10000 * (np.maximum(root - C1, 0) / (C2 - C3 * root)) ** (1 / M1)


def pq_signal(light: np.ndarray) -> np.ndarray:
    """The PQ signal of cd/m2."""
    root = (light / 10000) ** M1
    return ((C1 + C2 * root) / (1 + C3 * root)) ** M2
