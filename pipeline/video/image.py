"""One image file as the picture that a viewer shows: upright, RGB of 8 bits, transparency over black as in videos.

JPEG, PNG, WebP and BMP, told by content and not by name, of any depth: grey, palettes, CMYK, 16 bits (of which the
upper eight count). Of an animation the first picture counts. Colour profiles are not applied, nor are those of videos.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.errors import first_line
from pipeline.files.plain_file import open_plain
from pipeline.video.picture import MOST_PIXELS, MOST_SIDE, STEPS, PictureError, lay_down, on_black
from pipeline.video.record import Treatment

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MOST_BYTES = 1 << 28  # of a file: WebP is read whole
ORIENTATION = 0x0112  # the tag of Exif; its values 1 to 8 are:
ORIENTATIONS = ("", "hflip", "rotate180", "vflip", "transpose", "rotate270", "antitranspose", "rotate90")
HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}  # brands of the file type box

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound is MOST_PIXELS

T = TypeVar("T")


def read_image(path: Path) -> tuple[np.ndarray, Treatment]:
    """uint8 RGB [H, W, 3], C-contiguous, and what was done to it. Raises PictureError."""
    return _looked_at(path, _picture)


def image_shape(path: Path) -> tuple[int, int]:
    """(height, width) of the picture that `read_image` gives, by the file's header. Raises PictureError."""
    return _looked_at(path, _shape)


def _looked_at(path: Path, look: Callable[[Image.Image], T]) -> T:
    try:
        with open_plain(path) as file:
            head = file.read(12)
            if head[4:8] == b"ftyp" and head[8:] in HEIC:
                raise PictureError("it is HEIC, which is not read; save it as JPEG or PNG")
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                raise PictureError(f"the file has more than {MOST_BYTES >> 20} MiB")
            file.seek(0)
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS or max(image.size) > MOST_SIDE:
                    raise PictureError(f"its {image.width} x {image.height} pixels are too many")
                return look(image)
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError("it is no JPEG, PNG, WebP or BMP") from None
    except Image.DecompressionBombError:
        raise PictureError("its pixels are too many") from None
    except Exception as error:  # whatever Pillow's parsers stumble over
        raise PictureError(f"it cannot be read ({getattr(error, 'strerror', None) or first_line(error)})") from None


def _orientation(image: Image.Image) -> str:
    value = image.getexif().get(ORIENTATION)
    return ORIENTATIONS[value - 1] if isinstance(value, int) and 1 <= value <= len(ORIENTATIONS) else ""


def _shape(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (width, height) if STEPS[_orientation(image)][0] else (height, width)


def _picture(image: Image.Image) -> tuple[np.ndarray, Treatment]:
    orientation = _orientation(image)
    transparent = False
    if image.mode.startswith("I"):  # grey of 16 bits, which Pillow would cut off at 255
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        shown = np.repeat(grey[..., None], 3, -1)
    elif image.has_transparency_data:
        pixels = np.asarray(image.convert("RGBA"))
        transparent = bool(pixels[..., 3].min() < 255)
        shown = on_black(pixels)
    else:
        shown = np.array(image.convert("RGB"))
    if orientation:
        shown = lay_down(shown, orientation)
    return np.ascontiguousarray(shown), Treatment(orientation, alpha=transparent)
