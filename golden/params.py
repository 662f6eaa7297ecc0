"""The parameter file: one safetensors file of integers with a manifest. Only this module touches it.

``docs/parameters.md`` describes the file and the meaning of every tensor.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.config import ATTENTION_UNITS, NetworkConfig, config_from_dict
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.stdp import build_lut

FORMAT = "s2tdpt-parameters"
VERSION = 1
METADATA_KEY = "s2tdpt"
MAX_SHIFT = 15


class TensorLayout(NamedTuple):
    """Element type, shape and range of one tensor of the parameter file."""

    dtype: type[np.integer]
    shape: tuple[int, ...]
    lo: int
    hi: int


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
    layout["stdp.lut"] = TensorLayout(np.int16, (2 * config.head_dim + 1,), 1, ATTENTION_UNITS - 1)
    return layout


@dataclass(frozen=True, eq=False)
class Params:
    """All integers of one trained network.

    Attributes
    ----------
    config : NetworkConfig
    tensors : dict of str to ndarray
        Integers as in :func:`tensor_layout`; read-only once constructed.
    residual_threshold : int
        Threshold of the LIF on the residual stream, units of 2^-F; from the configuration where not given.
    attention_threshold : int
        Threshold of the attention LIF, units of 1/256; from the configuration where not given.
    provenance : dict
        Where the numbers came from: command, seed, data, accuracy, tool versions. Any JSON values.
    scales : dict of str to list of float
        Real value of one integer step by layer and channel. Informative: nothing is computed from it.
    source : str, optional
        The file that it was read from, for messages; does not belong to the contents.

    Raises
    ------
    UserError
        A tensor is missing, unknown, of the wrong type or shape, or outside its range.
    """

    config: NetworkConfig
    tensors: dict[str, np.ndarray]
    residual_threshold: int | None = None
    attention_threshold: int | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    scales: dict[str, list[float]] = field(default_factory=dict)
    source: str | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("residual_threshold", "attention_threshold"):
            value = getattr(self, name)
            value = getattr(self.config, name) if value is None else value
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value < 2**31:
                raise UserError(f"{name} is {value!r}; expected a whole number from 1 to 2^31-1; correct it")
            put(self, name, int(value))
        put(self, "provenance", json.loads(json.dumps(self.provenance, allow_nan=False)))
        scales = {k: [float(x) for x in np.asarray(v).ravel()] for k, v in self.scales.items()}
        put(self, "scales", json.loads(json.dumps(scales, allow_nan=False)))
        put(self, "tensors", _checked_tensors(self.config, self.tensors))

    def weight(self, layer: str) -> np.ndarray:
        """int8 weights of `layer`, ``(Co, Ci, 3, 3)`` or ``(Co, Ci)``."""
        return self.tensors[f"{layer}.weight"]

    def bias(self, layer: str) -> np.ndarray:
        """Bias of `layer`, one per output channel."""
        return self.tensors[f"{layer}.bias"]

    def threshold(self, layer: str) -> np.ndarray:
        """int32 firing thresholds of a LIF-fed `layer`."""
        return self.tensors[f"{layer}.threshold"]

    def shift(self, layer: str) -> np.ndarray:
        """uint8 left shifts of a writer."""
        return self.tensors[f"{layer}.shift"]

    @property
    def lut(self) -> np.ndarray:
        """int16 STDP table, ``(2 d_h + 1,)``, indexed by count difference + d_h."""
        return self.tensors["stdp.lut"]

    @property
    def label(self) -> str:
        """What messages call it: its file, else its configuration."""
        return self.source or f"parameters of {self.config.name}"

    @cached_property
    def _body(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "config": self.config.model_dump(mode="json"),
            "residual_threshold": self.residual_threshold,
            "attention_threshold": self.attention_threshold,
            "scales": self.scales,
            "widths": self._widths(),
            "provenance": self.provenance,
        }

    def _widths(self) -> dict[str, int]:
        return derive_bounds(self).widths()

    @cached_property
    def _checksum(self) -> str:
        return _digest(self._body, self.tensors)

    def checksum(self) -> str:
        """SHA-256, hexadecimal, over the manifest and every tensor."""
        return self._checksum

    def manifest(self) -> dict[str, Any]:
        """The manifest as it is written, with its checksum."""
        return {**self._body, "sha256": self.checksum()}

    def save(self, path: str | Path, force: bool = False) -> None:
        """Write the parameter file in one step: it is either the old file or the whole new one.

        Raises
        ------
        UserError
            The file exists and `force` is false, or it cannot be written.
        """
        path = Path(path)
        if path.exists() and not force:
            raise UserError(f"{path} exists already; expected a new file; choose another or use --force")
        metadata = {METADATA_KEY: _canonical(self.manifest())}
        data = safetensors.numpy.save(dict(self.tensors), metadata=metadata)
        temporary = None
        try:
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
                temporary = file.name
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except OSError as error:
            if temporary is not None and os.path.exists(temporary):
                os.unlink(temporary)
            raise UserError(
                f"cannot write {path}: {error.strerror}; expected a writable directory; choose another path"
            ) from None

    @classmethod
    def load(cls, path: str | Path, expect_config: NetworkConfig | None = None) -> Params:
        """Read and check a parameter file.

        Parameters
        ----------
        path : path
        expect_config : NetworkConfig, optional
            The configuration that the caller wants; the name may differ, everything else must agree.

        Raises
        ------
        UserError
            Missing, truncated, altered, not a parameter file, written by a newer version or for another
            configuration; one line.
        """
        data = _read(Path(path))
        manifest, text = _manifest_of(data, path)
        try:
            tensors = safetensors.numpy.load(data)
        except Exception as error:  # the library raises several unrelated types
            raise _damaged(path, f"its tensors cannot be read ({type(error).__name__})") from None
        body = {key: value for key, value in manifest.items() if key != "sha256"}
        if text != _canonical(manifest) or manifest.get("sha256") != _digest(body, tensors):
            raise _damaged(path, "its checksum does not match its contents")
        missing = {"config", "residual_threshold", "attention_threshold"} - manifest.keys()
        if missing:
            raise UserError(
                f"{path}: the manifest lacks {', '.join(sorted(missing))}; expected all; write it anew"
            )
        config = config_from_dict(manifest["config"], source=f"{path}: configuration in the manifest")
        if expect_config is not None and (differences := expect_config.differences(config)):
            raise UserError(
                f"{path} was made for another configuration ({config.name}; {differences[0]}); expected "
                f"{expect_config.name}; use a matching parameter file or configuration"
            )
        try:
            params = cls(
                config=config,
                tensors=tensors,
                residual_threshold=manifest["residual_threshold"],
                attention_threshold=manifest["attention_threshold"],
                provenance=manifest.get("provenance", {}),
                scales=manifest.get("scales", {}),
            )
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        object.__setattr__(params, "source", str(path))
        # What was read is the truth: the stored manifest, not one that this version would derive.
        params.__dict__["_body"] = body
        params.__dict__["_checksum"] = manifest["sha256"]
        return params


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _digest(body: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(_canonical(body).encode("ascii"))
    for name in sorted(tensors):
        array = np.asarray(tensors[name])
        shape = ",".join(str(n) for n in array.shape)
        digest.update(f"\n{name}:{array.dtype.name}:{shape}\n".encode())
        digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _damaged(path: str | Path, what: str) -> UserError:
    return UserError(f"{path} is damaged: {what}; expected an intact parameter file; copy or export it again")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; expected a parameter file (.safetensors); check the path"
        ) from None


def _manifest_of(data: bytes, path: str | Path) -> tuple[dict[str, Any], str]:
    """The manifest in the safetensors header, and its text."""
    foreign = UserError(f"{path} is not a safetensors file; expected a parameter file; check the path")
    if len(data) < 10:
        raise foreign
    length = int.from_bytes(data[:8], "little")
    if data[8:9] != b"{":
        raise foreign
    if length > len(data) - 8:
        raise _damaged(path, f"it is truncated or its header length is wrong ({len(data)} bytes)")
    try:
        header = json.loads(data[8 : 8 + length])
        end = max((v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"), default=0)
        metadata = header.get("__metadata__", {})
        text = metadata.get(METADATA_KEY)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise _damaged(path, "its header cannot be read") from None
    if isinstance(end, int) and end > len(data) - 8 - length:
        raise _damaged(path, f"it is truncated (tensor bytes {len(data) - 8 - length} of {end})")
    if text is None:
        raise UserError(
            f"{path} holds no '{METADATA_KEY}' manifest; expected a parameter file, not any safetensors "
            "file; export one from a checkpoint"
        )
    try:
        manifest = json.loads(text)
        kind, version = manifest["format"], manifest["version"]
    except (ValueError, TypeError, KeyError):
        raise _damaged(path, "its manifest cannot be read") from None
    if kind != FORMAT or isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise UserError(
            f"{path} has format {kind!r} version {version!r}; expected {FORMAT} version {VERSION}; "
            "export it again"
        )
    if version > VERSION:
        raise UserError(
            f"{path} was written by a newer version (format version {version}); expected at most {VERSION}; "
            "update this program"
        )
    return manifest, text


def _checked_tensors(config: NetworkConfig, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Read-only copies of `tensors`, in the order of the layout, each within its range."""
    layout = tensor_layout(config)
    for name in tensors:
        if name not in layout:
            raise UserError(f"unknown tensor '{name}'; expected only those of {config.name}; remove it")
    checked = {}
    for name, (dtype, shape, low, high) in layout.items():
        if name not in tensors:
            raise UserError(f"tensor '{name}' is missing; expected shape {shape}; export it again")
        array = np.asarray(tensors[name])
        if array.dtype != dtype or array.shape != shape:
            raise UserError(
                f"tensor '{name}' is {array.dtype}{list(array.shape)}; expected "
                f"{np.dtype(dtype).name}{list(shape)}; export it again"
            )
        if array.min() < low or array.max() > high:
            raise UserError(
                f"tensor '{name}' spans {array.min()}..{array.max()}; expected {low}..{high}; export it again"
            )
        array = np.array(array, order="C")
        array.setflags(write=False)
        checked[name] = array
    return checked


def random_params(config: NetworkConfig, seed: int = 0, sparsity: float = 0.2) -> Params:
    """Random integers that keep every neuron layer alive (most rates 5-40 %), for tests and measurements.

    Biases and thresholds follow from the mean and the spread that the sums would have if inputs were
    independent, so that no layer is silent or saturated; about one channel in sixteen has all its weights
    at one extreme.

    Parameters
    ----------
    config : NetworkConfig
    seed : int
        The same seed gives the same parameters.
    sparsity : float
        Fraction of weights that are zero, 0 <= sparsity < 1.
    """
    if not 0.0 <= sparsity < 1.0:
        raise UserError(f"sparsity is {sparsity}; expected 0 <= sparsity < 1; correct the value")
    rng = np.random.default_rng(seed)
    limit = config.weight_limit
    theta = config.residual_threshold
    rate = 0.2
    tensors: dict[str, np.ndarray] = {}
    for layer in config.layers():
        name, shape, channels = layer.name, layer.weight_shape, layer.outputs
        weight = rng.integers(-limit, limit + 1, size=shape)
        weight[rng.random(shape) < sparsity] = 0
        extreme = rng.random(channels) < 1 / 16
        sign = rng.choice([-limit, limit], size=channels).reshape(-1, *[1] * (len(shape) - 1))
        weight[extreme] = sign[extreme]
        tensors[f"{name}.weight"] = weight.astype(np.int8)
        flat = weight.reshape(channels, -1).astype(np.float64)
        if layer.head:
            tensors[f"{name}.bias"] = rng.integers(-theta, theta + 1, size=channels).astype(np.int64)
            continue
        if layer.reads_pixels:  # bytes, taken as uniform
            mean, spread = 127.5 - config.pixel_zero_point, 74.0
        else:
            p = 0.6 if layer.pools else rate  # the union of nine neighbours is much denser
            mean, spread = p, float(np.sqrt(p * (1 - p)))
        centre = mean * flat.sum(axis=1)
        scale = np.maximum(spread * np.sqrt((flat**2).sum(axis=1)), 1.0)
        if layer.writer:
            shift = np.clip(np.rint(np.log2(0.5 * theta / scale)), 0, MAX_SHIFT).astype(np.int64)
            bias = np.rint(-centre * 2.0**shift + rng.uniform(-0.3, 0.5, channels) * theta)
            tensors[f"{name}.shift"] = shift.astype(np.uint8)
        else:
            bias = np.rint(-centre + rng.uniform(-0.4, 0.6, channels) * scale)
            firing = np.maximum(np.rint(rng.uniform(1.0, 2.0, channels) * scale), 1)
            tensors[f"{name}.threshold"] = firing.astype(np.int32)
        tensors[f"{name}.bias"] = bias.astype(np.int32)
    tensors["stdp.lut"] = build_lut(config)
    attention = max(1, round(1.7 * config.tokens * rate * config.stdp_offset))
    return Params(
        config=config,
        tensors=tensors,
        attention_threshold=attention,
        provenance={"command": "random_params", "seed": seed, "sparsity": sparsity},
    )
