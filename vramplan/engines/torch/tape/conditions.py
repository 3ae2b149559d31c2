"""What a replay depends on beside the tape."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vramplan.quick_dataclass import dataclass, field

WorkspaceModel = Callable[[str, tuple[int, ...]], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Percents:
    """A convolution's scratch as shares of its operands (a `WorkspaceModel`)."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Settings and architecture, as far as a replay asks for them.

    `numbers` are the settings as whole numbers (batch, width, height, steps, …), `facts` the words
    that choose variants (dtype, kernel, …). `workspace_bytes` gives a library's scratch from its
    operands' bytes, and `cast_workspace_bytes` the same, by element size, for components that the
    pipeline casts to another than `element_bytes`. With `is_elastic`, scratch that does not fit is
    done without (torch tries the next plan).
    """

    numbers: Mapping[str, int]
    facts: Mapping[str, str]
    element_bytes: int
    workspace_bytes: WorkspaceModel
    cast_workspace_bytes: Mapping[int, WorkspaceModel] = field(default_factory=dict)
    cublas_bytes: int
    loading: str = "to"
    offload: str = "none"
    is_elastic: bool = False
    skip_components: frozenset[str] = frozenset()
