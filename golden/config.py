"""What is computed: the description of one network, validated and frozen.

The machine that computes it (lanes, rows, memory style) is described elsewhere, in ``hw.config``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from s2tdpt.golden.attention import MECHANISMS, AnyMechanism
from s2tdpt.golden.attention.stdp import Stdp
from s2tdpt.golden.errors import UserError, shown
from s2tdpt.golden.layers import Layer, Part, layer_table, layers_of, parts_of
from s2tdpt.golden.neuron import NEURONS, AnyNeuron, Lif
from s2tdpt.golden.strictjson import parse, read

CONFIG_DIRECTORY = Path(__file__).parent / "configs"

SLOTS: dict[str, dict[str, type[BaseModel]]] = {"attention": MECHANISMS, "neuron": NEURONS}
"""Fields that are one of several kinds of objects, each with options of its own: the kinds by name."""

Count = Annotated[int, Field(strict=True, ge=1, le=65536)]
Flag = Annotated[bool, Field(strict=True)]


class NetworkConfig(BaseModel):
    """Shape and integer constants of one S2TDPT network.

    Attributes
    ----------
    name : str
        Letters, digits, ``.``, ``_`` and ``-``.
    image_height, image_width, image_channels : int
        Input image, unsigned bytes.
    num_classes : int
        Rows of the head, at least 2.
    timesteps : int
        T, 1..8. The same image is presented at every step.
    sps_channels : tuple of int
        Output channels of the stem convolutions (3x3, stride 1, padding 1); the last is the width D.
    sps_pool : tuple of bool
        ``sps_pool[i]``: a 3x3 OR-pool (stride 2, padding 1) stands before convolution i. The first is False.
    depth, heads, mlp_ratio : int
        Encoder blocks, attention heads (must divide D), hidden width / D.
    weight_bits : {4, 8}
        Symmetric weights: -7..7 or -127..127.
    residual_fraction_bits : int
        F, 0..20: the residual stream U is an integer in units of 2^-F.
    pixel_zero_point : {0, 128}
        Subtracted from every pixel byte.
    v_threshold : float
        Firing threshold of every neuron but the attention one (V_th); 2 V_th 2^F must be a whole number.
    attention : Mechanism
        The attention mechanism and its options, told apart by ``kind``; STDP unless told otherwise.
    neuron : Neuron
        The neuron model and its options, told apart by ``kind``; LIF unless told otherwise. A configuration
        is written without it where it is LIF.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    image_height: Count
    image_width: Count
    image_channels: Count
    num_classes: Annotated[int, Field(strict=True, ge=2, le=65536)]
    timesteps: Annotated[int, Field(strict=True, ge=1, le=8)]
    sps_channels: Annotated[tuple[Count, ...], Field(min_length=1, max_length=16)]
    sps_pool: Annotated[tuple[Flag, ...], Field(min_length=1, max_length=16)]
    depth: Annotated[int, Field(strict=True, ge=1, le=256)]
    heads: Count
    mlp_ratio: Annotated[int, Field(strict=True, ge=1, le=64)] = 4
    weight_bits: Literal[4, 8] = 8
    residual_fraction_bits: Annotated[int, Field(strict=True, ge=0, le=20)] = 10
    pixel_zero_point: Literal[0, 128] = 0
    v_threshold: Annotated[float, Field(strict=True, gt=0, le=1024)] = 1.0
    attention: AnyMechanism = Stdp()
    neuron: AnyNeuron = Lif()

    @model_validator(mode="after")
    def _consistent(self) -> NetworkConfig:
        if len(self.sps_pool) != len(self.sps_channels):
            raise ValueError(
                f"sps_pool has {len(self.sps_pool)} entries but sps_channels has {len(self.sps_channels)}; "
                "expected one flag per convolution; make both lists equally long"
            )
        if self.sps_pool[0]:
            raise ValueError(
                "sps_pool[0] is true; expected false, for the first convolution reads pixels, not spikes; "
                "start the list with false"
            )
        if self.sps_channels[-1] % self.heads:
            raise ValueError(
                f"heads {self.heads} does not divide the embedding width {self.sps_channels[-1]}; expected a "
                "divisor of the last entry of sps_channels; change heads or sps_channels"
            )
        theta = 2.0 * self.v_threshold * (1 << self.residual_fraction_bits)
        if theta != int(theta) or theta < 1:
            raise ValueError(
                f"the residual threshold 2*v_threshold*2^residual_fraction_bits is {theta:g}; expected a "
                "whole number of at least 1; change v_threshold or residual_fraction_bits"
            )
        self.attention.check(self)
        return self

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = handler(self)
        if self.neuron == Lif():  # as before there were others: the same files, the same checksums
            values.pop("neuron", None)
        return values

    @property
    def embed_dim(self) -> int:
        """D, the width of the residual stream."""
        return self.sps_channels[-1]

    @property
    def head_dim(self) -> int:
        """d_h, channels of one attention head."""
        return self.embed_dim // self.heads

    @property
    def hidden_dim(self) -> int:
        """Width of the MLP between fc1 and fc2."""
        return self.embed_dim * self.mlp_ratio

    @property
    def sps_depth(self) -> int:
        """Number of stem convolutions."""
        return len(self.sps_channels)

    @property
    def _maps(self) -> tuple[tuple[int, int], ...]:
        maps = []
        h, w = self.image_height, self.image_width
        for pooled in self.sps_pool:
            if pooled:  # 3x3, stride 2, padding 1
                h, w = (h + 1) // 2, (w + 1) // 2
            maps.append((h, w))
        return tuple(maps)

    def map_size(self, index: int) -> tuple[int, int]:
        """Output map ``(height, width)`` of stem convolution `index`."""
        return self._maps[index]

    @property
    def tokens(self) -> int:
        """N, tokens of the encoder: positions of the last stem map, in raster order."""
        h, w = self._maps[-1]
        return h * w

    @property
    def weight_limit(self) -> int:
        """Largest magnitude of a weight: 7 or 127."""
        return (1 << (self.weight_bits - 1)) - 1

    @property
    def residual_threshold(self) -> int:
        """Threshold of the LIF on the residual stream, 2 V_th 2^F."""
        return int(2.0 * self.v_threshold * (1 << self.residual_fraction_bits))

    @property
    def attention_threshold(self) -> int:
        """Threshold of the attention LIF, in the unit of the attention's Y."""
        return self.attention.threshold

    def parts(self) -> tuple[Part, ...]:
        """Everything that is evaluated, in this order: layers, attentions, neurons on the stream."""
        return parts_of(self)

    def layers(self) -> tuple[Layer, ...]:
        """The layers that hold weights, in network order."""
        return layers_of(self)

    def layer(self, name: str) -> Layer:
        """The layer called `name`; KeyError if there is none."""
        return layer_table(self)[name]

    def layer_names(self) -> tuple[str, ...]:
        """Names of `layers`."""
        return tuple(layer_table(self))

    def is_writer(self, name: str) -> bool:
        """Whether the layer called `name` adds to the residual stream."""
        return self.layer(name).writer

    def weight_shape(self, name: str) -> tuple[int, ...]:
        """Shape of the weight tensor of the layer called `name`: ``(Co, Ci, 3, 3)`` or ``(Co, Ci)``."""
        return self.layer(name).weight_shape

    def differences(self, other: NetworkConfig) -> list[str]:
        """Fields in which `other` differs, as ``field: mine, other's``; the name does not count.

        Of two attentions (or neurons) the kind, or the options of the same kind: ``attention.kappa: 0.125,
        0.25``.
        """
        mine, theirs = self._flat(), other._flat()
        return [
            f"{field}: {value}, {theirs[field]}"
            for field, value in mine.items()
            if field in theirs and field != "name" and value != theirs[field]
        ]

    def _flat(self) -> dict[str, Any]:
        """Fields by name, the attention's with ``attention.`` before them, the neuron's likewise."""
        fields = {name: getattr(self, name) for name in type(self).model_fields if name not in SLOTS}
        return fields | {f"{slot}.{name}": value for slot in SLOTS for name, value in getattr(self, slot)}


def named_configs() -> tuple[str, ...]:
    """Names of the configurations that come with the package."""
    return tuple(sorted(path.stem for path in CONFIG_DIRECTORY.glob("*.json")))


def config_from_dict(values: dict[str, Any], source: str = "configuration") -> NetworkConfig:
    """Validate `values`.

    Raises
    ------
    UserError
        Unknown field, missing field, value out of range or fields that do not fit together; one line.
    """
    if not isinstance(values, dict):
        raise UserError(
            f"{source} holds a JSON {type(values).__name__}; expected an object of fields; "
            "start from one of the named configurations"
        )
    try:
        return NetworkConfig(**{str(key): value for key, value in values.items()})
    except ValidationError as error:
        raise UserError(f"{source}: {_first_line(error)}") from None


def with_attention(config: NetworkConfig, text: str) -> NetworkConfig:
    """`config` with another attention: a kind, or a JSON object with ``kind`` and options.

    The kind is appended to the name.

    Raises
    ------
    UserError
        Not JSON, no such kind, or an option that it does not have; one line.
    """
    return _with(config, "attention", text)


def with_neuron(config: NetworkConfig, text: str) -> NetworkConfig:
    """`config` with another neuron model, as `with_attention`."""
    return _with(config, "neuron", text)


def _with(config: NetworkConfig, slot: str, text: str) -> NetworkConfig:
    options: Any = {"kind": text}
    if text.lstrip().startswith("{"):
        try:
            options = parse(text)
        except ValueError as error:
            raise UserError(
                f"{slot} {shown(text)} is no JSON ({error}); expected a kind or an object with kind and "
                "options; correct it"
            ) from None
    values = config.model_dump(mode="json") | {slot: options}
    found = config_from_dict(values, source=f"{slot} {shown(text)}")
    return found.model_copy(update={"name": f"{config.name[:50]}-{getattr(found, slot).kind}"})


def load_config(name_or_path: str | Path) -> NetworkConfig:
    """A named configuration, or one from a JSON file.

    Raises
    ------
    UserError
        No such name or file, not JSON, or not a valid configuration; one line.
    """
    text_name = str(name_or_path)
    path = CONFIG_DIRECTORY / f"{text_name}.json"
    if text_name not in named_configs():
        path = Path(name_or_path)
    try:
        values = read(path)
    except FileNotFoundError:
        raise UserError(
            f"no configuration {shown(text_name)}; expected one of {', '.join(named_configs())} or the "
            "path of a JSON file; check the spelling"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot read {text_name}: {error.strerror}; expected a readable JSON file; check its permissions"
        ) from None
    except ValueError as error:
        raise UserError(
            f"{text_name} is not valid JSON ({error}); expected an object of configuration fields; "
            "correct the file"
        ) from None
    return config_from_dict(values, source=text_name)


def _first_line(error: ValidationError) -> str:
    """One line for the first problem that pydantic found."""
    first = error.errors(include_url=False)[0]
    place, model = list(first["loc"]), NetworkConfig
    slot = place[0] if place and place[0] in SLOTS else None
    if slot and len(place) > 1:
        model = SLOTS[slot][place.pop(1)]  # pydantic puts the kind between the field and its options
    field = shown(".".join(str(part) for part in place))
    if first["type"] == "extra_forbidden":
        known, whose = ", ".join(model.model_fields), "" if model is NetworkConfig else f" of this {slot}"
        return f"unknown field {field}; expected only {known}{whose}; remove it or correct its spelling"
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kind = shown(first["ctx"]["tag"]) if "tag" in first["ctx"] else "missing"
        return f"{slot}.kind is {kind}; expected one of {', '.join(SLOTS[slot])}; choose one"
    if first["type"] == "missing":
        return f"field {field} is missing; expected a value for it; add it"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    rule = first["msg"].replace("Input should be ", "").replace("\n", " ")
    return f"field {field} is {shown(first['input'])}; expected {rule}; correct the value"
