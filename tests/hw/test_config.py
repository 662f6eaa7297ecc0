"""Hardware configuration: every mistake is refused in one whole sentence."""

import json
import re

import pytest

from s2tdpt.golden.config import load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.hw.config import HardwareConfig, check_fit, load_hardware_config
from tests.hw.core_bench import network

FIELDS = "lanes, rows, post_lanes, weight_memory"


def refused(message, call, *args):
    with pytest.raises(UserError) as caught:
        call(*args)
    assert str(caught.value) == message


def write(tmp_path, fields):
    path = tmp_path / "machine.json"
    path.write_text(fields if isinstance(fields, str) else json.dumps(fields))
    return path


def test_default_and_file(tmp_path):
    assert load_hardware_config(None) == HardwareConfig()
    fields = {"lanes": 32, "rows": 2, "post_lanes": 8, "weight_memory": "stream"}
    config = load_hardware_config(write(tmp_path, fields))
    assert config.model_dump() == fields
    assert config.subgroups == 4


@pytest.mark.parametrize(
    "fields, problem",
    [
        ({"lanes": 0}, "lanes: Input should be greater than or equal to 1"),
        ({"lanes": 513}, "lanes: Input should be less than or equal to 512"),
        ({"rows": 9}, "rows: Input should be less than or equal to 8"),
        ({"lanes": "many"}, "lanes: Input should be a valid integer, unable to parse string as an integer"),
        ({"lane": 8}, "lane: Extra inputs are not permitted"),
        ({"weight_memory": "ram"}, "weight_memory: Input should be 'rom' or 'stream'"),
        (
            {"lanes": 64, "post_lanes": 24},
            "configuration: post_lanes must divide lanes, but 24 does not divide 64",
        ),
    ],
)
def test_bad_fields(tmp_path, fields, problem):
    path = write(tmp_path, fields)
    refused(
        f"hardware configuration {path}: {problem}; expected the fields {FIELDS}; mend this field",
        load_hardware_config,
        path,
    )


def test_unreadable_files(tmp_path):
    refused(
        f"cannot read hardware configuration {tmp_path / 'none'}: No such file or directory; "
        "expected a JSON file; check the path",
        load_hardware_config,
        tmp_path / "none",
    )
    path = write(tmp_path, "{lanes: 8}")
    with pytest.raises(UserError) as caught:
        load_hardware_config(path)
    expected = rf"{re.escape(str(path))} is not JSON \(.*\); expected a hardware configuration; mend the file"
    assert re.fullmatch(expected, str(caught.value))


@pytest.mark.parametrize("text", ["[]", "3", "null", '"lanes"'])
def test_json_that_is_no_object(tmp_path, text):
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_hardware_config(path)
    assert str(caught.value).startswith(f"hardware configuration {path}: ")
    assert "\n" not in str(caught.value)


def test_file_of_other_bytes(tmp_path):
    path = tmp_path / "machine.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(
        UserError, match=r"^.* is not JSON \(.*\); expected a hardware configuration; mend the file$"
    ):
        load_hardware_config(path)


def test_fit():
    check_fit(load_config("digits"), HardwareConfig())
    refused(
        "a head of 32 channels does not fit 31 lanes; expected lanes >= 32; "
        "raise 'lanes' or the number of heads",
        check_fit,
        load_config("digits"),
        HardwareConfig(lanes=31, post_lanes=31),
    )
    refused(
        "a pixel of 5 channels does not fit 4 lanes; expected lanes >= 5; raise 'lanes'",
        check_fit,
        network(image_channels=5),
        HardwareConfig(lanes=4, post_lanes=2),
    )
    refused(
        "3 rows are more than the narrowest feature map is wide (2); expected rows <= 2; lower 'rows'",
        check_fit,
        network(),
        HardwareConfig(lanes=4, post_lanes=2, rows=3),
    )


def test_frozen():
    with pytest.raises(ValueError, match="frozen"):
        HardwareConfig().lanes = 8
