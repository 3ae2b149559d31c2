"""Quickly made dataclasses are what the standard library's are."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from functools import cached_property
from typing import ClassVar

import pytest

from vramplan.quick_dataclass import dataclass, field, replace


def twins(make, **others):
    """Return the same classes, made by `make`."""
    options = {"frozen": True, "slots": True, "kw_only": True, **others}

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


@pytest.mark.parametrize("slots", [True, False])
@pytest.mark.parametrize("eq", [True, False])
def test_every_kind_is_alike(slots: bool, eq: bool) -> None:
    ours, theirs = (
        twins(make, slots=slots, eq=eq)[0] for make in (dataclass, dataclasses.dataclass)
    )
    for made in (ours, theirs):
        one = made(x=1)
        assert hasattr(one, "__dict__") is not slots
        assert (one == made(x=1)) is eq
        assert (hash(one) == hash(made(x=1))) is eq
        assert replace(one, x=4).total == 6
        assert pickle.loads(pickle.dumps(Pickled(y=3))) == Pickled(y=3)  # noqa: S301  # our bytes
    assert str(inspect.signature(ours)) == str(inspect.signature(theirs))


@dataclass(frozen=True, kw_only=True)
class Pickled:
    """One with a dictionary, and a property that is kept in it."""

    y: int
    names: list[str] = field(default_factory=list)

    @cached_property
    def twice(self) -> int:
        return 2 * self.y


def test_a_property_is_kept_where_there_is_a_dictionary() -> None:
    one = Pickled(y=4)
    assert (one.twice, one.__dict__["twice"], one.names) == (8, 8, [])
    assert Pickled(y=4).names is not one.names


def test_what_a_class_takes_can_be_asked_before_one_is_made() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Fresh:
        """Of which none has been made."""

        x: int
        y: int = 2

    assert str(inspect.signature(Fresh)) == "(*, x: 'int', y: 'int' = 2) -> None"
    with pytest.raises(TypeError, match=r"Fresh.__init__\(\) missing 1 required"):
        Fresh()


def test_the_standard_librarys_objects_are_replaced_too() -> None:
    @dataclasses.dataclass
    class Loose:
        """Theirs."""

        x: int

    assert replace(Loose(1), x=2) == Loose(2)


def test_the_standard_librarys_module_is_not_loaded() -> None:
    code = (
        "from vramplan.model import Band; import sys; Band.exactly(3)\n"
        "sys.exit(bool({'dataclasses', 'inspect'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-S", "-c", code], check=True)


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
