"""Write the committed files that are made from the register map: ``python -m s2tdpt.scripts.registers``."""

from __future__ import annotations

from pathlib import Path

from s2tdpt.golden.register_map import MAP
from s2tdpt.golden.register_texts import page, python_driver

ROOT = Path(__file__).parents[1]


def made_files() -> dict[str, str]:
    """Text of every such file, by its path from the root of the repository."""
    return {"docs/registers.md": page(MAP), "host/registers.py": python_driver(MAP)}


def main() -> None:
    """Write them."""
    for name, text in made_files().items():
        (ROOT / name).write_text(text, encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main()
