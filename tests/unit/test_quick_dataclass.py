"""Quickly made dataclasses are what the standard library's are."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import ClassVar

import pytest

from vramplan.quick_dataclass import dataclass


def twins(make):
    """Return the same two classes, made by `make`."""
    options = {"frozen": True, "slots": True, "kw_only": True}

    @make(**options)
    class Point:
        """A point."""

        x: int
        y: int = 2
        names: tuple[str, ...] = dataclasses.field(default_factory=tuple)
        hidden: int = dataclasses.field(default=0, repr=False, compare=False)
        KIND: ClassVar[str] = "point"

        def __post_init__(self) -> None:
            if self.x < 0:
                raise ValueError("x")

        @property
        def total(self) -> int:
            return self.x + self.y

    @make(**options)
    class Point3(Point):
        """A point in space."""

        z: int

    @make(**options)
    class Nothing:
        """No field."""

    return Point, Point3, Nothing


OURS, THEIRS = twins(dataclass), twins(dataclasses.dataclass)


@pytest.mark.parametrize("made", [OURS, THEIRS], ids=["ours", "theirs"])
def test_they_behave_alike(made) -> None:
    point, solid, nothing = made
    one = point(x=1)
    assert (one.x, one.y, one.names, one.KIND, one.total) == (1, 2, (), "point", 3)
    assert repr(one).endswith("Point(x=1, y=2, names=())")
    assert one == point(x=1, hidden=5) != point(x=2)
    assert hash(one) == hash(point(x=1, hidden=9))
    assert one != 1
    assert len({one, point(x=1), point(x=3)}) == 2
    assert not hasattr(one, "__dict__")
    assert [field.name for field in dataclasses.fields(solid)] == ["x", "y", "names", "hidden", "z"]
    assert dataclasses.replace(solid(x=1, z=3), y=7) == solid(x=1, y=7, z=3)
    assert solid(x=1, z=3) != one
    assert dataclasses.asdict(one) == {"x": 1, "y": 2, "names": (), "hidden": 0}
    assert copy.deepcopy(one) == copy.copy(one) == one
    assert nothing() == nothing()
    assert hash(nothing()) == hash(nothing())
    assert dataclasses.is_dataclass(one)


@pytest.mark.parametrize("made", [OURS, THEIRS], ids=["ours", "theirs"])
def test_they_refuse_alike(made) -> None:
    point, solid, _ = made
    for wrong in ((), (1,)):
        with pytest.raises(TypeError):
            point(*wrong)
    for wrong in ({}, {"x": 1, "w": 2}):
        with pytest.raises(TypeError):
            point(**wrong)
    with pytest.raises(TypeError):
        solid(x=1)
    with pytest.raises(ValueError, match="x"):
        point(x=-1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        point(x=1).x = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point(x=1).x


def test_models_survive_a_pickle() -> None:
    from vramplan.model import Band

    band = Band.exactly(5)
    assert pickle.loads(pickle.dumps(band)) == band  # noqa: S301  # our own bytes


def test_others_are_the_standard_librarys() -> None:
    @dataclass(slots=True)
    class Loose:
        """Not frozen."""

        x: int = 1

    loose = Loose(3)
    loose.x = 4
    assert loose == Loose(4)
