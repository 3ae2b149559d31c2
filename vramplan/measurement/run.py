"""A pipeline that really ran on a GPU: what it was, and what each stretch of it held. Bytes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from vramplan.engine_buffer import EngineBuffer
from vramplan.measurement.reading import DeviceMemory, TorchMemory
from vramplan.model import Settings
from vramplan.quick_dataclass import dataclass, field


class Witness(StrEnum):
    """What a run's figures come from."""

    GPU = "gpu"  # a real card
    PRETENDED = "pretended"  # the real torch on a card that is not there
    DRY = "dry"  # the same code on a CPU: it has no figures
    SYNTHETIC = "synthetic"  # made up by a test or an example; never shipped as measured


class FailureKind(StrEnum):
    """How a run ended early."""

    OOM = "oom"  # out of device memory
    ERROR = "error"  # the code raised something else
    CRASH = "crash"  # the process died
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Where a run ended early, and why; `asked_bytes` is what an allocation asked for."""

    kind: FailureKind
    phase: str
    component: str
    message: str
    asked_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredGpu:
    """The card a run was measured on, as its driver names it."""

    name: str
    compute_capability: str
    total_bytes: int
    reserved_bytes: int | None
    driver: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulation:
    """A smaller card, played by a larger one whose rest another process holds.

    `free_bytes` is what NVML called free before the run: what the smaller card would have.
    """

    card: str
    free_bytes: int
    compute_capability: str  # whose kernels were allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextStep:
    """The process's memory outside of torch after one step: context, cuBLAS, cuDNN.

    `process_used_bytes` is NVML's for the process, `device_used_bytes` the whole card's;
    `reserved_bytes` is what of it torch holds.
    """

    name: str
    process_used_bytes: int | None
    device_used_bytes: int
    reserved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredComponent:
    """What a component's weights came to on the card."""

    name: str
    parameters: int
    weights_bytes: int  # of its tensors
    allocated_bytes: int | None  # by which the counter rose


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A piece of a run in which one component works in one phase.

    Peaks are of the stretch alone. `device_peak_bytes` and `process_peak_bytes` are the highest of
    the samples taken meanwhile and of the reading at its end.
    """

    phase: str
    component: str
    turn: str  # load, cold (the first run in its process) or warm
    began_s: float
    ended_s: float
    torch: TorchMemory | None = None
    device_used_bytes: int | None = None
    process_used_bytes: int | None = None
    device_peak_bytes: int | None = None
    process_peak_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEnd:
    """The card when a phase had just ended, by NVML and right after it by nvidia-smi.

    A torch run waits meanwhile, an engine goes on. `component` is the one that was loaded, or the
    only one there is; it is empty where several work in a phase. nvidia-smi tells whole MiB.
    """

    phase: str
    component: str
    turn: str  # load or cold
    at_s: float  # on the clock of the stretches
    device_used_bytes: int
    process_used_bytes: int | None
    smi_used_bytes: int
    smi_process_bytes: int | None
    smi: str  # nvidia-smi's own words


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredWorkspace:
    """What one convolution takes beside its input, its weights and its output.

    `side` is the height and width of its input. Each figure is the peak while it runs less what was
    held before and less the output; cold is the first call of its shape, warm the second.
    """

    dtype: str
    batch: int
    in_channels: int
    out_channels: int
    side: int
    kernel: int
    layout: str  # nchw or nhwc
    benchmark: str  # torch.backends.cudnn.benchmark, on or off
    cold_bytes: int | None
    warm_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The end of the last turn, with everything still held: all probes at the same instant."""

    device: DeviceMemory | None
    torch: TorchMemory | None
    process_used_bytes: int | None
    smi: str | None  # nvidia-smi's own words


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measured run."""

    pipeline: str
    title: str
    runtime: str
    settings: Settings
    weights: str  # random or pretrained
    witness: Witness
    created: str  # UTC, ISO 8601
    command: str
    gpu: MeasuredGpu | None
    versions: Mapping[str, str]
    kernels: str  # machine, or the compute capability whose kernels were allowed
    checkpoint: str | None = None
    emulation: Emulation | None = None
    period_s: float | None = None
    before: DeviceMemory | None = None
    context: tuple[ContextStep, ...] = ()
    components: tuple[MeasuredComponent, ...] = ()
    stretches: tuple[Stretch, ...] = ()
    phase_ends: tuple[PhaseEnd, ...] = ()
    workspaces: tuple[MeasuredWorkspace, ...] = ()
    buffers: tuple[EngineBuffer, ...] = ()
    held: Held | None = None
    failure: Failure | None = None
    history: str | None = None  # the file beside this one with the allocator's own events
    facts: Mapping[str, str] = field(default_factory=dict)  # what else was true of it
    notes: tuple[str, ...] = ()

    @property
    def is_measured(self) -> bool:
        """True where the figures come from a real card."""
        return self.witness is Witness.GPU

    @property
    def compute_capability(self) -> str | None:
        """Whose kernels ran: the card's that was played, else the GPU's; None without a GPU."""
        if self.emulation is not None:
            return self.emulation.compute_capability
        return self.gpu.compute_capability if self.gpu is not None else None
