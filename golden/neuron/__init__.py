"""The neuron models, one module each: options, tensors, the law of every place.

`golden.neuron.base` says what a model has; docs/neurons.md compares them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from s2tdpt.golden.neuron.base import Law, Neuron, learned_places, places, prescribed
from s2tdpt.golden.neuron.glif import Glif
from s2tdpt.golden.neuron.klif import Klif
from s2tdpt.golden.neuron.lif import LIF, Lif
from s2tdpt.golden.neuron.plif import Plif

__all__ = ["LIF", "NEURONS", "AnyNeuron", "Law", "Lif", "Neuron", "learned_places", "places", "prescribed"]

AnyNeuron = Annotated[Lif | Plif | Klif | Glif, Field(discriminator="kind")]
"""Any neuron model, told apart by its field ``kind``."""
NEURONS: dict[str, type[Neuron]] = {
    neuron.model_fields["kind"].default: neuron for neuron in (Lif, Plif, Klif, Glif)
}
"""By kind."""
