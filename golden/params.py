"""All integers of one network, and the parameter file that holds them.

``docs/parameters.md`` describes the file and the meaning of every tensor; `golden.parameter_file` reads the
container.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from s2tdpt.golden import parameter_file
from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.neuron import LIF, Law, prescribed
from s2tdpt.golden.parameter_file import (
    FORMAT,
    MAX_SHIFT,
    METADATA_KEY,
    check_layout,
    digest,
    tensor_layout,
    version_of,
)
from s2tdpt.golden.strictjson import canonical


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
        Threshold of the attention LIF, in the unit of Y; from the configuration where not given.
    provenance : dict
        Where the numbers came from: command, seed, data, accuracy, tool versions. Any JSON values.
    scales : dict of str to list of float
        Real value of one integer step by layer and channel. Informative: nothing is computed from it.
    source : str, optional
        The file that it was read from, for messages; does not belong to the contents.
    laws : mapping of str to Law
        What the neurons of every place do, by the trace of their spikes; follows from the tensors.

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
    laws: Mapping[str, Law] = field(init=False, repr=False)

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
        put(self, "laws", self.config.neuron.laws(self.config, self.tensors))

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

    def attention(self, block: int) -> dict[str, np.ndarray]:
        """Tensors of the attention of `block` by short name, those that all blocks share among them."""
        return self.config.attention.values(self.config, self.tensors, block)

    @property
    def label(self) -> str:
        """What messages call it: its file, else its configuration."""
        return self.source or f"parameters of {self.config.name}"

    @cached_property
    def _body(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": version_of(self.config),
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
        return digest(self._body, self.tensors)

    def checksum(self) -> str:
        """SHA-256, hexadecimal, over the manifest and every tensor."""
        return self._checksum

    def recorded_accuracy(self, images: int | None = None) -> float | None:
        """Accuracy of these integers as the provenance records it, 0..1.

        None where it records none, or none of so many test `images`. Provenance is what the writer of a file
        says: it may be anything.
        """
        found = self.provenance.get("accuracy")
        if not isinstance(found, dict) or images not in (None, found.get("test_images")):
            return None
        value = found.get("integer")
        known = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
        return float(value) if known else None

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
        metadata = {METADATA_KEY: canonical(self.manifest())}
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
        manifest, config, tensors = parameter_file.read(Path(path))
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
                provenance=manifest["provenance"],
                scales=manifest["scales"],
            )
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        object.__setattr__(params, "source", str(path))
        # What was read is the truth: the stored manifest, not one that this version would derive.
        params.__dict__["_body"] = {key: value for key, value in manifest.items() if key != "sha256"}
        params.__dict__["_checksum"] = manifest["sha256"]
        return params


def _checked_tensors(config: NetworkConfig, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Read-only copies of `tensors`, in the order of the layout, each within its range."""
    arrays = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    check_layout(config, {name: (array.dtype.name, array.shape) for name, array in arrays.items()})
    checked = {}
    for name, layout in tensor_layout(config).items():
        array = np.array(arrays[name], order="C")
        if array.min() < layout.lo or array.max() > layout.hi:
            raise UserError(
                f"tensor '{name}' spans {array.min()}..{array.max()}; expected {layout.lo}..{layout.hi}; "
                "export it again"
            )
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
            over, under = prescribed(config).get(layer.writes, LIF).factor
            firing = np.maximum(np.rint(rng.uniform(1.0, 2.0, channels) * scale * over / under), 1)
            tensors[f"{name}.threshold"] = firing.astype(np.int32)
        tensors[f"{name}.bias"] = bias.astype(np.int32)
    tensors |= config.attention.random_tensors(config, rng)
    tensors |= config.neuron.random_tensors(config, rng)
    attention = min(max(1, config.attention.lively_threshold(config, rate)), 2**31 - 1)
    return Params(
        config=config,
        tensors=tensors,
        attention_threshold=attention,
        provenance={"command": "random_params", "seed": seed, "sparsity": sparsity},
    )
