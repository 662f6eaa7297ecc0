"""The cache of what is slow to build: whole or absent, bounded, shared by processes."""

import os
import time

import pytest

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.tools.cache import KEPT, STALE, cache_folder, make_entry, used


@pytest.fixture
def kind(monkeypatch, tmp_path):
    monkeypatch.setenv("S2TDPT_CACHE", str(tmp_path / "cache"))
    return cache_folder() / "things"


def make(entry):
    with make_entry(entry) as work:
        (work / "file").write_text(entry.name)
        assert not entry.exists()


def test_entry_is_whole_or_absent(kind):
    make(kind / "a")
    assert (kind / "a" / "file").read_text() == "a"
    with pytest.raises(KeyboardInterrupt), make_entry(kind / "b") as work:
        (work / "file").write_text("half")
        raise KeyboardInterrupt
    assert [path.name for path in kind.iterdir()] == ["a"]


def test_another_process_may_be_faster(kind):
    with make_entry(kind / "a") as work:
        (work / "file").write_text("mine")
        make(kind / "a")
    assert (kind / "a" / "file").read_text() == "a" and len(list(kind.iterdir())) == 1


def test_the_longest_unused_go(kind):
    for number in range(KEPT):
        make(kind / str(number))
        os.utime(kind / str(number), (number, number))
    used(kind / "0")
    make(kind / "new")
    assert not (kind / "1").exists()
    assert {"0", "2", "new"} <= {path.name for path in kind.iterdir()} and len(list(kind.iterdir())) == KEPT


def test_what_a_killed_process_left_goes_and_what_others_make_stays(kind):
    for name, age in (("work-old", STALE + 60), ("work-young", 60)):
        (kind / name).mkdir(parents=True)
        os.utime(kind / name, (time.time() - age,) * 2)
    make(kind / "a")
    assert {path.name for path in kind.iterdir()} == {"a", "work-young"}


def test_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("S2TDPT_CACHE", str(tmp_path / "file"))
    with (
        pytest.raises(UserError, match="cannot write the build cache .*set S2TDPT_CACHE to one"),
        make_entry(cache_folder() / "things" / "a"),
    ):
        pass
