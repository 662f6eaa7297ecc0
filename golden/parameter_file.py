"""The container of a parameter file: safetensors with a manifest, read with suspicion.

A file is checked in the order in which it can be wrong, and nothing is read that was not announced: first its
kind and its size, then the header, the manifest in it, the configuration in that; only when the size is the
one that the configuration asks for, the tensors.

Ref: docs/parameters.md.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from s2tdpt.golden import version1
from s2tdpt.golden.config import SLOTS, NetworkConfig, config_from_dict
from s2tdpt.golden.errors import UserError, shown
from s2tdpt.golden.layout import TensorLayout
from s2tdpt.golden.neuron import Lif
from s2tdpt.golden.strictjson import canonical, parse

FORMAT = "s2tdpt-parameters"
VERSION = 3
"""Of networks whose neurons are no LIF neurons."""
LIF_VERSION = 2
"""Of networks of LIF neurons, whose configuration does not name them."""
METADATA_KEY = "s2tdpt"
MAX_SHIFT = 15
LARGEST_HEADER = 32 << 20
"""Bytes of the header, manifest included."""
LARGEST_FILE = 2 << 30
"""Bytes of all tensors: a file that announces more is refused instead of read."""
MANIFEST_TYPES: dict[str, type] = {
    "format": str,
    "version": int,
    "config": dict,
    "residual_threshold": int,
    "attention_threshold": int,
    "scales": dict,
    "widths": dict,
    "provenance": dict,
    "sha256": str,
}
"""The keys of a manifest, all of them and no others, and the types of their values."""
JSON_NAMES = {dict: "an object", str: "a string", int: "a whole number"}
ELEMENT_TYPES = {"I8": np.int8, "U8": np.uint8, "I16": np.int16, "I32": np.int32, "I64": np.int64}
"""Element types by their names in safetensors."""


def tensor_layout(config: NetworkConfig) -> dict[str, TensorLayout]:
    """Every tensor that a parameter file for `config` holds, by name, in its order."""
    layout: dict[str, TensorLayout] = {}
    limit = config.weight_limit
    for layer in config.layers():
        channels, bias = (layer.outputs,), np.int64 if layer.head else np.int32
        layout[f"{layer.name}.weight"] = TensorLayout(np.int8, layer.weight_shape, -limit, limit)
        layout[f"{layer.name}.bias"] = TensorLayout(bias, channels, np.iinfo(bias).min, np.iinfo(bias).max)
        if layer.writer:
            layout[f"{layer.name}.shift"] = TensorLayout(np.uint8, channels, 0, MAX_SHIFT)
        if layer.lif_fed:
            layout[f"{layer.name}.threshold"] = TensorLayout(np.int32, channels, 1, 2**31 - 1)
    return layout | config.attention.layout(config) | config.neuron.layout(config)


def version_of(config: NetworkConfig) -> int:
    """Version of the file that is written for `config`."""
    return LIF_VERSION if config.neuron == Lif() else VERSION


def check_layout(config: NetworkConfig, found: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Refuse tensors, given as name to (element type, shape), that are not those of `config`."""
    layout = tensor_layout(config)
    for name in found:
        if name not in layout:
            raise UserError(f"unknown tensor {shown(name)}; expected only those of {config.name}; remove it")
    for name, (dtype, shape, *_) in layout.items():
        if name not in found:
            raise UserError(f"tensor '{name}' is missing; expected shape {shape}; export it again")
        if found[name] != (np.dtype(dtype).name, shape):
            kind, sizes = found[name]
            raise UserError(
                f"tensor '{name}' is {kind}{shown(list(sizes))}; expected "
                f"{np.dtype(dtype).name}{list(shape)}; export it again"
            )


def digest(body: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256, hexadecimal, of a manifest without its checksum and of all tensors."""
    state = hashlib.sha256(canonical(body).encode("ascii"))
    for name in sorted(tensors):
        array = np.asarray(tensors[name])
        shape = ",".join(str(n) for n in array.shape)
        state.update(f"\n{name}:{array.dtype.name}:{shape}\n".encode())
        state.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes())
    return state.hexdigest()


def read(path: Path) -> tuple[dict[str, Any], NetworkConfig, dict[str, np.ndarray]]:
    """Manifest, configuration and tensors of a parameter file, its checksum verified.

    The manifest of a file of version 1 is given in the form of version 2.

    Raises
    ------
    UserError
        Anything about the file is not as docs/parameters.md says; one line that begins with its path.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise _unreadable(path, "Is a directory" if path.is_dir() else "not a regular file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header, begin = _header(file, size, path)
            manifest = _manifest(header, path)
            values = _whole_config(manifest, path)
            config = config_from_dict(values, source=f"{path}: configuration in the manifest")
            places = _places(header, config, size - begin, path)
            data = file.read(size - begin)
    except OSError as error:
        raise _unreadable(path, error.strerror or "input/output error") from None
    if len(data) < size - begin:
        raise _damaged(path, "it became shorter while it was read")
    tensors = {
        name: np.frombuffer(data, np.dtype(layout.dtype).newbyteorder("<"), math.prod(layout.shape), place)
        .astype(layout.dtype)
        .reshape(layout.shape)
        for name, (layout, place) in places.items()
    }
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    if manifest["sha256"] != digest(body, tensors):
        raise _damaged(path, "its checksum does not match its contents")
    if manifest["version"] == 1:
        body |= {"version": LIF_VERSION, "config": config.model_dump(mode="json")}
        manifest = {**body, "sha256": digest(body, tensors)}
    return manifest, config, tensors


def _header(file: BinaryIO, size: int, path: Path) -> tuple[dict[str, Any], int]:
    """The safetensors header and the place behind it."""
    start = file.read(9)
    if len(start) < 9 or start[8:] != b"{":
        raise UserError(
            f"{path} is not a safetensors file; expected a parameter file (.safetensors); check the path"
        )
    length = int.from_bytes(start[:8], "little")
    if length > size - 8:
        raise _damaged(path, f"it is truncated or its header length is wrong ({size} bytes)")
    if length > LARGEST_HEADER:
        raise _damaged(path, f"its header has {length} bytes, more than {LARGEST_HEADER}")
    try:
        header = parse(start[8:] + file.read(length - 1))
        if not isinstance(header, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise _damaged(path, f"its header cannot be read ({error})") from None
    return header, 8 + length


def _manifest(header: dict[str, Any], path: Path) -> dict[str, Any]:
    """The manifest in the header, with all keys and no others, in its canonical form."""
    metadata = header.get("__metadata__", {})
    text = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise UserError(
            f"{path} holds no '{METADATA_KEY}' manifest; expected a parameter file, not any safetensors "
            "file; export one from a checkpoint"
        )
    try:
        manifest = parse(text)
        if not isinstance(manifest, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise _damaged(path, f"its manifest cannot be read ({error})") from None
    _check_version(manifest, path)
    if surplus := sorted(metadata.keys() - {METADATA_KEY}):
        raise _damaged(path, f"its metadata have an entry {shown(surplus[0])} beside '{METADATA_KEY}'")
    if text != canonical(manifest):
        raise _damaged(path, "its manifest is not in canonical form")
    if missing := [key for key in MANIFEST_TYPES if key not in manifest]:
        raise UserError(f"{path}: the manifest lacks {', '.join(missing)}; expected all keys; write it anew")
    if unknown := sorted(manifest.keys() - MANIFEST_TYPES.keys()):
        raise UserError(
            f"{path}: unknown key {shown(unknown[0])} in the manifest; expected only "
            f"{', '.join(MANIFEST_TYPES)}; write it anew"
        )
    for key, kind in MANIFEST_TYPES.items():
        _check_type(path, key, manifest[key], kind)
    for name, values in manifest["scales"].items():
        if not isinstance(values, list) or not all(_is_number(value) for value in values):
            raise _wrong(path, f"scale of {shown(name)}", values, "a list of numbers")
    for name, width in manifest["widths"].items():
        _check_type(path, f"width of {shown(name)}", width, int)
    return manifest


def _whole_config(manifest: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The configuration in the manifest, in the form of this version, with no field left to a default.

    Files before version 3 have no `neuron`, which stands for LIF there; those of version 3 have another one.
    """
    values, version = manifest["config"], manifest["version"]
    unnamed = {"neuron"} if version < VERSION else set()
    if version == 1:
        missing = [name for name in version1.OPTIONS if name not in values]
        values = version1.config_of(values)
    else:
        missing = [name for slot in SLOTS.keys() - unnamed for name in _missing_options(values, slot)]
    if surplus := sorted(unnamed & values.keys()):
        raise UserError(
            f"{path}: the configuration in the manifest of version {version} names a {surplus[0]}; expected "
            f"one only from version {VERSION} on; write it anew"
        )
    if version == VERSION and values.get("neuron") == Lif().model_dump():
        raise UserError(
            f"{path}: version {VERSION} with the neuron lif; expected version {LIF_VERSION}, which does not "
            "name it; write it anew"
        )
    fields = [name for name in NetworkConfig.model_fields if name not in unnamed]
    missing = [name for name in fields if name not in values] + missing
    if missing:
        raise UserError(
            f"{path}: the configuration in the manifest lacks {', '.join(missing)}; expected every field; "
            "write it anew"
        )
    return values


def _missing_options(values: Mapping[str, Any], slot: str) -> list[str]:
    """Options that the object in the field `slot` lacks; none if it is of no known kind."""
    options, kinds = values.get(slot), SLOTS[slot]
    kind = options.get("kind") if isinstance(options, dict) else None
    known = kinds[kind].model_fields if isinstance(kind, str) and kind in kinds else ()
    return [f"{slot}.{name}" for name in known if name not in options]


def _check_version(manifest: Mapping[str, Any], path: Path) -> None:
    kind, version = manifest.get("format"), manifest.get("version")
    if kind != FORMAT or isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise UserError(
            f"{path} has format {shown(kind)} version {shown(version)}; expected {FORMAT} version {VERSION}; "
            "export it again"
        )
    if version > VERSION:
        raise UserError(
            f"{path} was written by a newer version (format version {shown(version)}); expected at most "
            f"{VERSION}; update this program"
        )


def _places(
    header: dict[str, Any], config: NetworkConfig, size: int, path: Path
) -> dict[str, tuple[TensorLayout, int]]:
    """Layout and first byte of every tensor, in the order of the layout; `size` bytes follow the header."""
    found, ends = {}, {}
    try:
        for name, entry in header.items():
            if name != "__metadata__":
                shape, (begin, end) = entry["shape"], entry["data_offsets"]
                if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
                    raise ValueError
                kind = ELEMENT_TYPES.get(entry["dtype"])
                found[name] = (np.dtype(kind).name if kind else shown(entry["dtype"]), tuple(shape))
                ends[name] = (begin, end)
    except (ValueError, TypeError, KeyError):
        raise _damaged(path, f"the header entry {shown(name)} cannot be read") from None
    try:
        check_layout(config, found)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    layout = tensor_layout(config)
    expected = sum(tensor.bytes for tensor in layout.values())
    if expected > LARGEST_FILE:
        raise UserError(
            f"{path}: the tensors of {config.name} take {expected} bytes; expected at most {LARGEST_FILE}; "
            "use a smaller network"
        )
    if size < expected:
        raise _damaged(path, f"it is truncated (tensor bytes {size} of {expected})")
    if size > expected:
        raise _damaged(path, f"it has {size} bytes of tensors instead of {expected}")
    place = 0
    for name, (begin, end) in sorted(ends.items(), key=lambda item: item[1]):
        if (begin, end) != (place, place + layout[name].bytes):
            raise _damaged(path, f"the bytes of tensor '{name}' are not where they belong")
        place = end
    return {name: (tensor, ends[name][0]) for name, tensor in layout.items()}


def _check_type(path: Path, what: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _wrong(path, what, value, JSON_NAMES[kind])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _wrong(path: Path, what: str, value: Any, expected: str) -> UserError:
    return UserError(f"{path}: {what} in the manifest is {shown(value)}; expected {expected}; write it anew")


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path} is damaged: {what}; expected an intact parameter file; copy or export it again")


def _unreadable(path: Path, reason: str) -> UserError:
    return UserError(
        f"cannot read {path}: {reason}; expected a parameter file (.safetensors); check the path"
    )
