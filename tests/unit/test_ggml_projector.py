"""The projector file: CLIP-L/14-336 and LLaVA's projector, against its log."""

from __future__ import annotations

import pytest

from vramplan.engines.ggml.engine_pools import vision_pool
from vramplan.engines.ggml.pipeline import Described, GgmlPipeline
from vramplan.engines.ggml.projector_compute import projector_compute
from vramplan.engines.ggml.projector_entry import read_projector
from vramplan.engines.ggml.vision_model import VisionModel
from vramplan.engines.ggml.weights import TensorRole
from vramplan.errors import CatalogError
from vramplan.units import MIB

CLIP = {
    "architecture": "clip",
    "quantisation": "f16",
    "image_size": 336,
    "patch_size": 14,
    "embedding": 1024,
    "feed_forward": 4096,
    "heads": 16,
    "layers": 23,
    "projection": 4096,
}


def entry(ggml: dict[str, object]) -> GgmlPipeline:
    return GgmlPipeline(
        name="x",
        title="X",
        summary="x",
        runtime="llama.cpp",
        defaults={},
        constraints={},
        source="x",
        path="x.yaml",
        model=Described(section=ggml),
    )


def vision(**changes: object) -> VisionModel:
    found = read_projector(entry({"projector": CLIP | changes}))
    assert found is not None
    return found


def test_the_file_is_that_of_ollama_2706() -> None:
    """377 tensors, 235 of them f32 and 142 f16, 595.49 MiB (printed as MB)."""
    clip = vision()
    types = [tensor.type for tensor in clip.tensors]
    assert (types.count("f32"), types.count("f16")) == (235, 142)
    assert clip.weights_bytes == 624_412_672
    assert round(clip.weights_bytes / MIB, 2) == 595.49


def test_encoder_and_projector_are_counted_apart() -> None:
    clip = vision()
    assert clip.part(TensorRole.PROJECTOR) == (20_979_712, 41_975_808)
    assert clip.part(TensorRole.VISION) == (290_909_184, 582_436_864)
    assert clip.weights_bytes == 41_975_808 + 582_436_864


def test_all_24_layers_are_the_tower_of_transformers() -> None:
    """CLIP-L/14-336 has 303,507,456; 2,048 are a last norm that LLaVA's file leaves out."""
    assert vision(layers=24).part(TensorRole.VISION)[0] == 303_507_456 - 2048


def test_an_image_is_576_tokens() -> None:
    assert (vision().patches, vision().tokens) == (576, 577)


@pytest.mark.parametrize(
    ("flash", "image_size", "size"),
    [
        (
            False,
            336,
            32.89,
        ),  # ollama#2706, CLIP using CUDA backend; b11549's CPU build prints 32.88
        (True, 336, 21.55),  # llama.cpp's CPU build b11549
        (False, 224, 9.62),
        (True, 224, 9.58),
    ],
)
def test_compute_buffers(flash: bool, image_size: int, size: float) -> None:
    ours = projector_compute(vision(image_size=image_size), has_flash=flash)
    assert ours.expected_bytes / MIB == pytest.approx(size, abs=0.01)
    assert ours.low_bytes < ours.expected_bytes < ours.high_bytes


def test_heads_that_cuda_has_no_kernel_for_run_without_flash_attention() -> None:
    """88 is Llama 4's; ggml-cuda/fattn.cu lists what there is."""
    odd = vision(embedding=1408)
    assert projector_compute(odd, has_flash=True) == projector_compute(odd, has_flash=False)
    assert projector_compute(vision(), has_flash=True) != projector_compute(
        vision(), has_flash=False
    )


def test_pools() -> None:
    assert vision_pool(vision(), has_flash=True).expected_bytes == 10 * MIB  # 9 MiB of f16
    assert vision_pool(vision(), has_flash=False).expected_bytes == 12 * MIB  # 10.2 MiB of scores


def test_a_model_without_projector_has_none() -> None:
    assert read_projector(entry({"architecture": "llama"})) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 15}, "x.yaml: ggml.projector.patch_size: 15 does not divide"),
        ({"heads": 15}, "ggml.projector.heads: 15 does not divide"),
        (
            {"quantisation": "f17"},
            "ggml.projector.quantisation: unknown quantisation 'f17'",
        ),
        ({"architecture": "siglip"}, "ggml.projector.architecture: unknown architecture"),
        (
            {"layers": -1},
            "ggml.projector.layers: must be a whole number from 1 to 256, not -1",
        ),
        ({"hidden": 4096}, "ggml.projector.hidden: unknown key"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(CatalogError) as caught:
        vision(**change)
    assert message in str(caught.value)


def test_a_projector_is_a_mapping() -> None:
    with pytest.raises(CatalogError, match=r"ggml\.projector: must be a mapping"):
        read_projector(entry({"projector": "clip"}))
