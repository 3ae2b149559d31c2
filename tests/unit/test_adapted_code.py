"""What LoRA adapters compute, put behind a tape's allocations that are results of their layers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from vramplan.engines.torch.adapted_code import Ranks, Shape, with_adapters
from vramplan.engines.torch.module_list import LINEAR, Module, ModuleList
from vramplan.engines.torch.tape.conditions import Conditions
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.format import SCHEMA, parse_tape, write_tape
from vramplan.engines.torch.tape.replay import replay

TOKENS = 1 << 12
UP, DOWN = (64, 256), (256, 64)
#: two blocks: a layer that widens, an activation function in its place, a layer that narrows
SIZES = ["128*n", "512*n"]
CODE = [0, 1, 1, -2, 0, -3, 0, -1, -4, 1, 1, -6, 0, -7, -5, -8]


def tape(code: list[object] = CODE) -> Tape:
    main = {"when": {}, "if": None, "indices": [], "derived": {}, "sizes": SIZES}
    described = {
        "schema": SCHEMA,
        "pipeline": "tiny",
        "recorded_with": {"torch": "2.13.0"},
        "dims": {"n": "prompt_tokens"},
        "least": {},
        "dtype_facts": {},
        "entry": "main",
        "components": {"model": {"parameters": 0, "modules": []}},
        "routines": {"main": [{**main, "outputs": [], "code": [["p", "prefill", "model"], *code]}]},
    }
    return parse_tape(write_tape(described), "the tape")


def conditions() -> Conditions:
    return Conditions(
        numbers={"prompt_tokens": TOKENS},
        facts={},
        element_bytes=2,
        workspace_bytes=lambda _kind, _operands: 0,
        cublas_bytes=0,
    )


def linear(shape: Shape, name: str) -> Module:
    return Module(name=name, kind=LINEAR, rows=shape[1], tensors=(shape[0] * shape[1],))


LISTS = {
    "model": ModuleList(
        modules=tuple(
            linear(shape, f"{block}.{name}")
            for block in range(2)
            for shape, name in ((UP, "up"), (DOWN, "down"))
        ),
        is_of_transformers=True,
    )
}


def peak_bytes(adapted: Mapping[Shape, Ranks], code: list[object] = CODE) -> int:
    own = tape(code)
    changed = with_adapters(own, [conditions()], LISTS, {"model": adapted}, 2)
    return replay(changed, conditions()).allocated_peak_bytes


PLAIN = TOKENS * 2 * (64 + 256 + 256)  # the input, the layer's result, and what it becomes


def test_without_adapters_a_tape_stays_as_it_is() -> None:
    own = tape()
    assert with_adapters(own, [conditions()], LISTS, {}, 2) is own
    assert with_adapters(own, [conditions()], LISTS, {"model": {(48, 80): ((8, 2),)}}, 2) is own
    assert peak_bytes({}) == PLAIN


def test_an_adapter_in_its_layers_dtype_takes_two_results() -> None:
    """Of the second matrix, and that scaled, or the sum; beside the layer's own and its input."""
    assert peak_bytes({UP: ((8, 2),)}) == TOKENS * 2 * (64 + 256 + 2 * 256)


def test_an_adapter_in_fp32_copies_the_input_and_is_twice_as_wide() -> None:
    wide = 4 * (64 + 2 * 256)
    assert peak_bytes({UP: ((8, 4),)}) == TOKENS * (2 * (64 + 256) + wide)


def test_a_second_adapter_finds_a_sum_that_is_wider() -> None:
    """Its turn comes when the first one's scratch is gone, and the sum is in fp32."""
    once, grown = 4 * (64 + 2 * 256), 2 * 256
    assert peak_bytes({UP: ((8, 4), (16, 4))}) == TOKENS * (2 * (64 + 256) + once + grown)
    assert peak_bytes({UP: ((8, 2), (16, 2))}) == peak_bytes({UP: ((8, 2),)})


def test_what_an_activation_function_makes_is_no_layers_result() -> None:
    """It is as large as the layer's, which goes then: with adapters there it would be most."""
    spared = peak_bytes({UP: ((8, 2),)})
    kept = [0, 1, 1, 0, -2, -3, -1, -4, 0, 1, 1, -6, 0, -7, -5, -8]  # here nothing goes
    assert peak_bytes({UP: ((8, 2),)}, kept) > spared


def test_a_result_of_another_layer_gets_no_adapter() -> None:
    """A layer as wide as it is narrow has results of the size of every other's that is."""
    narrow = {(64, 64): ((8, 4),)}
    assert peak_bytes(narrow) == PLAIN
    assert peak_bytes({DOWN: ((8, 4),)}) == TOKENS * (2 * (64 + 256 + 64) + 4 * (256 + 2 * 64))


@pytest.mark.parametrize("shape", [UP, DOWN])
def test_the_routine_holds_in_both_replays(shape: Shape) -> None:
    """In C and in Python, with and without modules that come and go."""
    from vramplan.engines.torch.rehearsals import rehearse_once

    changed = with_adapters(tape(), [conditions()], LISTS, {"model": {shape: ((8, 4),)}}, 2)
    reference = replay(changed, conditions()).allocated_peak_bytes
    trace = rehearse_once(changed, conditions(), expandable_segments=False).trace
    assert trace.allocated_peak_bytes == reference
    assert {mark.component for mark in trace.marks} >= {"model", "model.lora"}
