"""Images from files: exactly the bytes that stand there, or a refusal.

Nothing is scaled, blended or dropped on the way: a picture whose pixels are no bytes, that is partly
transparent, moves, or has colours where the network wants grey, is refused. A file is looked at before it is
read, so that neither its size nor what it announces costs memory.
"""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path

import numpy as np

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError, shown

LARGEST = 1 << 30
"""Bytes of the images of one file."""

FORMATS = ("PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG")
"""Kinds of pictures that are read, by Pillow's names."""

PLAIN_MODES = {"1", "L", "P", "RGB"}
"""Modes of Pillow whose pixels are bytes of grey or of three colours."""


def load_images(paths: tuple[Path, ...], config: NetworkConfig) -> np.ndarray:
    """Images from .npy arrays (uint8 [B, H, W, C] or [B, H, W]) and pictures: uint8 [B, H, W, C].

    Raises
    ------
    UserError
        A file cannot be read, is of another shape or type, holds no image, or none that can be taken as it
        stands.
    """
    shape = (config.image_height, config.image_width, config.image_channels)
    return np.concatenate([_read(Path(path), shape) for path in paths])


def _read(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """The images of a file, uint8 [B, H, W, C]; `shape` is what the network takes."""
    array = path.suffix == ".npy"
    expected = "a .npy file" if array else "PNG or .npy"
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise _unreadable(path, "Is a directory" if path.is_dir() else "not a regular file", expected)
        return _read_array(path, shape) if array else _read_picture(path, shape)
    except OSError as error:
        raise _unreadable(path, error.strerror or "not a picture", expected) from None


def _read_array(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """An array as it is, with the axes that may be left out: the batch, the channel of grey images."""
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except Exception as error:  # a damaged header can raise nearly anything; pickled data is refused
        reason = getattr(error, "strerror", None) or "not a plain NumPy array"
        raise _unreadable(path, reason, "a .npy file") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise UserError(f"cannot read images {path}: an archive; expected one .npy array; save it alone")
    found = array.shape
    if found == shape:
        array = array[None]
    elif shape[2] == 1 and found[-2:] == shape[:2] and array.ndim in (2, 3):
        array = array.reshape(-1, *shape)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] != shape or not len(array):
        raise UserError(
            f"images in {path} are {array.dtype!s:.60} {shown(list(found))}; "
            f"expected uint8 [batch, {shape[0]}, {shape[1]}, {shape[2]}]; convert them"
        )
    if array.nbytes > LARGEST:
        raise UserError(
            f"images in {path} take {array.nbytes} bytes; expected at most {LARGEST}; split the file"
        )
    return np.array(array)


def _read_picture(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pictures so large that they are refused here anyway
        try:
            with Image.open(path, formats=FORMATS) as picture:
                _check_picture(path, picture, shape)
                pixels = np.asarray(picture.convert("L" if picture.mode in "1L" else "RGB"))
        except (UserError, MemoryError):
            raise
        except Exception as error:  # a damaged picture can raise nearly anything
            reason = getattr(error, "strerror", None) or "not a picture"
            raise _unreadable(path, reason, "PNG or .npy") from None
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], shape[2], axis=2)
    elif shape[2] == 1:
        if (pixels != pixels[..., :1]).any():
            raise UserError(f"image {path} has colours; expected grey; convert it")
        pixels = pixels[..., :1]
    if pixels.shape != shape:
        raise UserError(
            f"image {path} is a picture of 3 channels; expected {shape[2]}; save a .npy array instead"
        )
    return pixels[None]


def _check_picture(path: Path, picture, shape: tuple[int, int, int]) -> None:
    """Refuse, before its pixels are decoded, a picture that cannot be taken as it stands."""
    width, height = picture.size
    if (height, width) != shape[:2]:
        raise UserError(f"image {path} is {width}x{height} pixels; expected {shape[1]}x{shape[0]}; resize it")
    if getattr(picture, "n_frames", 1) > 1:
        raise UserError(f"image {path} has {picture.n_frames} frames; expected one; save one of them")
    depth = [word for tile in picture.tile for word in np.atleast_1d(tile[3]) if "16" in str(word)]
    if picture.mode[0] in "IF" or depth:
        mode = depth[0] if depth else picture.mode
        raise UserError(
            f"image {path} has pixels of more than 8 bits (mode {mode}); expected one byte a channel; "
            "convert it"
        )
    if "A" in picture.mode or picture.mode[-1] == "a" or "transparency" in picture.info:
        raise UserError(f"image {path} has transparency; expected none; remove the alpha channel")
    if picture.mode not in PLAIN_MODES:
        raise UserError(f"image {path} has mode {picture.mode}; expected grey or RGB; convert it")


def _unreadable(path: Path, reason: str, expected: str) -> UserError:
    what = "images" if path.suffix == ".npy" else "image"
    return UserError(f"cannot read {what} {path}: {reason}; expected {expected}; check it")
