"""s2tdpt boards, build: which board carries what, and bitstreams."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from s2tdpt.golden.errors import UserError
from s2tdpt.scripts.options import console, force_option, load_params, machine_options, params_option, telling
from s2tdpt.scripts.output import check_folder, json_option, quiet, write_json

if TYPE_CHECKING:
    from s2tdpt.hw.board.bitstream import Bitstream
    from s2tdpt.hw.board.description import Board


@click.command(short_help="Boards, and which networks their memories hold.")
@machine_options
@json_option
def boards(machine, json_path) -> None:
    """List the boards and what fits on each: the memory plan of every shipped network on a machine.

    Memories are counted before synthesis; LUTs are known after it only (`s2tdpt synth`, `s2tdpt build`). A
    board is a small file (docs/boards.md); `s2tdpt build --board` takes the path of one of your own.

    \b
    Examples:
      s2tdpt boards
      s2tdpt boards --machine small --json boards.json
    """
    from s2tdpt.golden.shipped import load, shipped_models
    from s2tdpt.hw.board.description import load_board, memory_fit, named_boards, wiring_of
    from s2tdpt.hw.estimate.memory_plan import plan_of

    plans = {name: plan_of(load(name), machine) for name in shipped_models()}
    found = []
    for name in named_boards():
        board = load_board(name)
        wiring = wiring_of(board)
        fields = board.model_dump(mode="json") | {"device": wiring.device, "oscillator": wiring.clock}
        fits = {network: str(memory_fit(board, plan)) for network, plan in plans.items()}
        found.append(fields | {"networks": fits})
    if json_path is not None:
        write_json(json_path, {"machine": machine.model_dump(mode="json"), "boards": found})
    if not quiet(json_path):
        console.print(boards_table(found))
        console.print(fits_table(found, machine.name))


def boards_table(found: list[dict]) -> Table:
    """What the boards have."""
    table = Table(title="boards")
    for heading in ("name", "board"):
        table.add_column(heading)
    for heading in ("LUTs", "block RAM", "oscillator", "clock to try", "baud", "SDRAM"):
        table.add_column(heading, justify="right")
    for board in found:
        table.add_row(
            board["name"],
            board["title"],
            f"{board['luts']:,}",
            f"{board['block_rams']} x {board['block_bits'] // 1024} kbit",
            f"{board['oscillator']:g} MHz",
            f"{board['frequency']:g} MHz",
            f"{board['baud']:,}",
            f"{board['sdram_bytes'] >> 20} MB" if board["sdram_bytes"] else "-",
        )
    return table


def fits_table(found: list[dict], machine: str) -> Table:
    """Memories of the shipped networks against those of the boards."""
    table = Table(title=f"memories on machine {machine}, weights on chip")
    table.add_column("network")
    for board in found:
        table.add_column(board["name"])
    for network in found[0]["networks"]:
        table.add_row(network, *(board["networks"][network] for board in found))
    return table


@click.command(short_help="Bitstream for a board, by open tools.")
@click.option("--board", "board_name", required=True, metavar="NAME|FILE", help="Board: see `s2tdpt boards`.")
@params_option
@machine_options
@click.option("--out", "-o", type=click.Path(path_type=Path), required=True, help="New folder.")
@click.option("--frequency", type=float, default=None, help="MHz to try first. Default: the board's.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the placement.")
@click.option(
    "--window",
    type=click.IntRange(1, 16),
    default=8,
    show_default=True,
    help="Images that may be under way on the link.",
)
@force_option
@json_option
def build(board_name, params, machine, out, frequency, seed, window, force, json_path) -> None:
    """Build a bitstream: the accelerator behind the board's serial port, at a clock that was proved.

    Takes minutes to an hour; what was built before comes from the cache. Load it with openFPGALoader, then
    `s2tdpt run`.

    \b
    Examples:
      s2tdpt build --board ulx3s-85f --out build/ulx3s
      s2tdpt build --board ulx3s-85f -p digits-int4 --frequency 60 --seed 2 --out build/int4
    """
    from s2tdpt.golden import folders
    from s2tdpt.hw.board.bitstream import FORMAT, build_bitstream
    from s2tdpt.hw.board.description import load_board, memory_fit
    from s2tdpt.hw.estimate.memory_plan import plan_of
    from s2tdpt.hw.tools.external import find_tool

    board = load_board(board_name)
    if frequency is not None and not 0 < frequency < 1000:
        raise UserError(f"--frequency is {frequency:g}; expected MHz from 0 to 1000; for instance 60")
    check_folder(out.parent)
    folders.check_replaceable(out, FORMAT, "folder of a bitstream", force)
    for tool in ("yosys", board.tools.router, board.tools.packer):
        find_tool(tool)
    numbers = load_params(params)
    plan = plan_of(numbers, machine)
    fit = memory_fit(board, plan)
    if fit.over:
        largest = max(plan.memories, key=lambda memory: memory.total_bits)
        helps = [field for field in largest.helps if field != "weight_memory=stream"]  # the link carries none
        raise UserError(
            f"{numbers.config.name} on machine {machine.name} does not fit {board.name}: {fit}; "
            f"expected less memory; the largest is {largest.name}, fields that help: "
            f"{', '.join(helps) or 'a smaller network'}"
        )
    with telling("starting") as tell:
        result = build_bitstream(
            numbers, machine, board, frequency=frequency, window=window, seed=seed, tell=tell
        )
    place(result, out, force)
    if json_path is not None:
        write_json(json_path, result.manifest())
    if not quiet(json_path):
        console.print(summary(result, board))
        console.print(f"{out / result.file}: load it with openFPGALoader, then s2tdpt run --port PORT")


def place(result: Bitstream, out: Path, force: bool) -> None:
    """Copy bitstream, logs and manifest to the folder."""
    from s2tdpt.golden.folders import MANIFEST, make_folder

    def fill(folder: Path) -> None:
        for name in (result.file, "design.sv", "report.json", *(p.name for p in result.folder.glob("*.log"))):
            shutil.copyfile(result.folder / name, folder / name)
        (folder / MANIFEST).write_text(json.dumps(result.manifest(), indent=2) + "\n")

    out.parent.mkdir(parents=True, exist_ok=True)
    make_folder(out, fill, force)


def summary(result: Bitstream, board: Board) -> Table:
    """The short table at the end."""
    table = Table(title=f"{result.network} on {board.title}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, used in result.used.items():
        table.add_row(name, f"{used:,} of {result.available[name]:,}")
    table.add_row(f"Fmax, seed {result.seed}", f"{result.fmax:.2f} MHz")
    table.add_row("clock of the PLL", f"{result.line.clock / 1e6:.2f} MHz")
    table.add_row("link", f"{result.line.baud:,} baud")
    table.add_row(
        "run time" + (" (from the cache)" if result.cached else ""), f"{sum(result.seconds.values()):.0f} s"
    )
    return table
