"""The frozen dataclasses that every layer speaks. All sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

#: a setting's value after parsing: ``image`` is (width, height), switches are 'on' or 'off'
SettingValue = str | int | float | tuple[int, int]
Settings = Mapping[str, SettingValue]


class Origin(StrEnum):
    """Where a figure comes from, from the firmest to the weakest."""

    EXACT = "exact"  # counted from shapes
    REPLAYED = "replayed"  # a tape through the allocator model
    MEASURED = "measured"  # a run on a GPU, named in `source`
    PUBLISHED = "published"  # somebody else's figure or source code, named in `source`
    ASSUMED = "assumed"  # `source` says why


class VerdictKind(StrEnum):
    """Whether a pipeline fits a card; ordered from best to worst."""

    FITS = "fits"  # even the high estimate is within the budget
    TIGHT = "tight"  # the expected need is within the budget, the high one is not
    OFFLOAD = "offload"  # it will run, but partly from system memory
    OOM = "oom"  # it will fail

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One line of a budget: a named need for device memory, with its band and its origin.

    `phase` is None for what every phase has (weights, CUDA context); `component` is None for what
    belongs to the process as a whole.
    """

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


@dataclass(frozen=True, slots=True, kw_only=True)
class GgmlBuffers:
    """The buffers a ggml engine allocates; the names without `host_` are on the GPU."""

    model_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    host_model_bytes: int
    host_kv_cache_bytes: int
    host_compute_bytes: int
    projector_bytes: int
    projector_compute_bytes: int
    pool_bytes: int
    recurrent_state_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSplit:
    """How many of a model's layers (the output layer counts as one) are on the GPU.

    Of `experts_on_cpu` of those the experts are in host memory, all of them or some.
    """

    total: int
    on_gpu: int
    experts_on_cpu: int = 0

    @property
    def is_whole(self) -> bool:
        """Return whether everything that belongs to a layer is on the GPU."""
        return self.on_gpu == self.total and not self.experts_on_cpu

    def in_words(self) -> str:
        """Return ``29 of 33 layers on the GPU``, and where the experts are not with them."""
        experts = (
            f", the experts of {self.experts_on_cpu} on the CPU" if self.experts_on_cpu else ""
        )
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
class Estimate:
    """A pipeline's budget at one set of settings on one compute capability."""

    pipeline: str
    title: str
    runtime: str
    settings: Settings
    compute_capability: str
    components: tuple[Component, ...]
    phases: tuple[PhaseUse, ...]
    terms: tuple[Term, ...]
    peak: Peak
    need: Need
    timeline: tuple[TimelinePoint, ...] = ()
    buffers: GgmlBuffers | None = None
    layers: LayerSplit | None = None
    published: tuple[PublishedFigure, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """An NVIDIA card, or a share of one.

    `total_bytes` and `reserved_bytes` are what NVML reports (`reserved_bytes` is system reserved);
    `class_gib` is the number on the box. `free_bytes` is known only for this machine's own GPUs.
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
    buffers: GgmlBuffers | None = None
    context: int | None = None  # tokens

    @property
    def headroom_bytes(self) -> int:
        """Budget less expected need; negative where it does not fit."""
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
    """A pipeline at the settings it is to be judged at."""

    pipeline: Pipeline
    settings: Settings

    def changed(self, settings: Settings) -> Job:
        """Return the job with `settings` over its own."""
        return Job(pipeline=self.pipeline, settings={**self.settings, **settings})


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What an engine does with a job on a card: its budget there, the verdict and the reason."""

    estimate: Estimate
    kind: VerdictKind
    reason: str
