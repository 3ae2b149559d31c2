"""cuDNN's workspace: the scratch of one convolution at a time, taken from torch's allocator.

It depends on the GPU's architecture. cuDNN's tensor-core convolutions work on NHWC data, torch's
tensors are NCHW by default, so a convolution takes copies of its input, its output and its filter.
That was inferred from published runs, not measured layer by layer. With it the replay allocates
above the weights of SD 1.5's VAE what InvokeAI measured on an RTX 4090, to 0.2 MiB for decoding in
fp16 and fp32 (there without the output's copy) and to the image's own size for encoding; what its
decoder reserves in fp16 is within 0.4 %; and the peaks of SD 1.5 and SDXL are within 0.2 % of what
diffusers' benchmarks measured on an A100 and an A10G (`profiles/published.yaml`).
"""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.budget.learned import learned
from vramplan.engines.torch.attention_kernel import parse_capability
from vramplan.engines.torch.peak import RunAtPeak
from vramplan.engines.torch.tape.conditions import Percents
from vramplan.model import GPU, Band, Line, LineKind, Origin
from vramplan.quick_dataclass import dataclass

#: what cuDNN 9.10's fp32 plan takes on 6.0 for a kernel of 3: the filter transformed to 5 by 5 in
#: fp32, so 25/9 of its elements at twice the bytes of fp16's. Its own answers without a device:
#: 26,216,448 B for 512 channels, 3,277,312 from 256 to 128, four bytes a channel included
_PASCAL_FILTER_PERCENT = 556

#: how far above the model the high figure goes. Assumed: no convolution has been measured here yet
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


def convolution_lines(run: RunAtPeak) -> Iterator[Line]:
    """Yield what convolutions take at the peak above the least that is live; nothing where none."""
    floor, most = run.floor_bytes, run.most_bytes
    if most <= floor:
        return
    scratch = convolution_scratch(run.compute_capability, run.peak_element_bytes)
    yield Line(
        kind=LineKind.WORKSPACE,
        device=GPU,
        name="convolution workspace",
        phase=run.mark.phase,
        component=run.mark.component,
        band=Band(
            low_bytes=0,
            expected_bytes=run.result.expected.allocated_peak_bytes - floor,
            high_bytes=most - floor,
        ),
        origin=scratch.origin,
        source=scratch.source,
    )
