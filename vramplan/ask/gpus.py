"""The GPU that is measured on."""

from __future__ import annotations

from vramplan.errors import MissingError
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.probe.nvml import Gpu


def find_gpu(selector: str | None) -> tuple[Gpu, str]:
    """Return the GPU to measure on and the driver's version.

    Raises MissingError where there is none, and says what can be done without one.
    """
    from vramplan.probe.choice import choose_gpu
    from vramplan.probe.nvml import read_inventory

    try:
        inventory = read_inventory()
        return choose_gpu(inventory, selector), inventory.driver_version
    except MissingError as problem:
        hint = (
            "without a GPU: vramplan check and estimate need none, vramplan compare RUN shows what "
            "was measured elsewhere, vramplan profile TARGET --dry-run executes the code"
        )
        raise MissingError(str(problem), hint=hint) from problem
