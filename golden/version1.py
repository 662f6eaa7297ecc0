"""Parameter files of version 1, in which the attention was always STDP and its options fields of the network.

Ref: docs/parameters.md, "Version 1".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OPTIONS = {
    "kappa": "kappa",
    "stdp_amplitude": "amplitude",
    "stdp_offset": "offset",
    "attention_scale_log2": "scale_log2",
}
"""Options of the attention ``stdp`` by the names of their fields in version 1."""


def config_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a version-1 manifest as that of version 2; what it lacks is lacking there."""
    config = {name: value for name, value in values.items() if name not in OPTIONS}
    options = {option: values[name] for name, option in OPTIONS.items() if name in values}
    return config | {"attention": {"kind": "stdp", **options}}
