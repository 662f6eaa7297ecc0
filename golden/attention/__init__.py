"""The attention mechanisms, one module each: options, tensors, what they compute, proven intervals, cost.

`golden.attention.base` says what a mechanism has; docs/attentions.md how to add one.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from s2tdpt.golden.attention.base import Mechanism
from s2tdpt.golden.attention.none import NoMixing
from s2tdpt.golden.attention.ssa import Ssa
from s2tdpt.golden.attention.stdp import Stdp
from s2tdpt.golden.attention.uniform import Uniform

AnyMechanism = Annotated[Stdp | Ssa | Uniform | NoMixing, Field(discriminator="kind")]
"""Any mechanism, told apart by its field ``kind``."""
MECHANISMS: dict[str, type[Mechanism]] = {
    mechanism.model_fields["kind"].default: mechanism for mechanism in (Stdp, Ssa, Uniform, NoMixing)
}
"""By kind."""
