"""Weights that settings change: quantised, adapted, in groups; and what a budget makes of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.saved_models import write
from tools.module_lists import FOLDER, linear_text
from vramplan.ask.judge import judge
from vramplan.ask.targets import make_jobs
from vramplan.catalog import load_catalog
from vramplan.engines.door import engine_of
from vramplan.engines.torch.adapters import adapter_band, adapters_of, added_tensors
from vramplan.engines.torch.changed_weights import are_changed
from vramplan.engines.torch.group_offload import resident
from vramplan.engines.torch.job_tape import tape_at
from vramplan.engines.torch.module_list import (
    LINEAR,
    LINEAR_FILE,
    OTHER,
    Module,
    ModuleList,
    match,
    shipped_linear,
    shipped_modules,
)
from vramplan.engines.torch.pipeline import of_torch
from vramplan.engines.torch.quantised import linear_in_all, quantise, unpacked_band
from vramplan.engines.torch.tape.contents import Weights
from vramplan.engines.torch.tape_files import find_tape, open_tape
from vramplan.errors import UsageError
from vramplan.known_results import shipped_text
from vramplan.model import Estimate, LineKind, Origin, SettingValue

CATALOG = load_catalog()


def test_what_of_a_list_is_linear_ships_as_the_lists_say() -> None:
    """`python -m tools.module_lists` writes it anew; a list that it lacks is read itself."""
    told = (FOLDER / LINEAR_FILE).read_text(encoding="utf-8")
    known = json.loads(linear_text())
    assert all(known[name] == both for name, both in json.loads(told).items())
    assert told == shipped_text(list(json.loads(told).items()))
    assert shipped_linear("sdxl") == linear_in_all(shipped_modules("sdxl"))
    assert shipped_linear("nowhere") is None


def linear(rows: int, columns: int, name: str = "to_q") -> Module:
    return Module(name=name, kind=LINEAR, rows=rows, tensors=(rows * columns,))


def held(scheme: str, rows: int, columns: int, element_bytes: int = 2) -> int:
    tensors = quantise(linear(rows, columns), scheme, element_bytes)
    return sum(
        int(size[:-1]) if isinstance(size, str) else size * element_bytes for size in tensors
    )


def estimate(name: str, card: str = "rtx-4090", **settings: SettingValue) -> Estimate:
    (job,) = make_jobs([name], CATALOG, settings)
    return engine_of(job.pipeline).estimate(job, CATALOG.card(card).candidates[0])


# -------------------------------------------------------------------------- quantised layers
#: read off the libraries' own tensors: bitsandbytes 0.50.2, torchao 0.18.0, optimum-quanto 0.2.7
SEEN = [
    ("bnb-4bit", 4096, 11008, 25_362_496),
    ("bnb-4bit-dq", 4096, 11008, 23_260_996),
    ("bnb-4bit", 4096, 4096, 9_437_248),
    ("bnb-4bit", 320, 1000, 180_064),
    ("bnb-4bit-dq", 320, 1000, 166_172),
    ("bnb-4bit-dq", 512, 384, 102_516),
    ("bnb-8bit", 4096, 4096, 16_793_600),
    ("torchao-int8", 4096, 4096, 16_797_696),
    ("torchao-int8", 320, 1000, 321_600),
    ("torchao-fp8", 512, 384, 198_656),
    ("torchao-int4", 320, 1000, 640_000),  # a width that it leaves as it is
    ("quanto-int8", 4096, 4096, 16_785_408 + 4),
    ("quanto-fp8", 320, 1000, 320_640 + 4),
    ("quanto-int4", 4096, 4096, 8_912_900),
    ("quanto-int4", 512, 384, 104_448 + 4),
    ("quanto-int4", 320, 1000, 161_280 + 4),
    ("gguf-q8_0", 3072, 3072, 3072 * 3072 // 32 * 34),
    ("gguf-q4_k", 3072, 3072, 3072 * 3072 // 256 * 144),
    ("gguf-q4_k", 3072, 64, 3072 * 64 * 2),  # no whole blocks in a row
    ("fp8-layerwise", 3072, 3072, 3072 * 3072),
]


@pytest.mark.parametrize(("scheme", "rows", "columns", "size_bytes"), SEEN)
def test_a_layer_takes_what_the_libraries_own_tensors_take(
    scheme: str, rows: int, columns: int, size_bytes: int
) -> None:
    assert held(scheme, rows, columns) == size_bytes


def test_what_is_kept_stays_as_it_is() -> None:
    head = Module(name="lm_head", kind=LINEAR, rows=8, tensors=(64,), is_kept=True)
    norm = Module(name="norm", kind=OTHER, rows=0, tensors=(8, 8), is_uncast=True)
    for scheme in ("bnb-4bit", "bnb-8bit", "torchao-int8", "quanto-int8", "gguf-q8_0"):
        assert quantise(head, scheme, 2) == head.tensors
        assert quantise(norm, scheme, 2) == norm.tensors
    assert quantise(norm, "fp8-layerwise", 2) == norm.tensors


def test_a_t5_keeps_its_last_matrices_and_a_language_model_its_head() -> None:
    t5 = shipped_modules("flux1-dev")["text_encoder_2"]
    kept = [one for one in t5.modules if one.is_kept]
    assert len(kept) == 24
    assert all(one.name.endswith("DenseReluDense.wo") for one in kept)
    llama = shipped_modules("llama-3.1-8b")["model"]
    assert [one.name for one in llama.modules if one.is_kept] == ["lm_head"]


@pytest.mark.parametrize("name", ["flux1-dev", "sd15", "llama-3.1-8b", "llava-1.5-7b-hf"])
def test_a_list_has_the_modules_of_the_tape(name: str) -> None:
    (job,) = make_jobs([name], CATALOG, {})
    pipeline = of_torch(job.pipeline)
    lists = shipped_modules(name)
    from vramplan.engines.torch.estimate import settled

    tape = open_tape(find_tape(settled(pipeline, job.settings)))
    for component, weights in tape.components.items():
        if component not in lists:
            continue
        places = match(lists[component], weights)
        floats = [n for n, tensors in enumerate(weights.modules) if _floats(tensors)]
        assert all(places[n] is not None for n in floats), component
        linear = sum(one.elements for one in places if one is not None and one.kind == LINEAR)
        listed = sum(one.elements for one in lists[component].modules if one.kind == LINEAR)
        assert linear == listed


def _floats(tensors: tuple[int | str, ...]) -> list[int]:
    return [size for size in tensors if isinstance(size, int)]


def test_weights_in_four_bits_are_exact_and_what_is_unpacked_is_a_band() -> None:
    """12 B of transformer and 4.8 B of T5: diffusers' own page has FLUX.1 dev in 4 bits."""
    whole = estimate("flux1-dev")
    small = estimate(
        "flux1-dev", quantization="transformer:bnb-4bit;text_encoder_2:bnb-4bit", offload="model"
    )
    sizes = {one.name: one for one in small.components}
    assert sizes["transformer"].dtype == "bnb-4bit"
    assert sizes["text_encoder"].dtype == "bf16"
    linear = [m for m in shipped_modules("flux1-dev")["transformer"].modules if m.kind == LINEAR]
    elements = sum(one.elements for one in linear)
    saved = whole.components[2].weights_bytes - sizes["transformer"].weights_bytes
    # two bytes an element less half a byte, a scale for 64 and a table of 16
    assert saved == elements * 2 - elements // 2 - elements // 64 * 4 - 64 * len(linear)
    assert all(line.origin is Origin.EXACT for line in small.lines if line.kind is LineKind.WEIGHTS)
    (unpacked,) = [line for line in small.lines if line.name == "unpacked weights"]
    assert unpacked.origin is Origin.ASSUMED
    assert unpacked.band.low_bytes == 0 < unpacked.band.high_bytes
    assert small.need.band.expected_bytes < whole.need.band.expected_bytes


@pytest.mark.parametrize(
    ("scheme", "element_bytes", "hundredths"),
    [
        ("torchao-fp8", 2, 1000),
        ("torchao-fp8", 4, 800),
        ("gguf-q8_0", 2, 400),
        ("gguf-q8_0", 4, 604),  # 601, in whole hundredths of the matrix
        ("gguf-q5_0", 2, 1000),
        ("gguf-q4_k", 2, 520),
        ("bnb-4bit", 2, 200),
    ],
)
def test_a_layer_is_unpacked_in_as_many_bytes_as_its_library_was_seen_to_take(
    scheme: str, element_bytes: int, hundredths: int
) -> None:
    """findings/: float8-weights-are-unpacked-in-ten-bytes, diffusers-unpacks-gguf-in-four-to-…"""
    modules = shipped_modules("flux1-dev")["transformer"]
    largest = max(one.elements for one in modules.modules if one.kind == LINEAR)
    band = unpacked_band(scheme, modules, element_bytes, 0)
    assert band.expected_bytes == band.high_bytes == largest * hundredths // 100


def test_verdicts_of_a_check_and_of_a_sweep_agree_where_weights_are_quantised() -> None:
    settings: dict[str, SettingValue] = {"quantization": "bnb-8bit", "offload": "model"}
    (job,) = make_jobs(["flux1-dev"], CATALOG, settings)
    card = CATALOG.card("rtx-4090").candidates[0]
    budget = card.total_bytes - card.reserved_bytes
    engine = engine_of(job.pipeline)
    graded = engine.grader(job)(card, budget)
    judged = engine.judge(job, card, budget)
    assert graded.need == judged.estimate.need
    assert graded.kind is judged.kind


# ---------------------------------------------------------------------------- group offload
def blocks() -> tuple[ModuleList, list[Module | None], list[int]]:
    names = ["proj_in", "blocks.0.a", "blocks.0.b", "blocks.1.a", "blocks.2.a", "norm"]
    modules = [Module(name=name, kind=OTHER, rows=0, tensors=(1,)) for name in names]
    sizes = [7, 10, 20, 25, 4, 1]
    found = ModuleList(modules=tuple(modules), is_of_transformers=False, lists=("blocks",))
    return found, list(modules), sizes


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 7 + 1 + 30),
        ({"num_blocks_per_group": 2}, 7 + 1 + 55),
        ({"use_stream": "on"}, 7 + 1 + 30 + 25),
        ({"use_stream": "on", "num_blocks_per_group": 3}, 7 + 1 + 30 + 25),  # one with a stream
        ({"offload_type": "leaf_level"}, 25),
        ({"offload_type": "leaf_level", "use_stream": "on"}, 45),
    ],
)
def test_of_a_component_one_group_is_there_with_what_is_in_no_block(
    settings: dict[str, SettingValue], expected: int
) -> None:
    modules, places, sizes = blocks()
    assert sum(sizes[n] for n in resident(modules, places, sizes, settings)) == expected


def test_groups_are_those_that_diffusers_makes() -> None:
    """Held to its own hooks on small models: what they bring at once, module by module."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    from diffusers.hooks import group_offloading as theirs

    from tools.module_lists import describe_component
    from vramplan.engines.torch.module_list import read_component

    small = {"in_channels": 4, "num_layers": 3, "num_single_layers": 2, "attention_head_dim": 16}
    models = [
        diffusers.FluxTransformer2DModel(
            **small, num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32,
            axes_dims_rope=(4, 4, 8),
        ),
        diffusers.AutoencoderKL(
            block_out_channels=(32, 64), down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
        ),
    ]  # fmt: skip
    for model in models:
        modules = read_component(describe_component(model))
        sizes = [4 * sum(_floats(one.tensors)) for one in modules.modules]
        ours = sum(sizes[n] for n in resident(modules, modules.modules, sizes, {}))
        assert ours == _theirs(torch, theirs, model)


def _theirs(torch, theirs, model) -> int:  # modules that are imported above
    config = theirs.GroupOffloadingConfig(
        onload_device=torch.device("cpu"), offload_device=torch.device("cpu"),
        offload_type="block_level", non_blocking=False, record_stream=False,
        low_cpu_mem_usage=False, num_blocks_per_group=1,
        block_modules=getattr(model, "_group_offload_block_modules", None),
    )  # fmt: skip
    theirs._apply_group_offloading_block_level(model, config)
    groups = {}
    for name, module in model.named_modules():
        registry = getattr(module, "_diffusers_hook", None)
        hook = registry and registry.get_hook("group_offloading")
        if hook:
            groups.setdefault(id(hook.group), (hook.group, name))

    def size(group) -> int:  # a ModuleGroup
        tensors = {id(t): t for m in group.modules for t in (*m.parameters(), *m.buffers())}
        tensors |= {id(t): t for t in (*group.parameters, *group.buffers)}
        return sum(t.numel() * t.element_size() for t in tensors.values())

    # a group that its own module leads is there while that runs, with one of those inside it
    leads = {n: g for g, n in groups.values() if g.offload_leader is model.get_submodule(n)}
    nested = {n: size(g) for n, g in leads.items()}
    best = 0
    for name, own in nested.items():
        around = sum(s for n, s in nested.items() if n != name and _is_around(n, name))
        best = max(best, own + around)
    return best


def _is_around(outer: str, inner: str) -> bool:
    return outer == "" or inner.startswith(f"{outer}.")


def test_blocks_come_one_by_one_and_a_t5_comes_whole() -> None:
    """A T5's blocks are in no list at its top: block_level moves all of it."""
    found = estimate("flux1-dev", offload="group")
    assert found.peak.component == "text_encoder_2"
    t5 = next(one for one in found.components if one.name == "text_encoder_2")
    assert t5.weights_bytes == 9_524_621_312
    leaf = estimate("flux1-dev", offload="group", offload_type="leaf_level")
    model = estimate("flux1-dev", offload="model")
    assert leaf.need.band.expected_bytes < found.need.band.expected_bytes
    assert found.need.band.expected_bytes < model.need.band.expected_bytes


def test_whatever_is_cached_a_tape_without_changes_is_the_tape_itself() -> None:
    (job,) = make_jobs(["sd15"], CATALOG, {})
    pipeline = of_torch(job.pipeline)
    path = find_tape(pipeline)
    assert tape_at(pipeline, job.settings, path) is open_tape(path)
    changed = {**job.settings, "quantization": "bnb-8bit"}
    assert tape_at(pipeline, changed, path) is tape_at(pipeline, dict(changed), path)
    assert not are_changed({"quantization": "none", "lora": "none", "offload": "model"})


# --------------------------------------------------------------------------------- adapters
def unet() -> dict[str, ModuleList]:
    return {
        "unet": ModuleList(modules=(linear(320, 768), linear(8, 8, "ff")), is_of_transformers=False)
    }


def test_a_rank_is_two_matrices_beside_each_projection() -> None:
    (adapter,) = adapters_of({"lora": "rank16"}, unet())
    # as diffusers loads it: in its component's dtype, whatever the file's
    assert added_tensors("unet", unet()["unet"], (adapter,), 2) == ["24576B", "10240B"]
    (single,) = adapters_of({"lora": "rank16:fp32"}, unet())
    assert added_tensors("unet", unet()["unet"], (single,), 2) == [
        f"{16 * 768 * 4}B",
        f"{320 * 16 * 4}B",
    ]
    (fused,) = adapters_of({"lora": "rank16:bf16:fused"}, unet())
    assert added_tensors("unet", unet()["unet"], (fused,), 2) == []


def test_an_adapter_of_a_language_model_is_held_in_fp32() -> None:
    modules = ModuleList(modules=(linear(64, 32, "q_proj"),), is_of_transformers=True)
    (adapter,) = adapters_of({"lora": "rank8"}, {"model": modules})
    assert added_tensors("model", modules, (adapter,), 2) == [f"{8 * 32 * 4}B", f"{64 * 8 * 4}B"]


@pytest.mark.parametrize(
    ("first", "second", "length"),
    [("lora_A", "lora_B", "lora_magnitude_vector"), ("lora_down", "lora_up", "dora_scale")],
)
def test_a_dora_makes_its_largest_weight_anew_three_times(
    tmp_path: Path, first: str, second: str, length: str
) -> None:
    thin = [
        (f"unet.mid.{layer}.{matrix}.weight", "F16", shape)
        for layer, wide in (("to_q", 640), ("to_k", 320))
        for matrix, shape in ((first, (8, 320)), (second, (wide, 8)))
    ]
    rows = [(f"unet.mid.{layer}.{length}", "F16", (wide,)) for layer, wide in (("to_q", 640),)]
    lists = unet()

    def work(name: str, tensors: list[tuple[str, str, tuple[int, ...]]], fused: str = "") -> int:
        path = write(tmp_path / f"{name}.safetensors", tensors)
        adapters = adapters_of({"lora": f"{path}{fused}"}, lists)
        return adapter_band("unet", lists["unet"], adapters, 2, 0).expected_bytes

    assert work("lora", thin) == 0
    # as peft 0.21.0 was seen to: findings/adapters-of-few-parameters-make-whole-matrices.sh
    assert work("dora", thin + rows) == 3 * 640 * 320 * 2
    assert work("dora", thin + rows, ":fused") == 0


def test_a_file_of_layers_that_no_model_has_is_refused(tmp_path: Path) -> None:
    """And sides of nothing are none: what computes nothing divides nothing."""
    lists = unet()
    rows = [
        (f"unet.{n}.to_q.{matrix}.weight", "F16", shape)
        for n in range(513)
        for matrix, shape in (("lora_A", (1, 8 + n)), ("lora_B", (8, 1)))
    ]
    path = write(tmp_path / "many.safetensors", rows)
    with pytest.raises(UsageError, match="more than 512 shapes"):
        adapters_of({"lora": str(path)}, lists)
    empty = [
        ("unet.0.to_q.lora_A.weight", "F16", (4, 8)),
        ("unet.0.to_q.lora_B.weight", "F16", (0, 4)),
    ]
    (adapter,) = adapters_of({"lora": str(write(tmp_path / "empty.safetensors", empty))}, lists)
    assert adapter.layers.get("unet", {}) == {}


def test_a_dora_in_fp32_copies_the_weight_that_is_not(tmp_path: Path) -> None:
    layer = "base_model.model.layers.0.q_proj"
    tensors = [
        (f"{layer}.lora_A.weight", "BF16", (8, 32)),
        (f"{layer}.lora_B.weight", "BF16", (64, 8)),
        (f"{layer}.lora_magnitude_vector", "BF16", (64,)),
    ]
    path = write(tmp_path / "dora.safetensors", tensors)
    modules = ModuleList(modules=(linear(64, 32, "q_proj"),), is_of_transformers=True)
    adapters = adapters_of({"lora": str(path)}, {"model": modules})
    # peft 0.21.0 on a weight in bf16: four matrices in fp32, on one in fp32 three
    assert adapter_band("model", modules, adapters, 2, 0).expected_bytes == 4 * 64 * 32 * 4
    assert adapter_band("model", modules, adapters, 4, 0).expected_bytes == 3 * 64 * 32 * 4


@pytest.mark.parametrize(("config", "times"), [('{"r": 4}', 1), ('{"r": 32}', 0), (None, 0)])
def test_a_layers_experts_are_made_anew_with_their_adapters(
    tmp_path: Path, config: str | None, times: int
) -> None:
    # eight experts of 192 x 128 and of 128 x 96 in bf16 with rank 4, as peft 0.21.2 saves them:
    # a call of such a Qwen 3 MoE makes 2 bytes of each, findings/lora-on-experts-makes-all-of-them
    layer = "base_model.model.model.layers.0.mlp.experts"
    tensors = [
        (f"{layer}.base_layer.lora_A.weight", "F32", (32, 128)),
        (f"{layer}.base_layer.lora_B.weight", "F32", (192, 32)),
        (f"{layer}.lora_A.weight", "F32", (32, 96)),
        (f"{layer}.lora_B.weight", "F32", (128, 32)),
        (f"{layer.replace('0', '1')}.lora_A.weight", "F32", (32, 96)),
        (f"{layer.replace('0', '1')}.lora_B.weight", "F32", (128, 32)),
    ]
    path = write(tmp_path / "adapter_model.safetensors", tensors)
    if config is not None:
        (tmp_path / "adapter_config.json").write_text(config)
    modules = ModuleList(modules=(linear(64, 64, "q_proj"),), is_of_transformers=True)
    adapters = adapters_of({"lora": str(path)}, {"model": modules})
    made = 8 * (192 * 128 + 128 * 96) * 2
    assert adapter_band("model", modules, adapters, 2, 0).expected_bytes == times * made
    assert bool(adapters[0].layers.get("model")) == (times == 0)
    fused = adapters_of({"lora": f"{path}:fused"}, {"model": modules})
    assert adapter_band("model", modules, fused, 2, 0).high_bytes == 0


@pytest.mark.parametrize(
    ("config", "matrices"),
    [  # as peft 0.21.2 holds a Llama's when it has loaded the file
        (None, 2),
        ("{}", 2),
        ('{"ensure_weight_tying": true}', 1),
        ("[no JSON", 2),
    ],
)
def test_a_module_that_was_trained_whole_stands_beside_the_models_own(
    tmp_path: Path, config: str | None, matrices: int
) -> None:
    layer, words = "base_model.model.model.layers.0.q_proj", (4096, 64)
    tensors = [
        (f"{layer}.lora_A.weight", "F32", (8, 64)),
        (f"{layer}.lora_B.weight", "F32", (64, 8)),
        ("base_model.model.lm_head.weight", "F32", words),
        ("base_model.model.model.embed_tokens.weight", "F32", words),
        ("base_model.model.model.norm.bias", "F32", (64,)),  # of bias="all": the model's own
        ("base_model.model.v_proj.base_layer.weight", "F32", (64, 64)),  # written over it
        ("base_model.model.model.other_words.lora_embedding_A", "F32", (8, 512)),
    ]
    path = write(tmp_path / "adapter_model.safetensors", tensors)
    if config is not None:
        (tmp_path / "adapter_config.json").write_text(config)
    modules = ModuleList(modules=(linear(64, 64, "q_proj"),), is_of_transformers=True)
    adapters = adapters_of({"lora": str(path)}, {"model": modules})
    thin = [f"{8 * 64 * 4}B", f"{64 * 8 * 4}B", f"{8 * 512 * 4}B"]
    copies = [f"{4096 * 64 * 2}B"] * matrices  # in the model's dtype, whatever the file's
    assert added_tensors("model", modules, adapters, 2) == thin + copies
    fused = adapters_of({"lora": f"{path}:fused"}, {"model": modules})
    assert added_tensors("model", modules, fused, 2) == []


def test_a_file_is_counted_by_its_header(tmp_path: Path) -> None:
    path = write(
        tmp_path / "style.safetensors",
        [
            ("unet.mid.attn.to_q.lora_A.weight", "F32", (8, 320)),
            ("unet.mid.attn.to_q.lora_B.weight", "F16", (320, 8)),
            ("text_encoder.layers.0.q_proj.lora_A.weight", "F16", (8, 768)),
        ],
    )
    plain = estimate("sd15")
    found = estimate("sd15", lora=str(path))
    sizes = [{one.name: one.weights_bytes for one in one.components} for one in (plain, found)]
    assert sizes[1]["unet"] - sizes[0]["unet"] == 2 * 8 * 320 * 2
    assert sizes[1]["text_encoder"] - sizes[0]["text_encoder"] == 8 * 768 * 2
    weights = {line.component: line.origin for line in found.lines if line.kind is LineKind.WEIGHTS}
    assert weights["unet"] is Origin.EXACT


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lora": "style.bin"}, "no adapter"),
        ({"lora": "missing.safetensors"}, "No such file"),
        ({"lora": "rank16:bf16:fp32"}, "not a rank"),
        ({"quantization": "decoder:bnb-4bit"}, "there is no 'decoder'"),
        ({"quantization": "text_encoder:gguf-q8_0"}, "of transformers, which has no"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(settings: dict[str, SettingValue], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        estimate("sd15", **settings)


def test_a_changed_run_is_judged_on_every_card() -> None:
    for settings in ({"quantization": "bnb-4bit"}, {"offload": "group"}, {"lora": "rank8"}):
        (job,) = make_jobs(["sd15"], CATALOG, settings)
        verdicts = judge(job, CATALOG.card("8gb"))
        assert verdicts[0].need.low_bytes <= verdicts[0].need.expected_bytes
        assert not math.isnan(verdicts[0].offload_risk)


def test_modules_of_another_order_are_matched_by_their_sizes() -> None:
    found = ModuleList(
        modules=(linear(2, 3), Module(name="n", kind=OTHER, rows=0, tensors=(5,))),
        is_of_transformers=False,
    )
    weights = Weights(parameters=11, modules=((5,), (6,), (9,)))
    assert [one and one.name for one in match(found, weights)] == ["n", "to_q", None]
