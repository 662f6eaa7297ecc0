"""The mutants of the hardware: found in elaborated accelerators, named by their source, planted anywhere."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from amaranth.hdl import Fragment

from tests.mutation import places
from tests.mutation.places import Place
from tests.mutation.sites import Site, sites_of

_elaborate = Fragment.get


@dataclass(frozen=True)
class Mutant:
    """One alteration of one place.

    A loop of the generator makes many copies of a place, one a bank or a lane; only the first or the last one
    of every unit is altered.

    Attributes
    ----------
    name : str
        Names it as long as its own line of source stays as it is.
    kind, change : str
        As in `sites`.
    place : Place
    last : bool
    """

    name: str
    kind: str
    change: str
    place: Place
    last: bool

    @property
    def unit(self) -> str:
        """Module of `hw`."""
        return self.place.module

    def as_json(self) -> dict:
        return asdict(self) | {"place": list(self.place)}

    @classmethod
    def from_json(cls, fields: dict) -> Mutant:
        return cls(**fields | {"place": Place(*fields["place"])})


def watch(hook: Callable[[list[Site]], None], wanted: Callable[[Place], bool] = lambda place: True) -> None:
    """From now on `hook` sees the sites of every unit, at the places that are wanted, as soon as it is
    elaborated.
    """
    places.trace()

    def get(obj, platform):
        fragment = _elaborate(obj, platform)
        if not isinstance(obj, Fragment):
            hook(sites_of(fragment, wanted))
        return fragment

    Fragment.get = staticmethod(get)


def plant(mutant: Mutant) -> Callable[[], int]:
    """From now on every unit that holds the mutant's place is altered; returns how many were so far."""
    return plant_where(
        lambda site: site.change == mutant.change, mutant.last, lambda place: place == mutant.place
    )


def plant_where(
    wanted: Callable[[Site], bool],
    last: bool = False,
    place_wanted: Callable[[Place], bool] = lambda place: True,
) -> Callable[[], int]:
    """`plant`, of the first or last site that is wanted."""
    planted = 0

    def alter(sites):
        nonlocal planted
        found = [site for site in sites if wanted(site)]
        if found:
            found[-1 if last else 0].apply()
            planted += 1

    watch(alter, place_wanted)
    return lambda: planted


def catalogue(designs: Iterable) -> list[Mutant]:
    """All mutants of the units in some designs, in the order of the source.

    Parameters
    ----------
    designs : iterable of Elaboratable
    """
    copies: Counter[tuple[Place, str, str]] = Counter()

    def count(sites):
        here = Counter((site.place, site.kind, site.change) for site in sites)
        for key, number in here.items():
            copies[key] = max(copies[key], number)

    watch(count)
    for design in designs:
        Fragment.get(design, None)
    names: Counter[str] = Counter()
    found = []
    for (place, kind, change), number in sorted(copies.items()):
        name = f"{place.module}: {place.function}: {_shown(place)}: {change}"
        names[name] += 1
        if names[name] > 1:
            name += f" ({names[name]})"
        found.append(Mutant(name, kind, change, place, False))
        if number > 1:
            found.append(Mutant(name + ", in the last copy", kind, change, place, True))
    return found


def _shown(place: Place) -> str:
    return place.head if len(place.head) <= 100 else place.head[:97] + "..."


def sample(mutants: list, count: int, seed: int, least: int) -> list:
    """About `count` of the mutants: from every unit as many as its share, and `least` if it has them."""
    chosen = []
    for unit in sorted({mutant.unit for mutant in mutants}):
        own = [mutant for mutant in mutants if mutant.unit == unit]
        wanted = min(len(own), max(least, round(count * len(own) / len(mutants))))
        picked = set(random.Random(f"{seed} {unit}").sample(range(len(own)), wanted))
        chosen += [mutant for index, mutant in enumerate(own) if index in picked]
    return chosen
