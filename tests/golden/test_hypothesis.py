"""The reader of parameter files under Hypothesis: whatever the bytes are, `Params` or one printable line."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.parameter_file import MANIFEST_TYPES, METADATA_KEY
from s2tdpt.golden.params import Params
from s2tdpt.golden.strictjson import canonical
from tests.golden.shapes import make_config, params_for

GOOD = params_for(make_config(), 1)
MINUTES = float(os.environ.get("S2TDPT_HYPOTHESIS_MINUTES", "30"))
LARGEST = 256 << 20
"""Bytes that the process may grow by."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "good.safetensors"
    GOOD.save(path)
    return path.read_bytes()


def packed(header: bytes, body: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + body


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 300)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["I8", "U8", "I16", "I32", "I64", "F32", "s2tdpt-parameters"])
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def edits(draw):
    """A few changes of bytes: where (a share of the length), how many bytes go, what comes."""
    return draw(
        st.lists(
            st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=40)), min_size=1, max_size=4
        )
    )


def edited(data: bytes, changes) -> bytes:
    for where, gone, fresh in changes:
        place = int(where * len(data))
        data = data[:place] + fresh + data[place + gone :]
    return data


@st.composite
def files(draw, good: bytes):
    """Bytes of a file: anything, a good one with changes, or one with an altered header or manifest."""
    begin = 8 + int.from_bytes(good[:8], "little")
    header, body = json.loads(good[8:begin]), good[begin:]
    kind = draw(
        st.sampled_from(["bytes", "edit", "header text", "entry", "manifest", "configuration", "text"])
    )
    if kind == "bytes":
        return draw(st.binary(max_size=300))
    if kind == "edit":
        return edited(good, draw(edits()))
    if kind == "header text":
        return packed(edited(good[8:begin], draw(edits())), body)
    if kind == "entry":
        name = draw(st.sampled_from(sorted(header)) | st.text(max_size=10))
        entry = draw(values)
        if isinstance(header.get(name), dict) and draw(st.booleans()):
            entry = header[name] | {draw(st.sampled_from(["dtype", "shape", "data_offsets"])): entry}
        return packed(json.dumps(header | {name: entry}).encode(), body)
    manifest = GOOD.manifest()
    if kind == "text":
        text = edited(canonical(manifest).encode(), draw(edits())).decode("utf-8", "replace")
    else:
        part = manifest if kind == "manifest" else manifest["config"]
        names = list(MANIFEST_TYPES) if kind == "manifest" else list(manifest["config"])
        changed = part | {draw(st.sampled_from(names) | st.text(max_size=10)): draw(values)}
        whole = changed if kind == "manifest" else manifest | {"config": changed}
        text = json.dumps(whole, sort_keys=True, separators=(",", ":"))
    header["__metadata__"] = {METADATA_KEY: text}
    return packed(json.dumps(header).encode(), body)


def memory() -> int:
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def read(content: bytes, path: Path) -> bool:
    """Read it; True if it is a parameter file. Anything but one printable line is an error."""
    path.write_bytes(content)
    before = memory()
    try:
        params = Params.load(path)
    except UserError as error:
        message = str(error)
        assert message.isprintable() and len(message) < 700 and message.count(";") >= 2
        return False
    finally:
        assert memory() - before < LARGEST
    assert params.manifest()["sha256"] == params.checksum()
    return True


def attempt(data: bytes, path: Path, examples: int, seed: int | None = None, shrink: bool = True) -> None:
    """So many random files; one that fails is made smaller."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=seed is None,
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
        suppress_health_check=list(HealthCheck),
    )
    @given(files(data))
    def one(content: bytes) -> None:
        read(content, path)

    (one if seed is None else hypothesis.seed(seed)(one))()


def test_a_good_file_is_read(data, tmp_path):
    assert read(data, tmp_path / "p.safetensors")
    assert not read(data[:-1], tmp_path / "p.safetensors")


def test_planted_traceback_is_found(data, tmp_path, monkeypatch):
    """A reader that trusts what it is given is caught."""

    def careless(path):
        raise KeyError("config")

    monkeypatch.setattr(Params, "load", careless)
    with pytest.raises(KeyError):
        attempt(data, tmp_path / "p.safetensors", 5, shrink=False)


def test_random_files(data, tmp_path):
    attempt(data, tmp_path / "p.safetensors", 80)


@pytest.mark.wide
def test_random_files_for_half_an_hour(data, tmp_path):
    """`S2TDPT_HYPOTHESIS_MINUTES` changes the time."""
    end, count = time.monotonic() + 60 * MINUTES, 0
    while time.monotonic() < end:
        count += 1
        attempt(data, tmp_path / "p.safetensors", 500, seed=count)
    print(f"{500 * count} files in {MINUTES:g} minutes")
