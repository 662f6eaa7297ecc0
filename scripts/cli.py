"""The `s2tdpt` command: train, quantise, generate, co-simulate, synthesise and measure."""

from __future__ import annotations

import sys
import warnings

import click

from golden.errors import UserError
from scripts.bench import bench
from scripts.hardware import cosim, generate, synth
from scripts.information import info
from scripts.software import evaluate, export, train


class Group(click.Group):
    """A command group whose user errors are one line and exit code 2, never a traceback."""

    def main(self, *args, standalone_mode: bool = True, **kwargs):
        try:
            return super().main(*args, standalone_mode=standalone_mode, **kwargs)
        except UserError as error:
            print(f"s2tdpt: error: {' '.join(str(error).split())}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("s2tdpt: interrupted", file=sys.stderr)
            sys.exit(130)
        except OSError as error:
            where = f" {error.filename}" if error.filename else ""
            print(
                f"s2tdpt: error: cannot use{where}: {error.strerror}; expected a readable, writable place with "
                "room; check the path and the disk",
                file=sys.stderr,
            )
            sys.exit(2)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="s2tdpt")
def main() -> None:
    """Generator of spiking-transformer hardware (S2TDPT, arXiv 2511.14691).

    \b
    A trained, quantised network becomes Verilog that is proven equal to it:
      s2tdpt train      float network -> integer network -> parameter file
      s2tdpt evaluate   accuracy and firing rates of a parameter file
      s2tdpt generate   parameter file -> Verilog, memory images, manifest
      s2tdpt cosim      Verilog against the golden model, every layer compared
      s2tdpt synth      LUTs, memories, clock frequency (ECP5) or cell area
      s2tdpt bench      the table of figures, against the committed baseline

    Everything works on the shipped digits network without an option: try `s2tdpt cosim`.
    """
    warnings.filterwarnings("ignore", category=DeprecationWarning)


for command in (info, train, evaluate, export, generate, cosim, synth, bench):
    main.add_command(command)


if __name__ == "__main__":
    main()
