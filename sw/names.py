"""What training can be told by name, and some defaults; without torch, for the sake of help texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from s2tdpt.golden.attention import MECHANISMS

STDP_GRADIENTS = ("autodiff", "window", "detached")
"""Gradient variants of the STDP kernel: all compute the same Y."""

DEFAULT_GRADIENT = "window"
DEFAULT_HALF_WIDTH = 3.0


@dataclass(frozen=True)
class KernelGradient:
    """Gradient of an attention's kernel over spike counts, one of `STDP_GRADIENTS`; see `sw.attention.stdp`.

    `half_width`: of the variant "window", in counts. Attentions without such a kernel do not look at it.
    """

    variant: str = DEFAULT_GRADIENT
    half_width: float = DEFAULT_HALF_WIDTH


OPTIMIZERS = ("adamw", "muon")
PRECISIONS = ("float32", "bfloat16")
CLOCKS = ("wall", "cpu")

ALPHA = 4.0
"""Steepness of the sigmoid surrogate, in units of the halved membrane (public code), unless
`sw.neuron.use_fused` says otherwise."""

CROP_PADDING = 4
"""Pixels of padding for CIFAR's random crop, unless the settings name another number."""

CONTROLS = ("zero", "random")
"""Attentions of the software alone that are trained as controls: Y = 0, and a fixed random A."""

MEMBERS = tuple(kind for kind in MECHANISMS if kind != "stdp")
"""Kinds of attention, other than STDP, that `s2tdpt controls` has as cases with their default options."""

DEFAULT_COUNT_WEIGHT = 0.25
"""Of the case window+counts: the weight that the digits settings use."""

NAMED_CASES: dict[str, dict[str, Any]] = {
    **{gradient: {"gradient": gradient, "count_weight": 0.0} for gradient in STDP_GRADIENTS},
    "window+counts": {"gradient": "window", "count_weight": DEFAULT_COUNT_WEIGHT},
    **{kind: {"attention": {"kind": kind}, "count_weight": 0.0} for kind in MEMBERS},
    **{name: {"control": name, "gradient": "detached", "count_weight": 0.0} for name in CONTROLS},
}
"""Changed fields by the name of a case of `s2tdpt controls`."""
