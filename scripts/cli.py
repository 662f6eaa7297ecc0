"""The `s2tdpt` command: train, quantise, generate, co-simulate, synthesise and measure."""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module

import click

from s2tdpt.golden.errors import UserError, printable

COMMANDS = {
    "info": ("information", "Parameters, MACs, neurons and memory of a configuration."),
    "train": ("software", "Float network to integer network to parameter file."),
    "evaluate": ("evaluation", "Accuracy and firing rates of a parameter file."),
    "energy": ("energy", "Energy of an inference, from firing rates on real images."),
    "explain": ("explain", "What the network looks at: Grad-CAM, firing-rate maps, confusion matrix."),
    "ablate": ("controls", "What the attention of a trained network contributes."),
    "controls": ("controls", "Is the attention needed? Controls, trained alike."),
    "compare": ("compare", "All attentions trained, quantised and counted alike."),
    "export": ("export", "Checkpoint of a run, or calibrated firing rates, to parameter file."),
    "estimate": ("estimate", "Cycles, memories, LUTs of a network on a machine, before synthesis."),
    "explore": ("explore", "Which machine? Search by estimate, Pareto front, plot."),
    "generate": ("hardware", "Parameter file to Verilog, constraints, manifest."),
    "cosim": ("hardware", "Verilog against the golden model, every layer compared."),
    "fuzz": ("fuzz", "Random networks, machines and bus traffic against the golden model."),
    "cycles": ("cycles", "Cycles of every layer on real images, without simulation."),
    "synth": ("hardware", "LUTs, memories, clock frequency (ECP5), or cell area."),
    "boards": ("boards", "Boards, and which networks their memories hold."),
    "build": ("boards", "Bitstream for a board, by open tools."),
    "assess": ("assess", "Everything about a trained network, from accuracy to co-simulation."),
    "report": ("report", "A network on a machine in one HTML page."),
    "run": ("run", "Classify images on a board."),
    "bench": ("bench", "Measure the table of figures and compare it with the baseline."),
    "doctor": ("doctor", "What is installed, what is missing, and how to get it."),
}
"""Module of `scripts` and short help of every command, in the order of the work: a module is loaded when its
command is used, so that nobody waits for what he does not need."""


class Group(click.Group):
    """A command group whose user errors are one line on standard error and exit code 2, never a traceback."""

    def list_commands(self, context: click.Context) -> list[str]:
        """In the order of the work, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command itself, loaded on first use."""
        if name in COMMANDS and name not in self.commands:
            module = import_module(f"s2tdpt.scripts.{COMMANDS[name][0]}")
            self.add_command(getattr(module, name), name)
        return super().get_command(context, name)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without loading any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in COMMANDS.items()])

    def main(self, args=None, *rest, standalone_mode: bool = True, **kwargs):
        self.typed = [str(arg) for arg in (sys.argv[1:] if args is None else args)]
        if not standalone_mode:
            return super().main(args, *rest, standalone_mode=False, **kwargs)
        try:
            code = super().main(args, *rest, standalone_mode=False, **kwargs)
        except UserError as error:
            fail(str(error))
        except click.UsageError as error:
            context = error.ctx.command_path if error.ctx is not None else "s2tdpt"
            fail(f"{error.format_message()} See '{context} --help'.")
        except click.ClickException as error:
            fail(error.format_message())
        except click.Abort:  # what click makes of Ctrl-C
            print("s2tdpt: interrupted", file=sys.stderr)
            sys.exit(130)
        except MemoryError:
            fail("out of memory; expected more of it; use a smaller network, or fewer or smaller images")
        except OSError as error:
            _drop_unwritten()
            where = f" {error.filename}" if error.filename else " the disk"
            fail(
                f"cannot use{where}: {error.strerror or error}; expected a readable, writable place "
                "with room; check the path and the disk"
            )
        sys.exit(code if isinstance(code, int) else 0)


def _drop_unwritten() -> None:
    """What standard output cannot take must not be tried again when the interpreter ends: exit code 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(message: str) -> None:
    """Say in one line what is wrong, and end with exit code 2."""
    warnings.simplefilter("ignore")  # of hardware that was described and now is not generated
    print(f"s2tdpt: error: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(2)


@click.group(
    cls=Group,
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="s2tdpt")
@click.pass_context
def main(context: click.Context) -> None:
    """Generator of spiking-transformer hardware (S2TDPT, arXiv 2511.14691).

    \b
    A trained, quantised network becomes Verilog that is proven equal to it.
    Everything works on the shipped digits network without training anything:
      s2tdpt info
      s2tdpt generate --out build/digits
      s2tdpt cosim
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    warnings.filterwarnings("ignore", category=DeprecationWarning)


if __name__ == "__main__":
    main()
