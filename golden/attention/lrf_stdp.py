"""STDP with a local receptive field: the kernel sees counts alone, the field gives V a way of its own.

``Y_ic = sum_j LUT[r_K(j) - r_Q(i)] V_jc + (field_ic << tap_shift)``, units of 1/256. A tap weighs at most
127 << tap_shift of these units: half a count at tap_shift 0, two counts at 2.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from s2tdpt.golden.attention.lrf import LocalField
from s2tdpt.golden.attention.stdp import Stdp


class LrfStdp(LocalField, Stdp):
    """STDP attention and a local receptive field; the options of both."""

    kind: Literal["lrf-stdp"] = "lrf-stdp"
    tap_shift: Annotated[int, Field(strict=True, ge=0, le=8)] = 2
