"""Projector files: families, older builds, images of any size, and files that are no good."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from vramplan.engines.ggml.projector_compute import (
    cpu_projector_bytes,
    is_certain,
    is_known,
    projector_compute,
    projector_notes,
    projector_source,
)
from vramplan.engines.ggml.projector_file import image_setting, projector_of
from vramplan.engines.ggml.vision_image import image_sizes
from vramplan.engines.ggml.vision_model import VisionModel, at_build
from vramplan.errors import SourceError
from vramplan.model import Origin
from vramplan.sources.gguf import read_gguf
from vramplan.units import MIB

pytest.importorskip("gguf")

_PATH = Path(__file__).parents[1] / "sparse_projectors.py"
_SPEC = importlib.util.spec_from_file_location("sparse_projectors", _PATH)
projectors = sys.modules.setdefault("sparse_projectors", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(projectors)


@pytest.fixture
def read(tmp_path):
    def make(model: object) -> VisionModel:
        return projector_of(read_gguf(projectors.sparse.write(tmp_path / "m.gguf", model)))

    return make


def cpu(vision: VisionModel, build: int, *, has_flash: bool) -> float:
    older = at_build(vision, build, None)
    assert older is not None
    return cpu_projector_bytes(older, has_flash=has_flash) / MIB


@pytest.mark.parametrize(
    ("name", "build", "flash", "math"),
    [
        # what xllamacpp's wheels 2026.6.9538, 2026.8.10566, 2026.9.10809 and .11063 hold
        ("qwen2.5vl", 9538, 594.36, 4871.57),
        ("qwen2.5vl", 11063, 594.36, 4871.57),
        ("qwen2.5vl", 11549, 459.27, 4871.57),
        ("pixtral", 9538, 16.06, 16.06),
        ("pixtral", 10566, 16.06, 16.06),
        ("pixtral", 10809, 16.56, 16.06),
        ("mistral-small", 10566, 62.62, 82.62),
        ("mistral-small", 11063, 64.62, 86.62),
        ("internvl", 9538, 32.02, 84.14),
        ("internvl", 10566, 28.02, 80.14),
        ("llava", 9538, 21.54, 32.88),
        ("gemma3", 9538, 121.25, 1132.0),
        ("qwen3vl", 9538, 334.89, 4695.0),
        ("gemma4", 9538, 140.5, 386.45),
        ("gemma4", 10566, 140.5, 386.45),
        ("gemma4", 10809, 150.62, 381.39),
        ("kimi", 10566, 32.62, 84.3),
        ("kimi", 10809, 34.87, 88.8),
        ("llama4", 10566, 23.0, 34.02),
        ("llama4", 11063, 19.9, 37.12),
    ],
)
def test_older_builds(read, name, build, flash, math) -> None:
    vision = read(projectors.families()[name])
    assert cpu(vision, build, has_flash=True) == pytest.approx(flash, abs=0.011)
    assert cpu(vision, build, has_flash=False) == pytest.approx(math, abs=0.011)


def test_qwens_buffer_grows_with_the_image(read) -> None:
    """1288x1288 is reserved for at load; a larger image takes more, up to the largest."""
    vision = read(projectors.qwen25vl())

    def band(image: tuple[int, int] | None):
        asked = at_build(vision, 11549, image)
        assert asked is not None
        return projector_compute(asked, has_flash=True)

    assert band((448, 448)).expected_bytes == band(None).expected_bytes
    assert band((448, 448)).high_bytes < band(None).high_bytes
    assert band((1792, 1792)).expected_bytes > band((1500, 1500)).expected_bytes
    assert band((1500, 1500)).expected_bytes > band(None).expected_bytes
    assert band((9000, 9000)) == band((1792, 1792))
    assert band((1288, 1288)) == band(None)
    assert band(None).high_bytes >= band((1792, 1792)).expected_bytes
    for one in (band(None), band((2500, 700))):
        assert one.low_bytes <= one.expected_bytes <= one.high_bytes


@pytest.mark.parametrize(
    ("image", "encoded"),
    [
        ((1920, 1080), (1932, 1092)),
        ((4000, 3000), (2044, 1540)),
        ((10, 10), (84, 84)),  # eight tokens are the least
        ((20_000, 10), (19_992, 28)),
    ],
)
def test_images_are_scaled_as_the_engine_does(image, encoded) -> None:
    sizes = image_sizes("qwen2vl_merger", image=560, patch=14, merge=2)
    found = sizes.encoded(*image)
    assert found[0] % 28 == found[1] % 28 == 0
    assert found[0] * found[1] <= sizes.most_pixels
    assert found == encoded


def test_the_largest_image_is_of_as_many_tokens_as_there_may_be() -> None:
    """Gemma 4 takes 1,120 tokens of 48 by 48 pixels, which is no square."""
    sizes = image_sizes("gemma4v", image=224, patch=16, merge=3)
    assert sizes.largest == (35 * 48, 32 * 48)
    assert sizes.encoded(*sizes.largest) == sizes.largest
    assert sizes.largest[0] * sizes.largest[1] == sizes.most_pixels


def test_squares_of_a_fixed_size_do_not_depend_on_the_image(read) -> None:
    vision = read(projectors.gemma3())
    asked = at_build(vision, 11549, (100, 3000))
    assert asked is not None
    assert projector_compute(asked, has_flash=True) == projector_compute(vision, has_flash=True)


def test_tiles_of_internvl_are_encoded_several_at_once(read) -> None:
    """256 tokens a tile, and the engine's --mtmd-batch-max-tokens of 1,024 (#24775)."""
    vision = read(projectors.internvl())
    new = projector_compute(vision, has_flash=True)
    assert new.high_bytes > 3.5 * new.expected_bytes
    old = at_build(vision, 9538, None)
    assert old is not None
    assert projector_compute(old, has_flash=True).high_bytes < 1.1 * new.expected_bytes * 8 / 7
    assert "up to 4 at once" in projector_source(vision)[1]
    assert "one after another" in projector_source(read(projectors.llava()))[1]


def test_only_families_with_images_of_any_size_have_the_setting(tmp_path) -> None:
    def setting(model: object) -> object:
        return image_setting(read_gguf(projectors.sparse.write(tmp_path / "m.gguf", model)))

    assert setting(projectors.qwen2vl()) == (1288, 1288)
    assert setting(projectors.qwen3vl()) == (1472, 1472)
    assert setting(projectors.pixtral()) == (256, 256)
    assert setting(projectors.mistral_small()) == (448, 448)
    assert setting(projectors.gemma4()) == (768, 768)
    assert setting(projectors.kimi()) == (448, 448)
    assert setting(projectors.llava()) is None
    assert setting(projectors.gemma3()) is None


# -- what is not known ---------------------------------------------------------------------------
def guessed(vision: VisionModel, *words: str) -> None:
    """Weights are counted, the compute buffer is a wide guess, and it says so."""
    assert vision.weights_bytes == sum(tensor.size_bytes for tensor in vision.tensors) > 0
    assert not is_certain(vision)
    origin, source = projector_source(vision)
    assert origin is Origin.ASSUMED
    notes = " ".join(projector_notes(vision))
    assert "weights are counted" in notes
    assert "a guess" in notes
    for word in words:
        assert word in source
        assert word in notes
    band = projector_compute(vision, has_flash=True)
    assert 0 < band.low_bytes * 3 < band.expected_bytes
    assert band.high_bytes >= 2 * band.expected_bytes


def test_an_unknown_projector_type(read) -> None:
    model = projectors.llava()
    model.meta["projector_type"] = "tea_leaves"
    guessed(read(model), "'tea_leaves'")


def test_a_family_without_its_tensors(read) -> None:
    model = projectors.llava()
    model.tensors = [one for one in model.tensors if one[0] != "mm.0.weight"]
    vision = read(model)
    assert not is_known(vision)
    guessed(vision, "mlp", "tensors")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vision.image_size", 2**31),
        ("vision.image_size", 0),
        ("vision.patch_size", 0),
        ("vision.patch_size", 2**31),
        ("vision.embedding_length", 2**31),
        ("vision.attention.head_count", 2**31),
        ("vision.block_count", 2**31),
    ],
)
def test_absurd_sizes(read, key, value) -> None:
    model = projectors.llava()
    model.meta[key] = value
    vision = read(model)
    guessed(vision)
    assert projector_compute(vision, has_flash=False).high_bytes < 1 << 40


def test_an_absurd_merge_is_not_followed(read) -> None:
    guessed(read(projectors.qwen2vl(2**20)), "qwen2vl_merger")


def test_several_layers_outputs_are_not_known(read) -> None:
    model = projectors.llava()
    model.meta["vision.feature_layer"] = [0, 1]
    guessed(read(model), "'mlp'")


def test_a_file_with_an_audio_encoder_only(read) -> None:
    model = projectors.encoder("ultravox", image=0, patch=0, wide=1280, inner=5120, heads=20)
    model.meta = {
        key.replace("vision", "audio"): value
        for key, value in model.meta.items()
        if "image" not in key and "patch" not in key
    }
    model.add("a.conv1d.1.weight", 3, 128, 1280, kind=projectors.F16)
    guessed(read(model), "its audio encoder")


def test_an_audio_encoder_beside_a_known_vision_encoder(read) -> None:
    model = projectors.qwen2vl()
    alone = projector_compute(read(model), has_flash=True)
    model.meta |= {"has_audio_encoder": True, "audio.embedding_length": 1280}
    both = read(model)
    assert is_known(both)
    band = projector_compute(both, has_flash=True)
    assert band.expected_bytes > alone.expected_bytes
    assert projector_source(both)[0] is Origin.ASSUMED
    assert "audio" in " ".join(projector_notes(both))


def test_builds_older_than_any_that_was_asked(read) -> None:
    old = at_build(read(projectors.qwen2vl()), 5000, None)
    assert old is not None
    assert projector_source(old)[0] is Origin.ASSUMED
    assert "b5000" in " ".join(projector_notes(old))


def test_a_file_without_any_encoder(read) -> None:
    model = projectors.sparse.Model("clip", words=0)
    model.add("mm.0.weight", 8, 8)
    with pytest.raises(SourceError, match="neither a vision nor an audio encoder"):
        read(model)
