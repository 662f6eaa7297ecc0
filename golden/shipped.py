"""Parameter files that come with the project, by name."""

from __future__ import annotations

from pathlib import Path

from s2tdpt.golden.errors import UserError
from s2tdpt.golden.params import Params

FOLDER = Path(__file__).parent / "models"


def shipped_models() -> tuple[str, ...]:
    """Names of the parameter files in `FOLDER`."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.safetensors")))


def load(name_or_path: str | Path) -> Params:
    """A shipped parameter file by name ("digits", "digits-int4", "s2tdpt-2-128", ...), or any by its path.

    A file of that name in the current folder goes first.

    Raises
    ------
    UserError
        No such name or file, or not a sound parameter file; one line.
    """
    path = Path(name_or_path)
    if path.exists():
        return Params.load(path)
    if (name := str(name_or_path)) in shipped_models():
        return Params.load(FOLDER / f"{name}.safetensors")
    known = ", ".join(shipped_models())
    raise UserError(f"no parameter file {name}; expected a path or one of {known}; check the name")
