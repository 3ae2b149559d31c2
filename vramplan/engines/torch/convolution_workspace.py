"""cuDNN's workspace: the scratch of one convolution at a time, taken from torch's allocator.

In training the sums of gradients take scratch in the same way (`reduction_workspace`).

It depends on the GPU's architecture and on the layer. cuDNN's tensor-core convolutions work on NHWC
data, torch's tensors are NCHW by default, so most take copies of what they read and write. For the
catalogue's layers, from compute capability 7.5 on, cuDNN was asked itself (`witnessed_plans`); for
all others a share of the operands is assumed, which published runs bear out
(`profiles/published.yaml`). What is taken is called witnessed only where it was asked about every
layer that can decide it, at the size that it has; the nearest size's answer is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

from vramplan.budget.learned import learned
from vramplan.catalog.shipped import profiles_dir
from vramplan.dtypes import ELEMENT_BYTES
from vramplan.engines.torch.attention_kernel import parse_capability
from vramplan.engines.torch.peak import RunAtPeak
from vramplan.engines.torch.reduction_workspace import INNER, OUTER, reduction_bytes
from vramplan.engines.torch.tape.conditions import Percents
from vramplan.engines.torch.tape.convolution import Convolution, read_kind
from vramplan.engines.torch.tape.plans import ComparedModel
from vramplan.engines.torch.witnessed_files import CAPABILITIES, NEAREST, checksum, versions_of
from vramplan.model import GPU, Band, Line, LineKind, Origin
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.engines.torch.witnessed_plans import Plans

#: what cuDNN 9.10's fp32 plan takes on 6.0 for a kernel of 3: the filter transformed to 5 by 5 in
#: fp32, so 25/9 of its elements at twice the bytes of fp16's. Its own answers without a device:
#: 26,216,448 B for 512 channels, 3,277,312 from 256 to 128, four bytes a channel included
_PASCAL_FILTER_PERCENT = 556

#: how far above copies the high figure goes. Assumed: no convolution has been measured here yet;
#: on an RTX 3060 SDXL was seen with 150 MiB more than by these plans (vladmandic/sdnext#3416)
_HIGH_PERCENT = 125


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionScratch:
    """Copies of a convolution's operands that cuDNN keeps while it runs, in per cent of them.

    At most they are `high_percent` of all three, and `high_filter_percent` of the filter besides.
    """

    input_percent: int
    output_percent: int
    filter_percent: int
    high_percent: int
    source: str
    high_filter_percent: int = 0
    origin: Origin = Origin.ASSUMED

    @property
    def percents(self) -> tuple[int, int, int, int, int]:
        """The figures: input, output, filter; all of them at most, and what the filter adds."""
        expected = self.input_percent, self.output_percent, self.filter_percent
        return *expected, self.high_percent, self.high_filter_percent

    @property
    def expected(self) -> Percents:
        """What is expected of one convolution."""
        return Percents(
            input_percent=self.input_percent,
            output_percent=self.output_percent,
            filter_percent=self.filter_percent,
        )

    @property
    def high(self) -> Percents:
        """The most it is likely to be."""
        return Percents(
            input_percent=self.high_percent,
            output_percent=self.high_percent,
            filter_percent=self.high_percent + self.high_filter_percent,
        )


#: the low figure: a plan that needs no copies
NO_SCRATCH = Percents(input_percent=0, output_percent=0, filter_percent=0)


def convolution_scratch(compute_capability: str, element_bytes: int) -> ConvolutionScratch:
    """Return the scratch model for an architecture and an element size."""
    known = learned().scratches.get((compute_capability, element_bytes))
    if known is not None:
        return ConvolutionScratch(
            input_percent=known.input_percent,
            output_percent=known.output_percent,
            filter_percent=known.filter_percent,
            high_percent=known.high_percent,
            source=known.source,
            origin=Origin.MEASURED,
        )
    major, minor = parse_capability(compute_capability)
    if (major, minor) == (7, 5) and element_bytes == 2:
        return ConvolutionScratch(
            input_percent=100,
            output_percent=100,
            filter_percent=100,
            high_percent=_HIGH_PERCENT,
            source=(
                "copies of input, filter and output, as cuDNN 9.24 plans for a T4 that is not "
                "there; SD 1.5 then allocates there what torch 2.14.1 does, to the MiB"
            ),
            origin=Origin.WITNESSED,
        )
    if major >= 8:
        if element_bytes == 2:
            return ConvolutionScratch(
                input_percent=100,
                output_percent=100,
                filter_percent=100,
                high_percent=_HIGH_PERCENT,
                source=(
                    "inferred: NHWC copies of input, output and filter; the peak then agrees with "
                    "published figures (A100, A10G, RTX 4090) within 0.3 %; to be measured per "
                    "convolution"
                ),
            )
        return ConvolutionScratch(
            input_percent=100,
            output_percent=0,
            filter_percent=100,
            high_percent=_HIGH_PERCENT,
            source=(
                "inferred: NHWC copies of input and filter for TF32; the peak then agrees with "
                "published figures (A100, RTX 4090) within 0.3 %; to be measured per convolution"
            ),
        )
    if major == 7 and element_bytes == 2:
        return ConvolutionScratch(
            input_percent=50,
            output_percent=50,
            filter_percent=100,
            high_percent=100,
            source=(
                "assumed: half of what 8.x takes; SD 1.4 on a 15.8 GiB GPU (4.35 GiB at batch 4) "
                "shows less scratch an image than an A100 or A10G; to be measured"
            ),
        )
    if element_bytes == 2:
        return ConvolutionScratch(
            input_percent=0,
            output_percent=0,
            filter_percent=0,
            high_percent=200,
            high_filter_percent=_PASCAL_FILTER_PERCENT,
            source=(
                "assumed: from nothing up to the first plan of cuDNN 9.10 for compute capability "
                "6.0, asked without a device: two copies of input, filter and output, in fp32, and "
                "what the fp32 plan takes for its transformed filter; which plan runs is not known"
            ),
        )
    return ConvolutionScratch(
        input_percent=0,
        output_percent=0,
        filter_percent=0,
        high_percent=100,
        source="assumed: kernels without tensor cores read NCHW directly; high is both copies",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessedScratch(ComparedModel):
    """cuDNN's own plans where its layer was asked about, and a share of the operands elsewhere."""

    capability: str
    dtype: str
    otherwise: Percents
    multiprocessors: int | None = None

    @property
    def known(self) -> Plans:
        """What was witnessed on the architecture."""
        from vramplan.engines.torch.witnessed_plans import read_plans  # a known result needs none

        return read_plans(profiles_dir(), self.capability)

    @property
    def is_own(self) -> bool:
        """Whether cuDNN has no convolutions for the dtype, and torch works them out itself."""
        return (self.capability, self.dtype) == ("7.5", "bf16")

    def plans(self, kind: str, operands: tuple[int, ...]) -> tuple[int, ...]:
        """Return the workspaces in the order in which torch tries them, in bytes.

        Of a layer that cuDNN was not asked about the last takes nothing, as of every one that it
        was asked about.
        """
        found = _witnessed(self.capability, self.dtype, kind, operands)
        if found is not None:
            return found
        if kind in (OUTER, INNER):
            return (reduction_bytes(kind, operands, self.capability, self.multiprocessors),)
        layer = read_kind(kind)
        if layer is None:
            return (self.otherwise(kind, operands), 0)
        if self.is_own:
            return (_own_kernel_bytes(layer, operands),)
        if not layer.is_channels_last:
            return (self.otherwise(kind, operands), 0)
        # copies are what lays data out as kernels want it: tensor cores have it so already, the
        # others want the layout that they take no copies for
        return (0,) if self.otherwise.input_percent else (_WHOLE(kind, operands), 0)

    def is_known(self, kind: str, operands: tuple[int, ...]) -> bool:
        """Return whether cuDNN was asked about this layer at this size.

        A gradient's sum is torch's own, by its own rule.
        """
        return kind in (OUTER, INNER) or _is_asked(self.capability, self.dtype, kind, operands)


def _own_kernel_bytes(layer: Convolution, operands: tuple[int, ...]) -> int:
    """Return what torch's own convolution takes, where cuDNN has none for the dtype.

    The columns of one image, unless a layer looks at single pixels; and its input copied, where
    channels are innermost. ATen/native/cuda/ConvolutionMM2d.cu, slow_conv2d_forward.
    """
    sides = operands[4:]
    copied = operands[0] if layer.is_channels_last else 0
    is_plain = set(layer.kernel) | set(layer.stride) == {1} and not any(layer.padding)
    if is_plain or len(sides) != len(layer.kernel):
        return copied
    column = layer.in_channels // layer.groups * math.prod(layer.kernel)
    return copied + column * math.prod(layer.output_sides(sides)) * ELEMENT_BYTES["bf16"]


@lru_cache(maxsize=8192)  # the most scratch is asked for beside what is expected
def _witnessed(
    capability: str, dtype: str, kind: str, operands: tuple[int, ...]
) -> tuple[int, ...] | None:
    from vramplan.engines.torch.witnessed_plans import read_plans  # a known result needs none

    return read_plans(profiles_dir(), capability).sizes(dtype, kind, operands)


@lru_cache(maxsize=8192)
def _is_asked(capability: str, dtype: str, kind: str, operands: tuple[int, ...]) -> bool:
    from vramplan.engines.torch.witnessed_plans import read_asked, read_plans  # see above

    has_answer = kind in read_plans(profiles_dir(), capability).layers.get(dtype, {})
    return has_answer and read_asked(profiles_dir()).has(kind, operands)


@dataclass(frozen=True, slots=True, kw_only=True)
class MostScratch(ComparedModel):
    """The most that is likely: a quarter more than copies of all operands, or the first plan's.

    Another version of cuDNN may put another plan first; all but a few of them take no more.
    """

    witnessed: WitnessedScratch

    def plans(self, kind: str, operands: tuple[int, ...]) -> tuple[int, ...]:
        """Return the one plan's workspace in bytes."""
        return (max(self.witnessed(kind, operands), _COPIES(kind, operands)),)


@dataclass(frozen=True, slots=True, kw_only=True)
class OthersAt(ComparedModel):
    """cuDNN's own plans where it was asked, and for what it was not nothing, or the most.

    What a run takes is known where both say the same of it.
    """

    witnessed: WitnessedScratch
    is_most: bool

    def plans(self, kind: str, operands: tuple[int, ...]) -> tuple[int, ...]:
        """Return the workspaces in the order in which torch tries them, in bytes."""
        if self.witnessed.is_known(kind, operands):
            return self.witnessed.plans(kind, operands)
        return MostScratch(witnessed=self.witnessed).plans(kind, operands) if self.is_most else (0,)


_COPIES = Percents(
    input_percent=_HIGH_PERCENT, output_percent=_HIGH_PERCENT, filter_percent=_HIGH_PERCENT
)

_WHOLE = Percents(input_percent=100, output_percent=100, filter_percent=100)

#: the dtypes that cuDNN was asked about, by element size, where a component is cast
_CAST_DTYPES = {2: "fp16", 4: "fp32"}


def witnessed_scratch(
    compute_capability: str, element_bytes: int, dtype: str, multiprocessors: int | None = None
) -> WitnessedScratch | None:
    """Return cuDNN's own plans for an architecture and a dtype of `element_bytes` an element.

    `dtype` is the job's: a component that was cast to another size has another. None where cuDNN
    was not asked, or where a GPU was measured.
    """
    nearest = NEAREST.get(compute_capability, compute_capability)
    if nearest not in CAPABILITIES or element_bytes not in _CAST_DTYPES:
        return None
    if (compute_capability, element_bytes) in learned().scratches:
        return None
    is_own = ELEMENT_BYTES.get(dtype) == element_bytes
    return WitnessedScratch(
        capability=nearest,
        dtype=dtype if is_own else _CAST_DTYPES[element_bytes],
        otherwise=convolution_scratch(nearest, element_bytes).expected,
        multiprocessors=multiprocessors,
    )


def scratch_key(compute_capability: str, element_bytes: int, dtype: str) -> str:
    """Return what tells one model of scratch from every other, in a word."""
    witnessed = witnessed_scratch(compute_capability, element_bytes, dtype)
    if witnessed is not None:
        told = checksum(profiles_dir(), witnessed.capability)
        return f"{witnessed.capability}:{witnessed.dtype}:{told:08x}"
    return "/".join(map(str, convolution_scratch(compute_capability, element_bytes).percents))


def _origin(
    compute_capability: str, element_bytes: int, dtype: str, *, is_asked: bool
) -> tuple[Origin, str]:
    """Return where the figures come from, and in words."""
    witnessed = witnessed_scratch(compute_capability, element_bytes, dtype)
    if witnessed is None:
        scratch = convolution_scratch(compute_capability, element_bytes)
        return scratch.origin, scratch.source
    versions = versions_of(profiles_dir(), witnessed.capability)
    said = (
        f"cuDNN {versions['cudnn']}'s own plans for {witnessed.dtype} on compute capability "
        f"{witnessed.capability}, as torch {versions['torch']} asked for them on a card that is "
        "not there; high: a quarter more than copies of all operands"
    )
    if witnessed.capability != compute_capability:
        return Origin.ASSUMED, f"assumed to be as on {witnessed.capability}: {said}"
    if not is_asked:
        return Origin.ASSUMED, f"assumed where a layer is of another size than was asked: {said}"
    return Origin.WITNESSED, said


def convolution_lines(run: RunAtPeak) -> Iterator[Line]:
    """Yield what convolutions take at the peak above the least that is live; nothing where none."""
    floor, most = run.floor_bytes, run.most_bytes
    if most <= floor:
        return
    dtype = str(run.settings.get("dtype", "fp32"))
    origin, source = _origin(
        run.compute_capability, run.peak_element_bytes, dtype, is_asked=run.result.is_asked
    )
    name = "convolution workspace"
    if run.settings.get("mode") == "train":
        name = "convolution and sum workspace"
        source += "; sums over a batch by torch's own rule, which goes by the card's threads"
    yield Line(
        kind=LineKind.WORKSPACE,
        device=GPU,
        name=name,
        phase=run.mark.phase,
        component=run.mark.component,
        band=Band(
            low_bytes=0,
            expected_bytes=run.result.expected.allocated_peak_bytes - floor,
            high_bytes=most - floor,
        ),
        origin=origin,
        source=source,
    )
