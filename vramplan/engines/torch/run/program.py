"""What a runner needs to know of the code it runs; whoever composes a measurement hands it over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch

#: hears that a component begins to work in a phase
Begin = Callable[[str, str], None]


class Program(Protocol):
    """A pipeline at its settings: what it is made of, and what a user does with it."""

    @property
    def is_training(self) -> bool:
        """True where gradients are wanted."""

    @property
    def wants_math_kernel(self) -> bool:
        """True where torch's plain attention kernel was asked for."""

    @property
    def loading(self) -> str:
        """How weights get to the device: `to` goes tensor by tensor, `device_map` takes a block."""

    @property
    def keeps_on_host(self) -> bool:
        """True where the weights stay in system memory and are moved while the program runs."""

    def build(self) -> dict[str, torch.nn.Module]:
        """Return the components on `meta`, in the order in which they are loaded."""

    def load(self, name: str, checkpoint: str, device: torch.device) -> torch.nn.Module:
        """Return a component with the weights of a checkpoint: a folder, or a name on the hub.

        With `device_map` loading it is on `device` already, else in system memory. Raises
        MissingError where there is no such checkpoint.
        """

    def prepare(
        self, modules: Mapping[str, torch.nn.Module], target: torch.device, begin: Begin
    ) -> Callable[[], None]:
        """Return what runs the program once on `modules` and tells `begin` where it is."""
