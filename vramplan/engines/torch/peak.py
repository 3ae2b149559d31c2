"""A replayed run at its peak: what each line of the budget is read from."""

from __future__ import annotations

from functools import cached_property

from vramplan.dtypes import ELEMENT_BYTES
from vramplan.engines.torch.changed_weights import Beside, beside
from vramplan.engines.torch.cublas_workspace import cublas_band
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.model import Card, Settings
from vramplan.quick_dataclass import dataclass, replace
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.engines.torch.result import Replayed, Scenario
    from vramplan.engines.torch.tape.mark import Mark

#: what a recipe calls the optimiser while it steps
OPTIMIZER = "optimizer"


@dataclass(frozen=True, kw_only=True)
class RunAtPeak:
    """One job's replays on a card, looked at where most is live.

    `bare` is the same without adapters, where there are some.
    """

    pipeline: TorchPipeline
    settings: Settings
    card: Card
    result: Replayed
    bare: Replayed | None = None

    @property
    def compute_capability(self) -> str:
        """The architecture whose kernels run."""
        return self.card.compute_capability

    @cached_property
    def mark(self) -> Mark:
        """The stretch of the run in which most is live."""
        return max(self.result.marks, key=lambda mark: mark.allocated_peak_bytes)

    @property
    def resident(self) -> dict[str, int]:
        """The components on the device at the peak, and their bytes there."""
        return dict(self.mark.weights)

    @property
    def scenarios(self) -> tuple[Scenario, Scenario, Scenario]:
        """The replays without scratch, with the expected and with the most."""
        return self.result.low, self.result.expected, self.result.high

    @cached_property
    def beside(self) -> Beside:
        """What layers whose weights are changed take beside their results at the peak."""
        return beside(self.pipeline, self.settings, self.mark.component, self.working_bytes)

    @cached_property
    def adapter_bytes(self) -> int:
        """What adapters compute, of what is live at the peak."""
        if self.bare is None:
            return 0
        bare = replace(self, result=self.bare, bare=None)
        return max(0, self.working_bytes - bare.working_bytes)

    @property
    def working_bytes(self) -> int:
        """What is live at the peak beside the weights and cuBLAS's workspace."""
        held = sum(self.resident.values()) + cublas_band(self.compute_capability)[0].expected_bytes
        return max(0, self.floor_bytes - held)

    @property
    def floor_bytes(self) -> int:
        """The least that is live at the peak, of all replays.

        More scratch can mean less live memory: blocks are cut elsewhere, and torch counts a block
        whole that is up to 1 MiB larger than what was asked for.
        """
        return min(scenario.allocated_peak_bytes for scenario in self.scenarios)

    @property
    def most_bytes(self) -> int:
        """The most that is live at the peak, of all replays."""
        return max(scenario.allocated_peak_bytes for scenario in self.scenarios)

    @property
    def element_bytes(self) -> int:
        """The bytes of an element of the job's dtype."""
        return ELEMENT_BYTES[str(self.settings.get("dtype", "fp32"))]

    @property
    def peak_element_bytes(self) -> int:
        """The bytes of an element where the peak is: a component may have been cast up."""
        name = self.mark.component.partition(".")[0]
        loaded = sum(part.weights_bytes for part in self.result.parts if part.component == name)
        is_wider = self.resident.get(name, 0) > loaded > 0  # as SDXL's VAE is
        return ELEMENT_BYTES["fp32"] if is_wider else self.element_bytes

    @property
    def keeps_training_state(self) -> bool:
        """True for training whose optimiser has stepped: its moments live from then on."""
        steps = self.settings.get("steps", 2)
        is_training = self.settings.get("mode") == "train"
        return is_training and not (isinstance(steps, int) and steps < 2)

    @property
    def parameters_bytes(self) -> int:
        """The bytes of one number for each parameter."""
        return sum(part.parameters for part in self.result.parts) * self.element_bytes
