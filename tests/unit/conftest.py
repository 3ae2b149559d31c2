"""Sample estimates, verdicts and cards for the report's tests.

Parameter counts and ggml buffers are real ones; activations, slack and needs have the size of real
ones and are made up, because a report must not depend on today's estimate.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from vramplan.engines.ggml.open import open_model
from vramplan.model import (
    GPU,
    HOST,
    LANGUAGE_MODEL,
    PROJECTOR,
    Advice,
    Band,
    Buffer,
    Card,
    Component,
    Estimate,
    LayerSplit,
    Line,
    LineKind,
    Need,
    Origin,
    Peak,
    PhaseUse,
    Pipeline,
    PublishedFigure,
    TimelinePoint,
    Verdict,
    VerdictKind,
)
from vramplan.units import GIB, MIB

_PARTS = {
    "text_encoder": 123_060_480,
    "unet": 859_520_964,
    "vae.encoder": 34_163_664,
    "vae.decoder": 49_490_199,
    "safety_checker": 303_981_588,
}


@dataclass(frozen=True)
class Samples:
    sd15: Estimate
    llava: Estimate
    verdicts: tuple[Verdict, ...]
    cards: tuple[Card, ...]
    pipelines: tuple[Pipeline, ...]

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        return (self.sd15, self.llava)


@pytest.fixture(scope="session")
def sparse() -> ModuleType:
    """What writes GGUF files whose data is a hole."""
    pytest.importorskip("gguf")
    path = Path(__file__).parents[1] / "sparse_gguf.py"
    spec = importlib.util.spec_from_file_location("sparse_gguf", path)
    assert spec is not None
    assert spec.loader is not None
    if "sparse_gguf" not in sys.modules:
        sys.modules["sparse_gguf"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["sparse_gguf"])
    return sys.modules["sparse_gguf"]


@pytest.fixture(scope="session")
def mixture(sparse: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Eight layers of Qwen3 30B-A3B: 128 experts of 2048 x 768 in q4_0."""
    model = sparse.language_model(
        "qwen3moe", layers=8, embedding=2048, feed_forward=6144, kv_heads=4
    )
    model.meta |= {
        "expert_count": 128,
        "expert_used_count": 8,
        "expert_feed_forward_length": 768,
    }
    sparse.dense_layers(model, "qk norm", "experts")
    return open_model(str(sparse.write(tmp_path_factory.mktemp("moe") / "moe.gguf", model)), None)


@pytest.fixture(scope="session")
def samples() -> Samples:
    return Samples(
        sd15=_sd15(), llava=_llava(), verdicts=_verdicts(), cards=_cards(), pipelines=_pipelines()
    )


def _band(low: float, expected: float, high: float) -> Band:
    return Band(
        low_bytes=int(low * MIB), expected_bytes=int(expected * MIB), high_bytes=int(high * MIB)
    )


_KINDS = {
    "weights": LineKind.WEIGHTS,
    "model buffer": LineKind.WEIGHTS,
    "projector": LineKind.WEIGHTS,
    "activations": LineKind.ACTIVATIONS,
    "workspace": LineKind.WORKSPACE,
    "allocator slack": LineKind.ALLOCATOR_SLACK,
    "KV cache": LineKind.KV_CACHE,
    "compute buffer": LineKind.COMPUTE_BUFFER,
    "projector compute": LineKind.PROJECTOR_COMPUTE,
    "CUDA context": LineKind.CUDA_CONTEXT,
}


def _line(
    name: str, phase: str | None, component: str | None, band: Band, origin: Origin, source: str
) -> Line:
    return Line(
        kind=_KINDS[name], device=GPU, name=name, phase=phase, component=component, band=band,
        origin=origin, source=source,
    )  # fmt: skip


_COUNTED = "counted from the component's config"
_TAPE = "tape sd15, diffusers 0.42.1, torch 2.13.0"
_CONTEXT = "reports range from 250 to 616 MiB; not yet measured on this card"


def _sd15() -> Estimate:
    components = tuple(
        Component(name=name, parameters=count, dtype="fp16", weights_bytes=2 * count, device="gpu")
        for name, count in _PARTS.items()
    )
    weights = sum(component.weights_bytes for component in components)
    lines = [
        _line("weights", None, part.name, Band.exactly(part.weights_bytes), Origin.EXACT, _COUNTED)
        for part in components
    ]
    lines += [
        _line(
            "activations", "denoise", "unet", _band(190, 201.5, 220), Origin.REPLAYED, _TAPE
        ),
        _line(
            "activations", "decode_image", "vae.decoder", _band(352, 352, 352), Origin.REPLAYED,
            _TAPE,
        ),
        _line(
            "workspace", "decode_image", "vae.decoder", _band(160, 256, 320), Origin.ASSUMED,
            "an NHWC copy of a convolution's input and output; see pytorch#95668",
        ),
        _line(
            "allocator slack", "decode_image", None, _band(380, 440, 520), Origin.REPLAYED, _TAPE
        ),
        _line("CUDA context", None, None, _band(250, 450, 616), Origin.ASSUMED, _CONTEXT),
    ]  # fmt: skip
    allocated = weights + 608 * MIB
    reserved = allocated + 440 * MIB
    device = Band(
        low_bytes=weights + 1142 * MIB,
        expected_bytes=reserved + 450 * MIB,
        high_bytes=weights + 1808 * MIB,
    )
    return Estimate(
        pipeline="sd15",
        title="Stable Diffusion 1.5, text to image",
        runtime="diffusers",
        settings={
            "image": (512, 512), "batch": 1, "dtype": "fp16", "steps": 20, "guidance": 7.5,
            "attention": "sdpa", "offload": "none", "vae_tiling": "off",
        },
        compute_capability="8.6",
        components=components,
        phases=_phases(weights, allocated, reserved),
        lines=tuple(lines),
        peak=Peak(
            phase="decode_image", component="vae.decoder", allocated_bytes=allocated,
            reserved_bytes=reserved, device=device,
        ),
        need=Need(
            band=Band(
                low_bytes=weights + 800 * MIB,
                expected_bytes=weights + 1090 * MIB,
                high_bytes=weights + 1370 * MIB,
            ),
            phase="decode_image",
            component="vae.decoder",
        ),
        timeline=tuple(_timeline(components)),
        published=(
            PublishedFigure(
                claim="VAE encoder and decoder take ~300 MB VRAM at fp16",
                what="weights of the VAE",
                published_bytes=300 * 10**6,
                ours_bytes=167_307_726,
                source="the article that started this project",
                remark="the figure holds for fp32",
            ),
            PublishedFigure(
                claim="3.18 GiB at fp16 with safety checker, A10G",
                what="max_memory_allocated",
                published_bytes=int(3.18 * GIB),
                ours_bytes=allocated,
                source="https://github.com/huggingface/diffusers/tree/main/benchmarks",
                remark=None,
            ),
        ),
        notes=(
            "compute capability 8.6 is assumed: no card was named",
            "the first run may need more: kernels are loaded and plans are tried once",
        ),
    )  # fmt: skip


def _phases(weights: int, allocated: int, reserved: int) -> tuple[PhaseUse, ...]:
    rows = (
        ("load", "unet", weights, weights + 40 * MIB),
        ("encode_prompt", "text_encoder", weights + 24 * MIB, weights + 60 * MIB),
        ("denoise", "unet", weights + 201 * MIB, weights + 420 * MIB),
        ("decode_image", "vae.decoder", allocated, reserved),
        ("decode_image", "safety_checker", weights + 30 * MIB, reserved),
    )
    return tuple(
        PhaseUse(
            name=name, component=component, allocated_peak_bytes=live, reserved_peak_bytes=held,
            device_used_bytes=held + 450 * MIB,
        )
        for name, component, live, held in rows
    )  # fmt: skip


def _timeline(components: tuple[Component, ...]) -> list[TimelinePoint]:
    points: list[TimelinePoint] = []
    live = held = 0

    def step(phase: str, component: str, change: int) -> None:
        nonlocal live, held
        live += change
        held = max(held, -(-live // (20 * MIB)) * 20 * MIB)
        points.append(
            TimelinePoint(
                phase=phase, component=component, allocated_bytes=live, reserved_bytes=held
            )
        )

    for component in components:
        for _ in range(20):
            step("load", component.name, component.weights_bytes // 20)
    for size in (4, 8, 12, -8, -4, -11):
        step("encode_prompt", "text_encoder", size * MIB)
    for _ in range(20):
        for size in (40, 80, 60, 20, -60, -30, -50, -60):
            step("denoise", "unet", size * MIB)
    for size in (32, 64, 128, -64, 256, 128, 64, -128, -64, -200, -150, -40, -25):
        step("decode_image", "vae.decoder", size * MIB)
    for size in (10, 20, -12, -18):
        step("decode_image", "safety_checker", size * MIB)
    return points


def _buffer(line: Line) -> Buffer:
    return Buffer(
        kind=line.kind, device=line.device, size_bytes=line.band.expected_bytes,
        component=LANGUAGE_MODEL if line.component == LANGUAGE_MODEL else PROJECTOR,
    )  # fmt: skip


def _llava() -> Estimate:
    mistral, vision = "language_model", "vision_encoder"
    log = "ollama#2706, a log of llava:7b"
    lines = (
        _line("model buffer", None, mistral, _band(3917.87, 3917.87, 3917.87), Origin.EXACT,
              "the GGUF header"),
        _line("projector", None, vision, _band(595.49, 595.49, 595.49), Origin.EXACT,
              "the GGUF header"),
        _line("KV cache", None, mistral, _band(256, 256, 256), Origin.EXACT,
              "2 x layers x KV heads x head size x context x 2 bytes"),
        _line("compute buffer", "prefill", mistral, _band(150, 164.01, 200), Origin.PUBLISHED, log),
        _line("projector compute", None, vision, _band(32.89, 32.89, 40), Origin.PUBLISHED, log),
        _line("CUDA context", None, None, _band(250, 450, 616), Origin.ASSUMED, _CONTEXT),
    )  # fmt: skip
    total = Band.exactly(0)
    for line in lines:
        total += line.band
    host = (
        Buffer(kind=LineKind.WEIGHTS, device=HOST, size_bytes=int(70.31 * MIB)),
        Buffer(kind=LineKind.COMPUTE_BUFFER, device=HOST, size_bytes=168 * MIB),
    )
    buffers = (*(_buffer(line) for line in lines[:-1]), *host)
    held = total.expected_bytes - 450 * MIB
    return Estimate(
        pipeline="llava:7b",
        title="LLaVA 1.6 on Mistral 7B, Q4_0",
        runtime="ollama",
        settings={"context": 2048, "ubatch": 512, "kv_type": "f16", "gpu_layers": "all"},
        compute_capability="8.6",
        components=(
            Component(name=mistral, parameters=7_241_732_096, dtype="q4_0",
                      weights_bytes=int(3917.87 * MIB), device="gpu"),
            Component(name=vision, parameters=290_931_712, dtype="f16",
                      weights_bytes=int(555.4 * MIB), device="gpu"),
            Component(name="projector", parameters=20_979_712, dtype="f16",
                      weights_bytes=int(40.09 * MIB), device="cpu"),
        ),
        phases=(
            PhaseUse(name="prefill", component=mistral, allocated_peak_bytes=held,
                     reserved_peak_bytes=held, device_used_bytes=total.expected_bytes),
        ),
        lines=lines,
        peak=Peak(phase="prefill", component=mistral, allocated_bytes=held, reserved_bytes=held,
                  device=total),
        need=Need(band=total, phase="prefill", component=mistral),
        buffers=buffers,
        layers=LayerSplit(total=33, on_gpu=33),
        notes=("the compute buffer is that of the engine's version in the log",),
    )  # fmt: skip


def _cards() -> tuple[Card, ...]:
    rows = (
        ("rtx-3060-8gb", "GeForce RTX 3060 8 GB", 8, 8192, 255, "8.6", 240, ("8gb",)),
        ("rtx-3060-12gb", "GeForce RTX 3060", 12, 12288, 265, "8.6", 360, ("12gb", "3060")),
    )
    return tuple(
        Card(
            name=name, title=title, kind="consumer", class_gib=size, total_bytes=total * MIB,
            reserved_bytes=reserved * MIB, compute_capability=capability,
            bandwidth_bytes_per_s=bandwidth * 10**9, source="a sample", aliases=aliases,
        )
        for name, title, size, total, reserved, capability, bandwidth, aliases in rows
    )  # fmt: skip


def _verdict(
    pipeline: str, card: str, kind: VerdictKind, need: Band, risk: float, place: str, reason: str,
    advice: tuple[Advice, ...] = (),
) -> Verdict:  # fmt: skip
    phase, component = place.split(" ")
    budget = {"8gb": 7937, "12gb": 12023}[card] * MIB
    return Verdict(
        pipeline=pipeline, card=card, card_title=f"{card} class", judged_as=f"rtx-3060-{card}",
        kind=kind, need=need, budget_bytes=budget, offload_risk=risk, peak_phase=phase,
        peak_component=component, reason=reason, parts=dict(_PARTS) if pipeline == "sd15" else {},
        advice=advice,
    )  # fmt: skip


def _verdicts() -> tuple[Verdict, ...]:
    sd15, llava = _sd15().need.band, _llava().need.band
    hf = _band(14_090, 14_410, 14_830)
    decode, prefill = "decode_image vae.decoder", "prefill language_model"
    room = "the VAE decoder's activations at 512x512 are the peak, and there is room for them"
    offload = Advice(
        change='AutoModelForImageTextToText.from_pretrained(name, device_map="auto")',
        effect="keeps the layers that do not fit in system memory",
        cost="those layers run at the speed of the PCIe bus",
        need_bytes=7400 * MIB,
    )
    tiling = Advice(
        change="pipe.enable_vae_tiling()",
        effect="decodes the image in tiles of 512 pixels",
        cost="about 10 % more time in decode_image; faint seams are possible",
        need_bytes=6950 * MIB,
    )
    model_offload = Advice(
        change="pipe.enable_model_cpu_offload()",
        effect="one component on the GPU at a time",
        cost="each image waits for about 6.5 GB over PCIe",
        need_bytes=5600 * MIB,
    )
    fits, tight = VerdictKind.FITS, VerdictKind.TIGHT
    return (
        _verdict("sd15", "8gb", fits, sd15, 0.0, decode, room),
        _verdict("sd15", "12gb", fits, sd15, 0.0, decode, room),
        _verdict("llava:7b", "8gb", fits, llava, 0.0004, prefill,
                 "all 33 layers and the projector are on the GPU"),
        _verdict("llava:7b", "12gb", fits, llava, 0.0, prefill,
                 "all 33 layers and the projector are on the GPU"),
        _verdict("sdxl", "8gb", VerdictKind.OOM, _band(11_200, 11_730, 12_600), 1.0, decode,
                 "the VAE is cast to fp32 before decode_image, which needs 3,793 MiB more than "
                 "the card has", (tiling, model_offload)),
        _verdict("sdxl", "12gb", tight, _band(11_200, 11_730, 12_600), 0.31, decode,
                 "the expected need is within the budget, the high one is 577 MiB above it",
                 (tiling,)),
        _verdict("llava-1.5-7b-hf", "8gb", VerdictKind.OOM, hf, 1.0, "load language_model",
                 "the weights alone are 13,473 MiB", (offload,)),
        _verdict("llava-1.5-7b-hf", "12gb", VerdictKind.OFFLOAD, hf, 0.995, "load language_model",
                 "Windows moves 2,387 MiB to system memory", (offload,)),
    )  # fmt: skip


def _pipelines() -> tuple[Pipeline, ...]:
    return (
        Pipeline(
            name="sd15", title="Stable Diffusion 1.5", summary="text and image to image",
            runtime="diffusers", defaults={"image": (512, 512), "batch": 1}, constraints={},
            source="https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5",
            path="profiles/pipelines/sd15.yaml", aliases=("sd1.5",),
        ),
        Pipeline(
            name="llava:7b", title="LLaVA 1.6, Mistral 7B, Q4_0", summary="images and text to text",
            runtime="ollama", defaults={"context": 4096}, constraints={},
            source="https://ollama.com/library/llava:7b", path="profiles/pipelines/llava.yaml",
        ),
    )  # fmt: skip
