"""Data sets: the fixed digits split, CIFAR in every official form, altered files, and messages that help."""

import dataclasses
import hashlib
import io
import os
import pickle
import re
import tarfile

import numpy as np
import pytest
from sklearn.datasets import load_digits as sklearn_digits

import s2tdpt.sw.editions as editions
from s2tdpt.golden.errors import UserError
from s2tdpt.sw.datasets import HOME, digest_of, load_dataset


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


COUNT = {"cifar10": 10, "cifar100": 100}
"""Images a file here: every class once."""


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """The official sets are the same files with more records, and none of these is a known copy."""
    monkeypatch.setattr(editions, "RECORDS", {name: (count, count) for name, count in COUNT.items()})
    monkeypatch.setattr("s2tdpt.sw.datasets.RECORDS", editions.RECORDS)


def cifar_records(name, seed):
    draw = np.random.default_rng(seed)
    labels = draw.permutation(COUNT[name])
    return labels, draw.integers(0, 256, (COUNT[name], 3072), dtype=np.uint8)


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
    return {file: write(name, *cifar_records(name, seed)) for seed, file in enumerate([*train, test])}


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
    parts = [cifar_records(name, seed) for seed in range(len(LAYOUTS[name, layout][1]))]
    planes = np.concatenate([p[1] for p in parts])
    assert np.array_equal(data.train_labels, np.concatenate([p[0] for p in parts]))
    assert data.train_images.shape == (len(planes), 32, 32, 3) and data.train_images.dtype == np.uint8
    assert data.train_images[2, 3, 5].tolist() == [planes[2, c * 1024 + 3 * 32 + 5] for c in range(3)]
    assert len(data.test_labels) == data.num_classes == COUNT[name]
    title = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}[name]
    assert data.source == f"{title} (pixels of unknown origin, sha256 {data.digest[:12]})"


@pytest.mark.parametrize("protocol", [2, 4])
def test_python_batches_of_several_pickle_protocols(tmp_path, protocol):
    folder = place(tmp_path, "cifar10", "python", "folder itself")
    labels, planes = cifar_records("cifar10", 9)
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
        (lambda data: data[:-1], r"30729 bytes; expected 30730 \(10 records of 3073\)"),
        (lambda data: data[:-3073], "27657 bytes; expected 30730"),
        (lambda data: data + data, "61460 bytes; expected 30730"),
        (lambda data: b"", "0 bytes; expected 30730"),
        (lambda data: b"\x0b" + data[1:], "label 11; expected 0..9"),
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


def test_a_shortened_python_file_is_named(tmp_path):
    folder = place(tmp_path, "cifar100", "python", "folder itself")
    labels, planes = cifar_records("cifar100", 0)
    (folder / "train").write_bytes(python_file("cifar100", labels[:99], planes[:99]))
    with pytest.raises(UserError, match="train has 99 images; expected 100; download it again"):
        load_dataset("cifar100", tmp_path)


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


# ------------------------------------------------------------------- which copy, and altered files


def make_known(monkeypatch, name, layout, edition, algorithm):
    """The files of `place` become a known copy; returns their names."""
    files = files_of(name, layout)
    known = {file: hashlib.new(algorithm, data).hexdigest() for file, data in files.items()}
    monkeypatch.setitem(editions.EDITIONS, name, {"other": dict.fromkeys(known, "0" * 32), edition: known})
    return list(files)


def flip(path, position, bit=1):
    data = bytearray(path.read_bytes())
    data[position] ^= bit
    path.write_bytes(data)


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
@pytest.mark.parametrize("form", ["folder", "archive"])
@pytest.mark.parametrize("name, layout", LAYOUTS)
def test_a_known_copy_is_called_by_its_name(tmp_path, monkeypatch, name, layout, form, algorithm):
    make_known(monkeypatch, name, layout, "the copy", algorithm)
    assert load_dataset(name, place(tmp_path, name, layout, form)).source == "the copy"


@pytest.mark.parametrize("position", [0, 1, 3072, 3073 * 7 + 500, 3073 * 10 - 1])
@pytest.mark.parametrize("file", ["data_batch_1.bin", "data_batch_4.bin", "test_batch.bin"])
def test_one_altered_bit_of_a_known_copy_is_refused(tmp_path, monkeypatch, file, position):
    names = make_known(monkeypatch, "cifar10", "binary", "the copy", "sha256")
    folder = place(tmp_path, "cifar10", "binary", "folder itself")
    flip(folder / file, position)
    with pytest.raises(UserError) as caught:
        load_dataset("cifar10", tmp_path)
    message = str(caught.value)
    assert message.startswith(
        f"{folder}: altered: {file} (the other files are those of the copy); expected one"
    )
    assert not any(other in message for other in names if other != file) and "\n" not in message


def test_files_in_each_others_place_are_refused(tmp_path, monkeypatch):
    make_known(monkeypatch, "cifar10", "binary", "the copy", "md5")
    folder = place(tmp_path, "cifar10", "binary", "folder itself")
    one, two = folder / "data_batch_2.bin", folder / "data_batch_5.bin"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second), two.write_bytes(first)
    with pytest.raises(UserError, match=r"altered: data_batch_2.bin, data_batch_5.bin \(the other"):
        load_dataset("cifar10", tmp_path)


def test_unknown_pixels_are_allowed_and_said(tmp_path, monkeypatch):
    make_known(monkeypatch, "cifar10", "binary", "the copy", "sha256")
    folder = place(tmp_path, "cifar10", "binary", "folder itself")
    known = load_dataset("cifar10", tmp_path)
    for file in folder.iterdir():
        flip(file, 100)
    data = load_dataset("cifar10", tmp_path)
    assert data.source == f"CIFAR-10 (pixels of unknown origin, sha256 {data.digest[:12]})"
    assert data.digest != known.digest and np.array_equal(data.train_labels, known.train_labels)


@pytest.mark.parametrize("file, others", [("test_batch.bin", []), ("data_batch_3.bin", range(1, 6))])
def test_unbalanced_labels_are_refused(tmp_path, monkeypatch, file, others):
    folder = place(tmp_path, "cifar10", "binary", "folder itself")
    data = bytearray((folder / file).read_bytes())
    was, data[0] = data[0], (data[0] + 1) % 10
    (folder / file).write_bytes(data)
    together = ", ".join(f"data_batch_{i}.bin" for i in others) or file
    expected = 5 if others else 1
    # Nobody knows how often a class should occur in one training file: all of them are named.
    with pytest.raises(UserError) as caught:
        load_dataset("cifar10", tmp_path)
    place_ = f"{folder}: labels altered: {together}; class {min(was, data[0])} occurs "
    assert str(caught.value).startswith(place_)
    assert re.search(rf" times in {re.escape(together)}; expected {expected}; ", str(caught.value))
    # With the table of the right order, only the altered one.
    counts = {f"data_batch_{i}": (1,) * 10 for i in range(1, 6)}
    monkeypatch.setitem(editions.LABEL_COUNTS, "cifar10", {"foreign": {}, "this": counts})
    with pytest.raises(UserError, match=f"labels altered: {file}; class"):
        load_dataset("cifar10", tmp_path)


def test_the_tables_are_those_of_whole_sets():
    names = {name: [*train, test] for (name, layout), (_, train, test, _) in LAYOUTS.items()}
    for name, known in editions.EDITIONS.items():
        digests = [digest for files in known.values() for digest in files.values()]
        assert len(set(digests)) == len(digests)
        assert all(re.fullmatch("[0-9a-f]{32}|[0-9a-f]{64}", digest) for digest in digests)
        for files in known.values():
            stems = {file.removesuffix(".bin") for file in files}
            assert stems == {file.removesuffix(".bin") for file in names[name]}
    for name in editions.EDITIONS:  # the official sets are known in both layouts
        official = editions.EDITIONS[name][f"{editions.TITLES[name]} (official)"]
        for layout in ("binary", "python"):
            _, train, test, _ = LAYOUTS[name, layout]
            assert {*train, test} <= set(official)
    for tables in editions.LABEL_COUNTS["cifar10"].values():
        rows = np.array(list(tables.values()))
        assert (rows.sum(1) == 10_000).all() and (rows.sum(0) == 5_000).all()


def test_digest_sees_every_byte_and_nothing_else():
    data = load_dataset("digits")
    assert re.fullmatch("[0-9a-f]{64}", data.digest) and data.digest == load_dataset("digits").digest
    for field in ("train_images", "train_labels", "test_images", "test_labels"):
        array = getattr(data, field).copy()
        array.flat[-1] ^= 1
        assert dataclasses.replace(data, **{field: array}).digest != data.digest
    assert dataclasses.replace(data, source="elsewhere").digest == data.digest
    fortran = dataclasses.replace(data, train_images=np.asfortranarray(data.train_images))
    assert fortran.digest == data.digest
    assert digest_of(np.zeros((2, 3), np.uint8)) != digest_of(np.zeros((3, 2), np.uint8))
    expected = hashlib.sha256(b"uint8[2]" + bytes([7, 9])).hexdigest()
    assert digest_of(np.array([7, 9], np.uint8)) == expected
