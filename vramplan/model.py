"""The frozen dataclasses that every layer speaks. All sizes are bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from vramplan.quick_dataclass import dataclass, field
from vramplan.settings import write_target

#: a setting's value after parsing: ``image`` is (width, height), switches are 'on' or 'off'
SettingValue = str | int | float | tuple[int, int]
Settings = Mapping[str, SettingValue]


class Origin(StrEnum):
    """Where a figure comes from, from the firmest to the weakest."""

    EXACT = "exact"  # counted from shapes
    REPLAYED = "replayed"  # a tape through the allocator model
    WITNESSED = "witnessed"  # the real engine on a card that is not there, named in `source`
    MEASURED = "measured"  # a run on a GPU, named in `source`
    PUBLISHED = "published"  # somebody else's figure or source code, named in `source`
    ASSUMED = "assumed"  # `source` says why


class VerdictKind(StrEnum):
    """Whether a pipeline fits a card; ordered from best to worst."""

    FITS = "fits"  # even the high estimate is within the budget
    TIGHT = "tight"  # it completes, not surely: the high need is more, or some larger limit fails
    OFFLOAD = "offload"  # it will run, but partly from system memory
    OOM = "oom"  # it will fail

    @property
    def rank(self) -> int:
        """How bad it is beside the others, from 0 for the best on."""
        return list(VerdictKind).index(self)

    @property
    def is_failure(self) -> bool:
        """True where `check` exits with 1."""
        return self in (VerdictKind.OFFLOAD, VerdictKind.OOM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A size with its error band in bytes; low <= expected <= high."""

    low_bytes: int
    expected_bytes: int
    high_bytes: int

    def __post_init__(self) -> None:
        if not self.low_bytes <= self.expected_bytes <= self.high_bytes:
            raise ValueError(
                f"band out of order: {self.low_bytes}, {self.expected_bytes}, {self.high_bytes}"
            )

    def __add__(self, other: Band) -> Band:
        return Band(
            low_bytes=self.low_bytes + other.low_bytes,
            expected_bytes=self.expected_bytes + other.expected_bytes,
            high_bytes=self.high_bytes + other.high_bytes,
        )

    @classmethod
    def exactly(cls, size_bytes: int) -> Band:
        """Return a band without width."""
        return cls(low_bytes=size_bytes, expected_bytes=size_bytes, high_bytes=size_bytes)


class LineKind(StrEnum):
    """What memory is used for: the kind of a line of a budget, or of an engine's buffer."""

    WEIGHTS = "weights"
    KV_CACHE = "kv_cache"
    RECURRENT_STATE = "recurrent_state"
    ACTIVATIONS = "activations"  # most that is live at once, with what moves among them
    GRADIENTS = "gradients"
    OPTIMIZER_STATE = "optimizer_state"
    COMPUTE_BUFFER = "compute_buffer"  # ggml's scratch for the language model's graph
    PROJECTOR_COMPUTE = "projector_compute"  # ggml's scratch for the vision graph
    WORKSPACE = "workspace"  # scratch of cuBLAS and cuDNN
    ENGINE_POOL = "engine_pool"  # what ggml's CUDA backend keeps for its kernels
    ALLOCATOR_SLACK = "allocator_slack"  # reserved by torch and not allocated
    CUDA_CONTEXT = "cuda_context"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Where memory is: a GPU by its number from 0, or the host, whose `gpu` is None."""

    gpu: int | None

    def __str__(self) -> str:
        """Return ``gpu 0`` or ``host``."""
        return "host" if self.gpu is None else f"gpu {self.gpu}"

    @property
    def is_host(self) -> bool:
        """Return whether it is system memory."""
        return self.gpu is None


#: the first GPU, or the only one
GPU = Device(gpu=0)
HOST = Device(gpu=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a budget: a need for memory of one kind on one device, with band and origin.

    `phase` is None for what every phase has (weights, CUDA context); `component` is None for what
    belongs to the process as a whole. `name` is a label for people: nothing is decided by it.
    """

    kind: LineKind
    device: Device
    name: str
    phase: str | None
    component: str | None
    band: Band
    origin: Origin
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A part of a pipeline that a user would name: text encoder, VAE decoder, projector."""

    name: str
    parameters: int
    dtype: str
    weights_bytes: int
    device: str  # gpu | cpu | split


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseUse:
    """Peaks of one phase of the run when the card has room."""

    name: str
    component: str
    allocated_peak_bytes: int
    reserved_peak_bytes: int
    device_used_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The highest point of the whole run when the card has room: what nvidia-smi would show."""

    phase: str
    component: str
    allocated_bytes: int
    reserved_bytes: int
    device: Band


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a card must offer for the whole run to complete, the CUDA context included.

    `phase` and `component` are where the run fails first on a card that offers less.
    """

    band: Band
    phase: str
    component: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelinePoint:
    """Live and reserved bytes (without the CUDA context) after one step of the run."""

    phase: str
    component: str
    allocated_bytes: int
    reserved_bytes: int


#: whose an engine's buffers are: a projector (with its vision encoder) is a file of its own
LANGUAGE_MODEL = "language_model"
PROJECTOR = "projector"


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """Memory that a ggml engine holds for one purpose on one device."""

    kind: LineKind
    device: Device
    size_bytes: int
    component: str = LANGUAGE_MODEL


def buffer_bytes(
    buffers: Iterable[Buffer],
    *kinds: LineKind,
    on_host: bool = False,
    component: str | None = None,
) -> int:
    """Return what buffers of any of `kinds` take on all GPUs, or in host memory, bytes.

    With a `component` only its own count.
    """
    return sum(
        one.size_bytes
        for one in buffers
        if one.kind in kinds
        and one.device.is_host == on_host
        and component in (None, one.component)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSplit:
    """How many of a model's layers (the output layer counts as one) are on the GPU.

    Of `experts_on_cpu` of those the experts are in host memory, all of them or some; or other
    tensors, where `are_experts` is false.
    """

    total: int
    on_gpu: int
    experts_on_cpu: int = 0
    are_experts: bool = True

    @property
    def is_whole(self) -> bool:
        """Return whether everything that belongs to a layer is on the GPU."""
        return self.on_gpu == self.total and not self.experts_on_cpu

    def in_words(self) -> str:
        """Return ``29 of 33 layers on the GPU``, and where the experts are not with them."""
        what = "the experts" if self.are_experts else "parts"
        experts = f", {what} of {self.experts_on_cpu} on the CPU" if self.experts_on_cpu else ""
        return f"{self.on_gpu} of {self.total} layers on the GPU{experts}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFigure:
    """A figure somebody published about a pipeline, beside ours.

    `ours_bytes` is None where the claim is about something vramplan does not predict, and
    `remark` says where the claim holds.
    """

    claim: str
    what: str
    published_bytes: int
    ours_bytes: int | None
    source: str
    remark: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardShare:
    """What one of several cards is to hold, and how many of the model's layers that is.

    `budget_bytes` and `kind`, the verdict on this card alone, are None where nothing was judged.
    """

    device: Device
    card: str
    card_title: str
    need: Band
    layers: int
    buffers: tuple[Buffer, ...]
    budget_bytes: int | None = None
    kind: VerdictKind | None = None

    @property
    def headroom_bytes(self) -> int | None:
        """Budget less expected need; negative where it does not fit."""
        if self.budget_bytes is None:
            return None
        return self.budget_bytes - self.need.expected_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a person asked for: a TARGET, with the settings that differ from its defaults.

    `name` is what a project calls it; it may be empty. Of several side by side `members` are each.
    """

    target: str = ""
    name: str = ""
    settings: Settings = field(default_factory=dict)
    members: tuple[Asked, ...] = ()

    @property
    def text(self) -> str:
        """Return the TARGET with its settings, as the command line takes it."""
        if self.members:
            return " + ".join(member.text for member in self.members)
        return write_target(self.target, self.settings)

    @property
    def label(self) -> str:
        """Return what a project calls it, else the TARGET with its settings."""
        if self.members:
            return " + ".join(member.label for member in self.members)
        return self.name or self.text


#: what stands where nobody asked: an estimate of a test's or of a tool's
NOT_ASKED = Asked()


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A pipeline's budget at one set of settings on one compute capability."""

    pipeline: str
    title: str
    runtime: str
    settings: Settings
    compute_capability: str
    components: tuple[Component, ...]
    phases: tuple[PhaseUse, ...]
    lines: tuple[Line, ...]
    peak: Peak
    need: Need
    timeline: tuple[TimelinePoint, ...] = ()
    buffers: tuple[Buffer, ...] = ()  # of a ggml engine
    layers: LayerSplit | None = None
    published: tuple[PublishedFigure, ...] = ()
    notes: tuple[str, ...] = ()
    #: of several cards each one's part; what stands above is all of them together
    cards: tuple[CardShare, ...] = ()
    asked: Asked = NOT_ASKED

    def bytes_of(self, *kinds: LineKind, device: Device | None = None) -> int:
        """Return what the lines of any of `kinds` are expected to take, on one device or on all."""
        return sum(
            line.band.expected_bytes
            for line in self.lines
            if line.kind in kinds and device in (None, line.device)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """An NVIDIA card, a share of one, or several that are used as one.

    `total_bytes` and `reserved_bytes` are what NVML reports (`reserved_bytes` is system reserved);
    `class_gib` is the number on the box. `free_bytes` is known only for this machine's own GPUs.
    `multiprocessors` is None where nobody told; `shares_memory` is true for a GPU that has no
    memory of its own and uses the CPU's. `is_remote`: another machine has it, and serves it to
    llama.cpp over RPC. `seats` are the cards of several, whose sizes are their sums and whose
    compute capability is the oldest of theirs.
    """

    name: str
    title: str
    kind: str  # consumer | laptop | workstation | datacenter | assumed | local
    class_gib: int
    total_bytes: int
    reserved_bytes: int
    compute_capability: str
    bandwidth_bytes_per_s: int
    source: str
    free_bytes: int | None = None
    aliases: tuple[str, ...] = ()
    multiprocessors: int | None = None
    shares_memory: bool = False
    is_remote: bool = False
    seats: tuple[Seat, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One of several cards, and what a process may use of it."""

    card: Card
    budget_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One change that helps, in the user's own language, and what it costs."""

    change: str  # the line of Python, the environment variable or the flag
    effect: str
    cost: str
    need_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether one pipeline fits one card, and why."""

    pipeline: str
    card: str
    card_title: str
    judged_as: str  # the worst card or compute capability of a class
    kind: VerdictKind
    need: Band
    budget_bytes: int
    offload_risk: float
    peak_phase: str
    peak_component: str
    reason: str
    parts: Mapping[str, int] = field(default_factory=dict)  # component -> weights bytes
    advice: tuple[Advice, ...] = ()
    #: what a ggml engine does on this card
    layers: LayerSplit | None = None
    buffers: tuple[Buffer, ...] = ()
    context: int | None = None  # tokens
    #: each of several cards; need and budget above are those of the one that decides
    cards: tuple[CardShare, ...] = ()
    asked: Asked = NOT_ASKED

    @property
    def headroom_bytes(self) -> int:
        """Budget less expected need; negative where it does not fit."""
        return self.budget_bytes - self.need.expected_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow:
    """One verdict of a sweep, or the problem that there is none.

    `settings` are complete. `kind`, `need`, `budget_bytes` and the rest are None with a `problem`.
    """

    pipeline: str
    settings: Settings
    card: str
    judged_as: str | None = None
    kind: VerdictKind | None = None
    need: Band | None = None
    budget_bytes: int | None = None
    offload_risk: float | None = None
    peak_phase: str | None = None
    peak_component: str | None = None
    layers: LayerSplit | None = None
    context: int | None = None  # tokens that a ggml engine makes room for
    advice: tuple[Advice, ...] | None = None  # None where it was not asked for
    problem: str | None = None

    @property
    def headroom_bytes(self) -> int | None:
        """Budget less expected need; negative where it does not fit."""
        if self.need is None or self.budget_bytes is None:
            return None
        return self.budget_bytes - self.need.expected_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """Which values a pipeline accepts for one setting."""

    choices: tuple[str, ...] = ()
    multiple_of: int | None = None
    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentSpec:
    """A component as the catalogue describes it: enough to build its class with no weights."""

    name: str
    class_path: str  # diffusers.X, transformers.X or torch.nn.X; nothing else is ever imported
    config: Mapping[str, object]
    parameters: int | None = None  # as its authors' files have them, where somebody counted
    tape: str | None = None  # the catalogue's tape of this component alone, where there is one
    dtype: str | None = None  # its own, whatever the setting says; None for the setting's


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """Something that can be deployed, and with which settings.

    What it is made from belongs to the engine that runs it, each of which has a type of its own.
    `defaults` has every setting the pipeline knows; a setting that is not there is refused.
    """

    name: str
    title: str
    summary: str
    runtime: str  # diffusers | transformers | torch | llama.cpp | ollama
    defaults: Settings
    constraints: Mapping[str, Constraint]
    source: str
    path: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A pipeline at the settings it is to be judged at.

    `target` is how it was asked for, without settings, and `name` what a project calls it; either
    may be empty.
    """

    pipeline: Pipeline
    settings: Settings
    target: str = ""
    name: str = ""

    def changed(self, settings: Settings) -> Job:
        """Return the job with `settings` over its own."""
        return Job(
            pipeline=self.pipeline,
            settings={**self.settings, **settings},
            target=self.target,
            name=self.name,
        )

    @property
    def asked(self) -> Asked:
        """Return what was asked, as it is shown beside the answer."""
        defaults = self.pipeline.defaults
        return Asked(
            target=self.target or self.pipeline.name,
            name=self.name,
            settings={k: v for k, v in self.settings.items() if v != defaults.get(k)},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What an engine does with a job on a card: its budget there, the verdict and the reason.

    `is_split` where the runtime itself keeps a part of the model in system memory: that is certain,
    whatever the need. `layers` is how it splits, where that is not the estimate's own. `cards` are
    several cards, each judged by itself; `one_budget_bytes` is what the one of them offers that the
    job runs on, where it runs on one.
    """

    estimate: Estimate
    kind: VerdictKind
    reason: str
    is_split: bool = False
    layers: LayerSplit | None = None
    cards: tuple[CardShare, ...] = ()
    one_budget_bytes: int | None = None
