"""How long things take by the bytes that move: counted from tapes and tensors, and by hand."""

from __future__ import annotations

import pytest

from vramplan.ask.targets import make_jobs
from vramplan.budget.pace import HOST_BYTES_PER_S, PCIE_BYTES_PER_S, Pace, slowdown
from vramplan.catalog import load_catalog
from vramplan.catalog.cards import assumed_card
from vramplan.engines.door import engine_of, open_file
from vramplan.engines.torch.pipeline import of_torch
from vramplan.engines.torch.replayed import conditions_at
from vramplan.engines.torch.tape.allocator import Block, CachingAllocator
from vramplan.engines.torch.tape.conditions import Conditions
from vramplan.engines.torch.tape.contents import Tape
from vramplan.engines.torch.tape.replay import Listener, Replay
from vramplan.engines.torch.tape_files import find_tape, open_tape
from vramplan.engines.torch.work import _Walk, traffic
from vramplan.errors import TapeError
from vramplan.model import Job

CATALOG = load_catalog()
(CARD,) = CATALOG.card("rtx-3060-12gb").candidates


def job(name: str, **settings) -> Job:
    (found,) = make_jobs([name], CATALOG, settings)
    return found


def opened(name: str, **settings) -> tuple[Tape, Conditions]:
    one = job(name, **settings)
    pipeline = of_torch(one.pipeline)
    tape = open_tape(find_tape(pipeline))
    return tape, conditions_at(pipeline, one.settings, "8.6", tape)


class Counting(CachingAllocator):
    """The allocator, adding up what is asked of it."""

    __slots__ = ("asked_bytes",)

    def __init__(self) -> None:
        super().__init__()
        self.asked_bytes = 0

    def malloc(self, size_bytes: int) -> Block:
        self.asked_bytes += size_bytes
        return super().malloc(size_bytes)


class WithoutScratch(Listener):
    """Takes a library's scratch off again."""

    def __init__(self, allocator: Counting) -> None:
        self._allocator = allocator
        self._before = 0

    def scratch_begins(self) -> None:
        self._before = self._allocator.asked_bytes

    def scratch_ends(self) -> None:
        self._allocator.asked_bytes = self._before


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sd15-vae", {"image": (512, 512), "batch": 2}),
        ("sd15-vae", {"image": (1024, 768), "vae_tiling": "on"}),
        ("sd15-vae", {"mode": "decode", "batch": 3, "vae_slicing": "on"}),
        ("sd15", {"steps": 10}),
        ("denoising-ae", {"mode": "train", "steps": 5}),
        ("vit-mae-base", {}),
        ("llava-1.5-7b-hf", {"new_tokens": 9}),
        ("llava-1.5-7b-hf", {"new_tokens": 40, "batch": 2}),
    ],
)
def test_every_tensor_of_a_run_is_counted_once(name, settings) -> None:
    """Against a replay that goes through every iteration and adds up what it allocates."""
    tape, conditions = opened(name, **settings)
    allocator = Counting()
    replay = Replay(
        tape, conditions, allocator, every_iteration=True, listener=WithoutScratch(allocator)
    )
    replay.load()
    before = allocator.asked_bytes
    replay.run()
    asked = allocator.asked_bytes - before
    asked -= len(replay._cublas) * conditions.cublas_bytes  # one of each thread
    assert _Walk(tape, conditions).whole().tensor_bytes == pytest.approx(asked, rel=1e-9)


def test_weights_are_read_whenever_their_module_runs() -> None:
    """Fifty steps of the UNet, everything else once."""
    tape, conditions = opened("sd15")
    unet = tape.components["unet"].total_bytes(2)
    few, many = (_Walk(*opened("sd15", steps=steps)).whole().weight_bytes for steps in (10, 50))
    assert many - few == 40 * unet
    assert unet * 50 < _Walk(tape, conditions).whole().weight_bytes < unet * 51 + (2 << 30)


def test_what_crosses_pcie() -> None:
    """Model offload: each component there and back; sequential: a module whenever it runs."""
    assert traffic(*opened("sd15")).pcie_bytes == 0
    tape, conditions = opened("sd15", offload="model")
    parts = [tape.components[name].total_bytes(2) for name in ("text_encoder", "unet", "vae")]
    assert traffic(tape, conditions).pcie_bytes == 2 * sum(parts)
    few, many = (
        traffic(*opened("sd15", offload="sequential", steps=steps)).pcie_bytes for steps in (10, 50)
    )
    assert many - few == 40 * tape.components["unet"].total_bytes(2)


def test_an_image_takes_the_time_of_its_share_of_a_batch() -> None:
    one, four = job("sd15"), job("sd15", batch=4)
    engine = engine_of(one.pipeline)
    alone, shared = engine.pace(one, CARD), engine.pace(four, CARD)
    assert alone is not None
    assert shared is not None
    assert alone.result == "image"
    assert shared.seconds < alone.seconds < 4 * shared.seconds
    slower = engine.pace(one.changed({"offload": "sequential"}), CARD)
    moved = traffic(*opened("sd15", offload="sequential")).pcie_bytes / PCIE_BYTES_PER_S
    assert slower is not None
    assert slower.seconds - alone.seconds == pytest.approx(moved)
    assert slowdown(slower, alone) == pytest.approx(1 + moved / alone.seconds)


def test_a_token_of_llava_takes_about_the_weights_over_the_bandwidth() -> None:
    """A published rate of half precision 7B models on an RTX 3060 cannot beat 360 GB/s."""
    one = job("llava-1.5-7b-hf", new_tokens=256)
    pace = engine_of(one.pipeline).pace(one, CARD)
    assert pace is not None
    assert pace.result == "token"
    weights = 13.5e9 / CARD.bandwidth_bytes_per_s
    assert weights < pace.seconds < 1.3 * weights


def test_nobody_knows_how_long_it_takes_where_nobody_knows_the_card() -> None:
    for name in ("sd15", "llava:7b"):
        one = job(name)
        assert engine_of(one.pipeline).pace(one, assumed_card()) is None
    assert slowdown(None, Pace(seconds=1, result="token")) is None
    assert slowdown(Pace(seconds=2, result="token"), Pace(seconds=1, result="token")) == 2


def test_a_tape_that_does_not_hold_is_said_to() -> None:
    """SDXL was not recorded with slices of attention."""
    one = job("sdxl")
    pipeline = of_torch(one.pipeline)
    tape = open_tape(find_tape(pipeline))
    settings = {**one.settings, "attention": "sliced"}
    with pytest.raises(TapeError, match="no recording of unet"):
        traffic(tape, conditions_at(pipeline, settings, "8.6", tape))


# ------------------------------------------------------------------------------------------- ggml
def test_a_token_reads_every_weight_once_and_the_cache() -> None:
    """By hand: all on the GPU, none, and what is in between."""
    one = job("llava:7b", gpu_layers="all")
    engine = engine_of(one.pipeline)
    whole = engine.pace(one, CARD)
    none = engine.pace(one.changed({"gpu_layers": 0}), CARD)
    half = engine.pace(one.changed({"gpu_layers": 17}), CARD)
    assert None not in (whole, none, half)
    estimate = engine.estimate(one, CARD)
    (model,) = (one for one in estimate.components if one.name == "language_model")
    embedding = 4096 * 32000 * 18 // 32  # q4_0: 18 bytes for 32 weights; a row of it is read
    cache = 4096 * 2 * 32 * 1024 * 2  # tokens, keys and values, layers, 8 heads of 128, f16
    read = model.weights_bytes - embedding + cache
    assert whole.seconds == pytest.approx(read / CARD.bandwidth_bytes_per_s, rel=1e-6)
    assert none.seconds == pytest.approx(read / HOST_BYTES_PER_S, rel=1e-6)
    assert whole.seconds < half.seconds < none.seconds


def test_of_a_mixture_a_token_needs_a_few_experts(tmp_path, sparse) -> None:
    model = sparse.language_model("qwen3moe", layers=4, embedding=2048, feed_forward=6144)
    model.meta |= {
        "expert_count": 128, "expert_used_count": 8, "expert_feed_forward_length": 768,
    }  # fmt: skip
    path = sparse.write(tmp_path / "moe.gguf", sparse.dense_layers(model, "qk norm", "experts"))
    pipeline = open_file(str(path), None, lambda _: None)
    one = Job(pipeline=pipeline, settings={**pipeline.defaults, "gpu_layers": "all"})
    engine = engine_of(pipeline)
    pace = engine.pace(one, CARD)
    assert pace is not None
    (part,) = (c for c in engine.estimate(one, CARD).components if c.name == "language_model")
    assert pace.seconds * CARD.bandwidth_bytes_per_s < part.weights_bytes / 3
