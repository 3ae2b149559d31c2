"""The band of a model without a tape, held to the replays of every pipeline that has one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vramplan.ask.targets import find_target, open_catalog
from vramplan.engines import door
from vramplan.engines.torch import open_saved
from vramplan.engines.torch.estimate import estimate_torch, settled
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.model import Band, Job
from vramplan.recording_switch import switched_off
from vramplan.searching import searching

sys.path.insert(0, str(Path(__file__).parents[1]))

import saved_models as saved  # after the path

CARDS = [
    card for card in open_catalog().cards.values() if card.name in ("rtx-3060-12gb", "rtx-4090")
]
#: what names and configs tell of a model, and a tape of sizes does not
CONFIGS = {
    "llava-1.5-7b-hf": {
        "text_config": {
            "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
            "intermediate_size": 11008, "vocab_size": 32064,
        },
        "vision_config": {
            "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096,
            "image_size": 336, "patch_size": 14,
        },
    }
}  # fmt: skip
CASES = [
    ("sd15", {}, {}),
    ("sd15", {"image": (768, 768)}, {"image": (768, 768)}),
    ("sd15", {"image": (512, 512), "batch": 4}, {"image": (512, 512), "batch": 4}),
    ("sdxl", {}, {}),
    ("sdxl", {"image": (512, 768)}, {"image": (512, 768)}),
    ("sdxl", {"dtype": "bf16"}, {"dtype": "bf16"}),
    ("sdxl", {"offload": "model"}, {"offload": "model"}),
    ("sd15-vae", {"image": (1024, 1024)}, {"image": (1024, 1024)}),
    ("llava-1.5-7b-hf", {}, {"prompt_tokens": 64}),
    ("llava-1.5-7b-hf", {"prompt_tokens": 2000}, {"prompt_tokens": 2000}),
    ("vit-mae-base", {"batch": 8}, {"batch": 8}),
]


def need(pipeline: TorchPipeline, settings, card):
    job = Job(pipeline=pipeline, settings={**pipeline.defaults, **settings})
    return door.engine_of(pipeline).estimate(job, card).need.band


def counted(folder: Path, name: str, monkeypatch) -> TorchPipeline:
    """Return a catalogued pipeline as if the catalogue did not know its architecture."""
    config = CONFIGS.get(name, {})
    parts = {"vae": {"force_upcast": name == "sdxl"}, "model": config}
    saved.save(folder, name, **parts)
    if "vae" in saved.sizes(name):  # its last convolution is looked for by name
        own = folder / "vae" if (folder / "vae").is_dir() else folder
        path = next(own.glob("*.safetensors"))
        tensors = saved.tensors_of(saved.sizes(name)["vae"])
        last = next(n for n, one in enumerate(tensors) if one[2] == (3 * 128 * 9,))
        tensors[last] = ("decoder.conv_out.weight", "F16", (3, 128, 3, 3))
        saved.write(path, tensors)
    monkeypatch.setattr(open_saved, "find_same", lambda *_: ())
    found = find_target(str(folder), open_catalog())
    assert isinstance(found, TorchPipeline)
    assert found.counted is not None
    return found


@pytest.mark.parametrize(("name", "asked", "said"), CASES)
def test_the_band_holds_what_a_tape_replays(tmp_path, monkeypatch, name, asked, said) -> None:
    catalog = open_catalog()
    taped = door.open_entry(catalog.pipelines[name], catalog.folders)
    assert isinstance(taped, TorchPipeline)
    without = counted(tmp_path / "m", name, monkeypatch)
    taped = replace(taped, defaults={**taped.defaults, "dtype": "fp16"})
    image = {"image": taped.defaults["image"]} if "image" in without.defaults else {}
    for card in CARDS:
        right = need(taped, asked, card)
        ours = need(without, {**image, **said}, card)
        assert ours.low_bytes <= right.expected_bytes <= ours.high_bytes, (ours, right)
        if asked.get("batch", 1) == 1:
            assert ours.high_bytes <= 3 * ours.low_bytes


VAES = ("flux1-vae", "flux2-vae", "dc-ae-f32c32-sana")


@pytest.mark.parametrize("image", [(512, 512), (1024, 1024), (2048, 2048)])
@pytest.mark.parametrize("card", ["t4", "v100-16gb", "gtx-1080-ti"])
@pytest.mark.parametrize("name", VAES)
def test_before_8_0_the_band_holds_what_decoders_take_in_bf16(name, card, image) -> None:
    check_entry(name, card, {"image": image})


@pytest.mark.parametrize("batch", [3, 8])
@pytest.mark.parametrize("card", ["t4", "rtx-3090"])
@pytest.mark.parametrize("name", ["llama-3.1-8b", "clip-vit-h-14", "bge-reranker-v2-m3"])
def test_the_band_holds_batches_of_short_prompts(name, card, batch) -> None:
    check_entry(name, card, {"batch": batch})


@pytest.mark.parametrize(
    ("name", "card", "asked"),
    [
        ("qwen2-vl-2b", "rtx-4090", {"image": (1988, 1988)}),
        ("qwen2-vl-7b", "t4", {"image": (448, 448)}),
        ("qwen2.5-vl-3b", "t4", {"batch": 3}),
        ("qwen3-vl-2b", "t4", {"image": (2048, 2048)}),
        ("qwen3-vl-4b", "rtx-4090", {"image": (448, 448)}),
        ("gemma-3-4b", "t4", {"batch": 3}),
        ("smolvlm", "t4", {"prompt_tokens": 2000}),
        ("llava-1.6-mistral-7b-hf", "rtx-4090", {"batch": 3}),
        ("llava-onevision-7b", "t4", {}),
    ],
)
def test_the_band_of_a_model_that_sees_holds_its_image(name, card, asked) -> None:
    ours = check_entry(name, card, asked)
    assert ours.high_bytes <= 3 * ours.low_bytes


def check_entry(name: str, card: str, asked: dict[str, object]) -> Band:
    """Hold the band of an entry, as if it had no tape, to the replay of its tape; return it."""
    catalog = open_catalog()
    entry = door.open_entry(catalog.pipelines[name], catalog.folders)
    assert isinstance(entry, TorchPipeline)
    assert entry.counted is not None
    without = replace(entry, tape_within=None)
    on = catalog.card(card).candidates[0]
    with searching():
        right, ours = need(entry, asked, on), need(without, asked, on)
    assert ours != right
    assert ours.low_bytes <= right.expected_bytes <= ours.high_bytes, (ours, right)
    return ours


# -------------------------------------------------------------- the whole catalogue
#: an architecture of each kind of kernel, and one with convolutions of its own
EACH = ("gtx-1080-ti", "t4", "rtx-3090", "h100-80gb")
FUSED = EACH[2:]


def test_the_band_holds_the_replays_of_nearly_all_that_is_catalogued() -> None:
    """As the entries are by default: 434 of 442 are held, and 183 of 190 in a narrow band too.

    Of videos it is not known how many frames are worked on at once, nor of plain attention how many
    heads there are: those bands are honest, and wide.
    """
    catalog = open_catalog()
    held: list[bool] = []
    narrow: list[bool] = []
    with switched_off():
        for name, entry in catalog.pipelines.items():
            pipeline = door.open_entry(entry, catalog.folders)
            if not isinstance(pipeline, TorchPipeline) or pipeline.counted is None:
                continue
            for card in EACH:
                on = catalog.card(card).candidates[0]
                right = settled(pipeline, pipeline.defaults, on.compute_capability)
                if right.counted is not None:
                    continue
                asked = estimate_torch(right, pipeline.defaults, on).need.band.expected_bytes
                without = replace(pipeline, tape_within=None)
                ours = estimate_torch(without, pipeline.defaults, on).need.band
                held.append(ours.low_bytes <= asked <= ours.high_bytes)
                # never far off, and on the side of too little least
                assert 0.98 * asked <= ours.high_bytes, (name, card)
                if card in FUSED and "frames" not in pipeline.defaults:
                    narrow.append(held[-1] and ours.high_bytes <= 3 * ours.low_bytes)
    assert len(held) > 430
    assert sum(held) >= 0.97 * len(held), f"{sum(held)} of {len(held)}"
    assert sum(narrow) >= 0.95 * len(narrow), f"{sum(narrow)} of {len(narrow)}"


# -------------------------------------------------------------- a decoder with a tape of its own
def test_an_entry_names_the_tape_of_the_very_autoencoder_it_has() -> None:
    catalog = open_catalog()
    named = 0
    for name in catalog.pipelines:
        entry = catalog.pipelines[name]
        for spec in entry.components():
            if spec.tape is not None:
                (alone,) = catalog.pipelines[spec.tape].components()
                assert (spec.class_path, spec.config) == (alone.class_path, alone.config), name
                named += 1
    assert named >= 10


DECODED = {"chroma": "flux1-vae", "flux1-dev": "flux1-vae", "flux1-schnell": "flux1-vae"}


@pytest.mark.parametrize("image", [(512, 512), (1024, 1024)])
@pytest.mark.parametrize("name", DECODED)
def test_decoding_by_the_autoencoders_tape_is_near_the_whole_pipelines(name, image) -> None:
    """Where the whole pipeline has a tape too, it is right, and the decoder's comes near."""
    catalog = open_catalog()
    taped = door.open_entry(catalog.pipelines[name], catalog.folders)
    assert isinstance(taped, TorchPipeline)
    assert taped.counted is not None
    assert taped.counted.decoder is not None
    decoder = replace(taped.counted.decoder, tape=DECODED[name])
    without = replace(taped, tape_within=None, counted=replace(taped.counted, decoder=decoder))
    card = catalog.card("rtx-4090").candidates[0]
    with searching():
        right, ours = (need(one, {"image": image}, card) for one in (taped, without))
    assert ours.low_bytes <= right.expected_bytes <= ours.high_bytes, (ours, right)
    assert abs(ours.expected_bytes - right.expected_bytes) < 0.03 * right.expected_bytes
    blind = need(replace(without, counted=taped.counted), {"image": image}, card)
    assert ours.high_bytes - ours.low_bytes < blind.high_bytes - blind.low_bytes


def test_a_saved_pipelines_decoder_is_known_by_its_tensors(tmp_path) -> None:
    """A pipeline that nobody recorded, with the autoencoder of FLUX.1."""
    folder = saved.save(tmp_path / "mine", "flux1-dev", "BF16")
    index = (folder / "model_index.json").read_text().replace("FluxPipeline", "ZImagePipeline")
    (folder / "model_index.json").write_text(index)
    tensors = saved.tensors_of(saved.sizes("flux1-dev")["vae"], "BF16")
    last = next(n for n, one in enumerate(tensors) if one[2] == (3 * 128 * 9,))
    tensors[last] = ("decoder.conv_out.weight", "BF16", (3, 128, 3, 3))
    saved.write(folder / "vae" / "model.safetensors", tensors)
    found = find_target(str(folder), open_catalog())
    assert isinstance(found, TorchPipeline)
    assert found.counted is not None
    assert found.counted.decoder is not None
    assert found.counted.decoder.tape == "flux1-vae"
