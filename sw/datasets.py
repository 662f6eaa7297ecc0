"""Labelled images as bytes: scikit-learn digits, CIFAR-10 and CIFAR-100.

Nothing is downloaded. CIFAR is read from the official files in either layout (binary or python), as
archives or unpacked. The python layout is pickled; it is read by an unpickler that can build numpy
arrays of plain numbers and builtin containers and refuses everything else, so a file cannot run code.

What is loaded is checked (`sw.editions`): every file whole, none altered where the rest of the set is known,
every class as often as it must be.

References
----------
CIFAR: https://www.cs.toronto.edu/~kriz/cifar.html
Digits: UCI "Optical Recognition of Handwritten Digits", as shipped inside scikit-learn.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from s2tdpt.golden.errors import UserError
from s2tdpt.sw.editions import HOME, RECORDS, TITLES, check_balance, common_edition, edition_of

DATASETS = ("digits", "cifar10", "cifar100")
DIGITS_TEST_IMAGES = 360


@dataclass(frozen=True)
class Dataset:
    """Images uint8 [M, H, W, C] in 0..255 and labels int64 [M], split for training and test.

    `source` says in words where the bytes came from; it is recorded with every trained model.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    source: str

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of the four arrays, computed at the first use.

        Equal data has an equal digest whatever files it came from; one altered byte changes it.
        """
        return digest_of(self.train_images, self.train_labels, self.test_images, self.test_labels)


def digest_of(*arrays: np.ndarray) -> str:
    """SHA-256, hexadecimal, over types, shapes and bytes of integer arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{plain.dtype.name}{list(plain.shape)}".encode())
        digest.update(plain.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def load_dataset(name: str, directory: str | Path | None = None) -> Dataset:
    """The data set called `name`: "digits" (needs no files), "cifar10" or "cifar100".

    Parameters
    ----------
    directory : path, optional
        For CIFAR: the folder that holds the official archive or the unpacked folder, or either itself.

    Raises
    ------
    UserError
        Unknown name, files not found (the message lists what was looked for), or files that are incomplete,
        damaged or altered.
    """
    if name == "digits":
        return load_digits()
    if name not in DATASETS:
        raise UserError(
            f"unknown data set {name!r}; expected one of {', '.join(DATASETS)}; choose one of these"
        )
    if directory is None:
        raise UserError(
            f"data set {name} needs its files; expected a folder with {_ARCHIVES[name][0]} from {HOME}; "
            "name the folder (--data-dir)"
        )
    return _load_cifar(name, Path(directory))


def load_digits() -> Dataset:
    """The 1797 8x8 digits of scikit-learn; gray levels 0..16 become bytes round(v * 255 / 16).

    The split is fixed and stratified: every class gives its share of the 360 test images (largest
    remainders), drawn by a seeded legacy NumPy stream, which NumPy promises never to change.
    """
    from sklearn.datasets import load_digits as load  # heavy import, needed here only

    data = load()
    images = np.rint(data.images * (255.0 / 16.0)).astype(np.uint8)[..., None]
    labels = data.target.astype(np.int64)
    share = np.bincount(labels) * (DIGITS_TEST_IMAGES / len(labels))
    count = np.floor(share).astype(int)
    count[np.argsort(count - share, kind="stable")[: DIGITS_TEST_IMAGES - count.sum()]] += 1
    draw = np.random.RandomState(2025)
    chosen = np.zeros(len(labels), bool)
    for digit, wanted in enumerate(count):
        chosen[draw.permutation(np.flatnonzero(labels == digit))[:wanted]] = True
    return Dataset(
        "digits",
        images[~chosen],
        labels[~chosen],
        images[chosen],
        labels[chosen],
        10,
        "scikit-learn digits (1797 images 8x8), stratified 80/20 split",
    )


# ------------------------------------------------------------------------------------------- CIFAR

_ARCHIVES = {
    "cifar10": ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"),
    "cifar100": ("cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"),
}
_FOLDERS = {
    "cifar10": ("cifar-10-batches-bin", "cifar-10-batches-py"),
    "cifar100": ("cifar-100-binary", "cifar-100-python"),
}
# (training files, test file) of the binary and of the python layout
_FILES = {
    "cifar10": (
        ([f"data_batch_{i}.bin" for i in range(1, 6)], "test_batch.bin"),
        ([f"data_batch_{i}" for i in range(1, 6)], "test_batch"),
    ),
    "cifar100": ((["train.bin"], "test.bin"), (["train"], "test")),
}
_LABEL_BYTES = {"cifar10": 1, "cifar100": 2}  # CIFAR-100 records start with the coarse label
_LABEL_KEY = {"cifar10": b"labels", "cifar100": b"fine_labels"}
_CLASSES = {"cifar10": 10, "cifar100": 100}
_PIXELS = 3 * 32 * 32


def _load_cifar(name: str, directory: Path) -> Dataset:
    for binary, files, source in _sources(name, directory):
        train_names, test_name = _FILES[name][0 if binary else 1]
        wanted = (*train_names, test_name)
        missing = [file for file in wanted if file not in files]
        if missing:
            raise UserError(
                f"{source} lacks {', '.join(missing)}; expected {', '.join(wanted)}; "
                f"download it again from {HOME}"
            )
        parse = _parse_binary if binary else _parse_python
        images, labels, editions = {}, {}, {}
        for file in wanted:
            data = files.pop(file)  # the bytes go once they are read: they are half of the memory
            count = RECORDS[name][file == test_name]
            images[file], labels[file] = parse(name, data, f"{source}: {file}", count)
            editions[file] = edition_of(name, file, data)
        arrays = (
            np.concatenate([images.pop(file) for file in train_names]),
            np.concatenate([labels[file] for file in train_names]),
            images[test_name],
            labels[test_name],
        )
        edition = common_edition(editions, source)
        if edition is None:
            check_balance(name, {file: labels[file] for file in train_names}, _CLASSES[name], source)
            check_balance(name, {test_name: labels[test_name]}, _CLASSES[name], source)
            edition = f"{TITLES[name]} (pixels of unknown origin, sha256 {digest_of(*arrays)[:12]})"
        return Dataset(name, *arrays, _CLASSES[name], edition)
    looked = ", ".join((*_FOLDERS[name], *_ARCHIVES[name]))
    raise UserError(
        f"no {name} files in {directory}; expected one of {looked}; download one from {HOME} into that folder"
    )


def _sources(name: str, directory: Path) -> Iterator[tuple[bool, dict[str, bytes], str]]:
    """(binary layout?, file contents by base name, description) of what is found, best first."""
    wanted = [({*_FILES[name][i][0], _FILES[name][i][1]}, i == 0) for i in (0, 1)]
    for i, (names, binary) in enumerate(wanted):
        for folder in (directory / _FOLDERS[name][i], directory):
            found = {file: folder / file for file in names if (folder / file).is_file()}
            if found or (folder is not directory and folder.is_dir()):
                yield binary, {file: _read(path) for file, path in found.items()}, str(folder)
    for i, (names, binary) in enumerate(wanted):
        archive = directory if directory.is_file() else directory / _ARCHIVES[name][i]
        plain = _ARCHIVES[name][i].removesuffix(".gz")
        if not archive.is_file():
            archive = directory / plain
        if archive.is_file() and (archive != directory or archive.name in (_ARCHIVES[name][i], plain)):
            yield binary, _read_archive(archive, names), str(archive)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; expected a readable file; check its permissions"
        ) from None


def _read_archive(path: Path, names: set[str]) -> dict[str, bytes]:
    """Members with the wanted base names; nothing is unpacked to disk."""
    found = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                base = PurePosixPath(member.name).name
                if member.isfile() and base in names:
                    found[base] = archive.extractfile(member).read()
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, OSError, ValueError) as error:
        raise UserError(
            f"cannot read archive {path} ({type(error).__name__}); expected the official archive; "
            f"download it again from {HOME}"
        ) from None
    return found


def _images(planes: np.ndarray) -> np.ndarray:
    """[M, 3072] red, green, blue planes -> [M, 32, 32, 3]."""
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _checked_labels(name: str, labels: np.ndarray, where: str) -> np.ndarray:
    if labels.size and (labels.min() < 0 or labels.max() >= _CLASSES[name]):
        raise UserError(
            f"{where} has label {labels.max()}; expected 0..{_CLASSES[name] - 1}; "
            f"download it again from {HOME}"
        )
    return labels.astype(np.int64)


def _parse_binary(name: str, data: bytes, where: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    record = _LABEL_BYTES[name] + _PIXELS
    if len(data) != count * record:
        raise UserError(
            f"{where} has {len(data)} bytes; expected {count * record} ({count} records of {record}); "
            f"download it again from {HOME}"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    return _images(rows[:, -_PIXELS:]), _checked_labels(name, rows[:, _LABEL_BYTES[name] - 1], where)


def _parse_python(name: str, data: bytes, where: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    damaged = UserError(
        f"{where} is not a CIFAR python batch; expected uint8 data of {_PIXELS} columns and "
        f"{_LABEL_KEY[name].decode()}; download it again from {HOME}"
    )
    try:
        batch = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
        batch = {key.encode() if isinstance(key, str) else key: value for key, value in batch.items()}
        planes = np.asarray(batch[b"data"])
        labels = np.asarray(batch[_LABEL_KEY[name]])
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except Exception:  # a damaged pickle can raise nearly anything
        raise damaged from None
    if (
        planes.dtype != np.uint8
        or planes.ndim != 2
        or planes.shape[1] != _PIXELS
        or labels.dtype.kind not in "iu"
        or labels.shape != planes.shape[:1]
    ):
        raise damaged
    if len(labels) != count:
        raise UserError(f"{where} has {len(labels)} images; expected {count}; download it again from {HOME}")
    return _images(planes), _checked_labels(name, labels, where)


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """The one use of _codecs.encode in array pickles: bytes spelled as text."""
    if encoding != "latin1":
        raise UserError("the pickle names another text encoding; expected latin1; use the official file")
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """Reads builtin containers and numpy arrays; any other global name is refused before it is imported."""

    _RECONSTRUCT = np.array([0]).__reduce__()[0]
    _ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str):
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise UserError(
                f"the pickle asks for {module}.{name}; expected numpy arrays and builtin values only; "
                "use the official file"
            ) from None

    def persistent_load(self, pid):
        raise UserError(
            "the pickle refers to outside objects; expected a self-contained file; use the official file"
        )
