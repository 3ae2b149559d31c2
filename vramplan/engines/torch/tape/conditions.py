"""What a replay depends on beside the tape."""

from __future__ import annotations

from collections.abc import Mapping

from vramplan.engines.torch.diffusers_offload import STAYS_ON_DEVICE
from vramplan.engines.torch.tape.plans import ComparedModel, WorkspaceModel
from vramplan.quick_dataclass import dataclass, field

__all__ = ["Conditions", "Percents", "WorkspaceModel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Percents(ComparedModel):
    """A convolution's scratch as shares of its operands: one plan (a `WorkspaceModel`)."""

    input_percent: int
    output_percent: int
    filter_percent: int

    def __call__(self, _kind: str, operands: tuple[int, ...]) -> int:
        """Return the scratch of one convolution; `operands` begin with input, output and filter."""
        source, target, weight = operands[:3]  # written out: a replay asks some thousand times
        return (
            source * self.input_percent
            + target * self.output_percent
            + weight * self.filter_percent
        ) // 100

    def plans(self, kind: str, operands: tuple[int, ...]) -> tuple[int, ...]:
        """Return the one plan that is known."""
        return (self(kind, operands),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Settings and architecture, as far as a replay asks for them.

    `numbers` are the settings as whole numbers (batch, width, height, steps, …), `facts` the words
    that choose variants (dtype, kernel, …). `workspace_bytes` gives a library's scratch from its
    operands' bytes, and `cast_workspace_bytes` the same, by element size, for components that the
    pipeline casts to another than `element_bytes`. With `has_own_convolutions` no library has any
    for the dtype: torch's own make them matrix products, for which cuBLAS takes its workspace.
    """

    numbers: Mapping[str, int]
    facts: Mapping[str, str]
    element_bytes: int
    workspace_bytes: WorkspaceModel
    cast_workspace_bytes: Mapping[int, WorkspaceModel] = field(default_factory=dict)
    cublas_bytes: int
    has_own_convolutions: bool = False
    loading: str = "to"
    offload: str = "none"
    stays: frozenset[str] = STAYS_ON_DEVICE  # components that offload leaves on the device
    skip_components: frozenset[str] = frozenset()
