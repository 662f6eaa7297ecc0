"""What `s2tdpt bench` is given: the committed baseline, reports of place and route, large parameters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2tdpt.golden.config import load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.strictjson import LARGEST_RESULT, read
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.scripts.options import load_params

if TYPE_CHECKING:
    from s2tdpt.golden.params import Params


def read_baseline(path: Path) -> dict[str, Any] | None:
    """The committed figures; None if there are none yet.

    Raises
    ------
    UserError
        The file is no baseline.
    """
    if not path.exists():
        return None
    try:
        data = read(path, LARGEST_RESULT)
        if data["format"] != "s2tdpt-bench" or not isinstance(data["details"], dict):
            raise ValueError
        {name: float(value) for name, value in data["figures"].items()}
        return data
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path} is no baseline; expected JSON that `s2tdpt bench --json` wrote; name another"
        ) from None


def read_synthesis(path: Path) -> dict[str, Any]:
    """An FPGA report of `s2tdpt synth --json`.

    Raises
    ------
    UserError
        The file is missing or something else.
    """
    try:
        data = read(path, LARGEST_RESULT)
        if not isinstance(data["fmax_median"], int | float) or not isinstance(data["used"]["lut"], int):
            raise ValueError
        return data
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is no FPGA report; expected JSON that `s2tdpt synth --json` wrote; name another"
        ) from None


def read_reports(paths: tuple[Path, ...], machines: dict[str, Machine]) -> dict[str, dict[str, Any]]:
    """Reports by the network that was placed and routed.

    Raises
    ------
    UserError
        A file is no report, or of a network or machine that the table does not show.
    """
    reports = {}
    for path in paths:
        report = read_synthesis(path)
        name = report.get("network", "digits")
        if name not in machines:
            raise UserError(
                f"{path} is of the network {name}; expected one of {', '.join(machines)}; name another"
            )
        fields = machines[name].model_dump(mode="json")
        if report.get("machine", fields) != fields:
            raise UserError(
                f"{path} is of another machine than {machines[name].name} is now; expected the same fields; "
                "run `s2tdpt synth` again"
            )
        reports[name] = report
    return reports


def read_large(path: Path, config: str) -> Params:
    """Parameters of the large network, whose configuration is named.

    Raises
    ------
    UserError
        They are of another one.
    """
    params = load_params(str(path))
    if params.config != load_config(config):
        raise UserError(f"{path} is of {params.config.name}; expected parameters of {config}; name another")
    return params
