"""The `s2tdpt` command: train, quantise, generate, co-simulate, synthesise and measure."""

from __future__ import annotations

import sys
import warnings

import click

from s2tdpt.golden.errors import UserError, printable
from s2tdpt.scripts.bench import bench
from s2tdpt.scripts.controls import ablate, controls
from s2tdpt.scripts.cycles import cycles
from s2tdpt.scripts.energy import energy
from s2tdpt.scripts.evaluation import evaluate
from s2tdpt.scripts.explain import explain
from s2tdpt.scripts.export import export
from s2tdpt.scripts.hardware import cosim, generate, synth
from s2tdpt.scripts.information import info
from s2tdpt.scripts.software import train


class Group(click.Group):
    """A command group whose user errors are one line on standard error and exit code 2, never a traceback."""

    def list_commands(self, context: click.Context) -> list[str]:
        """In the order of the work, not of the alphabet."""
        return list(self.commands)

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
        except OSError as error:
            where = f" {error.filename}" if error.filename else " the disk"
            fail(
                f"cannot use{where}: {error.strerror or error}; expected a readable, writable place "
                "with room; check the path and the disk"
            )
        sys.exit(code if isinstance(code, int) else 0)


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


for command in (
    info,
    train,
    evaluate,
    energy,
    explain,
    ablate,
    controls,
    export,
    generate,
    cosim,
    cycles,
    synth,
    bench,
):
    main.add_command(command)


if __name__ == "__main__":
    main()
