"""The machine: how many lanes and banks, and where the weights live.

`golden.config.NetworkConfig` says what is computed, `Machine` on what. Both are frozen and validated, and any
network can be computed on any machine. Machines with a name lie in the folder ``machines`` beside this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from s2tdpt.golden.errors import UserError, shown
from s2tdpt.golden.strictjson import read

MACHINE_DIRECTORY = Path(__file__).parent / "machines"
DEFAULT_MACHINE = "digits"
PIXEL_BITS = 8
"""Bits of a pixel of one channel."""

Count = Annotated[int, Field(strict=True, ge=1, le=512)]


class Machine(BaseModel):
    """Sizes of the accelerator.

    Attributes
    ----------
    name : str
        Letters, digits, ``.``, ``_`` and ``-``.
    lanes : int
        Output channels accumulated in parallel; also the channels of a spike word. 1 .. 512.
    banks : int
        Input channels accumulated in parallel: channel c belongs to bank ``c mod banks``, which owns its
        slice of the weights. Divides `lanes`. 1 .. 16.
    post_lanes : int
        Channels post-processed a cycle, all time steps at once; divides `lanes`.
    queue : int
        Spike words that may wait in front of every bank, a power of two, 2 .. 16: how far a bank may run
        ahead of another within a position.
    attention_steps : int
        Time steps that the attention updates in parallel, 1 .. 8; more than T counts as T.
    weight_memory : {"rom", "stream"}
        "rom": all weights on chip. "stream": one tile after the other arrives over ``s_axis_weights`` into a
        ring; the weights can be changed without a new synthesis.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="custom", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    lanes: Count = 32
    banks: Annotated[int, Field(strict=True, ge=1, le=16)] = 4
    post_lanes: Count = 8
    queue: Literal[2, 4, 8, 16] = 8
    attention_steps: Annotated[int, Field(strict=True, ge=1, le=8)] = 2
    weight_memory: Literal["rom", "stream"] = "rom"

    @model_validator(mode="after")
    def _divides(self) -> Machine:
        for field in ("banks", "post_lanes"):
            part = getattr(self, field)
            if self.lanes % part:
                raise ValueError(
                    f"{field} {part} does not divide lanes {self.lanes}; expected a divisor of lanes; "
                    f"change {field} or lanes"
                )
        return self

    @property
    def subgroups(self) -> int:
        """Post-processed pieces of a spike word, G."""
        return self.lanes // self.post_lanes

    @property
    def slice_channels(self) -> int:
        """Channels of a spike word that belong to one bank."""
        return self.lanes // self.banks


def named_machines() -> tuple[str, ...]:
    """Names of the machines that come with the package."""
    return tuple(sorted(path.stem for path in MACHINE_DIRECTORY.glob("*.json")))


def load_machine(source: str | Path = DEFAULT_MACHINE) -> Machine:
    """A named machine, or one from a JSON file.

    Raises
    ------
    UserError
        No such name or file, no JSON, or a field is unknown or out of range; one line.
    """
    text = str(source)
    path = MACHINE_DIRECTORY / f"{text}.json"
    if text not in named_machines():
        path = Path(source)
    try:
        fields = read(path)
    except FileNotFoundError:
        raise UserError(
            f"no machine {shown(text)}; expected one of {', '.join(named_machines())} or the path of a JSON "
            "file; check the spelling"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot read machine {text}: {error.strerror}; expected a readable JSON file; check the path"
        ) from None
    except ValueError as error:
        raise UserError(
            f"{text} is not valid JSON ({error}); expected an object of machine fields; correct the file"
        ) from None
    return machine_from(fields, text)


def machine_from(fields: dict[str, Any], origin: str) -> Machine:
    """Validate `fields`; `origin` names their source in the message.

    Raises
    ------
    UserError
        A field is unknown or out of range; one line.
    """
    if not isinstance(fields, dict):
        raise UserError(f"machine {origin} is no JSON object; expected an object of fields; correct the file")
    try:
        return Machine.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        known = ", ".join(Machine.model_fields)
        if first["type"] == "extra_forbidden":
            problem = (
                f"unknown field {shown(where)}; expected only {known}; remove it or correct its spelling"
            )
        elif first["type"] == "value_error":
            problem = str(first["ctx"]["error"])
        else:
            rule = first["msg"].replace("Input should be ", "")
            problem = f"{where} is {shown(first['input'])}; expected {rule}; correct the value"
        raise UserError(f"machine {origin}: {problem}") from None
