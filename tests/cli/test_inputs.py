"""Bad input: one line that says what was wrong, exit code 2, nothing written."""

from __future__ import annotations

import gzip
import json
import random
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s2tdpt.golden.config import load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.scripts.cli import COMMANDS, main
from s2tdpt.scripts.image_files import load_images
from s2tdpt.sim.cases import network


def digits(**changes):
    return load_config("digits").model_dump(mode="json") | changes


BAD_CONFIGURATIONS = {
    "out of range": (digits(timesteps=9), "field 'timesteps' is 9; expected less than or equal to 8"),
    "of another type": (digits(depth="two"), "field 'depth' is 'two'; expected a valid integer"),
    "unknown field": (digits(tau=2), "unknown field 'tau'; expected only name, image_height"),
    "heads do not divide": (digits(heads=3), "heads 3 does not divide the embedding width 64; expected"),
    "missing field": ({"name": "x"}, "field 'image_height' is missing"),
    "no object": ([1], "holds a JSON list; expected an object of fields"),
    "no JSON": ("{", "network.json is not valid JSON (no JSON at line 1, column 2)"),
}


@pytest.mark.parametrize("case", BAD_CONFIGURATIONS)
def test_network_configuration(shell, write, case):
    data, message = BAD_CONFIGURATIONS[case]
    path = write("network.json", data)
    assert message in shell.refused("info", path)
    assert message in shell.refused("train", "--config", path, "--out", "run")


def test_configuration_that_does_not_exist(shell):
    message = shell.refused("info", "digit")
    assert message.startswith("no configuration 'digit'; expected one of digits, s2tdpt-2-128")


BAD_MACHINES = {
    "out of range": ({"lanes": 0}, "lanes is 0; expected greater than or equal to 1; correct the value"),
    "zero banks": ({"banks": 0}, "banks is 0; expected greater than or equal to 1"),
    "too many banks": ({"lanes": 32, "banks": 32}, "banks is 32; expected less than or equal to 16"),
    "unknown field": ({"lane": 8}, "unknown field 'lane'; expected only name, lanes, banks, post_lanes"),
    "banks do not divide": ({"lanes": 30}, "banks 4 does not divide lanes 30; expected a divisor of lanes"),
    "post lanes do not divide": ({"lanes": 64, "post_lanes": 24}, "post_lanes 24 does not divide lanes 64"),
    "queue": ({"queue": 3}, "queue is 3; expected 2, 4, 8 or 16"),
    "of another type": ({"lanes": "8"}, "lanes is '8'; expected a valid integer"),
    "name": ({"name": "a b"}, "name is 'a b'; expected"),
    "no JSON": (
        "lanes: 8",
        "machine.json is not valid JSON (no JSON at line 1, column 1); expected an object of machine",
    ),
    "no object": ([8], "machine machine.json is no JSON object"),
}
MACHINE_COMMANDS = (
    ["info"],
    ["generate", "--out", "made"],
    ["cosim"],
    ["cycles"],
    ["synth"],
    ["assess"],
    ["bench"],
)


@pytest.mark.parametrize("case", BAD_MACHINES)
def test_machine_files(shell, write, case):
    data, message = BAD_MACHINES[case]
    path = write("machine.json", data)
    for command in MACHINE_COMMANDS:
        assert message in shell.refused(*command, "--machine", path)


@pytest.mark.parametrize("command", MACHINE_COMMANDS)
def test_machine_options(shell, command):
    assert "no machine 'tiny'; expected one of digits, ecp5-85k, small, wide or" in shell.refused(
        *command, "--machine", "tiny"
    )
    refusals = {
        "lanes=0": "machine digits with --set: lanes is 0; expected greater than or equal to 1",
        "banks=3": "banks 3 does not divide lanes 32",
        "rows=2": "unknown field 'rows'",
        "lanes": "--set is 'lanes'; expected FIELD=VALUE",
        "lanes=many": "lanes is 'many'; expected a valid integer",
        "weight_memory=flash": "weight_memory is 'flash'; expected 'rom' or 'stream'",
    }
    for setting, message in refusals.items():
        assert message in shell.refused(*command, "--set", setting)


BAD_ARRAYS = {
    "wrong shape": (np.zeros((2, 4, 5, 1), np.uint8), "[2, 4, 5, 1]; expected uint8 [batch, 5, 4, 1]"),
    "wrong type": (np.zeros((2, 5, 4, 1)), "are float64 [2, 5, 4, 1]; expected uint8"),
    "empty": (np.zeros((0, 5, 4, 1), np.uint8), "are uint8 [0, 5, 4, 1]; expected uint8"),
    "a number": (np.uint8(3), "are uint8 []; expected uint8"),
    "pickled": (np.array([{"a": 1}], object), "cannot read images bad.npy: not a plain NumPy array"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
@pytest.mark.parametrize("command", ["evaluate", "cosim"])
def test_image_arrays(shell, tiny, command, case):
    array, message = BAD_ARRAYS[case]
    np.save(shell.folder / "bad.npy", array)
    assert message in shell.refused(command, "--params", tiny, "--images", "bad.npy")


def test_damaged_image_arrays(shell, tiny, images):
    whole = (shell.folder / images).read_bytes()
    for content in (b"", whole[:20], whole[:-1], b"\x93NUMPY\x01\x00\x04\x00{[(\n", b"no array"):
        (shell.folder / "bad.npy").write_bytes(content)
        message = shell.refused("evaluate", "--params", tiny, "--images", "bad.npy")
        assert message.startswith("cannot read images bad.npy: not a plain NumPy array; expected a .npy file")
    with (shell.folder / "bad.npy").open("wb") as file:
        np.savez(file, a=np.zeros(3))
    assert "an archive; expected one" in shell.refused("evaluate", "--params", tiny, "--images", "bad.npy")
    assert "No such file" in shell.refused("cosim", "--params", tiny, "--images", "missing.npy")


def test_pictures(shell, tiny):
    Image.new("L", (8, 8)).save("large.png")
    Image.fromarray(np.zeros((5, 4), np.uint16)).save("deep.png")
    Image.new("L", (4, 5)).save("good.png")
    (shell.folder / "text.png").write_text("no picture")
    (shell.folder / "cut.png").write_bytes((shell.folder / "good.png").read_bytes()[:44])
    messages = {
        "large.png": "image large.png is 8x8 pixels; expected 4x5; resize it",
        "deep.png": "image deep.png has pixels of more than 8 bits (mode I;16B); expected one",
        "text.png": "cannot read image text.png: not a picture; expected PNG or .npy",
        "cut.png": "cannot read image cut.png: not a picture; expected PNG or .npy",
        "missing.png": "cannot read image missing.png: No such file or directory",
    }
    for name, message in messages.items():
        for command in ("evaluate", "cosim"):
            assert message in shell.refused(command, "--params", tiny, "--images", name)
    # One bad file among good ones: nothing is classified.
    shell.refused("evaluate", "--params", tiny, "--images", "good.png", "--images", "text.png")


def header_of(data: bytes) -> tuple[dict, bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header: dict, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def newer(data: bytes) -> bytes:
    header, body = header_of(data)
    manifest = json.loads(header["__metadata__"]["s2tdpt"])
    header["__metadata__"]["s2tdpt"] = json.dumps(manifest | {"version": 4})
    return with_header(header, body)


BAD_PARAMETERS = {
    "truncated": (lambda data: data[:-7], "is truncated"),
    "header cut": (lambda data: data[:100], "is truncated"),
    "altered": (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "its checksum does not match its contents"),
    "newer": (newer, "was written by a newer version (format version 4); expected at most 3"),
    "empty": (lambda data: b"", "is not a safetensors file"),
    "text": (lambda data: b"weights = 1, 2, 3", "is not a safetensors file"),
}


@pytest.mark.parametrize("case", BAD_PARAMETERS)
def test_parameter_files(shell, tiny, images, case):
    change, message = BAD_PARAMETERS[case]
    path = shell.folder / tiny
    path.write_bytes(change(path.read_bytes()))
    for command in (
        ["evaluate"],
        ["cosim", "--images", images],
        ["generate", "--out", "made"],
        ["synth"],
        ["bench"],
    ):
        assert message in shell.refused(*command, "--params", tiny)


def test_parameter_file_that_does_not_exist(shell):
    message = shell.refused("evaluate", "--params", "digit")
    assert message.startswith("no parameter file digit; expected a path or one of digits, digits-int4")
    (shell.folder / "folder").mkdir()
    assert "cannot read folder: Is a directory" in shell.refused("generate", "-p", "folder", "--out", "made")


def test_parameters_of_another_network(shell, tiny):
    """The built-in images do not fit: said before anything is generated or measured."""
    expected = "tiny takes images [5, 4, 1], the built-in ones are [8, 8, 1]"
    for command in ("cosim", "cycles"):
        message = shell.refused(command, "--params", tiny)
        assert message == f"{expected} or [32, 32, 3]; expected matching images; give them with --images"
    assert f"{expected}; expected a digits network" in shell.refused("bench", "--params", tiny)
    assert "expected [5, 4, 1] for tiny; choose another --data" in shell.refused("evaluate", "--params", tiny)


def test_missing_data_set(shell):
    for command in (["train", "--out", "run", "--config", "s2tdpt-4-384"], ["evaluate"]):
        message = shell.refused(*command, "--data", "cifar10")
        assert "expected a folder with cifar-10-binary.tar.gz from https://www.cs.toronto.edu/" in message
        message = shell.refused(*command, "--data", "cifar100", "--data-dir", ".")
        assert "no cifar100 files in .; expected one of cifar-100-binary, " in message
        assert "https://www.cs.toronto.edu/~kriz/cifar.html" in message


def test_data_that_do_not_fit_the_network(shell, write):
    path = write("tiny.json", network().model_dump(mode="json"))
    assert "data set digits has images (8, 8, 1)" in shell.refused("train", "--config", path, "--out", "run")


BAD_OPTIONS = {
    "command": (["trian"], "No such command 'trian'."),
    "option": (["cosim", "--speed"], "No such option"),
    "argument": (["info", "digits", "digits"], "Got unexpected extra argument (digits)"),
    "missing option": (["generate"], "Missing option '--out' / '-o'."),
    "missing value": (["cosim", "--count"], "Option '--count' requires an argument."),
    "data set": (["train", "--out", "run", "--data", "mnist"], "'mnist' is not one of 'digits', 'cifar10'"),
    "gradient": (["train", "--out", "run", "--gradient", "exact"], "'exact' is not one of"),
    "weight bits": (["train", "--out", "run", "--weight-bits", 6], "'6' is not one of '4', '8'"),
    "epochs": (["train", "--out", "run", "--float-epochs", -1], "float_epochs is -1; expected 0 or more"),
    "decay": (["train", "--out", "run", "--weight-decay", -1], "weight_decay is -1.0; expected 0 or more"),
    "rate": (["train", "--out", "run", "--lr", "nan"], "lr is nan; expected a positive number"),
    "smoothing": (["train", "--out", "run", "--label-smoothing", 1], "label_smoothing is 1.0; expected 0 to"),
    "stop": (["train", "--out", "run", "--stop-after", 0], "0 is not in the range x>=1"),
    "seed": (["train", "--out", "run", "--seed", "one"], "'one' is not a valid integer"),
    "no image": (["evaluate", "--limit", 0], "0 is not in the range x>=1"),
    "no images": (["cosim", "--count", 0], "0 is not in the range x>=1"),
    "jobs": (["cosim", "--jobs", 0], "0 is not in the range x>=1"),
    "stall": (["cosim", "--stall", "some"], "'some' is not one of 'none', 'random', 'bursty', 'starved'"),
    "simulator": (["cosim", "--simulator", "vcs"], "'vcs' is not one of 'verilator', 'icarus'"),
    "stall seed": (["cosim", "--seed", -1], "-1 is not in the range x>=0"),
    "steps": (["cosim", "--steps", "0-2"], "--steps belongs to --waveform; expected both"),
    "step words": (
        ["cosim", "--waveform", "a.fst", "--steps", "2-1"],
        "--steps is '2-1'; expected FIRST-LAST",
    ),
    "two networks": (["info", "digits", "-p", "digits"], "info takes one CONFIG, --config or --params"),
    "device": (["info", "--device", "ice40"], "'ice40' is not one of 'ecp5-25k'"),
    "module name": (["generate", "--out", "made", "--name", "1st"], "'1st' cannot be a module name"),
    "keyword": (["generate", "--out", "made", "--name", "wire"], "'wire' cannot be a module name"),
    "target": (["synth", "--target", "ice40"], "'ice40' is not one of 'ecp5-25k'"),
    "seed words": (["synth", "--seeds", "1,two"], "--seeds is '1,two'; expected whole numbers from 0"),
    "seed gap": (["synth", "--seeds", "1,,2"], "--seeds is '1,,2'; expected whole numbers"),
    "seed sign": (["synth", "--seeds", "-1"], "--seeds is '-1'; expected whole numbers"),
    "no seed": (["synth", "--seeds", ""], "--seeds is ''; expected whole numbers"),
    "frequency": (["synth", "--frequency", 0], "--frequency is 0; expected a positive number of MHz"),
    "library": (["synth", "--target", "liberty"], "--target liberty and --liberty FILE go together"),
    "no library": (
        ["synth", "--liberty", "cells.lib"],
        "no cell library cells.lib: No such file or directory; expected a Liberty file",
    ),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_options(shell, case):
    arguments, message = BAD_OPTIONS[case]
    assert message in shell.refused(*arguments)


BAD_BASELINES = {
    "no JSON": "{",
    "no object": [],
    "another format": {"format": "other"},
    "no figures": {"format": "s2tdpt-bench", "details": {}},
    "figure in words": {"format": "s2tdpt-bench", "details": {}, "figures": {"accuracy_percent": "good"}},
}


@pytest.mark.parametrize("case", BAD_BASELINES)
def test_baseline(shell, write, case):
    path = write("baseline.json", BAD_BASELINES[case])
    message = "baseline.json is no baseline; expected JSON that `s2tdpt bench --json` wrote; name another"
    assert shell.refused("bench", "--baseline", path) == message


BAD_REPORTS = {
    "no JSON": ("{", "report.json is no FPGA report; expected JSON that `s2tdpt synth --json` wrote"),
    "no figures": ({"fmax_median": None}, "report.json is no FPGA report"),
    "another network": (
        {"fmax_median": 1.0, "used": {"lut": 1}, "network": "mine"},
        "report.json is of the network mine; expected one of digits, s2tdpt-2-128, s2tdpt-4-384-int4",
    ),
    "another machine": (
        {"fmax_median": 1.0, "used": {"lut": 1}, "network": "digits", "machine": {"lanes": 1}},
        "report.json is of another machine than digits is now; expected the same fields",
    ),
}


@pytest.mark.parametrize("case", BAD_REPORTS)
def test_synthesis_reports(shell, write, case):
    data, message = BAD_REPORTS[case]
    assert message in shell.refused("bench", "--synth-report", write("report.json", data))


def test_liberty_file_is_looked_at_first(shell, write):
    write("cells.lib", "module cells; endmodule")
    write("cells.lib.gz", "no gzip")
    whole = gzip.compress(b"library (cells) {" + random.Random(1).randbytes(100_000) + b"}")
    (shell.folder / "cut.lib.gz").write_bytes(whole[:-1000])
    messages = {
        "cells.lib": "is no Liberty file",
        "cells.lib.gz": "no cell library",
        "cut.lib.gz": "no cell library cut.lib.gz: not a whole gzip file",
        "/dev/zero": "no cell library /dev/zero: not a regular file",
    }
    for name, message in messages.items():
        assert message in shell.refused("synth", "--target", "liberty", "--liberty", name, "--work", "work")
        assert not (shell.folder / "work").exists()
        assert message in shell.refused("energy", "--liberty", name)


def test_baseline_that_does_not_exist(shell):
    assert "no baseline missing.json" in shell.refused("bench", "--baseline", "missing.json")


def test_help_loads_nothing_heavy():
    """In a process of its own: neither torch nor the hardware description."""
    code = (
        "import sys; from click.testing import CliRunner; from s2tdpt.scripts.cli import COMMANDS, main\n"
        "for name in ('', *COMMANDS):\n"
        "    assert CliRunner().invoke(main, [*name.split(), '--help']).exit_code == 0, name\n"
        "print([name for name in ('torch', 'amaranth', 'numba', 'sklearn') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_every_command_has_an_example_and_every_option_a_help_text(shell):
    assert main.list_commands(None) == list(COMMANDS)
    for name in COMMANDS:
        command = main.get_command(None, name)
        assert command.short_help == COMMANDS[name][1]
        text = shell.good(name, "--help")
        assert f"\n    s2tdpt {name}" in text and "Example" in text
        assert name in shell.good("--help")
        for option in command.params:
            assert option.param_type_name == "argument" or option.help, (name, option.name)
    assert shell.good("--help") == shell.good()
    assert "version 0.2.0" in shell.good("--version")


def test_pictures_that_are_not_taken_as_they_stand(shell, tiny, write):
    """What would have to be scaled, blended or dropped is refused; what is plain gives exactly its bytes."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (5, 4), dtype=np.uint8)
    colours = rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)
    frames = [Image.fromarray(grey), Image.fromarray(255 - grey)]
    Image.fromarray(colours).convert("RGBA").save("alpha.png")
    Image.fromarray(grey).convert("LA").save("grey-alpha.png")
    Image.fromarray(grey).convert("P").save("palette-alpha.png", transparency=3)
    Image.fromarray(colours).convert("CMYK").save("cmyk.tiff")
    frames[0].save("moves.gif", save_all=True, append_images=frames[1:])
    frames[0].save("moves.png", save_all=True, append_images=frames[1:])
    (shell.folder / "deep.png").write_bytes(deep_png(4, 5, 3))
    Image.fromarray(colours).save("colours.png")
    messages = {
        "alpha.png": "image alpha.png has transparency; expected none; remove the alpha channel",
        "grey-alpha.png": "image grey-alpha.png has transparency",
        "palette-alpha.png": "image palette-alpha.png has transparency",
        "cmyk.tiff": "image cmyk.tiff has mode CMYK; expected grey or RGB; convert it",
        "moves.gif": "image moves.gif has 2 frames; expected one; save one of them",
        "moves.png": "image moves.png has 2 frames",
        "deep.png": "image deep.png has pixels of more than 8 bits (mode RGB;16B); expected one",
        "colours.png": "image colours.png has colours; expected grey; convert it",
        "/dev/zero": "cannot read image /dev/zero: not a regular file; expected PNG or .npy; check it",
    }
    for name, message in messages.items():
        assert message in shell.refused("evaluate", "--params", tiny, "--images", name)
    config = load_config(write("tiny.json", network().model_dump(mode="json")))
    Image.fromarray(grey).save("grey.png")
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save("grey-rgb.png")
    Image.fromarray(grey).save("grey.bmp")
    for name in ("grey.png", "grey-rgb.png", "grey.bmp"):
        assert np.array_equal(load_images((Path(name),), config)[0, ..., 0], grey), name
    config = config.model_copy(update={"image_channels": 3})
    assert np.array_equal(load_images((Path("colours.png"),), config)[0], colours)
    assert np.array_equal(load_images((Path("grey.png"),), config)[0], np.stack([grey] * 3, axis=-1))
    with pytest.raises(UserError, match="is a picture of 3 channels; expected 2; save a .npy array instead"):
        load_images((Path("colours.png"),), config.model_copy(update={"image_channels": 2}))


def deep_png(width: int, height: int, channels: int) -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + bytes(range(2 * channels * width)) for _ in range(height))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("command", ["evaluate", "cosim", "cycles"])
def test_options_that_own_images_make_void(shell, tiny, images, command):
    count = "--limit" if command == "evaluate" else "--count"
    for option in ([count, 1], ["--data", "digits"], ["--data-dir", "."]):
        message = shell.refused(command, "--params", tiny, "--images", images, *option)
        assert message.startswith(f"--images and {option[0]} exclude each other")


def test_large_files_of_images_are_refused_unread(shell, tiny):
    """3 GB of zeros, and as many behind a header that fits; neither is read, nor memory taken for it."""
    for name in ("zeros.npy", "zeros.png"):
        with (shell.folder / name).open("wb") as file:
            file.truncate(3 << 30)
        message = cheaply(lambda name=name: shell("evaluate", "--params", tiny, "--images", name).stderr)
        assert f" {name}: not a " in message
    np.save("large.npy", np.zeros((0, 5, 4, 1), np.uint8))
    data = (shell.folder / "large.npy").read_bytes()
    count = b"(%d, 5, 4, 1)" % (1 << 27)
    with (shell.folder / "large.npy").open("wb") as file:
        file.write(data.replace(b"(0, 5, 4, 1), }" + b" " * (len(count) - 12), count + b", }"))
        file.truncate(file.tell() + (20 << 27))
    message = cheaply(lambda: shell("evaluate", "--params", tiny, "--images", "large.npy").stderr)
    assert f"images in large.npy take {20 << 27} bytes; expected at most {1 << 30}; split the file" in message


def cheaply(function):
    """The result of a call that takes neither long nor much memory."""
    tracemalloc.start()
    started = time.perf_counter()
    try:
        result = function()
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - started < 5
    return result
