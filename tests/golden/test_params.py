"""The parameter file: round trip, checksum, and one line for every way in which a file can be wrong."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.config import load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.parameter_file import METADATA_KEY, digest, tensor_layout
from s2tdpt.golden.params import Params, random_params
from s2tdpt.golden.strictjson import canonical
from tests.golden import loops
from tests.golden.shapes import SHAPES, make_config, params_for

CONFIG = make_config()


@pytest.fixture
def params():
    return Params(
        config=CONFIG,
        tensors=dict(random_params(CONFIG, 1).tensors),
        residual_threshold=1999,
        attention_threshold=777,
        provenance={"command": "test", "seed": 1, "accuracy": 0.1 + 0.2, "note": 'µ "quoted"'},
        scales={"sps.0": [0.1, 1e-30], "head": [3]},
    )


@pytest.fixture
def path(params, tmp_path):
    path = tmp_path / "p.safetensors"
    params.save(path)
    return path


def one_line(path, expect_config=None) -> str:
    with pytest.raises(UserError) as error:
        Params.load(path, expect_config)
    message = str(error.value)
    assert "\n" not in message and message.count(";") >= 2
    return message


def test_round_trip(params, path, tmp_path):
    read = Params.load(path, CONFIG)
    assert read.config == params.config
    assert (read.residual_threshold, read.attention_threshold) == (1999, 777)
    assert read.provenance == params.provenance and read.scales == params.scales
    assert list(read.tensors) == list(params.tensors) == list(tensor_layout(CONFIG))
    for name, value in params.tensors.items():
        assert read.tensors[name].dtype == value.dtype and np.array_equal(read.tensors[name], value)
    assert read.manifest() == params.manifest() and read.checksum() == params.checksum()
    again = tmp_path / "again.safetensors"
    read.save(again)
    assert again.read_bytes() == path.read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("name", SHAPES)
def test_an_independent_reader_agrees(name, tmp_path):
    params = params_for(SHAPES[name])
    params.save(tmp_path / "p.safetensors")
    manifest, tensors = loops.read(tmp_path / "p.safetensors")
    assert manifest == params.manifest()
    assert all(np.array_equal(tensors[key], value) for key, value in params.tensors.items())


def test_manifest(params):
    manifest = params.manifest()
    assert manifest["format"] == "s2tdpt-parameters" and manifest["version"] == 2
    assert manifest["widths"] == derive_bounds(params).widths()
    assert manifest["sha256"] == params.checksum() and len(params.checksum()) == 64


def test_checksum_depends_on_everything(params):
    seen = {params.checksum()}
    tensors = {name: np.array(value) for name, value in params.tensors.items()}
    for name, value in tensors.items():
        changed = value.copy()
        changed.flat[-1] = 1 if changed.flat[-1] != 1 else 2
        seen.add(dataclasses.replace(params, tensors={**tensors, name: changed}).checksum())
    seen.add(dataclasses.replace(params, residual_threshold=2000).checksum())
    seen.add(dataclasses.replace(params, attention_threshold=778).checksum())
    seen.add(dataclasses.replace(params, provenance={}).checksum())
    assert len(seen) == len(tensors) + 4


def test_thresholds_default_to_the_configuration():
    params = Params(CONFIG, dict(random_params(CONFIG).tensors))
    assert (params.residual_threshold, params.attention_threshold) == (2048, 1024)


def test_values_cannot_be_changed(params):
    with pytest.raises(ValueError, match="read-only"):
        params.weight("head")[0, 0] = 1


def test_random_params_depend_on_the_seed_only():
    assert random_params(CONFIG, 5).checksum() == random_params(CONFIG, 5).checksum()
    assert random_params(CONFIG, 5).checksum() != random_params(CONFIG, 6).checksum()
    weight = random_params(load_config("digits"), 0, sparsity=0.5).weight("block.0.fc1")
    assert 0.4 < (weight == 0).mean() < 0.6
    with pytest.raises(UserError, match="sparsity"):
        random_params(CONFIG, 0, sparsity=1.0)
    small = random_params(make_config(weight_bits=4), 0).weight("block.0.fc1")
    assert small.min() == -7 and small.max() == 7


def test_save_never_overwrites_by_accident(params, path):
    before = path.read_bytes()
    other = dataclasses.replace(params, residual_threshold=5)
    with pytest.raises(UserError, match="exists already"):
        other.save(path)
    assert path.read_bytes() == before
    other.save(path, force=True)
    assert Params.load(path).residual_threshold == 5
    with pytest.raises(UserError, match="cannot write"):
        params.save(path.parent / "absent" / "p.safetensors")


def test_absent_and_foreign_files(tmp_path):
    assert "cannot read" in one_line(tmp_path / "absent")
    assert "cannot read" in one_line(tmp_path)
    foreign = tmp_path / "foreign"
    for content in (b"", b"PK\x03\x04", b"not a safetensors file at all", bytes(100)):
        foreign.write_bytes(content)
        assert "is not a safetensors file" in one_line(foreign)
    safetensors.numpy.save_file({"x": np.zeros(3)}, foreign)
    assert "holds no 's2tdpt' manifest" in one_line(foreign)


def test_truncated_anywhere(path):
    data = path.read_bytes()
    header = int.from_bytes(data[:8], "little")
    for length in [*range(10, len(data), 501), header + 7, header + 8, header + 9, len(data) - 1]:
        path.write_bytes(data[:length])
        assert "truncated" in one_line(path)
    path.write_bytes(data + b"\0")
    assert "damaged" in one_line(path)


def test_every_altered_bit_is_noticed(path):
    data = path.read_bytes()
    header = int.from_bytes(data[:8], "little")
    places = [*range(0, header + 8, 5), *range(header + 8, len(data), 29)]
    for position, place in enumerate(places):
        altered = bytearray(data)
        altered[place] ^= 1 << (position % 8)
        path.write_bytes(altered)
        one_line(path)


def rewrite(path, change):
    """Write the file with a changed manifest and a checksum that holds."""
    with safetensors.safe_open(path, "numpy") as file:
        manifest = json.loads(file.metadata()[METADATA_KEY])
    tensors = safetensors.numpy.load(path.read_bytes())
    body = {key: value for key, value in change(manifest).items() if key != "sha256"}
    text = canonical({**body, "sha256": digest(body, tensors)})
    path.write_bytes(safetensors.numpy.save(tensors, metadata={METADATA_KEY: text}))


def test_other_versions(path):
    rewrite(path, lambda m: {**m, "version": 4})
    assert "newer version (format version 4)" in one_line(path)
    rewrite(path, lambda m: {**m, "version": 0})
    assert "version 0; expected s2tdpt-parameters version 3" in one_line(path)
    rewrite(path, lambda m: {**m, "format": "other"})
    assert "format 'other'" in one_line(path)


def test_other_configuration(path):
    assert "another configuration (tiny; timesteps: 5, 4)" in one_line(path, make_config(timesteps=5))
    assert "expected digits" in one_line(path, load_config("digits"))
    Params.load(path, make_config(name="same-but-renamed"))


def test_contents_that_do_not_fit(path):
    rewrite(path, lambda m: {**m, "config": {**m["config"], "heads": 5}})
    assert "heads 5 does not divide" in one_line(path)
    rewrite(path, lambda m: {**m, "config": {**m["config"], "heads": 3}})
    assert "tensor 'stdp.lut' is int16[13]; expected int16[9]" in one_line(path)
    rewrite(path, lambda m: {**m, "config": {**m["config"], "heads": 2}, "residual_threshold": 0})
    assert "residual_threshold is 0" in one_line(path)
    rewrite(path, lambda m: {k: v for k, v in m.items() if k != "residual_threshold"})
    assert "lacks residual_threshold" in one_line(path)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("sps.0.weight", np.zeros((6, 2, 3, 3), np.int16), "int16[6, 2, 3, 3]; expected int8[6, 2, 3, 3]"),
        ("sps.0.weight", np.zeros((6, 2, 9), np.int8), "expected int8[6, 2, 3, 3]"),
        ("sps.0.weight", np.full((6, 2, 3, 3), -128, np.int8), "spans -128..-128; expected -127..127"),
        ("sps.0.threshold", np.zeros(6, np.int32), "spans 0..0; expected 1..2147483647"),
        ("sps.1.shift", np.full(12, 16, np.uint8), "spans 16..16; expected 0..15"),
        ("stdp.lut", np.full(13, 256, np.int16), "spans 256..256; expected 1..255"),
        ("sps.1.threshold", np.ones(12, np.int32), "unknown tensor 'sps.1.threshold'"),
        ("head.bias", None, "tensor 'head.bias' is missing"),
    ],
)
def test_tensors_that_do_not_fit(params, name, value, words):
    tensors = {**params.tensors, name: value}
    if value is None:
        del tensors[name]
    with pytest.raises(UserError) as error:
        dataclasses.replace(params, tensors=tensors)
    assert words in str(error.value)


def test_int4_range():
    config = make_config(weight_bits=4)
    tensors = dict(random_params(config).tensors)
    tensors["head.weight"] = np.full((5, 12), 8, np.int8)
    with pytest.raises(UserError, match="spans 8..8; expected -7..7"):
        Params(config, tensors)


@pytest.mark.parametrize(
    "accuracy, recorded, of_ten",
    [
        ({"integer": 0.75, "test_images": 10}, 0.75, 0.75),
        ({"integer": 1, "test_images": 360}, 1.0, None),
        ({"integer": 0.5}, 0.5, None),
        ({"test_images": 10}, None, None),
        ({"integer": "0.5", "test_images": 10}, None, None),
        ({"integer": True, "test_images": 10}, None, None),
        ({"integer": 7, "test_images": 10}, None, None),
        ("high", None, None),
        (None, None, None),
    ],
)
def test_recorded_accuracy(params, accuracy, recorded, of_ten):
    """Provenance may be anything: what it says is taken only where it can be true."""
    found = replace(params, provenance={"accuracy": accuracy})
    assert found.recorded_accuracy() == recorded and found.recorded_accuracy(10) == of_ten
    assert replace(params, provenance={}).recorded_accuracy() is None
