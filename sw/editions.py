"""Which copy of CIFAR a set of files is, and whether it is whole.

A known copy is known file by file, so that a file that was altered, cut, swapped with another or taken from
another copy is found and named. Pixels that no table knows are allowed, for instance images that were
encoded anew, but they are called what they are, and their labels must still be balanced as CIFAR's are.

References
----------
CIFAR: https://www.cs.toronto.edu/~kriz/cifar.html (10,000 images a file; 5,000 training and 1,000 test images
a class, in CIFAR-100 500 and 100).
MD5 of the python files: torchvision, datasets/cifar.py; of the CIFAR-10 binary files: rai-project/dldataset,
vision/cifar10.go.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping

import numpy as np

from s2tdpt.golden.errors import UserError

HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
RECORDS = {"cifar10": (10_000, 10_000), "cifar100": (50_000, 10_000)}
"""Images in each training file and in the test file."""

EDITIONS: dict[str, dict[str, dict[str, str]]] = {
    "cifar10": {
        "CIFAR-10 (official)": {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
            "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
            "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
            "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
        },
        # The official images and labels in another order, through JPEG of quality 75.
        "CIFAR-10 (JPEG q75)": {
            "data_batch_1.bin": "902087dbeb118d470b49cf9a264169a44c12885917d0b290bbb73eeebca410a8",
            "data_batch_2.bin": "4e5540b3d96c81d3070f403a4c7e4a63ad5cf3ac0db7e9f4462a9be0d1d6f342",
            "data_batch_3.bin": "cb8ed4a4c70b95f4abd47b04ff9b2f6ff106c133dfae2f811c79fa99ec6fb45a",
            "data_batch_4.bin": "7fde3b3ebe7c466c1467eab9023bfed967da749c5179f631c24f26f4d9e35055",
            "data_batch_5.bin": "8a224b1e358b848f5849293ad2ff7f16be4d7c8a60aa8b3d1c985426f2ac52c7",
            "test_batch.bin": "af45feced2e0d2e42c5bed4de117cc93b7beb8f9eececd8f93503d4837cace58",
        },
    },
    "cifar100": {
        "CIFAR-100 (official)": {
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "train.bin": "6172c7755cfe09b2fe270c85cebc1b15",
            "test.bin": "4499cfba6c016c1be1438163640a0898",
        },
    },
}
"""Digests of the files of known copies: MD5 where that is what was published, else SHA-256."""

LABEL_COUNTS: dict[str, dict[str, dict[str, tuple[int, ...]]]] = {
    "cifar10": {
        "official": {
            "data_batch_1": (1005, 974, 1032, 1016, 999, 937, 1030, 1001, 1025, 981),
            "data_batch_2": (984, 1007, 1010, 995, 1010, 988, 1008, 1026, 987, 985),
            "data_batch_3": (994, 1042, 965, 997, 990, 1029, 978, 1015, 961, 1029),
            "data_batch_4": (1003, 963, 1041, 976, 1004, 1021, 1004, 981, 1024, 983),
            "data_batch_5": (1014, 1014, 952, 1016, 997, 1025, 980, 977, 1003, 1022),
        },
        "JPEG q75": {
            "data_batch_1": (1036, 1011, 1007, 973, 989, 994, 997, 981, 1012, 1000),
            "data_batch_2": (1041, 966, 980, 977, 1026, 1016, 1001, 997, 998, 998),
            "data_batch_3": (1002, 1037, 989, 971, 958, 989, 1020, 1022, 1023, 989),
            "data_batch_4": (949, 989, 1007, 1070, 994, 1005, 1007, 997, 974, 1008),
            "data_batch_5": (972, 997, 1017, 1009, 1033, 996, 975, 1003, 993, 1005),
        },
    },
}
"""Labels of each class in each training file of a copy; where all are not balanced, they tell the file."""


def edition_of(name: str, file: str, data: bytes) -> str | None:
    """The known copy of data set `name` whose `file` has exactly these bytes; None if there is none."""
    for edition, known in EDITIONS[name].items():
        if file in known:
            digest = hashlib.md5(usedforsecurity=False) if len(known[file]) == 32 else hashlib.sha256()
            digest.update(data)
            if digest.hexdigest() == known[file]:
                return edition
    return None


def common_edition(found: Mapping[str, str | None], source: str) -> str | None:
    """The known copy that all files belong to, from `edition_of` of each; None for an unknown one.

    Raises
    ------
    UserError
        Some files belong to a known copy and the others do not: those were altered.
    """
    known = Counter(edition for edition in found.values() if edition is not None)
    if not known:
        return None
    edition = known.most_common(1)[0][0]
    odd = [file for file, its in found.items() if its != edition]
    if not odd:
        return edition
    raise UserError(
        f"{source}: altered: {', '.join(odd)} (the other files are those of {edition}); expected one copy "
        f"throughout; restore the file or download the set again from {HOME}"
    )


def check_balance(name: str, labels: Mapping[str, np.ndarray], classes: int, source: str) -> None:
    """Refuse labels (by file) in which the classes do not occur equally often over all files.

    Raises
    ------
    UserError
        With the class, and the file where the tables tell which.
    """
    counts = {file: np.bincount(values, minlength=classes) for file, values in labels.items()}
    total = sum(counts.values())
    expected = sum(map(len, labels.values())) // classes
    if (total == expected).all():
        return
    odd = list(labels)
    for known in LABEL_COUNTS.get(name, {}).values():
        differing = [
            file for file in labels if tuple(counts[file].tolist()) != known.get(file.removesuffix(".bin"))
        ]
        odd = min(odd, differing, key=len)
    worst = int(np.abs(total - expected).argmax())
    raise UserError(
        f"{source}: labels altered: {', '.join(odd)}; class {worst} occurs {total[worst]} times in "
        f"{', '.join(labels)}; expected {expected}; download the set again from {HOME}"
    )
