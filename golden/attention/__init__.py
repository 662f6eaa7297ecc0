"""The attention mechanisms, one module each: options, tensors, what they compute, proven intervals, cost.

`golden.attention.base` says what a mechanism has; docs/attentions.md how to add one.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from s2tdpt.golden.attention.a2os2a import A2os2a
from s2tdpt.golden.attention.base import Mechanism
from s2tdpt.golden.attention.lrf_dyn import LrfDyn
from s2tdpt.golden.attention.lrf_ssa import LrfSsa
from s2tdpt.golden.attention.lrf_stdp import LrfStdp
from s2tdpt.golden.attention.none import NoMixing
from s2tdpt.golden.attention.qk import Qkca, Qkta
from s2tdpt.golden.attention.sdsa import Sdsa
from s2tdpt.golden.attention.ssa import Ssa
from s2tdpt.golden.attention.sssa import Sssa
from s2tdpt.golden.attention.stdp import Stdp
from s2tdpt.golden.attention.uniform import Uniform

AnyMechanism = Annotated[
    Stdp | Ssa | Sdsa | Qkta | Qkca | Sssa | LrfSsa | LrfDyn | LrfStdp | A2os2a | Uniform | NoMixing,
    Field(discriminator="kind"),
]
"""Any mechanism, told apart by its field ``kind``."""
MECHANISMS: dict[str, type[Mechanism]] = {
    mechanism.model_fields["kind"].default: mechanism
    for mechanism in (Stdp, Ssa, Sdsa, Qkta, Qkca, Sssa, LrfSsa, LrfDyn, LrfStdp, A2os2a, Uniform, NoMixing)
}
"""By kind."""
