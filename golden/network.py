"""The golden model as the commands use it: `golden.reference` made fast, equal to it bit for bit.

Numbers travel in float32 or float64 where the proven bounds of the actual weights show that every partial sum
is a whole number that the type holds exactly (below 2^24 or 2^53); this is checked at construction. All
results are therefore independent of summation order, thread count and processor.

Inside, tensors are ordered time first, (T, B, N, C): a neuron walks over contiguous memory, and the products
of all layers read it without rearranging.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from s2tdpt.golden import conv, head
from s2tdpt.golden.attention.heads import attend
from s2tdpt.golden.bounds import Bounds, derive_bounds
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.layers import Layer
from s2tdpt.golden.neuron import Law
from s2tdpt.golden.parallel import map_pieces
from s2tdpt.golden.params import Params
from s2tdpt.golden.pool import or_pool
from s2tdpt.golden.reference import checked_images
from s2tdpt.golden.residual import scale_of
from s2tdpt.golden.trace import traces

Result = TypeVar("Result")
Recorder = Callable[[str, torch.Tensor], None]
CHUNK_VALUES = 1 << 18
"""Values of the largest activation that one pass keeps, so that it stays in the cache."""


def carrier(magnitude: int, label: str = "parameters") -> torch.dtype:
    """Fastest floating type that holds every whole number up to `magnitude` exactly.

    Raises
    ------
    UserError
        Not even float64 does; the line begins with `label`.
    """
    if magnitude < 1 << 24:
        return torch.float32
    if magnitude < 1 << 53:
        return torch.float64
    raise UserError(
        f"{label}: integers reach {magnitude}; expected less than 2^53 for exact evaluation; "
        "reduce biases, shifts or widths"
    )


def shared_products(config: NetworkConfig) -> list[tuple[Layer, ...]]:
    """Layers but the head, grouped by what one matrix product computes: q, k and v read the same spikes."""
    groups: list[tuple[Layer, ...]] = []
    for layer in config.layers()[:-1]:
        if groups and groups[-1][0].reads == layer.reads:
            groups[-1] = (*groups[-1], layer)
        else:
            groups.append((layer,))
    return groups


def _runs(laws: list[tuple[Law, int]]) -> list[tuple[Law, slice]]:
    """Channels side by side, each law with as many, as slices; neighbours of one form become one."""
    runs, start = [], 0
    for law, channels in laws:
        first = runs.pop()[1].start if runs and runs[-1][0].form == law.form else start
        start += channels
        runs.append((law, slice(first, start)))
    return runs


class GoldenNetwork:
    """Bit-accurate integer model of one parameter set.

    Parameters
    ----------
    params : Params
    streamed : bool
        The attention in the order of the hardware instead of as it is defined; both give the same integers.

    Attributes
    ----------
    params, config, bounds
    """

    def __init__(self, params: Params, streamed: bool = False) -> None:
        self.params = params
        self.config = params.config
        self.bounds: Bounds = derive_bounds(params)
        mechanism = params.config.attention
        self._form = mechanism.streamed if streamed else mechanism.y
        self._prepare()

    def forward(self, images: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Logits of a batch.

        Parameters
        ----------
        images : uint8, shape (B, H, W, C)

        Returns
        -------
        tensor, int64, shape (B, classes)

        Raises
        ------
        UserError
            `images` has another type or shape.
        """
        return torch.cat(self._run(images, self._pass))

    __call__ = forward

    def classify(self, images: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Classes of a batch, int64 (B,): the lowest index of the largest logit."""
        return head.class_of(self.forward(images))

    def trace(self, images: torch.Tensor | np.ndarray) -> dict[str, torch.Tensor]:
        """Every intermediate integer of a batch.

        Returns
        -------
        dict
            As in :func:`golden.trace.trace_shapes` with a leading batch axis, of the types of `Trace.dtype`.
        """
        traces = self._run(images, self._traced_pass)
        return {name: torch.cat([trace[name] for trace in traces]) for name in traces[0]}

    # Construction ------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Weights in their carrier types, transposed for the products."""
        config, params, bounds = self.config, self.params, self.bounds
        self._matrix: dict[str, torch.Tensor] = {}
        self._bias: dict[str, torch.Tensor] = {}
        self._threshold: dict[str, torch.Tensor] = {}
        self._laws: dict[str, list[tuple[Law, slice]]] = {}
        self._stream = self._carrier(self._stream_magnitude())
        for group in shared_products(config):
            name = group[0].name
            if group[0].writer:
                dtype = self._stream
                scale = scale_of(torch.tensor(params.shift(name)), dtype)
            else:
                dtype = self._carrier(max(self._neuron_magnitude(layer) for layer in group))
                self._threshold[name] = self._join(params.threshold, group, dtype)
                self._laws[name] = _runs([(params.laws[layer.writes], layer.outputs) for layer in group])
                scale = None
            weight = self._join(params.weight, group, dtype)
            matrix = conv.conv_matrix(weight) if weight.dim() == 4 else weight.T.contiguous()
            self._matrix[name] = matrix if scale is None else matrix * scale
            self._bias[name] = self._join(params.bias, group, dtype)
        self._carrier(max(bounds.head_sum.magnitude, bounds.logits.magnitude))
        self._head_weight = torch.tensor(params.weight("head")).double()
        self._head_bias = torch.tensor(params.bias("head")).double()
        kept = (bounds.attention, bounds.attention_membrane, *bounds.attention_inner.values())
        largest = max(interval.magnitude for interval in kept)
        # What a law subtracts is a part of the threshold.
        thresholds = [law.threshold(params.attention_threshold) for law in params.laws.values()]
        self._y_type = self._carrier(max(largest + 2 * max(thresholds) * self._subtracts, *thresholds))
        self._attention = [
            {name: torch.tensor(tensor).to(self._y_type) for name, tensor in params.attention(b).items()}
            for b in range(config.depth)
        ]
        largest = max(layer.positions * layer.outputs for layer in config.layers())
        self._chunk = max(1, CHUNK_VALUES // (largest * config.timesteps))

    @property
    def _subtracts(self) -> bool:
        """Whether some law takes parts of the threshold from a membrane."""
        return any(law.subtracts for law in self.params.laws.values())

    def _carrier(self, magnitude: int) -> torch.dtype:
        return carrier(magnitude, self.params.label)

    @staticmethod
    def _join(
        source: Callable[[str], np.ndarray], group: tuple[Layer, ...], dtype: torch.dtype
    ) -> torch.Tensor:
        return torch.cat([torch.tensor(source(layer.name)) for layer in group]).to(dtype)

    def _neuron_magnitude(self, layer: Layer) -> int:
        preact, membrane = self.bounds.preact[layer.name], self.bounds.membrane[layer.name]
        threshold = int(self.params.threshold(layer.name).max())
        return max(preact.magnitude, membrane.magnitude + 2 * threshold * self._subtracts, threshold)

    def _stream_magnitude(self) -> int:
        """Anything that occurs on the stream, also while a product is being added to it term by term."""
        bounds = self.bounds
        writes = max(interval.magnitude for interval in bounds.written.values())
        neurons = [interval.magnitude for interval in bounds.residual_membrane.values()]
        threshold = max(law.threshold(self.params.residual_threshold) for law in self.params.laws.values())
        neurons = [magnitude + 2 * threshold * self._subtracts for magnitude in neurons]
        return max(bounds.residual_any.magnitude + writes, threshold, *neurons)

    # Evaluation --------------------------------------------------------------------------------------------

    def _run(self, images: torch.Tensor | np.ndarray, one: Callable[[torch.Tensor], Result]) -> list[Result]:
        """Results of `one` on pieces of the batch, in order; a batch without an image is one piece."""
        return map_pieces(one, checked_images(images, self.config).split(self._chunk))

    def _traced_pass(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Traces of one piece of the batch."""
        trace: dict[str, torch.Tensor] = {}
        known = traces(self.config)

        def record(name: str, value: torch.Tensor) -> None:
            value = value.to(getattr(torch, known[name].dtype))
            if not known[name].head:  # (T, B, ..., C) to (B, T, N, C)
                value = value.flatten(2, -2).transpose(0, 1).contiguous()
            trace[name] = value

        self._pass(images, record)
        return trace

    @torch.inference_mode()
    def _pass(self, images: torch.Tensor, record: Recorder | None = None) -> torch.Tensor:
        """Logits of one piece of the batch."""
        u = self._stem(images, record)
        for b in range(self.config.depth):
            self._block(u, b, record)
        total = head.head_sum(u)
        logits = head.logits_of(total.double(), self._head_weight, self._head_bias).long()
        if record is not None:
            record("head.sum", total)
            record("head.logits", logits)
            record("head.class", head.class_of(logits))
        return logits

    def _stem(self, images: torch.Tensor, record: Recorder | None) -> torch.Tensor:
        """Stem convolutions: (B, H, W, C) bytes to the stream U, (T, B, N, D)."""
        config = self.config
        steps, batch = config.timesteps, len(images)
        spikes = bordered = images
        for i in range(config.sps_depth):
            layer = f"sps.{i}"
            matrix, bias = self._matrix[layer], self._bias[layer]
            h, w = config.map_size(i)
            if i == 0:
                padded = conv.pad_map(images.to(matrix.dtype) - config.pixel_zero_point)
            elif config.sps_pool[i]:
                pooled = or_pool(spikes.flatten(0, 1))
                if record is not None:
                    record(f"{layer}.pooled", pooled.unflatten(0, (steps, batch)))
                padded = conv.pad_map(pooled.to(matrix.dtype))
            else:
                padded = bordered.flatten(0, 1).to(matrix.dtype)
            current = torch.addmm(bias, conv.unfold(padded), matrix)
            # The first sums are the same at every step: one evaluation serves all.
            current = current.view(1 if i == 0 else steps, batch, h, w, matrix.shape[1]).expand(
                steps, -1, -1, -1, -1
            )
            if i + 1 == config.sps_depth:
                break
            # Spikes go straight into the border that the next convolution needs.
            bordered = self._next_map(i, steps, batch, h, w, current)
            spikes = bordered if config.sps_pool[i + 1] else bordered[:, :, 1:-1, 1:-1]
            self._fire(layer, current, spikes)
            if record is not None:
                record(f"{layer}.spikes", spikes)
        u = current.flatten(2, 3).contiguous()
        if record is not None:
            record("sps.u", u)
        return u

    def _next_map(self, i: int, steps: int, batch: int, h: int, w: int, like: torch.Tensor) -> torch.Tensor:
        channels = like.shape[-1]
        if self.config.sps_pool[i + 1]:
            return torch.empty((steps, batch, h, w, channels), dtype=torch.float32)
        return torch.zeros((steps, batch, h + 2, w + 2, channels), dtype=torch.float32)

    def _block(self, u: torch.Tensor, b: int, record: Recorder | None) -> None:
        """One encoder block; adds to `u` (T, B, N, D) in place."""
        config, params = self.config, self.params
        block = f"block.{b}"
        kinds = config.attention.projections
        x = self._behind(f"{block}.x", u, params.residual_threshold)
        together = self._neurons(x, f"{block}.{kinds[0]}").to(self._y_type)
        spikes = dict(zip(kinds, together.split(config.embed_dim, dim=-1), strict=True))
        y = attend(self._form, config, self._attention[b], *(spikes.get(kind) for kind in "qkv"))
        attn = self._behind(f"{block}.attn", y, params.attention_threshold)
        self._write(u, attn, f"{block}.proj")
        if record is not None:
            record(f"{block}.x", x)
            for name, part in (*spikes.items(), ("y", y), ("attn", attn), ("u_attn", u)):
                record(f"{block}.{name}", part)
        mlp_in = self._behind(f"{block}.mlp_in", u, params.residual_threshold)
        hidden = self._neurons(mlp_in, f"{block}.fc1")
        self._write(u, hidden, f"{block}.fc2")
        if record is not None:
            record(f"{block}.mlp_in", mlp_in)
            record(f"{block}.hidden", hidden)
            record(f"{block}.u", u)

    def _neurons(self, spikes: torch.Tensor, layer: str) -> torch.Tensor:
        """Projection and its neurons: (T, B, N, Ci) to (T, B, N, Co)."""
        matrix = self._matrix[layer]
        current = torch.addmm(self._bias[layer], spikes.flatten(0, 2).to(matrix.dtype), matrix)
        current = current.view(*spikes.shape[:3], matrix.shape[1])
        return self._fire(layer, current)

    def _fire(self, layer: str, current: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Spikes of the neurons behind a product, channels of different laws apart."""
        runs, threshold = self._laws[layer], self._threshold[layer]
        if len(runs) == 1:
            return runs[0][0].spikes(current, threshold, out)
        out = torch.empty_like(current) if out is None else out
        for law, part in runs:
            law.spikes(current[..., part], threshold[part], out[..., part])
        return out

    def _behind(self, trace: str, x: torch.Tensor, threshold: int) -> torch.Tensor:
        """Spikes called `trace` of neurons without thresholds of their own."""
        law = self.params.laws[trace]
        return law.spikes(x, law.threshold(threshold))

    def _write(self, u: torch.Tensor, spikes: torch.Tensor, layer: str) -> None:
        """Add a writer's sums (on the grid: its weights carry the shift) and its bias to `u`, in place."""
        matrix = self._matrix[layer]
        u.view(-1, u.shape[-1]).addmm_(spikes.flatten(0, 2).to(matrix.dtype), matrix)
        u.add_(self._bias[layer])
