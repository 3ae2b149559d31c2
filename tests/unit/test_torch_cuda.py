"""torch's own functions of a CUDA device, as far as a machine without one can go."""

from __future__ import annotations

import importlib
import inspect

import pytest

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:1"])
def test_a_device_has_its_number_which_torch_insists_on(device: str) -> None:
    """`set_per_process_memory_fraction`, which plays a smaller card, refuses a plain "cuda"."""
    from torch.cuda.memory import _get_device_index

    from vramplan.engines.torch.run.torch_counters import TorchProbe

    with pytest.raises(ValueError, match="specified index"):
        _get_device_index(torch.device("cuda"))
    known = TorchProbe(device)._device
    assert _get_device_index(known) == int(device[-1] == "1")


def test_the_recorder_of_the_allocators_events_takes_what_it_is_given() -> None:
    memory = importlib.import_module("torch.cuda.memory")
    inspect.signature(memory._record_memory_history).bind(
        enabled="all", context=None, stacks="python", max_entries=1
    )
    inspect.signature(memory._record_memory_history).bind(enabled=None)
    inspect.signature(memory._snapshot).bind()


@pytest.mark.parametrize(
    ("kernels", "wants_math", "left"),
    [
        ("machine", True, "math"),
        ("7.5", False, "efficient, math"),
        ("8.6", False, "flash, efficient, math"),
        ("9.0", False, "flash, efficient, cudnn, math"),
    ],
)
def test_kernels_are_switched_off_as_torch_names_them(kernels, wants_math, left) -> None:
    from vramplan.engines.torch.run.kernel_choice import allow_kernels, kernel_facts

    cuda = torch.backends.cuda
    switches = {
        cuda.enable_flash_sdp: cuda.flash_sdp_enabled(),
        cuda.enable_mem_efficient_sdp: cuda.mem_efficient_sdp_enabled(),
        cuda.enable_cudnn_sdp: cuda.cudnn_sdp_enabled(),
    }
    try:
        allow_kernels(kernels, wants_math=wants_math)
        assert kernel_facts() == {"attention_kernels": left}
    finally:
        for switch, was_on in switches.items():
            switch(was_on)
