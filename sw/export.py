"""Between the trainable integer network and the parameter file.

References
----------
`golden.params` alone reads and writes the file; this module only moves integers across.
"""

from __future__ import annotations

import platform

import numpy as np
import torch

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.parameter_file import tensor_layout
from s2tdpt.golden.params import Params
from s2tdpt.sw.names import KernelGradient
from s2tdpt.sw.neuron import key
from s2tdpt.sw.quantize import QatNetwork


def tool_versions() -> dict[str, str]:
    """Versions that a training result depends on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__,
    }


def export(network: QatNetwork, provenance: dict | None = None) -> Params:
    """Parameters of `network` as golden integers.

    Raises
    ------
    UserError
        A value is not finite.
    """
    config, tensors, scales = network.config, {}, {}
    with torch.no_grad():
        for name in config.layer_names():
            layer = network.layer(name)
            tensors[f"{name}.weight"], tensors[f"{name}.bias"] = layer.integer_weight(), layer.integer_bias()
            if layer.threshold is not None:
                tensors[f"{name}.threshold"] = layer.threshold
            if layer.gain is not None:
                tensors[f"{name}.shift"] = torch.log2(layer.gain)
            scales[name] = layer.scale.tolist()
        for b, module in enumerate(network.attentions):
            tensors |= {f"block.{b}.{name}": tensor for name, tensor in module.integers().items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UserError(
                f"tensor {name} holds NaN or infinity; expected finite weights; "
                "train again with a lower learning rate"
            )
    layout = tensor_layout(config)
    arrays = {
        name: tensor.cpu().double().numpy().astype(layout[name].dtype) for name, tensor in tensors.items()
    }
    arrays |= config.attention.derived_tensors(config) | config.neuron.tensors(config, network.laws)
    return Params(
        config=config,
        tensors=arrays,
        residual_threshold=network.residual_threshold,
        attention_threshold=network.attention_threshold,
        provenance=provenance or {},
        scales=scales,
    )


def from_params(params: Params, gradient: KernelGradient = KernelGradient()) -> QatNetwork:  # noqa: B008
    """The trainable network that computes exactly what `params` say, for evaluation or more training.

    Real scales are taken from the file where it has them; otherwise they follow from the thresholds.
    """
    config = params.config
    for name, tensor in config.attention.derived_tensors(config).items():
        if not np.array_equal(params.tensors[name], tensor):
            raise UserError(
                f"tensor {name} is not the one of the configuration; expected what the attention's options "
                "give; evaluate such parameters with the golden network"
            )
    network = QatNetwork(config, gradient)
    network.residual_threshold = params.residual_threshold
    network.attention_threshold = params.attention_threshold
    step = 2.0**-config.residual_fraction_bits
    _take_laws(network, params)
    with torch.no_grad():
        for b, module in enumerate(network.attentions):
            own = config.attention.block_tensors(config)
            module.set_integers({name: _doubles(params.tensors[f"block.{b}.{name}"]) for name in own})
        for place in config.layers():
            name, layer = place.name, network.layer(place.name)
            layer.weight.copy_(_doubles(params.weight(name)) / layer.limit)
            if layer.gain is not None:
                layer.gain.copy_(torch.exp2(_doubles(params.shift(name))))
                layer.scale.copy_(layer.gain * step)
                layer.unit.fill_(step)
            else:
                if layer.threshold is not None:
                    layer.threshold.copy_(_doubles(params.threshold(name)))
                    over, under = params.laws[place.writes].factor
                    derived = 2.0 * config.v_threshold * over / under / layer.threshold
                else:
                    derived = torch.full_like(layer.scale, 1.0 / (layer.limit * 8))
                stored = torch.as_tensor(params.scales.get(name, []), dtype=torch.float64)
                usable = len(stored) == len(derived) and bool((stored > 0).all())
                layer.scale.copy_(stored if usable else derived)
                layer.unit.copy_(layer.scale)
                if place.head:
                    layer.unit.mul_(step / (config.timesteps * config.tokens))
            bias = _doubles(params.bias(name))
            layer.bias.copy_(bias * layer.unit)
            if not torch.equal(layer.integer_bias(), bias):
                raise UserError(
                    f"bias of {name} reaches {int(bias.abs().max())}; expected less than 2^51 to train it in "
                    "float64; evaluate such parameters with the golden network"
                )
    return network.eval()


def _take_laws(network: QatNetwork, params: Params) -> None:
    """Put the laws of the neurons into `network`, in place."""
    first = params.config.neuron.initial_laws(params.config)
    for place, law in params.laws.items():
        if key(place) in network.neurons:
            network.neurons[key(place)].set_law(law)
        elif law.form != first[place].form or law.factor != first[place].factor:
            raise UserError(
                f"the neurons of {place} have a law of their own; expected {first[place]}: an attention of "
                "spikes needs none; evaluate such parameters with the golden network"
            )
    network._laws.clear()


def _doubles(integers: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(integers.astype(np.float64))
