"""A model without a tape: its weights are counted, and what it works with is assumed, in a band.

The band knows no class. Seven things are looked for in configs and tensors, and the largest
decides:

- any component: 1.5 to 20 % of the largest one's weights live as activations: up to 20 % for each
  of a batch; low and expected by the batch's root, for a large one is seldom of large inputs;
- a decoder of images, by its last convolution: at the full resolution, with its channels there,
  5 to 14 tensors live at once (the replayed decoders of SD 1.5 and SDXL need 6.6 to 12.7 at
  512 to 2048 pixels, in fp16 and fp32); a decoder of video up to 160, for its frames; before 8.0,
  where cuDNN's plans in bf16 take whole copies in fp32, up to 32 (the replayed decoders of FLUX.1,
  FLUX.2 and Sana need 29 to 32 on 7.5), or what attention without a fused kernel takes. Those that
  decode all frames of a video at once need up to 9 tensors for each (SVD), 2 to 5 in parts; what
  decodes an image as a video of one frame 21 (Qwen-Image);
- a denoiser, where no fused kernel takes its dtype (bf16 before 8.0): the scores of its attention,
  of a token for 16 by 16 pixels and 4 frames, in up to 130 heads. The replayed ones keep as many as
  14 (Wan 2.1 1.3B) to 125 (Qwen-Image-Edit, whose tokens are twice as many) would; those that see
  smaller latents fewer (LTX, Wan 2.2 5B: less than 2), and linear attention none (Sana);
- a decoder of sound, by its config: channels at the full rate, of which 3 to 12 tensors live at
  once (Stable Audio's replay keeps five, and its convolutions take two more);
- a language model, by its config: its KV cache, and what a token takes in the widest layer;
- an encoder of text, by the same: what a token takes, and nothing else;
- a model that sees, by the same: its vision tower's patches, its image's tokens in the prompt, and
  where no fused kernel is, the scores of its attention. These two tell all of it.

Where the catalogue has a tape of the autoencoder alone, that one tells what decoding takes.

`tests/accuracy/test_counted_models.py` holds the band to the replays of every catalogued pipeline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isqrt

from vramplan.budget.cuda_context import context_band, context_line
from vramplan.dtypes import ELEMENT_BYTES
from vramplan.engines.torch.attention_kernel import attention_kernel, parse_capability
from vramplan.engines.torch.changed_weights import (
    are_changed,
    beside,
    changes_at,
    counted_at,
    how_sure,
    is_grouped,
)
from vramplan.engines.torch.counted_model import CountedModel, CountedPart, Encoder, Language
from vramplan.engines.torch.cublas_workspace import cublas_line
from vramplan.engines.torch.diffusers_offload import DENOISERS, stays_on_device
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.sight import LOOKED_AT
from vramplan.model import (
    GPU,
    Band,
    Card,
    Component,
    Estimate,
    Line,
    LineKind,
    Need,
    Origin,
    Peak,
    PhaseUse,
    Settings,
)
from vramplan.units import MIB

#: in thousandths: low, expected, high
_Rule = tuple[int, int, int]
#: of the largest component's weights, for each of a batch
_ANY: _Rule = (15, 60, 200)
#: of one tensor at full resolution; in bf16 before 8.0
_IMAGES: _Rule = (5_000, 10_000, 14_000)
_IMAGES_IN_COPIES: _Rule = (5_000, 20_000, 32_000)
_VIDEO: _Rule = (5_000, 40_000, 160_000)
_ONE_FRAME: _Rule = (5_000, 20_000, 40_000)
#: at most so many for each frame; in bf16 before 8.0 as many more as of images
_OF_A_FRAME = 10
#: a denoiser's scores without a fused kernel, of so large patches and so many frames: so many heads
_DENOISED: _Rule = (0, 40_000, 130_000)
_PIXELS_OF_A_PATCH, _FRAMES_OF_A_LATENT = 256, 4
#: a decoder's attention without a fused kernel: so many matrices of scores, of so large patches
_SCORES, _PIXELS_OF_A_TOKEN = 2, 64
_IN_FULL: _Rule = (0, 700, 1_250)
#: of a sound's channels at its full rate: Stable Audio's replay keeps five of them, and its
#: convolutions take two more
_SOUNDS: _Rule = (3_000, 7_000, 12_000)
#: of a token's hidden states and of the widest layer's
_TOKENS: _Rule = (300, 1_000, 2_000)
#: the same of an encoder, which ends with them: the replayed ones take 600 to 700
_ENCODED: _Rule = (300, 700, 1_300)
_CACHE: _Rule = (700, 1_000, 1_300)
#: of the scores of attention without a fused kernel, before and behind softmax
_ATTENDED: _Rule = (700, 1_000, 1_250)
#: what torch keeps beside what is live, of what is
_SLACK: _Rule = (0, 300, 1_000)
#: hidden states that are live in a layer: residual, normed, queries, keys, values, result …
_STATES = 8
#: scratch of convolutions and small blocks, whatever the model
_LEAST: tuple[int, int, int] = (8 * MIB, 64 * MIB, 256 * MIB)

_DECODING = "decode_image"

#: of an architecture that nobody recorded, and of settings beyond what its tape holds
_WHY = "no tape holds at these settings: a band that knows no class"


def estimate_counted(
    pipeline: TorchPipeline, settings: Settings, card: Card, decoded: Band | None = None
) -> Estimate:
    """Return the budget of a model without a tape on a card; only its weights are counted.

    `decoded` is what decoding takes beside weights and cuBLAS's workspace, where a tape of the
    autoencoder alone tells (`decoder_tape`).
    """
    if pipeline.counted is None:
        raise TypeError(f"{pipeline.name}: it has a tape")
    counted = pipeline.counted.on(card.compute_capability)
    model = counted_at(pipeline, counted, settings)
    whole = model
    if is_grouped(settings):
        whole = counted_at(pipeline, counted, {**settings, "offload": "none"})
    kept = stays_on_device(pipeline.run_class, str(settings.get("offload", "none")))
    # what it works with is that of the weights before they were quantised, or come in groups
    work, phase, component = _work(counted, model, settings, card.compute_capability, decoded, kept)
    work += beside(pipeline, settings, component, work.expected_bytes).band
    slack = _scaled(work.expected_bytes, _SLACK)
    weights = tuple(
        _weights(pipeline, model, _resident(model, settings, component, kept), settings)
    )
    lines = (
        *weights,
        _assumed(LineKind.ACTIVATIONS, "activations", work, phase, component, _why(decoded, phase)),
        cublas_line(card.compute_capability),
        _assumed(LineKind.ALLOCATOR_SLACK, "allocator slack", slack, None, None),
        context_line(card),
    )
    device = sum((line.band for line in lines[1:]), lines[0].band)
    held = sum(line.band.expected_bytes for line in weights)
    need = sum(
        (line.band for line in lines[1:] if line.kind is not LineKind.ALLOCATOR_SLACK),
        lines[0].band,
    )
    allocated = held + work.expected_bytes
    reserved = device.expected_bytes - context_band(card).expected_bytes
    return Estimate(
        pipeline=pipeline.name,
        title=pipeline.title,
        runtime=pipeline.runtime,
        settings=settings,
        compute_capability=card.compute_capability,
        components=tuple(_components(whole, settings, kept)),
        phases=(
            PhaseUse(
                name=phase,
                component=component,
                allocated_peak_bytes=allocated,
                reserved_peak_bytes=reserved,
                device_used_bytes=device.expected_bytes,
            ),
        ),
        lines=lines,
        peak=Peak(
            phase=phase,
            component=component,
            allocated_bytes=allocated,
            reserved_bytes=reserved,
            device=device,
        ),
        need=Need(band=need, phase=phase, component=component),
        notes=tuple(_notes(model, decoded)),
    )


def _weights(
    pipeline: TorchPipeline,
    model: CountedModel,
    resident: Sequence[CountedPart],
    settings: Settings,
) -> Iterator[Line]:
    """Yield a line for each part that is on the device at the peak."""
    dtype = str(settings["dtype"])
    found = changes_at(pipeline, settings) if are_changed(settings) else None
    for part in resident:
        is_sure = (part.dtype or dtype) == "fp32" or not part.keeps_more
        origin, source = Origin.EXACT, f"counted from {model.counted_from}"
        if found is not None and (told := how_sure(found, part.name)) is not None:
            origin, source = told
        elif not is_sure:
            source = f"counted as if all of it were in {dtype}: its class keeps some in fp32"
            origin = Origin.ASSUMED
        yield Line(
            kind=LineKind.WEIGHTS,
            device=GPU,
            name="weights",
            phase=None,
            component=part.name,
            band=Band.exactly(part.bytes_in(dtype)),
            origin=origin,
            source=source,
        )


def _resident(
    model: CountedModel, settings: Settings, component: str, kept: frozenset[str]
) -> tuple[CountedPart, ...]:
    """Return what is on the device while a component works: all, or that one and what is `kept`.

    Nobody sends a ControlNet away from beside its denoiser (diffusers, `model_cpu_offload_seq` of
    the pipelines that have one).
    """
    if settings.get("offload") not in ("model", "group"):
        return model.parts
    names = {component, *kept, *({"controlnet"} if component in DENOISERS else ())}
    return tuple(part for part in model.parts if part.name in names)


def _components(
    model: CountedModel, settings: Settings, kept: frozenset[str]
) -> Iterator[Component]:
    is_split = settings.get("offload") in ("model", "group")
    for part in model.parts:
        yield Component(
            name=part.name,
            parameters=part.parameters,
            dtype=part.quantised or part.dtype or str(settings["dtype"]),
            weights_bytes=part.bytes_in(str(settings["dtype"])),
            device="split" if is_split and part.name not in kept else "gpu",
        )


def _element_bytes(settings: Settings) -> int:
    return ELEMENT_BYTES[str(settings["dtype"])]


def _work(
    model: CountedModel,
    held_model: CountedModel,
    settings: Settings,
    compute_capability: str,
    decoded: Band | None,
    kept: frozenset[str],
) -> tuple[Band, str, str]:
    """Return what is live beside the weights at the peak, and the phase and component there.

    The peak is where weights and work together are most: with model offload that is one
    component's time on the device, with what is `kept` there. `decoded` is what decoding takes,
    where a tape tells.
    """
    dtype = str(settings["dtype"])
    held = {
        part.name: sum(
            one.bytes_in(dtype) for one in _resident(held_model, settings, part.name, kept)
        )
        for part in model.parts
    }
    least = Band(low_bytes=_LEAST[0], expected_bytes=_LEAST[1], high_bytes=_LEAST[2])
    uses = [
        (least + band, phase, part)
        for band, phase, part in _uses(model, settings, compute_capability)
        if decoded is None or phase != _DECODING
    ]
    if decoded is not None and model.decoder is not None:
        uses.append((decoded, _DECODING, model.decoder.part))
    _, phase, component = max(uses, key=lambda use: held[use[2]] + use[0].expected_bytes)
    sums = [band + Band.exactly(held[part]) for band, _, part in uses]
    most = Band(
        low_bytes=max(band.low_bytes for band in sums),
        expected_bytes=max(band.expected_bytes for band in sums),
        high_bytes=max(band.high_bytes for band in sums),
    )
    here = held[component]
    work = Band(
        low_bytes=max(0, most.low_bytes - here),
        expected_bytes=most.expected_bytes - here,
        high_bytes=most.high_bytes - here,
    )
    return work, phase, component


def _uses(
    model: CountedModel, settings: Settings, compute_capability: str
) -> Iterator[tuple[Band, str, str]]:
    """Yield what is live in each kind of work, its phase, and the component that does it."""
    size = _element_bytes(settings)
    batch = _count(settings, "batch")
    largest = model.largest
    phase = "denoise" if len(model.parts) > 1 else "generate"
    low, expected, high = _ANY
    if model.language is not None:  # which tells the least itself
        low = 0
    rule = isqrt(low * low * batch), isqrt(expected * expected * batch), high * batch
    encodes = model.encoder is not None and "prompt_tokens" in settings
    sees = model.language is not None and model.language.sight is not None
    if not encodes and (model.language is None or not sees or model.language.is_routed):
        # else each of its parts tells
        yield _scaled(largest.bytes_at(size), rule), phase, largest.name
    if model.decoder is not None:
        decoder = model.decoder
        image = settings.get("image")
        width, height = image if isinstance(image, tuple) else (0, 0)
        dtype = decoder.dtype_in(str(settings["dtype"]))
        wide = ELEMENT_BYTES[dtype]
        one = width * height * decoder.channels * wide * batch
        band = _scaled(one, _video(settings) if decoder.is_video else _IMAGES)
        if dtype == "bf16" and parse_capability(compute_capability) < (8, 0):
            copies = _IMAGES_IN_COPIES
            if decoder.is_video:
                more = _video(settings)[2] * _IMAGES_IN_COPIES[2] // _IMAGES[2]
                copies = (*_IMAGES_IN_COPIES[:2], more)
            band = _wider(band, _scaled(one, copies))
            tokens = width * height // _PIXELS_OF_A_TOKEN
            scores = _SCORES * 4 * tokens * tokens * batch  # in fp32
            band = _wider(band, _scaled(one + scores, _IN_FULL))
        yield band, _DECODING, decoder.part
    if model.sound is not None:
        yield _scaled(model.sound.elements * size * batch, _SOUNDS), _DECODING, model.sound.part
    yield from _denoised(model, settings, compute_capability)
    if model.encoder is not None and encodes:
        yield _encoded(model.encoder, settings, compute_capability), phase, model.encoder.part
    if model.language is not None:
        yield from _language_uses(model.language, settings, compute_capability)


def _video(settings: Settings) -> _Rule:
    """Return the rule of a decoder of video, which may decode all frames at once, or one image."""
    if "frames" not in settings:
        return _ONE_FRAME
    low, expected, high = _VIDEO
    return low, expected, max(high, 1000 * _OF_A_FRAME * _count(settings, "frames"))


def _denoised(
    model: CountedModel, settings: Settings, compute_capability: str
) -> Iterator[tuple[Band, str, str]]:
    """Yield what scores of attention a denoiser keeps, where no fused kernel takes its dtype."""
    image = settings.get("image")
    if not isinstance(image, tuple):
        return
    if attention_kernel(compute_capability, "auto", str(settings["dtype"])) != "math":
        return
    latents = -(-_count(settings, "frames") // _FRAMES_OF_A_LATENT)
    tokens = image[0] * image[1] // _PIXELS_OF_A_PATCH * latents
    scores = _SCORES * 4 * tokens * tokens * _count(settings, "batch")  # in fp32
    for part in model.parts:
        if part.name in DENOISERS:
            yield _scaled(scores, _DENOISED), "denoise", part.name


def _encoded(encoder: Encoder, settings: Settings, compute_capability: str) -> Band:
    """Return what is live in an encoder of text."""
    size, prompt = _element_bytes(settings), _count(settings, "prompt_tokens")
    tokens = prompt * _count(settings, "batch")
    kernel = attention_kernel(compute_capability, "auto", str(settings["dtype"]))
    scores = _SCORES * 4 if kernel == "math" else 0  # in fp32
    states = _STATES * encoder.hidden + 3 * encoder.intermediate
    return (
        _scaled(tokens * states * size, _ENCODED)
        + _scaled(encoder.cache_elements * tokens * size, _CACHE)
        + _scaled(encoder.heads * prompt * tokens * scores, _ATTENDED)
    )


def _language_uses(
    language: Language, settings: Settings, compute_capability: str
) -> Iterator[tuple[Band, str, str]]:
    """Yield what is live in a language model, and in its vision tower where it sees."""
    size, batch = _element_bytes(settings), _count(settings, "batch")
    prompt, new = _count(settings, "prompt_tokens"), _count(settings, "new_tokens")
    kernel = attention_kernel(compute_capability, "auto", str(settings["dtype"]))
    scores = _SCORES * 4 if kernel == "math" else 0  # in fp32
    begun = Band.exactly(0)
    sight = language.sight
    if sight is not None:
        image = settings.get("image")
        looked_at = image if isinstance(image, tuple) else LOOKED_AT
        images, patches = sight.images(looked_at) * batch, sight.patches(looked_at)
        states = _STATES * sight.hidden + 3 * sight.intermediate
        begun = Band.exactly(images * patches * sight.patch_elements * size)
        seen = _scaled(images * patches * states * size, _TOKENS)
        at_once = 1 if sight.looks_apart else images
        seen += _scaled(at_once * sight.heads * patches * patches * scores, _ATTENDED)
        yield begun + seen, "prefill", language.part
        prompt += sight.images(looked_at) * sight.tokens(looked_at)
    states = _STATES * language.hidden + 3 * language.intermediate
    cache = language.cache_elements * size * (prompt + new) * batch
    words = 4 * language.words * batch  # logits, in fp32
    band = (
        begun
        + _scaled(cache, _CACHE)
        + _scaled(prompt * states * size * batch, _TOKENS)
        + _scaled(language.heads * prompt * prompt * scores * batch, _ATTENDED)
        + Band(low_bytes=0, expected_bytes=2 * words, high_bytes=4 * words)
    )
    yield band, "prefill" if prompt > new else "generate", language.part


def _count(settings: Settings, key: str) -> int:
    value = settings.get(key, 1)
    return value if isinstance(value, int) else 1


def _scaled(size: int, rule: _Rule) -> Band:
    low, expected, high = (size * part // 1000 for part in rule)
    return Band(low_bytes=low, expected_bytes=expected, high_bytes=high)


def _wider(one: Band, other: Band) -> Band:
    """Return a band with the higher of two ends, and what is expected, of another."""
    return Band(
        low_bytes=one.low_bytes,
        expected_bytes=max(one.expected_bytes, other.expected_bytes),
        high_bytes=max(one.high_bytes, other.high_bytes),
    )


def _assumed(
    kind: LineKind,
    name: str,
    band: Band,
    phase: str | None,
    component: str | None,
    why: str = _WHY,
) -> Line:
    return Line(
        kind=kind,
        device=GPU,
        name=name,
        phase=phase,
        component=component,
        band=band,
        origin=Origin.ASSUMED,
        source=why,
    )


def _why(decoded: Band | None, phase: str) -> str:
    if decoded is None or phase != _DECODING:
        return _WHY
    return "the tape of the autoencoder alone, and for the rest a band that knows no class"


def _notes(model: CountedModel, decoded: Band | None) -> Iterator[str]:
    yield f"weights are counted; activations and slack are assumed: {_WHY}"
    if model.sound is not None and model.sound.seconds is not None:
        yield f"counted with a sound of {model.sound.seconds} seconds, as its call makes by default"
    elif model.sound is not None:
        yield "it decodes all of the sound that its denoiser makes, however little is kept of it"
    if model.decoder is None:
        return
    if decoded is not None:
        yield f"what decoding takes is told by the tape of its autoencoder, {model.decoder.tape}"
    elif model.decoder.is_video:
        yield "it decodes video: at once a few frames, or at most all of them"
