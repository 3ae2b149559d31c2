"""A denoiser's own file, in its authors' layout: which pipeline it is of, and what that needs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from gguf import GGMLQuantizationType

from vramplan.ask.targets import find_target, open_catalog
from vramplan.engines.torch.pipeline import TorchPipeline

sys.path.insert(0, str(Path(__file__).parents[1]))

import saved_models as saved  # after the path
from sparse_gguf import Model, write

WIDTH = 3072
GUIDED = 11_901_408_320


def linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (rows, columns)
    yield f"{name}.bias", (rows,)


def norms(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.norm.query_norm.scale", (128,)
    yield f"{name}.norm.key_norm.scale", (128,)


def flux(channels: int = 64) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield FLUX.1's tensors in Black Forest Labs' layout: queries, keys and values in one."""
    yield from linear("img_in", WIDTH, channels)
    yield from linear("txt_in", WIDTH, 4096)
    for name, columns in (("time_in", 256), ("vector_in", 768), ("guidance_in", 256)):
        yield from linear(f"{name}.in_layer", WIDTH, columns)
        yield from linear(f"{name}.out_layer", WIDTH, WIDTH)
    for number in range(19):
        for stream in ("img", "txt"):
            block = f"double_blocks.{number}.{stream}"
            yield from linear(f"{block}_mod.lin", 6 * WIDTH, WIDTH)
            yield from linear(f"{block}_attn.qkv", 3 * WIDTH, WIDTH)
            yield from linear(f"{block}_attn.proj", WIDTH, WIDTH)
            yield from norms(f"{block}_attn")
            yield from linear(f"{block}_mlp.0", 4 * WIDTH, WIDTH)
            yield from linear(f"{block}_mlp.2", WIDTH, 4 * WIDTH)
    for number in range(38):
        block = f"single_blocks.{number}"
        yield from linear(f"{block}.modulation.lin", 3 * WIDTH, WIDTH)
        yield from linear(f"{block}.linear1", 7 * WIDTH, WIDTH)
        yield from linear(f"{block}.linear2", WIDTH, 5 * WIDTH)
        yield from norms(block)
    yield from linear("final_layer.linear", 64, WIDTH)
    yield from linear("final_layer.adaLN_modulation.1", 2 * WIDTH, WIDTH)


def save(path: Path, dtype: str = "BF16", before: str = "", channels: int = 64) -> Path:
    tensors = [(before + name, dtype, shape) for name, shape in flux(channels)]
    return saved.write(path, tensors)


def opened(path: Path) -> tuple[TorchPipeline, str]:
    said: list[str] = []
    found = find_target(str(path), open_catalog(), None, said.append)
    assert isinstance(found, TorchPipeline)
    return found, said[0]


def need(run, target: str, *more: str) -> int:
    told = run("check", target, "--card", "rtx-4090", "--json", *more)
    return json.loads(told.out)["result"]["verdicts"][0]["need_bytes"]


def test_it_is_planned_with_the_rest_of_its_pipeline(tmp_path, run) -> None:
    path = save(tmp_path / "my-flux.safetensors")
    found, said = opened(path)
    assert found.name == "my-flux"
    assert "the transformer of the catalogue's flux1-dev (or flux1-controlnet" in said
    assert "flux1-kontext-dev: name that instead" in said
    assert f"{GUIDED:,} parameters" in said
    assert need(run, str(path)) == need(run, "flux1-dev")


def test_its_name_tells_pipelines_with_the_same_denoiser_apart(tmp_path) -> None:
    _, said = opened(save(tmp_path / "flux1-kontext-dev_fp8.safetensors"))
    assert "the catalogue's flux1-kontext-dev (or flux1-controlnet-union, flux1-dev" in said


def test_another_input_is_another_pipeline(tmp_path) -> None:
    """FLUX.1 Fill takes an image and a mask beside the noise."""
    assert (
        "the catalogue's flux1-fill-dev, by"
        in opened(save(tmp_path / "flux.safetensors", channels=384))[1]
    )


def test_one_in_fp8_says_what_loading_makes_of_it(tmp_path, run) -> None:
    path = save(tmp_path / "flux1-dev-fp8.safetensors", "F8_E4M3", "model.diffusion_model.")
    _, said = opened(path)
    assert "11.08 GiB of fp8 in the file, which from_single_file casts" in said
    assert need(run, str(path)) == need(run, "flux1-dev")
    kept = ("--set", "quantization=transformer:fp8-layerwise")
    assert need(run, str(path), *kept) == need(run, "flux1-dev", *kept)


def test_what_keeps_fp8_is_said_of_the_component_that_it_is(tmp_path, run) -> None:
    path = tmp_path / "sdxl_fp8.safetensors"
    saved.write(path, saved.tensors_of(saved.sizes("sdxl")["unet"], "F8_E4M3"))
    _, said = opened(path)
    assert "the unet of the catalogue's sdxl" in said
    assert "--set quantization=unet:fp8-layerwise keeps them in fp8" in said
    kept = ("--set", "quantization=unet:fp8-layerwise")
    assert need(run, str(path), *kept) == need(run, "sdxl", *kept)


def test_scales_and_notes_of_quantised_weights_are_no_parameters(tmp_path) -> None:
    """As ComfyUI writes fp8 in its two ways, and NVFP4: two numbers in a byte."""
    for name, kind, by, beside in (
        ("scaled", "F8_E4M3", 1, [("scale_weight", "F32", ())]),
        ("mixed", "F8_E4M3", 1, [("weight_scale", "F32", ()), ("comfy_quant", "U8", (27,))]),
        ("nvfp4", "U8", 2, [("weight_scale", "F8_E4M3", (9,)), ("weight_scale_2", "F32", ())]),
    ):
        tensors: list[saved.Described] = [("scaled_fp8", "F8_E4M3", (2,))]
        for of, shape in flux():
            if len(shape) == 1:
                tensors.append((of, "BF16", shape))
                continue
            tensors.append((of, kind, (shape[0], shape[1] // by)))
            tensors += [(f"{of.removesuffix('.weight')}.{last}", *rest) for last, *rest in beside]
        path = saved.write(tmp_path / f"flux1-dev_{name}.safetensors", tensors)
        assert "the catalogue's flux1-dev (or" in opened(path)[1]


def test_a_table_of_positions_in_the_file_is_no_parameter_where_diffusers_makes_it(
    tmp_path, run
) -> None:
    """SD 3.5's own file: with an autoencoder and text encoders, which were left out."""
    before = "model.diffusion_model."
    sizes = saved.sizes("sd3.5-medium")
    table = max(sizes["transformer"])
    assert table == 384 * 384 * 1536
    sizes["transformer"].remove(table)
    path = saved.write(
        tmp_path / "sd3.5_medium_incl_clips_t5xxl.safetensors",
        [
            (f"{before}pos_embed", "F16", (1, 384 * 384, 1536)),
            *saved.tensors_of(sizes["transformer"], "F16", before),
            *saved.tensors_of(sizes["text_encoder_3"], "F16", "text_encoders.t5xxl.transformer."),
        ],
    )
    assert "the catalogue's sd3.5-medium" in opened(path)[1]
    assert need(run, str(path)) == need(run, "sd3.5-medium")


def test_of_two_denoisers_alike_the_first_is_said_and_both_are_quantised(tmp_path) -> None:
    path = tmp_path / "wan2.2_t2v_high_noise_14B_fp8.safetensors"
    _, said = opened(saved.write(path, saved.tensors_of([14_288_491_584], "F8_E4M3")))
    assert "the transformer of the catalogue's wan2.2-t2v-a14b" in said
    assert "'quantization=transformer:fp8-layerwise;transformer_2:fp8-layerwise'" in said


def test_a_folder_of_a_denoiser_alone_is_planned_with_the_rest_too(tmp_path, run) -> None:
    folder = tmp_path / "transformer"
    saved.write(
        folder / "diffusion_pytorch_model.safetensors",
        saved.tensors_of(saved.sizes("flux1-dev")["transformer"], "BF16"),
    )
    (folder / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    assert "the transformer of the catalogue's flux1-dev" in opened(folder)[1]
    assert need(run, str(folder)) == need(run, "flux1-dev")
    (folder / "config.json").write_text('{"_class_name": "SomethingElse"}')
    assert "there is no tape of SomethingElse" in opened(folder)[1]


def test_no_denoiser_of_the_catalogue_is_counted_as_before(tmp_path) -> None:
    path = tmp_path / "small.safetensors"
    saved.write(path, [("double_blocks.0.img_attn.qkv.weight", "BF16", (96, 32))])
    found, said = opened(path)
    assert found.counted is not None
    assert "there is no tape of this model" in said


def test_a_gguf_file_is_held_in_its_own_blocks(tmp_path, run) -> None:
    """As city96's files are: vectors in F32, the first and last matrices in F16, others in Q4_K."""
    model = Model("flux", words=0)
    for name, shape in flux():
        whole = len(shape) == 1 or name.startswith(("img_in", "time_in", "final_layer"))
        kind = GGMLQuantizationType.F32 if len(shape) == 1 else GGMLQuantizationType.F16
        model.add(name, *reversed(shape), kind=kind if whole else GGMLQuantizationType.Q4_K)
    path = write(tmp_path / "flux1-dev-Q4_K_S.gguf", model)
    found, said = opened(path)
    assert "6,435 MiB in the file, most of it q4_k" in said
    assert found.defaults["quantization"] == "transformer:gguf-q4_k"
    asked = ("--set", "quantization=transformer:gguf-q4_k")
    assert need(run, str(path)) == need(run, "flux1-dev", *asked)
    whole = need(run, "flux1-dev")
    assert need(run, str(path), "--set", "quantization=none") == whole


def test_a_gguf_of_no_known_denoiser_is_refused_in_a_line(tmp_path, run) -> None:
    model = Model("flux", words=0)
    model.add("double_blocks.0.img_attn.qkv.weight", 32, 96)
    result = run("check", str(write(tmp_path / "odd.gguf", model)), "--card", "8gb")
    assert result.code == 2
    assert "a diffusion model (flux), not a language model" in result.error
