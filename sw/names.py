"""What training can be told by name, and some defaults; without torch, for the sake of help texts."""

from __future__ import annotations

from typing import Any

STDP_GRADIENTS = ("autodiff", "window", "detached")
"""Gradient variants of the STDP kernel: all compute the same Y."""

VARIANTS = STDP_GRADIENTS + ("ssa", "random")
"""Everything `sw.attention.make_attention` knows; the last two are controls and cannot be exported to
hardware."""

DEFAULT_VARIANT = "window"
DEFAULT_HALF_WIDTH = 3.0

OPTIMIZERS = ("adamw", "muon")
PRECISIONS = ("float32", "bfloat16")
CLOCKS = ("wall", "cpu")

ALPHA = 4.0
"""Steepness of the sigmoid surrogate, in units of the halved membrane (public code), unless
`sw.neuron.use_fused` says otherwise."""

CROP_PADDING = 4
"""Pixels of padding for CIFAR's random crop, unless the settings name another number."""

FIXED_ATTENTIONS = ("none", "uniform")
"""Attentions without q and k, trained as controls."""

DEFAULT_COUNT_WEIGHT = 0.25
"""Of the case window+counts: the weight that the digits settings use."""

NAMED_CASES: dict[str, dict[str, Any]] = {
    **{variant: {"variant": variant, "count_weight": 0.0} for variant in VARIANTS},
    "window+counts": {"variant": "window", "count_weight": DEFAULT_COUNT_WEIGHT},
    **{name: {"attention": name, "variant": "detached", "count_weight": 0.0} for name in FIXED_ATTENTIONS},
}
"""Changed fields by the name of a case of `s2tdpt controls`."""
