"""Data sets: the fixed digits split, CIFAR in every official form, and messages that help."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest
from sklearn.datasets import load_digits as sklearn_digits

from golden.errors import UserError
from sw.datasets import HOME, load_dataset


def test_digits_split_is_fixed_stratified_and_complete():
    data, again = load_dataset("digits"), load_dataset("digits")
    assert data.train_images.shape == (1437, 8, 8, 1) and data.test_images.shape == (360, 8, 8, 1)
    assert data.train_images.dtype == np.uint8 and data.train_labels.dtype == np.int64
    assert np.array_equal(data.test_images, again.test_images)
    every = np.bincount(np.concatenate([data.train_labels, data.test_labels]))
    for digit, count in enumerate(np.bincount(data.test_labels)):
        assert abs(count - every[digit] * 360 / 1797) < 1
    source = np.rint(sklearn_digits().images * 255 / 16).astype(np.uint8).reshape(1797, 64)
    mine = np.concatenate([data.train_images, data.test_images]).reshape(1797, 64)
    assert np.array_equal(source[np.lexsort(source.T)], mine[np.lexsort(mine.T)])
    assert mine.min() == 0 and mine.max() == 255


def test_digits_split_does_not_change_between_versions():
    labels = load_dataset("digits").test_labels
    assert labels[:12].tolist() == EXPECTED_LABELS
    assert int(load_dataset("digits").test_images.astype(np.int64).sum()) == EXPECTED_SUM


EXPECTED_LABELS = [0, 4, 6, 8, 0, 2, 3, 9, 0, 5, 5, 5]
EXPECTED_SUM = 1795110


# ------------------------------------------------------------------------------------------- CIFAR


def cifar_records(name, count, seed):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 10 if name == "cifar10" else 100, count)
    return labels, draw.integers(0, 256, (count, 3072), dtype=np.uint8)


def binary_file(name, labels, planes):
    columns = [labels[:, None].astype(np.uint8)]
    if name == "cifar100":
        columns.insert(0, np.full((len(labels), 1), 7, np.uint8))  # coarse label
    return np.hstack([*columns, planes]).tobytes()


def python_file(name, labels, planes, protocol=2):
    key = b"labels" if name == "cifar10" else b"fine_labels"
    extra = {b"filenames": [b"x.png"] * len(labels), b"batch_label": b"training batch 1 of 5"}
    return pickle.dumps({b"data": planes, key: labels.tolist(), **extra}, protocol=protocol)


LAYOUTS = {
    ("cifar10", "binary"): (
        "cifar-10-batches-bin",
        [f"data_batch_{i}.bin" for i in range(1, 6)],
        "test_batch.bin",
        "cifar-10-binary.tar.gz",
    ),
    ("cifar10", "python"): (
        "cifar-10-batches-py",
        [f"data_batch_{i}" for i in range(1, 6)],
        "test_batch",
        "cifar-10-python.tar.gz",
    ),
    ("cifar100", "binary"): ("cifar-100-binary", ["train.bin"], "test.bin", "cifar-100-binary.tar.gz"),
    ("cifar100", "python"): ("cifar-100-python", ["train"], "test", "cifar-100-python.tar.gz"),
}


def files_of(name, layout):
    _, train, test, _ = LAYOUTS[name, layout]
    write = binary_file if layout == "binary" else python_file
    return {file: write(name, *cifar_records(name, 4, seed)) for seed, file in enumerate([*train, test])}


def place(root, name, layout, form):
    """Write the files as the download would leave them; returns what a user would name."""
    folder, _, _, archive = LAYOUTS[name, layout]
    files = files_of(name, layout)
    if form in ("folder", "folder itself"):
        (root / folder).mkdir(parents=True)
        for file, data in files.items():
            (root / folder / file).write_bytes(data)
        return root if form == "folder" else root / folder
    with tarfile.open(root / archive, "w:gz") as tar:
        for file, data in files.items():
            info = tarfile.TarInfo(f"{folder}/{file}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return root if form == "archive" else root / archive


@pytest.mark.parametrize("form", ["folder", "folder itself", "archive", "archive itself"])
@pytest.mark.parametrize("name, layout", LAYOUTS)
def test_cifar_is_read_in_every_official_form(tmp_path, name, layout, form):
    data = load_dataset(name, place(tmp_path, name, layout, form))
    parts = [cifar_records(name, 4, seed) for seed in range(len(LAYOUTS[name, layout][1]))]
    planes = np.concatenate([p[1] for p in parts])
    assert np.array_equal(data.train_labels, np.concatenate([p[0] for p in parts]))
    assert data.train_images.shape == (len(planes), 32, 32, 3) and data.train_images.dtype == np.uint8
    assert data.train_images[2, 3, 5].tolist() == [planes[2, c * 1024 + 3 * 32 + 5] for c in range(3)]
    assert len(data.test_labels) == 4 and data.num_classes == (10 if name == "cifar10" else 100)
    assert layout in data.source


@pytest.mark.parametrize("protocol", [2, 4])
def test_python_batches_of_several_pickle_protocols(tmp_path, protocol):
    folder = place(tmp_path, "cifar10", "python", "folder itself")
    labels, planes = cifar_records("cifar10", 3, 9)
    (folder / "test_batch").write_bytes(python_file("cifar10", labels, planes, protocol))
    assert np.array_equal(load_dataset("cifar10", folder).test_labels, labels)


class Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_a_pickle_cannot_run_code(tmp_path):
    folder = place(tmp_path, "cifar10", "python", "folder itself")
    marker = tmp_path / "attacked"
    attack = pickle.dumps({b"data": Attack(str(marker)), b"labels": [0]}, protocol=2)
    (folder / "data_batch_3").write_bytes(attack)
    with pytest.raises(UserError, match=r"data_batch_3: the pickle asks for \w+.mkdir"):
        load_dataset("cifar10", folder)
    assert not marker.exists()
    pickle.loads(attack)  # the fault is real: an ordinary unpickler would have run it
    assert marker.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
    ],
)
def test_other_globals_are_refused(tmp_path, payload):
    folder = place(tmp_path, "cifar10", "python", "folder itself")
    (folder / "test_batch").write_bytes(payload)
    with pytest.raises(UserError, match="test_batch.*(the pickle|not a CIFAR)"):
        load_dataset("cifar10", folder)


def test_a_missing_file_says_where_it_comes_from(tmp_path):
    with pytest.raises(UserError) as caught:
        load_dataset("cifar10", tmp_path)
    message = str(caught.value)
    for word in ("cifar-10-batches-bin", "cifar-10-python.tar.gz", HOME, str(tmp_path)):
        assert word in message
    assert "\n" not in message
    folder = place(tmp_path, "cifar10", "binary", "folder itself")
    (folder / "data_batch_2.bin").unlink()
    with pytest.raises(UserError, match="lacks data_batch_2.bin"):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda data: data[:-1], "multiple of 3073"),
        (lambda data: b"", "multiple of 3073"),
        (lambda data: b"\x0b" + data[1:], "label 11"),
    ],
)
def test_damaged_binary_files_are_named(tmp_path, damage, message):
    folder = place(tmp_path, "cifar10", "binary", "folder itself")
    path = folder / "data_batch_4.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"data_batch_4.bin.*{message}"):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize(
    "batch",
    [
        {b"data": np.zeros((2, 3072), np.uint8)},
        {b"data": np.zeros((2, 7), np.uint8), b"labels": [0, 1]},
        {b"data": np.zeros((2, 3072), np.float32), b"labels": [0, 1]},
        {b"data": [], b"labels": []},
        [1, 2],
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]},
    ],
)
def test_damaged_python_files_are_named(tmp_path, batch):
    folder = place(tmp_path, "cifar10", "python", "folder itself")
    (folder / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(UserError, match="data_batch_1 is not a CIFAR python batch"):
        load_dataset("cifar10", tmp_path)


def test_a_truncated_archive_is_named(tmp_path):
    archive = place(tmp_path, "cifar100", "binary", "archive itself")
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(UserError, match="cannot read archive"):
        load_dataset("cifar100", tmp_path)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="unknown data set 'mnist'.*digits"):
        load_dataset("mnist")
    with pytest.raises(UserError, match="cifar-10-binary.tar.gz.*--data-dir"):
        load_dataset("cifar10")
