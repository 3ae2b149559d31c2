"""The typed lines of a budget: kinds, devices, buffers and what they add up to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vramplan.engine_buffer import ENGINE_NAMES, EngineBuffer, engine_name, in_our_words
from vramplan.model import (
    GPU,
    HOST,
    LANGUAGE_MODEL,
    PROJECTOR,
    Buffer,
    Device,
    Estimate,
    LineKind,
    buffer_bytes,
)

MIB = 1 << 20


@pytest.fixture
def sd15(samples) -> Estimate:
    return samples.sd15


def test_devices_say_where_they_are() -> None:
    assert [str(one) for one in (GPU, Device(gpu=1), HOST)] == ["gpu 0", "gpu 1", "host"]
    assert [one.is_host for one in (GPU, Device(gpu=1), HOST)] == [False, False, True]


def test_an_estimate_adds_up_its_lines_by_kind(sd15: Estimate) -> None:
    parts = sum(component.weights_bytes for component in sd15.components)
    assert sd15.bytes_of(LineKind.WEIGHTS) == parts
    assert sd15.bytes_of(LineKind.CUDA_CONTEXT) == 450 * MIB
    both = sd15.bytes_of(LineKind.CUDA_CONTEXT, LineKind.ALLOCATOR_SLACK)
    assert both == 890 * MIB
    assert sd15.bytes_of(LineKind.KV_CACHE) == 0


def test_several_gpus_are_devices_of_lines(sd15: Estimate) -> None:
    second = Device(gpu=1)
    moved = [
        replace(line, device=second) if line.component == "unet" else line for line in sd15.lines
    ]
    split = replace(sd15, lines=tuple(moved))
    whole = split.bytes_of(LineKind.WEIGHTS)
    unet = next(part.weights_bytes for part in sd15.components if part.name == "unet")
    assert split.bytes_of(LineKind.WEIGHTS, device=second) == unet
    assert split.bytes_of(LineKind.WEIGHTS, device=GPU) == whole - unet
    assert split.bytes_of(LineKind.WEIGHTS, device=HOST) == 0


def test_buffers_add_up_by_side_kind_and_owner() -> None:
    def buffer(
        kind: LineKind, device: Device, size: int, component: str = LANGUAGE_MODEL
    ) -> Buffer:
        return Buffer(kind=kind, device=device, size_bytes=size, component=component)

    held = (
        buffer(LineKind.WEIGHTS, GPU, 1),
        buffer(LineKind.WEIGHTS, Device(gpu=1), 2),
        buffer(LineKind.WEIGHTS, HOST, 4),
        buffer(LineKind.WEIGHTS, GPU, 8, PROJECTOR),
        buffer(LineKind.KV_CACHE, GPU, 16),
    )
    assert buffer_bytes(held, LineKind.WEIGHTS) == 11
    assert buffer_bytes(held, LineKind.WEIGHTS, on_host=True) == 4
    assert buffer_bytes(held, LineKind.WEIGHTS, component=PROJECTOR) == 8
    assert buffer_bytes(held, LineKind.WEIGHTS, component=LANGUAGE_MODEL) == 3
    assert buffer_bytes(held, LineKind.WEIGHTS, LineKind.KV_CACHE) == 27
    assert buffer_bytes(held) == 0


@pytest.mark.parametrize(
    ("printed", "place"),
    [
        ("CPU", HOST),
        ("CPU_Mapped", HOST),
        ("CPU_AARCH64", HOST),
        ("CUDA_Host", HOST),
        ("GPU", GPU),
        ("CUDA0", GPU),
        ("ROCm0", GPU),
        ("CUDA1", Device(gpu=1)),
        ("CUDA12", Device(gpu=12)),
    ],
)
def test_an_engines_devices_are_known_by_their_names(printed: str, place: Device) -> None:
    assert EngineBuffer(device=printed, name="KV", size_bytes=1).place == place


def test_an_engines_words_are_read_and_what_no_budget_has_is_left_out() -> None:
    names = (*ENGINE_NAMES, "output", "ollama ps")
    printed = [EngineBuffer(device="CUDA0", name=name, size_bytes=1) for name in names]
    found = in_our_words(printed)
    assert [(one.kind, one.component) for one in found] == list(ENGINE_NAMES.values())
    assert [engine_name(one.kind, one.component) for one in found] == list(ENGINE_NAMES)
    with pytest.raises(KeyError):
        engine_name(LineKind.CUDA_CONTEXT)
