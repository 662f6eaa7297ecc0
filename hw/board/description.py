"""The boards: a small file each, with what they have and where it is; pins come from amaranth-boards.

A new board is a new file in the folder ``boards``, for a board that amaranth-boards knows and a family of
`hw.board.families`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from s2tdpt.golden.errors import UserError, shown
from s2tdpt.golden.strictjson import read
from s2tdpt.hw.board.families import FAMILIES, Family, Pin

if TYPE_CHECKING:
    from s2tdpt.hw.estimate.memory_plan import MemoryPlan

BOARD_DIRECTORY = Path(__file__).parent / "boards"

Count = Annotated[int, Field(strict=True, ge=1)]


class Place(BaseModel):
    """A resource of amaranth-boards.

    Attributes
    ----------
    name, number, part
        Such as "led", 0; "part" names a subsignal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    number: Annotated[int, Field(strict=True, ge=0)] = 0
    part: str | None = None


class Board(BaseModel):
    """A board and what is used of it.

    Attributes
    ----------
    name, title : str
    platform : str
        Module and class of amaranth-boards, which knows its clock, its first UART and the places below.
    family : str
        One of `hw.board.families.FAMILIES`.
    frequency : float
        MHz that the accelerator is to run at; place and route must prove it.
    baud : int
        Of the link: what the board's USB bridge can do.
    life, fault : Place
        Lights: alive; a frame was refused.
    high : tuple of Place
        Pins that must be high while the design runs.
    luts, block_rams, block_bits : int
        What the FPGA has: 4-input LUTs, block RAMs and bits of each.
    sdram_bytes : int
        Memory beside the FPGA, 0: none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    title: str
    platform: str = Field(pattern=r"^[\w.]+:\w+$")
    family: str
    frequency: Annotated[float, Field(gt=0, le=1000)]
    baud: Count
    life: Place
    fault: Place
    high: tuple[Place, ...] = ()
    luts: Count
    block_rams: Count
    block_bits: Count
    sdram_bytes: Annotated[int, Field(strict=True, ge=0)] = 0

    @property
    def tools(self) -> Family:
        """The family: how a bitstream is made."""
        return FAMILIES[self.family]


@dataclass(frozen=True)
class Wiring:
    """Where the design meets a board.

    Attributes
    ----------
    clock : float
        MHz of the board's oscillator.
    device, package : str
        As nextpnr names them.
    pins : tuple of Pin
        ``clk_pin``, ``rx``, ``tx``, ``life``, ``fault``, ``high_0`` and so on.
    """

    clock: float
    device: str
    package: str
    pins: tuple[Pin, ...]


def named_boards() -> tuple[str, ...]:
    """Names of the boards that come with the package."""
    return tuple(sorted(path.stem for path in BOARD_DIRECTORY.glob("*.json")))


def load_board(source: str | Path) -> Board:
    """A named board, or one from a JSON file.

    Raises
    ------
    UserError
        No such name or file, no JSON, or a field is unknown or out of range; one line.
    """
    text = str(source)
    path = BOARD_DIRECTORY / f"{text}.json"
    if text not in named_boards():
        path = Path(source)
    try:
        board = Board.model_validate(read(path))
    except FileNotFoundError:
        raise UserError(
            f"no board {shown(text)}; expected one of {', '.join(named_boards())} or the path of a JSON "
            "file; check the spelling"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot read board {text}: {error.strerror}; expected a readable JSON file; check the path"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"board {text}: {where or 'the file'}: {first['msg']}; expected the fields of docs/boards.md; "
            "correct the file"
        ) from None
    except ValueError as error:
        raise UserError(
            f"{text} is not valid JSON ({error}); expected an object of board fields; correct the file"
        ) from None
    if board.family not in FAMILIES:
        raise UserError(
            f"board {text}: family is {board.family!r:.60}; expected one of {', '.join(FAMILIES)}; correct "
            "the file"
        )
    return board


@cache
def wiring_of(board: Board) -> Wiring:
    """Pins and clock of a board, looked up in amaranth-boards.

    Raises
    ------
    UserError
        amaranth-boards is missing, or knows no such board or resource.
    """
    module, _, name = board.platform.partition(":")
    try:
        platform = getattr(import_module(module), name)()
    except (ImportError, AttributeError):
        raise UserError(
            f"board {board.name}: no {board.platform} in amaranth-boards; expected its module and class; "
            "install it with: pip install 'amaranth-boards==0.0.21'"
        ) from None
    places = {
        "clk_pin": Place(name=platform.default_clk),
        "rx": Place(name="uart", part="rx"),
        "tx": Place(name="uart", part="tx"),
        "life": board.life,
        "fault": board.fault,
        **{f"high_{number}": place for number, place in enumerate(board.high)},
    }
    pins = tuple(_pin(platform, board, port, place) for port, place in places.items())
    device, package = board.tools.part(platform)
    return Wiring(platform.default_clk_frequency / 1e6, device, package, pins)


@dataclass(frozen=True)
class MemoryFit:
    """The memories of a plan against those of a board.

    Attributes
    ----------
    needed, available : int
    unit : str
        What both count.
    exact : bool
        Whether what is not over does fit; else it may.
    """

    needed: int
    available: int
    unit: str
    exact: bool

    @property
    def over(self) -> int:
        """What is missing, 0 or more."""
        return max(0, self.needed - self.available)

    def __str__(self) -> str:
        words = "fits" if self.exact else "may fit"
        if self.over:
            words = f"over by {self.over:,}"
        return f"{words}: {self.needed:,} of {self.available:,} {self.unit}"


def memory_fit(board: Board, plan: MemoryPlan) -> MemoryFit:
    """Whether the memories of a plan fit a board.

    The plan counts blocks as the ECP5 has them; boards with others are compared by bits, below which no
    arrangement can go.
    """
    if board.family == "ecp5":
        return MemoryFit(plan.blocks, board.block_rams, "block RAMs", exact=True)
    available = board.block_rams * board.block_bits // 1024
    return MemoryFit(-(-plan.bits // 1024), available, "kbit", exact=False)


def _pin(platform, board: Board, port: str, place: Place) -> Pin:
    """The single pin of a resource."""
    from amaranth.build import ResourceError

    try:
        resource = platform.lookup(place.name, place.number)
    except ResourceError as error:
        raise UserError(
            f"board {board.name}: {error}; expected a resource of {board.platform}; correct the file"
        ) from None
    attributes, signal = dict(resource.attrs), resource
    if place.part is not None:
        signal = next((io for io in resource.ios if getattr(io, "name", None) == place.part), None)
        if signal is None:
            raise UserError(
                f"board {board.name}: {place.name} has no part {place.part!r}; expected a subsignal; "
                "correct the file"
            )
        attributes |= signal.attrs
    (pins,) = signal.ios
    return Pin(port, pins.names[0], pins.invert, tuple(sorted(attributes.items())))
