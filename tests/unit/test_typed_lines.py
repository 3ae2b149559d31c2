"""The lines that a plan tells people to type, run on a real pipeline where that needs no GPU."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from copy import deepcopy
from typing import Any

import pytest

from vramplan.ask.targets import make_jobs
from vramplan.catalog import load_catalog
from vramplan.engines.door import engine_of

CATALOG = load_catalog()
(SD15,) = make_jobs(["sd15"], CATALOG, {})
#: settings that leave every change of a kind open
ASKED = [
    ("sd15", {"batch": 4, "dtype": "fp32"}),
    ("sd15", {"attention": "math", "offload": "model"}),
    ("sdxl", {}),
    ("sd15-vae", {"batch": 2, "dtype": "fp32"}),
    ("llava-1.5-7b-hf", {"batch": 2}),
    ("vit-mae-base", {}),
]
#: said in words, or a variable of the process's environment
WORDS = ("a batch of ", "leave attention at its default", "PYTORCH_ALLOC_CONF=expandable_segments")


def lines() -> list[str]:
    found: dict[str, None] = {}
    for name, settings in ASKED:
        (job,) = make_jobs([name], CATALOG, settings)
        found |= dict.fromkeys(change.line for change in engine_of(job.pipeline).changes(job))
    return [line for line in found if not line.startswith(WORDS)]


@pytest.fixture(scope="module")
def typed() -> dict[str, Any]:
    """What the names in the lines stand for: a pipeline of tiny models, on the CPU."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    transformers = pytest.importorskip("transformers")
    unet = diffusers.UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    config = transformers.CLIPTextConfig(
        hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4
    )
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=transformers.CLIPTextModel(config),
        tokenizer=None,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return {
        "torch": torch, "pipe": pipe, "vae": vae, "model": vae,
        "AutoencoderKL": diffusers.AutoencoderKL,
        "BitsAndBytesConfig": transformers.BitsAndBytesConfig,
        "PipelineQuantizationConfig": diffusers.PipelineQuantizationConfig,
    }  # fmt: skip


def test_there_is_a_line_for_every_kind_of_change() -> None:
    told = " ".join(lines())
    for part in ("tiling", "slicing", "cpu_offload", "float16", "bfloat16", "width=", "fp16-fix"):
        assert part in told


@pytest.mark.parametrize("line", lines())
def test_a_line_is_taken_by_the_library(typed, line) -> None:
    tree = ast.parse(f"f({line})" if "=" in line.split("(")[0] else line)
    (statement,) = tree.body
    assert isinstance(statement, ast.Expr)
    call = statement.value
    assert isinstance(call, ast.Call)
    if isinstance(call.func, ast.Name):  # arguments: of the pipeline's call, or of its loading
        keys = {str(one.arg) for one in call.keywords}
        ours = inspect.signature(type(typed["pipe"]).__call__).parameters
        loading = {*inspect.signature(type(typed["pipe"]).__init__).parameters}
        loading |= {"device_map", "quantization_config"}
        assert keys <= set(ours) | loading
        for keyword in call.keywords:  # a loader is named as it is, its name is to be found
            if isinstance(keyword.value, ast.Call):
                loader = eval(ast.unparse(keyword.value.func), typed)  # noqa: S307  # our own line
                assert callable(loader)
        return
    if "group_offload" in line:  # it stays, and needs an accelerator: a copy's, to the CPU itself
        copied = deepcopy(typed["pipe"])
        eval(line.replace('"cuda"', '"cpu"'), {**typed, "pipe": copied})  # noqa: S307  # our own line
        assert any(hasattr(module, "_diffusers_hook") for module in copied.unet.modules())
        return
    if "cpu_offload" in line:  # refuses a machine without an accelerator: offload to the CPU itself
        method = getattr(typed["pipe"], call.func.attr)  # type: ignore[attr-defined]  # a method
        inspect.signature(method).bind()
        method(device="cpu")
        assert typed["pipe"].unet._hf_hook is not None
        typed["pipe"].remove_all_hooks()
        return
    eval(line, typed)  # noqa: S307  # our own line
    if "tiling" in line:
        assert typed["vae"].use_tiling
    if "enable_slicing" in line:
        assert typed["vae"].use_slicing
    if ".to(" in line:
        half = typed["torch"].bfloat16 if "bfloat16" in line else typed["torch"].float16
        assert next(typed["vae"].parameters()).dtype is half


def test_torch_itself_reads_the_allocators_variable(typed) -> None:
    """What its CPU build has of that is the parser, which refuses another value."""
    name, _, value = "PYTORCH_ALLOC_CONF=expandable_segments:True".partition("=")
    assert any(
        change.line == f"{name}={value}" for change in engine_of(SD15.pipeline).changes(SD15)
    )
    accepts = getattr(typed["torch"]._C, "_accelerator_setAllocatorSettings", None)
    if accepts is None:
        pytest.skip("this torch reads it with its CUDA build alone")
    before = typed["torch"]._C._accelerator_getAllocatorSettings()
    accepts(value)
    try:
        assert typed["torch"]._C._accelerator_getAllocatorSettings() == value
        with pytest.raises(ValueError, match="'True' or 'False'"):
            accepts(value.replace("True", "Maybe"))
    finally:
        accepts(before)


@pytest.mark.slow
def test_torch_takes_it_from_the_environment() -> None:
    """In a process of its own: the variable is read once."""
    pytest.importorskip("torch")
    code = "import torch; print(torch._C._accelerator_getAllocatorSettings())"
    given = {**os.environ, "PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=given
    )
    assert done.stdout == "expandable_segments:True\n"
