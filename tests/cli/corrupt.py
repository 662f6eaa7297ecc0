"""Inputs that are wrong in every way: parameter files, images, configurations and machines, by name.

`kinds` lists them, `run_all` gives every one to the command line in one process of limited memory. Run as a
program, it writes what became of each as JSON: ``python -m tests.cli.corrupt FOLDER RESULT``.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.numpy
from PIL import Image

from s2tdpt.golden.config import NetworkConfig, load_config
from s2tdpt.golden.parameter_file import MANIFEST_TYPES, METADATA_KEY, digest, tensor_layout
from s2tdpt.golden.params import Params, random_params
from s2tdpt.golden.strictjson import canonical
from s2tdpt.hw.plan.machine import Machine, load_machine
from s2tdpt.sim.cases import network

MEMORY = 1 << 30
"""Bytes of address space that a refusal may take beyond what the program has after its start."""

SECONDS = 60
"""After so many of them a refusal hangs, and ends everything; the test asks for less, in CPU time."""

GIGABYTES = 3 << 30

CONTROL = "\x1b[2J\x07\r\n\u202e\u2028"
"""What a terminal would obey."""

Make = Callable[[Path], object]


class Kind(NamedTuple):
    """One wrong input: its name, the command line with `{}` for its path, and what makes it there.

    `place` is the path itself where nothing is made.
    """

    name: str
    command: tuple[str, ...]
    make: Make | None
    place: str = "bad"


def kinds() -> list[Kind]:
    """All of them; names are unique."""
    found = [*configurations(), *machines(), *parameters(), *images()]
    assert len({kind.name for kind in found}) == len(found)
    return found


# What can be wrong with any file.


def files(what: str, command: tuple[str, ...], suffix: str = "") -> Iterator[Kind]:
    """Places that hold no file, or one without end."""

    def kind(name: str, make: Make | None, place: str = f"bad{suffix}") -> Kind:
        return Kind(f"{what}: {name}", command, make, place)

    yield kind("missing", None)
    yield kind("empty", lambda path: path.touch())
    yield kind("directory", lambda path: path.mkdir())
    yield kind("pipe that nobody writes to", os.mkfifo)
    yield kind("zeros without end", None, "/dev/zero")
    yield kind("link to zeros without end", lambda path: path.symlink_to("/dev/zero"))
    yield kind("3 GB of zeros", lambda path: sparse(path, b""))
    yield kind("read error", None, "/proc/self/mem")
    yield kind("link to itself", lambda path: path.symlink_to(path))
    yield kind("link to nothing", lambda path: path.symlink_to("nowhere"))
    yield kind("below a file", lambda path: path.parent.touch(), f"file/bad{suffix}")
    yield kind("name too long", None, "n" * 300 + suffix)
    yield kind("name that a terminal obeys", None, "\x1b[2J\x07bad" + suffix)
    yield kind("random bytes", lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)))
    yield kind("one byte", lambda path: path.write_bytes(b"\0"))


def sparse(path: Path, start: bytes) -> None:
    """3 GB without blocks on the disk, behind `start`."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(GIGABYTES)


def raw(data: bytes | str) -> Make:
    """A file with these bytes."""
    return lambda path: path.write_bytes(
        data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    )


# JSON.


def texts(what: str, command: tuple[str, ...], good: dict) -> Iterator[Kind]:
    """Texts that are no JSON object, or not the strict kind."""
    text = json.dumps(good)
    deep = "[" * 100_000 + "]" * 100_000
    first = next(iter(good))
    cases = {
        "blanks": " \n\t",
        "BOM": b"\xef\xbb\xbf" + text.encode(),
        "UTF-16": text.encode("utf-16"),
        "no UTF-8": text.encode()[:-1] + b', "\xff": 1}',
        "zero byte": text[:-1] + "\0}",
        "trailing comma": text[:-1] + ",}",
        "comment": "// network\n" + text,
        "two documents": text + text,
        "single quotes": text.replace('"', "'"),
        "list": f"[{text}]",
        "string": '"digits"',
        "number": "3",
        "null": "null",
        "true": "true",
        "NaN alone": "NaN",
        "empty list": "[]",
        "a key twice": text[:-1] + f", {json.dumps(first)}: {json.dumps(good[first])}}}",
        "deep lists": deep,
        "deep lists in a field": text[:-1] + f', "x": {deep}}}',
        "deep objects": '{"a":' * 100_000,
        "nested 100 levels": text[:-1] + ', "x": ' + "[" * 100 + "]" * 100 + "}",
        "2 MB of blanks": " " * (2 << 20) + text,
        "2 MB of one name": text[:-1] + f', "{"n" * (2 << 20)}": 1}}',
        "half a MB of one name": text[:-1] + f', "{"n" * (1 << 19)}": 1}}',
        "half a MB of escapes": text[:-1] + ', "' + "\\\\" * (1 << 18) + '": 1}',
        "field that a terminal obeys": text[:-1] + f", {json.dumps(CONTROL)}: 1}}",
        "half a character": text[:-1] + ', "\\ud800": 1}',
        "a million digits": text[:-1] + f', "x": {"9" * 900_000}}}',
        "number beyond a double": text[:-1] + ', "x": 1e999}',
    }
    for name, data in cases.items():
        yield Kind(f"{what}: {name}", command, raw(data))
    for part in (1, 2, len(text) // 4, len(text) // 2, len(text) - 2, len(text) - 1):
        yield Kind(f"{what}: cut after {part} characters", command, raw(text[:part]))


def values(what: str, command: tuple[str, ...], good: dict, required: set[str]) -> Iterator[Kind]:
    """Every field left out, of another type, out of range."""
    wrong = {
        "null": None,
        "object": {"a": 1},
        "nested list": [[1]],
        "huge": 10**30,
        "negative": -1,
        "fraction": 2.000001,
        "long string": CONTROL * 1000,
    }
    for field in good:
        if field in required:
            without = {key: value for key, value in good.items() if key != field}
            yield Kind(f"{what}: without {field}", command, raw(json.dumps(without)))
        for name, value in wrong.items():
            if (field, name) in RIGHT:
                continue
            yield Kind(f"{what}: {field} {name}", command, raw(json.dumps(good | {field: value})))
        text = json.dumps(good | {field: "@"}).replace('"@"', "Infinity")
        yield Kind(f"{what}: {field} infinite", command, raw(text))


RIGHT = {("v_threshold", "fraction"), ("kappa", "fraction")}
"""Fields of which such a value is none of the wrong ones."""


def configurations() -> Iterator[Kind]:
    command = ("info", "{}")
    good = load_config("digits").model_dump(mode="json")
    required = {name for name, field in NetworkConfig.model_fields.items() if field.is_required()}
    yield from files("configuration", command)
    yield from texts("configuration", command, good)
    yield from values("configuration", command, good, required)


def machines() -> Iterator[Kind]:
    command = ("info", "--machine", "{}")
    good = load_machine("digits").model_dump(mode="json")
    required = {name for name, field in Machine.model_fields.items() if field.is_required()}
    yield from files("machine", command)
    yield from texts("machine", command, good)
    yield from values("machine", command, good, required)


# Parameter files.


def parameters() -> Iterator[Kind]:
    command = ("info", "--params", "{}")
    yield from files("parameters", command)
    params = random_params(network(), 3)
    data = packed(params)
    begin = 8 + int.from_bytes(data[:8], "little")
    header, tail = json.loads(data[8:begin]), data[begin:]

    def kind(name: str, content: bytes) -> Kind:
        return Kind(f"parameters: {name}", command, raw(content))

    for cut in (4, 8, 9, 100, begin - 1, begin, begin + 1, len(data) // 2, len(data) - 1):
        yield kind(f"cut after {cut} bytes", data[:cut])
    for place in (0, 7, 8, 20, begin // 2, begin - 1, begin, len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 0x41
        yield kind(f"byte {place} changed", bytes(changed))
    yield kind("a byte more", data + b"\0")
    yield kind("twice", data + data)
    for name, length in {"zero": 0, "all ones": 2**64 - 1, "2^63": 2**63, "2 GB": 2 << 30}.items():
        yield kind(f"header length {name}", length.to_bytes(8, "little") + data[8:])
    huge = (GIGABYTES - 8).to_bytes(8, "little") + b"{"
    yield Kind("parameters: header of 3 GB", command, lambda path: sparse(path, huge))
    yield Kind("parameters: 3 GB behind the header", command, lambda path: sparse(path, data[:begin]))
    for name, text in {
        "deep": b'{"a":' + b"[" * 100_000,
        "NaN": b'{"a":NaN}',
        "list": b"[]",
        "no UTF-8": b'{"\xff":1}',
        "key twice": b'{"a":1,"a":1}',
    }.items():
        yield kind(f"header {name}", struct.pack("<Q", len(text)) + text + tail)
    yield from manifests(command, params)
    yield from tensors(command, params, header, tail)


def packed(
    params: Params, body: dict | None = None, arrays: dict | None = None, text: str | None = None
) -> bytes:
    """A parameter file with another manifest or other tensors; the checksum holds if there can be one."""
    arrays = dict(params.tensors) if arrays is None else arrays
    if text is None:
        if body is None:
            body = {key: value for key, value in params.manifest().items() if key != "sha256"}
        text = canonical({**body, "sha256": digest(body, arrays)})
    return safetensors.numpy.save(arrays, metadata={METADATA_KEY: text})


def manifests(command: tuple[str, ...], params: Params) -> Iterator[Kind]:
    """Every key of the manifest and of the configuration in it."""

    def kind(name: str, content: bytes) -> Kind:
        return Kind(f"manifest: {name}", command, raw(content))

    whole = params.manifest()
    body = {key: value for key, value in whole.items() if key != "sha256"}
    for key in MANIFEST_TYPES:
        without = {name: value for name, value in whole.items() if name != key}
        yield kind(f"without {key}", packed(params, text=canonical(without)))
        for name, value in {"null": None, "true": True, "list": [CONTROL] * 1000, "huge": 10**30}.items():
            if key == "sha256" or (key, name) == ("version", "true"):
                changed = whole | {key: value}
                yield kind(f"{key} {name}", packed(params, text=canonical(changed)))
            else:
                yield kind(f"{key} {name}", packed(params, body | {key: value}))
    for key in body["config"]:
        changed = {name: value for name, value in body["config"].items() if name != key}
        yield kind(f"configuration without {key}", packed(params, body | {"config": changed}))
    yield kind("unknown key", packed(params, body | {CONTROL * 1000: 1}))
    for name, text in {
        "no JSON": "{",
        "NaN": canonical(whole)[:-1] + ',"x":NaN}',
        "deep": canonical(whole)[:-1] + ',"x":' + "[" * 100_000 + "]" * 100_000 + "}",
        "not canonical": json.dumps(whole, indent=1),
        "key twice": canonical(whole)[:-1] + ',"version":1}',
        "zero byte": "\0",
        "threshold in digits without end": canonical(whole)[:-1] + ',"x":' + "1" * 10_000 + "}",
    }.items():
        yield kind(name, packed(params, text=text))
    for name, value in {"zero": 0, "negative": -5, "2^31": 2**31, "2^70": 2**70}.items():
        for key in ("residual_threshold", "attention_threshold"):
            yield kind(f"{key} is {name}", packed(params, body | {key: value}))
    for key, value in {"scales": {"head": "x"}, "widths": {"bias": "x"}, "config": {}}.items():
        yield kind(f"{key} holds {value}", packed(params, body | {key: value}))


def tensors(command: tuple[str, ...], params: Params, header: dict, tail: bytes) -> Iterator[Kind]:
    """Every tensor missing, of another type, another shape; some out of range."""

    def kind(name: str, content: bytes) -> Kind:
        return Kind(f"tensors: {name}", command, raw(content))

    arrays = dict(params.tensors)
    for name, layout in tensor_layout(params.config).items():
        rest = {key: value for key, value in arrays.items() if key != name}
        yield kind(f"{name} missing", packed(params, arrays=rest))
        yield kind(f"{name} of doubles", packed(params, arrays=arrays | {name: arrays[name].astype(float)}))
        yield kind(f"{name} too long", packed(params, arrays=arrays | {name: np.repeat(arrays[name], 2, 0)}))
        if layout.lo > np.iinfo(layout.dtype).min:
            low = arrays[name].copy()
            low.flat[0] = layout.lo - 1
            yield kind(f"{name} below its range", packed(params, arrays=arrays | {name: low}))
    yield kind("one more", packed(params, arrays=arrays | {CONTROL * 100: np.zeros(1, np.int8)}))

    def changed(name: str, entry: object) -> bytes:
        text = json.dumps(header | {"head.bias": entry}).encode()
        return struct.pack("<Q", len(text)) + text + tail

    entry = header["head.bias"]
    size = entry["data_offsets"][1] - entry["data_offsets"][0]
    for name, value in {
        "null": None,
        "list": [],
        "empty": {},
        "unknown type": entry | {"dtype": CONTROL},
        "type number": entry | {"dtype": 3},
        "shape of text": entry | {"shape": ["3"]},
        "shape negative": entry | {"shape": [-3]},
        "shape huge": entry | {"shape": [2**62, 2**62]},
        "shape of many axes": entry | {"shape": [1] * 5000},
        "offsets backwards": entry | {"data_offsets": entry["data_offsets"][::-1]},
        "offsets beyond the end": entry | {"data_offsets": [2**62, 2**63]},
        "three offsets": entry | {"data_offsets": [0, 1, 2]},
        "offsets of a neighbour": entry | {"data_offsets": [size, 2 * size]},
    }.items():
        yield kind(f"entry {name}", changed(name, value))


# Images.


def images() -> Iterator[Kind]:
    command = ("evaluate", "--params", "tiny.safetensors", "--images", "{}")
    yield from files("array", command, ".npy")
    yield from files("picture", command, ".png")
    yield from arrays_of_other_kinds(command)
    yield from damaged_arrays(command)
    yield from pictures(command)


def saved(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def arrays_of_other_kinds(command: tuple[str, ...]) -> Iterator[Kind]:
    def kind(name: str, data: bytes) -> Kind:
        return Kind(f"array: {name}", command, raw(data), "bad.npy")

    shape = (2, 5, 4, 1)
    for dtype in ("i1", "u2", "i4", ">i8", "f2", "f4", "f8", "c16", "?", "S1", "U1", "M8[s]", "m8[s]", "V1"):
        yield kind(f"of {dtype}", saved(np.zeros(shape, dtype)))
    yield kind("of records", saved(np.zeros(shape, [("r", "u1"), ("g", "u1")])))
    yield kind("of objects", saved(np.array([{}, []], object), allow_pickle=True))
    for wrong in (
        (0, 5, 4, 1),
        (2, 4, 5, 1),
        (2, 5, 4, 3),
        (2, 5, 4, 0),
        (5,),
        (),
        (1,) * 30,
        (2, 20),
        (1, 2, 5, 4, 1),
    ):
        yield kind(f"of shape {wrong}", saved(np.zeros(wrong, np.uint8)))


def damaged_arrays(command: tuple[str, ...]) -> Iterator[Kind]:
    good = saved(np.zeros((2, 5, 4, 1), np.uint8))

    def kind(name: str, data: bytes) -> Kind:
        return Kind(f"array: {name}", command, raw(data), "bad.npy")

    for cut in (3, 6, 8, 9, 10, 50, len(good) - 40, len(good) - 1):
        yield kind(f"cut after {cut} bytes", good[:cut])
    yield kind("version 9", good[:6] + b"\x09" + good[7:])
    yield kind("header without end", good[:8] + b"\xff\xff" + good[10:])
    for name, text in {
        "no dictionary": "[1, 2]",
        "code": "__import__('os').abort()",
        "deep": "(" * 5000,
        "negative shape": "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 5, 4, 1)}",
        "gigantic shape": "{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999, 5, 4, 1)}",
        "shape of 2^70": f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**70}, 5, 4, 1)}}",
        "shape of text": "{'descr': '|u1', 'fortran_order': False, 'shape': 'abc'}",
        "unknown type": "{'descr': 'nothing', 'fortran_order': False, 'shape': (2, 5, 4, 1)}",
        "key missing": "{'descr': '|u1', 'shape': (2, 5, 4, 1)}",
        "name that a terminal obeys": "{'\x1b[2J': 1}",
    }.items():
        line = text.encode() + b"\n"
        yield kind(f"header {name}", good[:8] + struct.pack("<H", len(line)) + line + good[-40:])
    large = b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d, 5, 4, 1)}\n" % ((GIGABYTES - 200) // 20)
    start = good[:8] + struct.pack("<H", len(large)) + large
    yield Kind("array: 3 GB of images", command, lambda path: sparse(path, start), "bad.npy")
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros((2, 5, 4, 1), np.uint8))
    yield kind("archive", buffer.getvalue())


def pictures(command: tuple[str, ...]) -> Iterator[Kind]:
    def kind(name: str, data: bytes, suffix: str = "png") -> Kind:
        return Kind(f"picture: {name}", command, raw(data), f"bad.{suffix}")

    def drawn(mode: str, size=(4, 5), form: str = "PNG", **options) -> bytes:
        buffer = io.BytesIO()
        Image.new(mode, size).save(buffer, form, **options)
        return buffer.getvalue()

    for mode in ("LA", "RGBA", "I;16"):
        yield kind(f"mode {mode}", drawn(mode))
    yield kind("mode CMYK", drawn("CMYK", form="TIFF"), "tif")
    yield kind("mode F", drawn("F", form="TIFF"), "tif")
    yield kind("mode I", drawn("I", form="TIFF"), "tif")
    colours = Image.new("RGB", (4, 5), (1, 2, 3))
    buffer = io.BytesIO()
    colours.save(buffer, "PNG")
    yield kind("colours", buffer.getvalue())
    for size in ((5, 4), (1, 1), (4, 6), (4000, 4000)):
        yield kind(f"of {size[0]}x{size[1]}", drawn("L", size))
    frames = [Image.new("L", (4, 5), value) for value in (0, 255)]
    for form in ("GIF", "PNG", "TIFF", "WEBP"):
        buffer = io.BytesIO()
        frames[0].save(buffer, form, save_all=True, append_images=frames[1:])
        yield kind(f"moving {form}", buffer.getvalue(), form.lower())
    for form in ("PNG", "BMP", "GIF", "TIFF", "JPEG", "WEBP"):
        whole = drawn("L", form=form)
        for part in (4, len(whole) // 3):
            yield kind(f"{form} cut after {part} bytes", whole[:part], form.lower())
    whole = drawn("L")
    bomb = whole[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + whole[24:]
    yield kind("announces 2^62 pixels", bomb)
    yield kind("transparent colour", drawn("L", transparency=0))
    yield kind("text", b"no picture")
    yield kind("vector graphics", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg")
    yield kind("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 5\n", "eps")
    yield Kind("picture: one bad of two", (*command, "--images", "good.npy"), raw(b"no"), "bad.png")


# All of them in one process.


def run_all(folder: Path) -> dict[str, dict]:
    """What becomes of every kind: exit code, both streams, CPU seconds; stops at no failure.

    The process then has little memory left; it is for nothing else.
    """
    from click.testing import CliRunner

    from s2tdpt.scripts.cli import main

    random_params(network(), 3).save(folder / "tiny.safetensors")
    np.save(folder / "good.npy", np.zeros((1, 5, 4, 1), np.uint8))
    os.chdir(folder)
    warnings.simplefilter("ignore")
    runner = CliRunner()
    for good in (
        ("info", "-p", "tiny.safetensors"),
        ("evaluate", "-p", "tiny.safetensors", "--images", "good.npy"),
    ):
        result = runner.invoke(main, good)  # loads what has to be loaded
        assert result.exit_code == 0, result.output
    limit = memory_in_use() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return {kind.name: _one(kind, runner, main) for kind in kinds()}


def _one(kind: Kind, runner, main) -> dict:
    """Make the input, try it, remove it."""
    path = Path(kind.place)
    if kind.make is not None:
        if path.parent.name == "file":
            path.parent.unlink(missing_ok=True)
        kind.make(path)
    before = sorted(os.listdir())
    command = [word.replace("{}", kind.place) for word in kind.command]
    signal.alarm(SECONDS)
    started = time.process_time()
    result = runner.invoke(main, command)
    seconds = time.process_time() - started
    signal.alarm(0)
    found = {
        "code": result.exit_code,
        "output": result.stdout,
        "error": result.stderr,
        "exception": repr(result.exception) if not isinstance(result.exception, SystemExit) else "",
        "seconds": seconds,
        "left": sorted(set(os.listdir()) - set(before)),
    }
    if kind.make is not None:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        elif os.path.lexists(path):
            path.unlink()
    return found


def memory_in_use() -> int:
    """Bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(run_all(Path(sys.argv[1]))), encoding="utf-8")
