"""Parameter files that are wrong on purpose: one printable line each, soon, and with little memory."""

import io
import json
import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from s2tdpt.golden.attention.stdp import Stdp
from s2tdpt.golden.config import config_from_dict, load_config
from s2tdpt.golden.errors import UserError, printable, shown
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.parameter_file import (
    LARGEST_HEADER,
    LIF_VERSION,
    MANIFEST_TYPES,
    METADATA_KEY,
    digest,
    tensor_layout,
)
from s2tdpt.golden.params import Params, random_params
from s2tdpt.golden.reference import ReferenceNetwork
from s2tdpt.golden.strictjson import canonical, parse
from tests.golden.shapes import images_for, make_config, params_for

CONFIG = make_config()
PARAMS = params_for(CONFIG, 1)
DEEP = "[" * 100_000 + "]" * 100_000
ESCAPE = "\x1b[31mred\x07"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "p.safetensors"
    PARAMS.save(path)
    return path


def one_line(path) -> str:
    """The refusal: one line, printable, short, quick, and with little memory."""
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(UserError) as error:
        Params.load(path)
    assert time.perf_counter() - started < 2 and tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()
    message = str(error.value)
    assert message.isprintable() and len(message) < 600 and message.count(";") >= 2
    assert str(path) in message
    return message


def body_of(params: Params) -> dict:
    return {key: value for key, value in params.manifest().items() if key != "sha256"}


def written(path, text: str, tensors=None, metadata=None) -> None:
    """A safetensors file with any text in place of the manifest."""
    tensors = dict(PARAMS.tensors) if tensors is None else tensors
    path.write_bytes(safetensors.numpy.save(tensors, metadata={METADATA_KEY: text, **(metadata or {})}))


def with_body(path, body: dict, tensors=None) -> None:
    """A file with another manifest, in canonical form and with a checksum that holds."""
    tensors = dict(PARAMS.tensors) if tensors is None else tensors
    written(path, canonical({**body, "sha256": digest(body, tensors)}), tensors)


def with_header(path, change) -> None:
    """The file with a changed text of its safetensors header."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = change(data[8 : 8 + length].decode()).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(path, number):
    text = canonical(PARAMS.manifest()).replace('"sparsity":0.2', f'"sparsity":{number}')
    assert number in text
    written(path, text)
    message = one_line(path)
    assert "its manifest cannot be read" in message
    assert ("beyond the range" if number == "1e999" else f"{number} is no JSON number") in message
    with_header(path, lambda header: header[:-1] + f',"x":{number}}}')
    assert "its header cannot be read" in one_line(path)


def test_nesting_without_end(path):
    written(path, DEEP)
    assert "its manifest cannot be read (nested too deeply)" in one_line(path)
    written(path, canonical(PARAMS.manifest())[:-1] + f',"x":{DEEP}}}')
    assert "nested too deeply" in one_line(path)
    with_header(path, lambda header: header.rstrip()[:-1] + f',"x":{DEEP}}}')
    assert "its header cannot be read (nested too deeply)" in one_line(path)
    path.write_bytes((len(DEEP) + 5).to_bytes(8, "little") + b'{"x":' + DEEP.encode())
    assert "its header cannot be read (nested too deeply)" in one_line(path)


@pytest.mark.parametrize("text", ["", "null", "[]", "3", '"text"', "{", "{}", "\x00", '{"version":1e400}'])
def test_manifests_that_are_none(path, text):
    written(path, text)
    one_line(path)


@pytest.mark.parametrize("key", [key for key in MANIFEST_TYPES if key not in ("format", "version", "sha256")])
def test_a_missing_key(path, key):
    body = body_of(PARAMS)
    del body[key]
    with_body(path, body)
    assert f"the manifest lacks {key}; expected all keys" in one_line(path)


def test_no_checksum(path):
    written(path, canonical(body_of(PARAMS)))
    assert "the manifest lacks sha256" in one_line(path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("residual_threshold", None, "residual_threshold in the manifest is None; expected a whole number"),
        ("residual_threshold", True, "residual_threshold in the manifest is True"),
        ("residual_threshold", 5.0, "residual_threshold in the manifest is 5.0"),
        ("residual_threshold", 0, "residual_threshold is 0; expected a whole number from 1 to 2^31-1"),
        ("attention_threshold", None, "attention_threshold in the manifest is None"),
        ("attention_threshold", 2**31, "attention_threshold is 2147483648"),
        ("config", [], "config in the manifest is []; expected an object"),
        ("config", {}, "the configuration in the manifest lacks name, image_height"),
        ("scales", [1], "scales in the manifest is [1]; expected an object"),
        ("scales", {"sps.0": 1.5}, "scale of 'sps.0' in the manifest is 1.5; expected a list of numbers"),
        ("scales", {"sps.0": [None]}, "scale of 'sps.0' in the manifest is [None]"),
        ("scales", {"sps.0": [True]}, "scale of 'sps.0' in the manifest is [True]"),
        ("scales", {ESCAPE: "x" * 10**6}, "scale of '\\\\x1b[31mred\\\\x07' in the manifest is 'xxxx"),
        ("widths", None, "widths in the manifest is None; expected an object"),
        (
            "widths",
            {"acc.sps.0": "9"},
            "width of 'acc.sps.0' in the manifest is '9'; expected a whole number",
        ),
        ("provenance", "mine", "provenance in the manifest is 'mine'; expected an object"),
        ("version", 10**200, "was written by a newer version (format version 1000000"),
        ("version", 1.0, "version 1.0; expected s2tdpt-parameters version 3"),
        ("format", "x" * 10**6, "has format 'xxxxx"),
        ("format", ESCAPE, "has format '\\\\x1b[31mred\\\\x07'"),
        ("extra", 1, "unknown key 'extra' in the manifest; expected only format, version"),
        ("y" * 10**6, 1, "unknown key 'yyyyy"),
    ],
)
def test_a_wrong_entry(path, key, value, words):
    with_body(path, {**body_of(PARAMS), key: value})
    message = one_line(path)
    assert words.replace("\\\\", "\\") in message


def test_a_configuration_field_is_missing_or_unknown(path):
    config = body_of(PARAMS)["config"]
    for name in ("mlp_ratio", "attention"):  # have a default elsewhere
        without = {key: value for key, value in config.items() if key != name}
        with_body(path, {**body_of(PARAMS), "config": without})
        assert f"the configuration in the manifest lacks {name}; expected every field" in one_line(path)
    options = {key: value for key, value in config["attention"].items() if key != "kappa"}
    with_body(path, {**body_of(PARAMS), "config": {**config, "attention": options}})
    assert "the configuration in the manifest lacks attention.kappa; expected every field" in one_line(path)
    for wrong, words in (
        ({"kind": "softmax"}, "attention.kind is 'softmax'; expected one of stdp, "),
        ({"kind": ["stdp"]}, "attention.kind is "),
        ({}, "attention.kind is missing"),
        ([], "field 'attention' is []"),
        (
            {**config["attention"], ESCAPE: 1},
            "unknown field 'attention.\\x1b[31mred\\x07'; expected only kind, kappa",
        ),
    ):
        with_body(path, {**body_of(PARAMS), "config": {**config, "attention": wrong}})
        assert words.replace("\\\\", "\\") in one_line(path)
    with_body(path, {**body_of(PARAMS), "config": {**config, ESCAPE + "z" * 10**6: 1}})
    assert "unknown field '\\x1b[31mred\\x07zzz" in one_line(path)
    with_body(path, {**body_of(PARAMS), "config": {**config, "name": "n" * 10**6}})
    assert "field 'name' is 'nnnn" in one_line(path)


def test_the_form_of_the_manifest_and_other_metadata(path):
    written(path, json.dumps(PARAMS.manifest()))
    assert "its manifest is not in canonical form" in one_line(path)
    written(path, canonical(PARAMS.manifest()), metadata={"format": "pt"})
    assert "its metadata have an entry 'format' beside 's2tdpt'" in one_line(path)
    written(path, canonical({**PARAMS.manifest(), "sha256": "0" * 64}))
    assert "its checksum does not match its contents" in one_line(path)


def test_tensors_are_checked_by_the_header(path):
    tensors = {**PARAMS.tensors, ESCAPE + "w" * 10**5: np.zeros(1, np.int8)}
    with_body(path, body_of(PARAMS), tensors)
    assert "unknown tensor '\\x1b[31mred\\x07www" in one_line(path)
    with_body(path, body_of(PARAMS), {**PARAMS.tensors, "head.bias": np.zeros(5, np.float32)})
    assert "tensor 'head.bias' is 'F32'[5]; expected int64[5]" in one_line(path)
    PARAMS.save(path, force=True)
    for old, new in (('"dtype":"I8"', '"dtype":["I8"]'), ('"shape":[5]', '"shape":[-5]')):
        with_header(path, lambda header, old=old, new=new: header.replace(old, new, 1))
        assert "cannot be read" in one_line(path)
        PARAMS.save(path, force=True)
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    entry = header["head.bias"]["data_offsets"]
    entry[0] += 8  # overlaps its neighbour
    entry[1] += 8
    with_header(path, lambda _: json.dumps(header))
    assert "are not where they belong" in one_line(path)
    path.write_bytes(data + b"\0")
    assert f"it has {len(data) - begin + 1} bytes of tensors instead of {len(data) - begin}" in one_line(path)


def test_huge_files_are_refused_before_they_are_read(path):
    size = 3 << 30
    with path.open("wb") as file:
        file.truncate(size)  # zeros, without blocks on the disk
    assert "is not a safetensors file" in one_line(path)
    with path.open("wb") as file:
        file.write((size - 8).to_bytes(8, "little") + b"{")
        file.truncate(size)
    assert f"its header has {size - 8} bytes, more than {LARGEST_HEADER}" in one_line(path)
    PARAMS.save(path, force=True)
    with path.open("r+b") as file:
        file.truncate(size)
    assert "bytes of tensors instead of" in one_line(path)


def test_networks_too_large_to_be_read(path):
    config = config_from_dict({**body_of(PARAMS)["config"], "depth": 256, "sps_channels": [6, 4096]})
    layout = tensor_layout(config)
    place, header = 0, {"__metadata__": {METADATA_KEY: ""}}
    names = {np.int8: "I8", np.uint8: "U8", np.int16: "I16", np.int32: "I32", np.int64: "I64"}
    for name, tensor in layout.items():
        end = place + tensor.bytes
        entry = {"dtype": names[tensor.dtype], "shape": tensor.shape, "data_offsets": [place, end]}
        header[name], place = entry, end
    body = {**body_of(PARAMS), "config": config.model_dump(mode="json")}
    header["__metadata__"][METADATA_KEY] = canonical({**body, "sha256": "0" * 64})
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + place)
    assert f"the tensors of tiny take {place} bytes; expected at most" in one_line(path)


def test_what_is_no_file(tmp_path):
    assert "cannot read /dev/zero: not a regular file" in one_line("/dev/zero")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "not a regular file" in one_line(pipe)
    assert "Is a directory" in one_line(tmp_path)


def test_values_that_no_machine_evaluates_name_the_file(path):
    tensors = {name: np.array(value) for name, value in PARAMS.tensors.items()}
    tensors["head.bias"][0] = 2**60
    Params(CONFIG, tensors).save(path, force=True)
    with pytest.raises(UserError) as error:
        GoldenNetwork(Params.load(path))
    assert str(error.value).startswith(f"{path}: integers reach 1152921")
    tensors["head.bias"][0] = 2**63 - 1
    Params(CONFIG, tensors).save(path, force=True)
    with pytest.raises(UserError) as error:
        ReferenceNetwork(Params.load(path))
    assert str(error.value).startswith(f"{path}: integers need 65 bits")


def test_configuration_files(tmp_path):
    path = tmp_path / "c.json"
    for text, words in (
        (DEEP, "nested too deeply"),
        ('{"kappa": NaN}', "NaN is no JSON number"),
        (" " * (1 << 20) + "{}", "more than 1048576 bytes"),
        ('{"name": "a", "name": "b"}', "a key stands twice in an object"),
        ("9" * 301, "a number has more than 300 digits"),
        ("[" * 65 + "]" * 65, "nested too deeply"),
        ('["' + "[" * 99 + '\\""]', "holds a JSON list"),
        ("{", "no JSON at line 1, column 2"),
    ):
        path.write_text(text)
        with pytest.raises(UserError) as error:
            load_config(path)
        assert words in str(error.value)
    with pytest.raises(UserError, match="^cannot read /dev/zero: not a regular file; expected"):
        load_config("/dev/zero")


def test_text_of_messages():
    assert printable(ESCAPE + "µ\u202e\ud800") == "\\x1b[31mred\\x07µ\\u202e\\ud800"
    assert shown("a'b") == '"a\'b"' and shown(None) == "None"
    assert shown("x" * 10**6) == "'" + "x" * 56 + "..."
    assert str(UserError(f"one\ntwo{ESCAPE}")) == "one two\\x1b[31mred\\x07"
    assert (
        parse(b'{"a":[1,2.5]}') == {"a": [1, 2.5]}
        and canonical({"b": 1, "a": "µ"}) == '{"a":"\\u00b5","b":1}'
    )
    with pytest.raises(ValueError, match="not UTF-8"):
        parse(io.BytesIO(b'{"\xff": 1}').read())


VERSION_1 = Path(__file__).parent / "data" / "version-1.safetensors"
"""A file that an earlier program wrote, of `make_config` with other options of STDP; seed 7."""


def test_a_file_of_version_1_is_read_as_one_of_this_version(path):
    manifest = json.loads(safetensors.safe_open(VERSION_1, "numpy").metadata()[METADATA_KEY])
    assert manifest["version"] == 1 and manifest["config"]["stdp_amplitude"] == 100
    params = Params.load(VERSION_1)
    assert params.config.attention == Stdp(kappa=0.25, amplitude=100, offset=120, scale_log2=1)
    assert params.checksum() != manifest["sha256"]
    images = images_for(params.config, 2)
    logits = [[1310938, -10635102, 19744306, -19743062, -8541013]]  # of the program that wrote it
    logits += [[-5965614, -9928714, 20293454, -20292210, -7983329]]
    assert GoldenNetwork(params).forward(images).tolist() == logits
    params.save(path, force=True)
    again = Params.load(path)
    assert again.manifest() == params.manifest() and again.manifest()["version"] == LIF_VERSION
    same = random_params(params.config, 7)
    assert all(np.array_equal(same.tensors[name], tensor) for name, tensor in again.tensors.items())


def test_a_file_of_version_1_is_checked_like_any(path):
    data = bytearray(VERSION_1.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "its checksum does not match its contents" in one_line(path)
    body = {**body_of(Params.load(VERSION_1)), "version": 1}
    with_body(path, body)  # planted: the configuration of version 2
    assert "lacks kappa, stdp_amplitude, stdp_offset, attention_scale_log2" in one_line(path)
