"""SDXL with small networks: when its VAE is cast, and what happens when it is not."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.record.recipes import diffusion
from vramplan.engines.torch.record.session import Facts, Recipe, Sample, Session
from vramplan.engines.torch.record.stream import Alloc, Cast
from vramplan.model import ComponentSpec

# diffusers' own: its scheduler hands numpy a tensor, its pipeline calls what it deprecates
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning"),
]

_TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "projection_dim": 32,
}  # fmt: skip
COMPONENTS = (
    ComponentSpec(name="text_encoder", class_path="transformers.CLIPTextModel", config=_TEXT),
    ComponentSpec(
        name="text_encoder_2",
        class_path="transformers.CLIPTextModelWithProjection",
        config=_TEXT,
    ),
    ComponentSpec(
        name="unet",
        class_path="diffusers.UNet2DConditionModel",
        config={
            "sample_size": 64, "block_out_channels": [32, 64], "layers_per_block": 1,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
            "cross_attention_dim": 64, "attention_head_dim": 2, "use_linear_projection": True,
            "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 80,
        },
    ),
    ComponentSpec(
        name="vae",
        class_path="diffusers.AutoencoderKL",
        config={
            "block_out_channels": [32] * 4, "layers_per_block": 1, "sample_size": 512,
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4, "force_upcast": True,
        },
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return diffusion.recipe(
        TorchPipeline(
            name="small-xl", title="", summary="", runtime="diffusers", defaults={}, source="",
            path="", constraints={}, components=COMPONENTS,
            scheduler=ComponentSpec(
                name="scheduler", class_path="diffusers.EulerDiscreteScheduler", config={}
            ),
        )
    )  # fmt: skip


def recorded(recipe: Recipe, dtype: str, **facts: str) -> tuple[list[str], list[int], int]:
    """Return a run's events by type, its sizes, and how often the VAE is cast."""
    session: Facts = {
        "dtype": dtype, "width": "16", "vae_width": "16", "kernel": "efficient",
        "unet_kernel": "efficient", "vae_kernel": "efficient",
    }  # fmt: skip
    plain = {
        "mode": "txt2img", "guided": "1", "safety_checker": "off", "vae_tiling": "off",
        "vae_slicing": "off", "encode_slicing": "off",
    }  # fmt: skip
    numbers = {"batch": 1, "height": 512, "width": 512, "steps": 8}
    sample = Sample(numbers=numbers, facts={**session, **plain, **facts})
    events = Session(recipe, session, remember=False).record(sample).events
    return (
        [type(event).__name__ for event in events],
        [event.size_bytes for event in events if isinstance(event, Alloc)],
        sum(isinstance(event, Cast) for event in events),
    )


def test_in_fp16_a_vae_that_is_not_cast_makes_the_events_of_bf16(recipe: Recipe) -> None:
    """So the recording in bf16 serves ``vae_upcast=off`` in fp16."""
    half, brain = recorded(recipe, "fp16", vae_upcast="off"), recorded(recipe, "bf16")
    assert half == brain
    assert half[2] == 0


def test_in_fp16_it_is_cast_up_before_it_decodes_and_down_again(recipe: Recipe) -> None:
    assert recorded(recipe, "fp16")[2] == 2
