"""What a recipe's program runs on: the recorder's device that is not there, or a real one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from vramplan.engines.torch.record.marks import Marks

Value = Any
Dims = dict[str, int]


class Routines(Protocol):
    """Makes calls known by name: what they allocate is a component's work."""

    def wrap(
        self,
        name: str,
        function: Callable[..., Value],
        dims_of: Callable[..., Dims],
        before: Callable[[], None] | None = None,
    ) -> Callable[..., Value]:
        """Return `function` as the routine `name`; `dims_of` reads its dimensions."""


class Stage(Protocol):
    """A set of modules on a device, and those who watch what is done with them.

    `target` is where a program puts its inputs. `is_new` is True until the first run: that is when
    a recipe hooks the modules. `loop` is the name of the loop a recipe's hooks iterate now.
    """

    is_new: bool
    loop: str

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """The components by name."""

    @property
    def target(self) -> torch.device:
        """The device the program works on."""

    @property
    def marks(self) -> Marks:
        """Takes down phases and loops."""

    @property
    def routines(self) -> Routines:
        """Takes down calls."""

    def place(self, pipe: Value) -> None:
        """Let a diffusers pipeline move its components as the settings ask."""

    def watch_casts(self, component: str, module: torch.nn.Module) -> None:
        """Take down where the program casts the weights of `component`."""

    def cast(self, module: torch.nn.Module, dtype: torch.dtype) -> None:
        """Cast a module's weights before a run; nothing is taken down."""
