"""The integer network: configuration, parameter file, the model itself, proven bounds, comparison, energy.

    import s2tdpt.golden as golden

    params = golden.load("digits")                  # a shipped parameter file, or the path of one
    network = golden.GoldenNetwork(params)
    network.forward(images)                         # uint8 [B, h, w, C] to logits, int64 [B, classes]
    network.trace(images)                           # every intermediate integer, by name

`golden.reference` is the model as it is defined, to be read first; `golden.network` is the same made fast.
docs/library.md shows more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2tdpt.golden.exports import lazy

if TYPE_CHECKING:
    from s2tdpt.golden.activity import measure
    from s2tdpt.golden.bounds import derive_bounds
    from s2tdpt.golden.compare import compare_traces
    from s2tdpt.golden.config import NetworkConfig, load_config, named_configs
    from s2tdpt.golden.energy import energy_report
    from s2tdpt.golden.errors import UserError
    from s2tdpt.golden.network import GoldenNetwork
    from s2tdpt.golden.params import Params, random_params
    from s2tdpt.golden.reference import ReferenceNetwork
    from s2tdpt.golden.samples import sample_images
    from s2tdpt.golden.shipped import load, shipped_models

__all__ = [
    "GoldenNetwork",
    "NetworkConfig",
    "Params",
    "ReferenceNetwork",
    "UserError",
    "compare_traces",
    "derive_bounds",
    "energy_report",
    "load",
    "load_config",
    "measure",
    "named_configs",
    "random_params",
    "sample_images",
    "shipped_models",
]

_MODULES = {
    "GoldenNetwork": "network",
    "NetworkConfig": "config",
    "Params": "params",
    "ReferenceNetwork": "reference",
    "UserError": "errors",
    "compare_traces": "compare",
    "derive_bounds": "bounds",
    "energy_report": "energy",
    "load": "shipped",
    "load_config": "config",
    "measure": "activity",
    "named_configs": "config",
    "random_params": "params",
    "sample_images": "samples",
    "shipped_models": "shipped",
}

__getattr__ = lazy(__name__, _MODULES)
