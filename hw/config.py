"""The machine: how many lanes and rows, and where the weights live.

`golden.config.NetworkConfig` says what is computed, `HardwareConfig` on what. Both are frozen and
validated; `check_fit` refuses a pair that cannot work together before any hardware is built.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.errors import UserError

PIXEL_PLANES = 8
"""Bit planes of a pixel, and of one slice of a head sum: conv 0 and the head are computed plane by plane."""


class HardwareConfig(BaseModel):
    """Sizes of the accelerator.

    Parameters
    ----------
    lanes : int
        Output channels accumulated in parallel in a row (the width of a weight word). 1 .. 512.
    rows : int
        Tokens processed in parallel; each row has its own weight port and accumulators. 1 .. 8.
    post_lanes : int
        Channels post-processed (LIF, residual, head) a cycle; divides `lanes`.
    weight_memory : {"rom", "stream"}
        "rom": all weights on chip. "stream": one tile of weights at a time arrives over
        `s_axis_weights`, double-buffered; the weights can be changed without a new synthesis.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lanes: int = Field(default=64, ge=1, le=512)
    rows: int = Field(default=1, ge=1, le=8)
    post_lanes: int = Field(default=32, ge=1, le=512)
    weight_memory: Literal["rom", "stream"] = "rom"

    @model_validator(mode="after")
    def _post_lanes_divide(self) -> HardwareConfig:
        if self.lanes % self.post_lanes:
            raise ValueError(
                f"post_lanes must divide lanes, but {self.post_lanes} does not divide {self.lanes}"
            )
        return self

    @property
    def subgroups(self) -> int:
        """Post-processing groups in a lane word."""
        return self.lanes // self.post_lanes


def check_fit(network: NetworkConfig, hardware: HardwareConfig) -> None:
    """Refuse a network that this machine cannot compute.

    Raises
    ------
    UserError
        A head or a pixel is wider than the lanes, or a feature map narrower than the rows.
    """
    if network.head_dim > hardware.lanes:
        raise UserError(
            f"a head of {network.head_dim} channels does not fit {hardware.lanes} lanes; "
            f"expected lanes >= {network.head_dim}; raise 'lanes' or the number of heads"
        )
    if network.image_channels > hardware.lanes:
        raise UserError(
            f"a pixel of {network.image_channels} channels does not fit {hardware.lanes} lanes; "
            f"expected lanes >= {network.image_channels}; raise 'lanes'"
        )
    narrowest = min(network.map_size(i)[1] for i in range(network.sps_depth))
    if hardware.rows > narrowest:
        raise UserError(
            f"{hardware.rows} rows are more than the narrowest feature map is wide ({narrowest}); "
            f"expected rows <= {narrowest}; lower 'rows'"
        )


def load_hardware_config(source: str | Path | None) -> HardwareConfig:
    """Read a hardware configuration from a JSON file; None gives the default machine.

    Raises
    ------
    UserError
        The file is missing, no JSON, or a field is unknown or out of range.
    """
    if source is None:
        return HardwareConfig()
    path = Path(source)
    try:
        fields = json.loads(path.read_text())
    except OSError as error:
        raise UserError(
            f"cannot read hardware configuration {path}: {error.strerror}; "
            "expected a JSON file; check the path"
        ) from None
    except ValueError as error:
        raise UserError(
            f"{path} is not JSON ({error}); expected a hardware configuration; mend the file"
        ) from None
    return hardware_config_from(fields, str(path))


def hardware_config_from(fields: dict, origin: str) -> HardwareConfig:
    """Validate `fields`; `origin` names their source in the message.

    Raises
    ------
    UserError
        A field is unknown or out of range.
    """
    try:
        return HardwareConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "configuration"
        problem = first["msg"].removeprefix("Value error, ")
        raise UserError(
            f"hardware configuration {origin}: {where}: {problem}; expected the fields "
            f"{', '.join(HardwareConfig.model_fields)}; mend this field"
        ) from None
