"""What adapters compute, by a tape, held to recordings of small models with peft's own layers."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
import peft
import torch

from vramplan.engines.torch.adapted_code import with_adapters
from vramplan.engines.torch.module_list import LINEAR, Module, ModuleList
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.record.saved import entry_tape
from vramplan.engines.torch.record.saved.held_out import _whole
from vramplan.engines.torch.record.saved.wrapped import place_on_device
from vramplan.engines.torch.record.stream import Alloc, Free
from vramplan.engines.torch.replayed import conditions_at
from vramplan.engines.torch.tape.format import parse_tape
from vramplan.engines.torch.tape.replay import replay
from vramplan.model import ComponentSpec, Constraint
from vramplan.quick_dataclass import replace

CONFIG = {
    "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 3, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 1000, "max_position_embeddings": 4096,
}  # fmt: skip
WORDS = {"dtype": "bf16", "kernel": "flash"}
NUMBERS = {"batch": 2, "prompt_tokens": 512, "new_tokens": 6}
ATTENTION, MLP = ("q_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj")
EVERY = ("q_proj", "k_proj", "v_proj", "o_proj", *MLP)


@pytest.fixture(scope="module")
def llama():
    """Return a small Llama as an entry, and its tape."""
    pipeline = TorchPipeline(
        name="tiny",
        title="Tiny",
        summary="A small model.",
        runtime="transformers",
        defaults={"dtype": "bf16", "batch": 1, "prompt_tokens": 512, "new_tokens": 8},
        constraints={
            "batch": Constraint(maximum=4),
            "dtype": Constraint(choices=("bf16",)),
            "prompt_tokens": Constraint(minimum=2, maximum=1024),
        },
        source="here",
        path="",
        components=(
            ComponentSpec(name="model", class_path="transformers.LlamaForCausalLM", config=CONFIG),
        ),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry_tape, "words_of", lambda *_: [WORDS])
        return pipeline, parse_tape(entry_tape.record_entry(pipeline, lambda _: None), "the tape")


def recorded_bytes(recordings: entry_tape._Recordings) -> int:
    recorded = recordings.run(WORDS, NUMBERS, None)
    (main,) = recorded.runs
    live, most, sizes = 0, 0, {}
    for event in _whole(main, {stream.routine: stream for stream in recorded.routines}).events:
        if isinstance(event, Alloc):
            sizes[id(event.birth)] = -(-event.size_bytes // 512) * 512
            live += sizes[id(event.birth)]
            most = max(most, live)
        elif isinstance(event, Free):
            live -= sizes.pop(id(event.birth), 0)
    return most


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 4), (torch.bfloat16, 2)])
@pytest.mark.parametrize("layers", [ATTENTION, MLP, EVERY])
def test_peaks_are_those_of_pefts_own_layers(llama, layers, dtype, width) -> None:
    """To the byte where wide layers have adapters; queries and values alone are a bound."""
    pipeline, tape = llama
    recordings = entry_tape._Recordings(pipeline, lambda _: None, [])
    modules = recordings.modules("bf16")
    linear = [
        (name, one.in_features, one.out_features)
        for name, one in modules["model"].named_modules()
        if type(one) is torch.nn.Linear
    ]
    with torch.device("meta"):
        asked = peft.LoraConfig(r=8, target_modules=list(layers))
        peft.inject_adapter_in_model(asked, modules["model"])
    for name, parameter in modules["model"].named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(dtype)
    recordings._placed |= place_on_device(modules.values())
    truth = recorded_bytes(recordings)

    lists = {
        "model": ModuleList(
            modules=tuple(
                Module(name=name, kind=LINEAR, rows=outside, tensors=(inside * outside,))
                for name, inside, outside in linear
            ),
            is_of_transformers=True,
        )
    }
    adapted = {
        (inside, outside): ((8, width),)
        for name, inside, outside in linear
        if name.endswith(layers)
    }
    at = replace(
        conditions_at(pipeline, {"dtype": "bf16", **NUMBERS}, "8.6", tape),
        cublas_bytes=0,
        skip_components=frozenset({"model"}),  # its weights are the same
    )
    changed = with_adapters(tape, [at], lists, {"model": adapted}, 2)
    ours = replay(changed, at).allocated_peak_bytes
    if layers is ATTENTION:
        assert truth <= ours <= 1.08 * truth
    else:
        assert ours == pytest.approx(truth, rel=0.01)
