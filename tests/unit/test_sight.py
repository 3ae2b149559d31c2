"""What an image is to a model that sees, by its config alone."""

from __future__ import annotations

import pytest

from vramplan.engines.torch.sight import find_sight

QWEN = {"vision_config": {"embed_dim": 1280, "hidden_size": 1536}}
LLAVA = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "image_size": 336,
    "patch_size": 14,
}  # fmt: skip


def test_an_image_of_any_size_is_cut_into_patches_and_four_are_a_token() -> None:
    """What a config leaves out is its class's own; sides are cut to whole tokens."""
    sight = find_sight(QWEN, "Qwen2VLForConditionalGeneration")
    assert sight is not None
    assert (sight.hidden, sight.intermediate, sight.heads) == (1280, 5120, 16)
    assert sight.patches((1008, 1008)) == 72 * 72
    assert sight.tokens((1008, 1008)) == 36 * 36
    assert sight.tokens((1035, 56)) == 36 * 2
    assert sight.tokens((1, 1)) == 1
    assert sight.patch_elements == 2 * 3 * 14 * 14
    assert sight.images((4000, 10)) == 1


@pytest.mark.parametrize(("image", "tiles"), [((448, 448), 5), ((300, 600), 3), ((9999, 9999), 5)])
def test_an_image_is_cut_into_the_tiles_of_the_smallest_grid_around_it(image, tiles) -> None:
    sight = find_sight({"vision_config": LLAVA}, "LlavaNextForConditionalGeneration")
    assert sight is not None
    assert sight.images(image) == tiles
    assert sight.tokens(image) == 576


def test_an_image_of_one_size_has_as_many_tokens_as_are_said() -> None:
    vision = {**LLAVA, "image_size": 896}
    gemma = find_sight({"vision_config": vision}, "Gemma3ForConditionalGeneration")
    assert gemma is not None
    assert (gemma.patches((64, 64)), gemma.tokens((64, 64)), gemma.images((64, 64))) == (
        4096,
        256,
        1,
    )
    smol = find_sight({"vision_config": {**LLAVA, "image_size": 378}, "scale_factor": 3}, "Any")
    assert smol is not None
    assert (smol.images((64, 64)), smol.tokens((64, 64))) == (17, 81)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"vision_config": 3},
        {"vision_config": {}},
        {"vision_config": {**LLAVA, "hidden_size": "1024"}},
        {"vision_config": {**LLAVA, "patch_size": 0}},
        {"vision_config": {**LLAVA, "num_attention_heads": 1 << 30}},
    ],
)
def test_a_config_that_does_not_tell_says_nothing(config) -> None:
    assert find_sight(config, "AnyForConditionalGeneration") is None


def test_odd_numbers_of_a_config_are_not_believed() -> None:
    odd = {
        "vision_config": {**LLAVA, "intermediate_size": -1, "mlp_ratio": float("nan")},
        "image_grid_pinpoints": [[336], [1 << 40, 336], ["a", 2], [336, 672]],
    }
    sight = find_sight(odd, "AnyForConditionalGeneration")
    assert sight is not None
    assert sight.intermediate == 4096
    assert sight.grids == ((336, 672),)
