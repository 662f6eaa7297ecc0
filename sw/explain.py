"""What a network looks at: confusion matrix, spiking Grad-CAM and firing-rate maps of an integer network.

Classes and spikes are those of the golden model, and with them of the hardware. Gradients come from the
trainable network rebuilt from the same parameters; every value of its forward pass must equal the golden
one, or nothing is explained.

Shapes: B images, T steps, N positions of a map in raster order (h x w), C channels, K classes.

References
----------
S2TDPT: arXiv 2511.14691, Figures 4 and 5 (spiking Grad-CAM, spiking firing rate).
Grad-CAM: arXiv 1610.02391; with spikes over time steps as in arXiv 2103.14441, section on Grad-CAM.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from s2tdpt.golden.compare import first_difference
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.layers import BLOCK_TRACES
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.trace import spike_traces, traces
from s2tdpt.sw.quantize import QatNetwork

BATCH = 8
"""Images whose gradients are taken together: they do not influence each other, they only share memory."""

CLASS_NAMES = {
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck".split(),
    "cifar100": """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
        butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
        crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
        keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
        mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
        plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
        television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """.split(),
}
"""Official class names, by data set and in the order of the labels."""

_RESHAPES = ("View", "UnsafeView", "ReshapeAlias", "Transpose", "Permute", "Clone", "ToCopy", "Alias")
"""Steps of the autograd graph that move values and change none."""


class Disagreement(RuntimeError):
    """The trainable network and the golden model differ; the message names the first difference."""


@dataclass(frozen=True)
class Explanation:
    """What was found out about one image.

    Attributes
    ----------
    image : uint8 [H, W, C]
    logits : int64 [K]
        Of the golden model.
    predicted, target : int
        The golden model's class, and the class whose logit is explained.
    layer : str
        Trace name of the map on which Grad-CAM was taken.
    contribution : float64 [h, w]
        Weighted sum of that map over T and C, in units of the integer logits; negative where a position
        speaks against `target`.
    spikes : dict of str to int64 [h, w]
        Spikes at each position of every binary map, summed over T and C.
    neurons : dict of str to int
        T C of every binary map: the largest value that `spikes` can have.
    """

    image: np.ndarray
    logits: np.ndarray
    predicted: int
    target: int
    layer: str
    contribution: np.ndarray
    spikes: dict[str, np.ndarray]
    neurons: dict[str, int]

    @property
    def cam(self) -> np.ndarray:
        """Grad-CAM, float64 [h, w] >= 0: the positive part of `contribution`."""
        return np.maximum(self.contribution, 0.0)

    def rate(self, name: str) -> np.ndarray:
        """Firing rate (SFR) at each position of the map `name`: mean over T and C, float64 [h, w] in 0..1."""
        return self.spikes[name] / self.neurons[name]


def class_names(data: str | None, num_classes: int) -> list[str]:
    """Names of the classes 0..K-1 of a network for the data set `data`; numbers where it has no names."""
    known = CLASS_NAMES.get(data, [])
    return [known[i].replace("_", " ") if i < len(known) else str(i) for i in range(num_classes)]


def confusion_matrix(labels: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Images by true class (row) and predicted class (column), int64 [K, K].

    Parameters
    ----------
    labels, classes : integers [B] in 0..K-1
    num_classes : int
        K.

    Raises
    ------
    UserError
        The lengths differ or a class is out of range.
    """
    labels, classes = (np.asarray(values, dtype=np.int64) for values in (labels, classes))
    if labels.shape != classes.shape or labels.ndim != 1:
        raise UserError(
            f"{labels.size} labels and {classes.size} predicted classes; expected one of each an image; "
            "give lists of the same images"
        )
    for name, values in (("label", labels), ("predicted class", classes)):
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            wrong = values.min() if values.min() < 0 else values.max()
            raise UserError(
                f"{name} {wrong} is out of range; expected 0..{num_classes - 1}; choose the data set that "
                "the network was trained for"
            )
    return np.bincount(labels * num_classes + classes, minlength=num_classes**2).reshape(num_classes, -1)


def cam_layers(config: NetworkConfig) -> tuple[str, ...]:
    """Names of the maps on which Grad-CAM can be taken, in network order: all traces but the head's."""
    return tuple(name for name, trace in traces(config).items() if not trace.head)


def default_layer(config: NetworkConfig) -> str:
    """The stream U behind the last block, which the head reads."""
    return f"block.{config.depth - 1}.u"


def check_layer(name: str, config: NetworkConfig) -> str:
    """`name` if it is a map of `config`; else UserError with the valid names."""
    known = cam_layers(config)
    if name in known:
        return name
    stem = ", ".join(part for part in known if traces(config)[part].block is None)
    raise UserError(
        f"unknown layer {name!r}; expected {stem}, or block.B.PART with B from 0 to {config.depth - 1} and "
        f"PART one of {', '.join(BLOCK_TRACES)}; choose one"
    )


def map_shape(config: NetworkConfig, name: str) -> tuple[int, int]:
    """(h, w) of the map of the trace `name`."""
    return traces(config)[name].size


def to_pixels(values: np.ndarray, config: NetworkConfig, name: str) -> np.ndarray:
    """A map [h, w] of the trace `name` on the pixels of the image, [H, W], bilinear between positions.

    Position i of a map behind p pools (3x3, stride 2, padding 1) is centred on pixel 2^p i; pixels beyond
    the last centre take its value.
    """
    stride = traces(config)[name].stride
    for axis, size in enumerate((config.image_height, config.image_width)):
        place = np.minimum(np.arange(size) / stride, values.shape[axis] - 1)
        low = place.astype(int)
        part = np.expand_dims(place - low, 1 - axis)
        high = np.minimum(low + 1, values.shape[axis] - 1)
        values = values.take(low, axis) * (1 - part) + values.take(high, axis) * part
    return values


def firing_counts(trace: dict[str, Tensor], config: NetworkConfig) -> dict[str, np.ndarray]:
    """Spikes at each position of every binary map of a golden trace, summed over T and C.

    Parameters
    ----------
    trace : dict of str to tensor [B, T, N, C]
        As `golden.network.GoldenNetwork.trace` gives it.

    Returns
    -------
    dict of str to int64 [B, h, w]
        Divided by T C they are the firing rates.
    """
    return {
        name: (trace[name] != 0)
        .sum(dim=(1, 3), dtype=torch.int64)
        .unflatten(1, map_shape(config, name))
        .numpy()
        for name in spike_traces(config)
    }


def explain(
    network: QatNetwork,
    golden: GoldenNetwork,
    images: np.ndarray,
    layer: str | None = None,
    targets: np.ndarray | None = None,
    batch_size: int = BATCH,
) -> Iterator[Explanation]:
    """Explain images one by one.

    Parameters
    ----------
    network : QatNetwork
        In evaluation mode, of the parameters of `golden` (`sw.export.from_params`).
    golden : GoldenNetwork
    images : uint8 [B, H, W, C]
    layer : str, optional
        One of `cam_layers`; without it, `default_layer`.
    targets : integers [B], optional
        The class whose logit is explained; without it, the predicted one.

    Raises
    ------
    UserError
        Unknown layer, wrong images, or a target that is no class.
    Disagreement
        A value of the two networks differs on one of the images.
    """
    config = golden.config
    layer = check_layer(default_layer(config) if layer is None else layer, config)
    if targets is not None and not all(0 <= int(target) < config.num_classes for target in targets):
        raise UserError(
            f"target class is out of range; expected 0..{config.num_classes - 1}; choose a class of the "
            "network"
        )
    return _explain(network, golden, images, layer, targets, batch_size)


def _explain(network, golden, images, layer, targets, batch_size) -> Iterator[Explanation]:
    for start in range(0, len(images), batch_size):
        batch = np.ascontiguousarray(images[start : start + batch_size])
        trace, record = golden.trace(batch), {}
        logits = network.eval()(torch.from_numpy(batch), record)
        check_equal(trace, record, start)
        predicted = trace["head.class"]
        wanted = predicted if targets is None else torch.as_tensor(targets[start : start + batch_size])
        contribution = class_activation(logits, record, layer, wanted, golden.config)
        counts = firing_counts(trace, golden.config)
        neurons = {name: trace[name].shape[1] * trace[name].shape[3] for name in counts}
        for i, image in enumerate(batch):
            spikes = {name: value[i] for name, value in counts.items()}
            yield Explanation(
                image,
                trace["head.logits"][i].numpy(),
                int(predicted[i]),
                int(wanted[i]),
                layer,
                contribution[i],
                spikes,
                neurons,
            )


def check_equal(trace: dict[str, Tensor], record: dict[str, Tensor], first_image: int = 0) -> None:
    """Demand that a forward pass of the trainable network gave the golden integers, every one of them.

    Parameters
    ----------
    trace : dict of str to integer tensor
        Of the golden model: [B, T, N, C], [B, C] for the head.
    record : dict of str to tensor
        Of the trainable network: [T, B, N, C], [B, C] for the head.
    first_image : int
        Number of the first image of the batch, for the message.

    Raises
    ------
    Disagreement
    """
    expected = {name: value.numpy() for name, value in trace.items() if name != "head.class"}
    got = {
        name: (value.transpose(0, 1) if value.dim() == 4 else value).detach().cpu().numpy()
        for name, value in record.items()
    }
    if odd := sorted(expected.keys() ^ got.keys()):
        raise Disagreement(f"trace {odd[0]} exists in one of the golden and the training network only")
    difference = first_difference(expected, got)
    if difference is not None:
        place = replace(difference, image=first_image + difference.image)
        raise Disagreement(f"the training network differs from the golden model: {place}")


def class_activation(
    logits: Tensor, record: dict[str, Tensor], layer: str, targets: Tensor, config: NetworkConfig
) -> np.ndarray:
    """Grad-CAM before its ReLU: sum over t, c of A[t, n, c] mean over n' of d logit / d A[t, n', c].

    Every channel at every step is one feature map A[t, :, c]; its weight is the mean gradient of the
    target's logit over positions (Ref: arXiv 1610.02391, Eqs. 1 and 2). For the stream behind the last block
    the gradient is the head's weight, and the result summed over positions is the logit without its bias.

    Parameters
    ----------
    logits : tensor [B, K]
    record : dict of str to tensor [T, B, N, C]
        Of the same forward pass, attached to its graph.
    targets : int64 [B]

    Returns
    -------
    float64 [B, h, w]
    """
    score = logits.gather(1, targets[:, None].to(logits.device)).sum()  # images do not influence each other
    values = record[layer].detach().double()
    place = traces(config)[layer]
    gradient = _gradient(score, record[layer], stem=place.spikes and place.block is None)
    weight = gradient.double().mean(dim=2, keepdim=True)
    summed = (weight * values).sum(dim=(0, 3))  # [B, N]
    return summed.unflatten(1, map_shape(config, layer)).cpu().numpy()


def _gradient(score: Tensor, value: Tensor, stem: bool) -> Tensor:
    """Gradient of `score` in the layout of a recorded map [T, B, N, C].

    A stem map is recorded as a token view beside the path to the logits, so that its own gradient is none.
    The gradient is then taken where the map arises, [T, B, C, H, W] or [T*B, C, H, W], and laid out alike.
    """
    if not stem:
        return torch.autograd.grad(score, value)[0]
    node = value.grad_fn
    while node.name().removesuffix("0").removesuffix("Backward") in _RESHAPES:
        node = node.next_functions[0][0]
    (gradient,) = torch.autograd.grad(score, GradientEdge(node, 0))
    steps, batch, positions, channels = value.shape
    return gradient.reshape(steps, batch, channels, positions).transpose(2, 3)
