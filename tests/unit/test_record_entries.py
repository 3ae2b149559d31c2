"""Tapes of entries that no recipe knows: sizes, loops and calls found, and held to fresh runs."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")
import torch

from tests.unit.test_record_saved import events
from vramplan.ask.targets import make_jobs, open_catalog
from vramplan.engines.torch.estimate import settled
from vramplan.engines.torch.pipeline import TorchPipeline, of_torch
from vramplan.engines.torch.record.saved import entry_settings, entry_tape
from vramplan.engines.torch.record.saved.constant_tape import Recorded
from vramplan.engines.torch.record.saved.entry_settings import Draw, tile_of, words_of
from vramplan.engines.torch.record.saved.entry_tape import FailedRunError
from vramplan.engines.torch.record.saved.finder import MAIN, Finder, GrowingResultError
from vramplan.engines.torch.record.saved.held_out import hold
from vramplan.engines.torch.record.saved.remembered_calls import Memory
from vramplan.engines.torch.record.saved.size_search import (
    Products,
    SizeSearch,
    TooFewSettingsError,
)
from vramplan.engines.torch.record.saved.unmarked_loops import Way, find_repeats
from vramplan.engines.torch.record.saved.wrapped import (
    CUDA,
    Functions,
    WrappedDevice,
    cuda_asked_for,
)
from vramplan.engines.torch.record.stream import (
    Alloc,
    Birth,
    Event,
    Free,
    LoopBegin,
    LoopEnd,
    LoopNext,
    Stream,
)
from vramplan.engines.torch.replayed import conditions_at
from vramplan.engines.torch.tape.code import loop_parts
from vramplan.engines.torch.tape.expressions import derive, evaluate
from vramplan.engines.torch.tape.format import parse_tape
from vramplan.engines.torch.tape_files import look_for_tape, open_tape
from vramplan.errors import OutsideError, RecordingError
from vramplan.model import ComponentSpec, Constraint

LLAMA = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 300, "max_position_embeddings": 4096,
}  # fmt: skip
CLIP = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2,
    "vocab_size": 300, "projection_dim": 16,
}  # fmt: skip
VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
    "block_out_channels": [8, 16], "latent_channels": 4, "norm_num_groups": 4,
}  # fmt: skip


def tiny(class_path, config, settings, constraints):
    """Return an entry of one small component, as the catalogue would describe it."""
    return TorchPipeline(
        name="tiny",
        title="Tiny",
        summary="A small model.",
        runtime=class_path.partition(".")[0],
        defaults={"dtype": "bf16", "batch": 1, **settings},
        constraints={
            "dtype": Constraint(choices=("bf16",)),
            "batch": Constraint(maximum=6),
            **constraints,
        },
        source="here",
        path="",
        components=(ComponentSpec(name="model", class_path=class_path, config=config),),
    )


def llama():
    return tiny(
        "transformers.LlamaForCausalLM",
        LLAMA,
        {"prompt_tokens": 64, "new_tokens": 8},
        {"prompt_tokens": Constraint(minimum=2, maximum=400)},
    )


def clip():
    return tiny(
        "transformers.CLIPTextModel",
        CLIP,
        {"prompt_tokens": 64},
        {"prompt_tokens": Constraint(minimum=2, maximum=70)},
    )


def vae():
    image = Constraint(multiple_of=2, minimum=16, maximum=200)
    return tiny("diffusers.AutoencoderKL", VAE, {"image": (64, 64)}, {"image": image})


@pytest.fixture
def one_kernel(monkeypatch):
    """Record one architecture's kernels: the others take as long again."""
    monkeypatch.setattr(entry_settings, "_CAPABILITIES", ("8.6",))


def sizes_from(products, text, count, axes):
    """Return settings drawn at random, and the sizes that an expression gives at them."""
    source = random.Random(text)  # noqa: S311  # no secret
    rows = []
    for _ in range(count):
        dims = {name: source.randint(*bounds) for name, bounds in axes.items()}
        full = derive(products.derived, dims)
        rows.append((full, evaluate(text, full)))
    return rows


IMAGES = {"n": (1, 9), "h": (20, 900), "w": (20, 900)}
VIDEOS = {**IMAGES, "f": (5, 90)}
TEXTS = {"n": (1, 9), "p": (2, 900), "token": (0, 50)}


@pytest.mark.parametrize(
    ("axes", "text"),
    [
        (IMAGES, "640*n*h8*w8"),
        (IMAGES, "48*n*h16*w16+3072*n"),  # an image's tokens and a prompt's
        (IMAGES, "6*n*(h8+2)*(w8+2)"),  # the rim of a convolution
        (IMAGES, "2*n*h16*w16*h16*w16+1024*n*h16*w16+131072*n"),  # the scores of both, squared
        (IMAGES, "8*h32+8*w32"),
        (VIDEOS, "96*n*f4*h8*w8"),
        (VIDEOS, "96*n*(f4+2)*h16*w16"),
        (TEXTS, "1024*n*p+1024*n*token+1024*n"),
        (TEXTS, "n*p*p"),
        (TEXTS, "4*n*n"),
    ],
)
def test_sizes_are_found_without_a_grammar_and_hold_elsewhere(axes, text: str) -> None:
    products = Products(axes)
    search = SizeSearch(products, tuple(axes))
    rows = sizes_from(products, text, 14, axes)
    found = search.fit(rows[:6], "a size")
    assert [evaluate(found, dims) for dims, _ in rows[6:]] == [size for _, size in rows[6:]]


def test_a_size_that_is_no_such_sum_is_refused() -> None:
    products = Products(IMAGES)
    rows = sizes_from(products, "n*h8*w8", 6, IMAGES)
    with pytest.raises(RecordingError, match="no expression"):
        SizeSearch(products, tuple(IMAGES)).fit(
            [(d, s + (i == 3)) for i, (d, s) in enumerate(rows)], "x"
        )


def test_two_settings_prove_what_was_found_before_and_nothing_else() -> None:
    products = Products(IMAGES)
    rows = sizes_from(products, "640*n*h8*w8", 8, IMAGES)
    search = SizeSearch(products, tuple(IMAGES))
    with pytest.raises(RecordingError, match="too few"):
        search.fit(rows[:2], "a size")
    assert search.fit(rows[2:], "a size")
    halved = [(dims, size // 2) for dims, size in rows[:2]]
    with pytest.raises(RecordingError, match="too few"):
        search.fit(halved, "half of it is no multiple")
    doubled = search.fit([(dims, 2 * size) for dims, size in rows[:2]], "twice")
    assert all(evaluate(doubled, dims) == 2 * size for dims, size in rows)


def test_more_settings_are_asked_for_where_they_might_tell_and_not_where_none_would() -> None:
    products = Products(IMAGES)
    rows = [(dims, 2 * size + 7) for dims, size in sizes_from(products, "h8*w8*h8", 9, IMAGES)]
    with pytest.raises(TooFewSettingsError):
        SizeSearch(products, tuple(IMAGES)).fit(rows[:4], "a size")
    with pytest.raises(RecordingError) as refused:
        SizeSearch(products, tuple(IMAGES)).fit(rows, "a size")
    assert not isinstance(refused.value, TooFewSettingsError)


def test_runs_are_recorded_more_until_every_size_is_proved() -> None:
    """Z-Image's scores are squares of its whole blocks, of which eight runs may have too few."""
    counts = []
    (folder,) = open_catalog().folders

    class Recordings(entry_tape._Recordings):
        def record(self, words, settings):
            counts.append(len(settings))
            if len(settings) < 10 or not words:
                raise TooFewSettingsError("it has too few")

        def tape(self):
            text = Path(folder, "tapes", "clip-vit-l-14.json.gz").read_bytes()
            return json.loads(gzip.decompress(text))

    (job,) = make_jobs(["clip-vit-l-14"], open_catalog(), {})
    pipeline = of_torch(job.pipeline)
    recordings, draw = Recordings(pipeline, lambda _: None, ()), Draw(pipeline)
    words = next(words_of(pipeline, str(job.settings["dtype"])))
    held_out = recordings.record_until_known(words, draw, 8, has_more=True)
    assert counts == [8, 9, 10]
    assert held_out == draw.numbers(None, words, 2)  # not one of those that were recorded
    with pytest.raises(TooFewSettingsError):
        recordings.record_until_known(words, draw, 8, has_more=False)


def test_what_a_loop_does_in_one_run_alone_proves_no_constant() -> None:
    """Wan's VAE had a tensor of its longest video's image as a constant, in every other image."""
    products = Products(["h", "w", "f"], (), ["row1"])
    search = SizeSearch(products, ("h", "w", "f", "row1"))
    search.has_several = True
    dims = derive(products.derived, {"h": 64, "w": 96, "f": 81})
    samples = [({**dims, "row1": row}, 4096) for row in range(2, 20)]
    with pytest.raises(RecordingError, match="one setting is too few"):
        search.fit(samples, "a size")
    other = derive(products.derived, {"h": 128, "w": 96, "f": 33})
    assert search.fit([*samples, ({**other, "row1": 2}, 4096)], "a size") == "4096"


def test_prompts_of_either_half_of_a_guided_batch_may_be_of_two_lengths() -> None:
    """Mochi takes the tokens of each row that are no padding: fewer where there is no prompt."""
    products = Products(["n", "h", "w"], (), ["row1"])
    search = SizeSearch(products, ("n", "h", "w", "row1"))

    def samples(*batches: int):
        for batch in batches:
            dims = derive(products.derived, {"n": batch, "h": 64 * batch, "w": 96})
            for row in range(2 * batch):
                tokens = dims["h16"] * dims["w16"] + (73 if row >= batch else 1)
                yield {**dims, "row1": row}, 512 * tokens

    found = search.fit([*samples(1, 2, 3)], "a row's query")
    assert all(evaluate(found, dims) == size for dims, size in samples(4, 5))


def test_steps_that_are_none_as_another_are_recorded_as_many_as_there_are() -> None:
    """Stable Audio draws its noise from a tree that grows with every step."""
    (job,) = make_jobs(["stable-audio-open"], open_catalog(), {})
    pipeline = of_torch(job.pipeline)
    words = next(words_of(pipeline, "fp16"))
    draw = Draw(pipeline, ["steps"])
    runs = [draw.numbers(place, words) for place in (*range(8), None)]
    assert {run["steps"] for run in runs} == {job.settings["steps"]} == {100}
    assert len({run["batch"] for run in runs}) > 2
    assert len({Draw(pipeline).numbers(place, words)["steps"] for place in range(8)}) > 2


def test_a_run_without_loops_has_its_steps_one_behind_the_other() -> None:
    (job,) = make_jobs(["stable-audio-open"], open_catalog(), {})
    runs = entry_tape._Recordings(of_torch(job.pipeline), lambda _: None, ["steps"])
    stream = image_by_image(1)
    made = len(stream.events)
    stream.events = [LoopBegin("step1"), LoopNext(), *stream.events, LoopEnd()]
    recorded = Recorded(runs=[stream], loops={"step1": 1})
    runs._add((("dtype", "fp16"),), {"batch": 1, "steps": 100}, recorded)
    assert len(stream.events) == made
    assert not runs._counts()  # nothing is done as often as there are steps
    assert runs._domain({"n": "batch", "steps": "steps"})["steps"] == [100, 100]


def test_images_of_a_model_that_looks_through_windows_are_of_whole_ones() -> None:
    (job,) = make_jobs(["qwen2.5-vl-3b"], open_catalog(), {})
    pipeline = of_torch(job.pipeline)
    words = next(words_of(pipeline, "bf16"))
    draw = Draw(pipeline, tile=112)
    runs = [draw.numbers(place, words) for place in (*range(8), None)] + [*draw.others(words)]
    assert all(run[side] % 112 == 0 for run in runs for side in ("width", "height"))
    assert min(min(run["width"], run["height"]) for run in runs) == 112

    def tile(**vision: object) -> int | None:
        config = SimpleNamespace(vision_config=SimpleNamespace(**vision))
        return tile_of(SimpleNamespace(config=config))

    assert tile(window_size=112, fullatt_block_indexes=[7]) == 112
    assert tile(window_size=12) is None  # Florence-2's, in tokens
    assert tile_of(SimpleNamespace()) is None


def image_by_image(batch: int) -> Stream:
    """Return a run that makes two tensors for each image of a batch, and puts them together."""
    stream = Stream("main", {"n": batch})

    def make(operator: str, size: int):
        birth = stream.new_birth()
        stream.events.append(Alloc(birth, size, operator))
        return birth

    whole = make("decode", 100 * batch)
    kept = []
    for _ in range(batch):
        passing = make("mul", 10)
        kept.append(make("add", 20))
        stream.events.append(Free(passing))
    make("stack", 20 * batch)
    stream.events.extend(Free(one) for one in (*kept, whole))
    return stream


def test_a_loop_is_found_where_runs_differ_by_it_alone() -> None:
    streams = [image_by_image(batch) for batch in (3, 1, 5, 2)]
    assert find_repeats(streams) == {"row1": [3, 1, 5, 2]}
    kinds = [type(event) for event in streams[2].events]
    assert kinds.count(LoopBegin) == 1
    assert kinds.count(LoopNext) == 5


def with_steps(stream: Stream, steps: int) -> Stream:
    """Return a run behind whose first tensor a marked loop runs, each time longer than an image."""
    loop: list[Event] = [LoopBegin("step")]
    for _ in range(steps):
        loop.append(LoopNext())
        for operator in ("sub", "div", "exp", "neg", "abs"):
            birth = stream.new_birth()
            loop += [Alloc(birth, 10, operator), Free(birth)]
    stream.events[1:1] = [*loop, LoopEnd()]
    return stream


def test_how_often_a_marked_loop_runs_does_not_make_a_run_the_smaller_one() -> None:
    """Three images in eight steps have fewer events than two in ten."""
    settings = [(3, 8), (2, 10), (5, 11)]
    streams = [with_steps(image_by_image(batch), steps) for batch, steps in settings]
    assert len(streams[0].events) < len(streams[1].events)
    # both images of the smallest run are one iteration and what comes before it
    assert find_repeats(streams) == {"row1": [2, 1, 4]}


def test_a_list_of_places_is_a_tensor_of_the_device() -> None:
    """Muse Spark turns an image's rows and columns so, and got a grid of nothing."""
    stream = Stream("main", {})
    device = WrappedDevice(stream, set())
    with cuda_asked_for("flash"), device, Functions("flash"):
        grid = torch.tensor([[1, 4, 6]]).to(CUDA)
        turned = grid[:, [0, 2, 1]]
        assert turned.tolist() == [[1, 6, 4]]
        grid[0, [0, 1]] = 5
        assert grid.tolist() == [[5, 5, 6]]
    made = [event.operator for event in stream.events if isinstance(event, Alloc)]
    assert made[:3] == ["aten._to_copy", "aten._to_copy", "aten.index.Tensor"]


def each_frees_the_one_before(batch: int) -> Stream:
    """Return a run whose images are told apart by what they free: the first, and the last.

    Three tensors of one operator are made of each, as fused attention does.
    """
    stream = Stream("main", {"n": batch})

    def make(operator: str, size: int) -> Birth:
        birth = stream.new_birth()
        stream.events.append(Alloc(birth, size, operator))
        return birth

    last = make("zeros", 8 * batch)
    for number in range(batch):
        out, sums, seed = (make("attention", size) for size in (400, 16, 8))
        stream.events += [Free(last), Free(seed)]
        last = out
        if number < batch - 1:  # the last image's are there until the end
            stream.events.append(Free(sums))
    whole = make("cat", 400 * batch)
    stream.events += [Free(sums), Free(last), Free(whole)]
    return stream


def test_images_are_a_loop_where_the_smallest_batch_has_a_first_and_a_last_alone() -> None:
    streams = [each_frees_the_one_before(batch) for batch in (3, 2, 5, 4)]
    assert find_repeats(streams, Way(is_whole=True)) == {"row1": [3, 2, 5, 4]}
    finder = Finder(["n"], ["n"], ())
    (variant,) = finder.assembled(
        "main", [each_frees_the_one_before(batch) for batch in (3, 2, 5, 4)]
    )
    assert variant["if"] is None
    (loop,) = (step for step in variant["code"] if isinstance(step, list) and step[0] == "l")
    # the last frees less, and the first something else: what is between them repeats
    assert [len(part) for part in loop_parts(loop)] == [6, 6, 5]


def test_runs_that_differ_otherwise_are_refused() -> None:
    one, other = image_by_image(2), image_by_image(3)
    other.events[0].operator = "encode"
    with pytest.raises(RecordingError, match="not by a loop"):
        find_repeats([one, other])


def record(pipeline):
    told: list[str] = []
    return parse_tape(entry_tape.record_entry(pipeline, told.append), "tape"), told


@pytest.mark.usefixtures("one_kernel")
@pytest.mark.parametrize("entry", [llama, vae])
def test_a_tape_is_a_fresh_recording_at_settings_drawn_at_random(entry) -> None:
    pipeline = entry()
    tape, told = record(pipeline)
    assert not [line for line in told if "by default" in line]
    (words,) = words_of(pipeline, "bf16")
    fresh = entry_tape._Recordings(pipeline, lambda _: None, ())
    source = random.SystemRandom()
    for _ in range(2):
        numbers = Draw(pipeline).numbers(None, {"seed": str(source.random())})
        hold(tape, numbers, words, fresh.run(words, numbers, None))
    numbers["batch"] += 1  # another run than the recorded one: the proof can fail
    with pytest.raises(RecordingError):
        hold(
            tape, numbers, words, fresh.run(words, {**numbers, "batch": numbers["batch"] - 1}, None)
        )


def test_a_kernel_is_added_to_a_tape_that_lacks_it_and_nothing_else_of_it_changes(
    monkeypatch,
) -> None:
    pipeline = clip()
    monkeypatch.setattr(entry_settings, "_CAPABILITIES", ("8.6",))
    before = entry_tape.record_entry(pipeline, lambda _: None)
    assert parse_tape(before, "tape").known_facts["kernel"] == ("flash",)
    with pytest.raises(RecordingError, match="no architecture prefers math"):
        entry_tape.add_kernel(pipeline, lambda _: None, "bf16", "math", before)
    monkeypatch.setattr(entry_settings, "_CAPABILITIES", ("8.6", "7.5"))
    after = entry_tape.add_kernel(pipeline, lambda _: None, "bf16", "math", before)
    tape = parse_tape(after, "tape")
    assert set(tape.known_facts["kernel"]) == {"flash", "math"}
    fresh = entry_tape._Recordings(pipeline, lambda _: None, ())
    for words in words_of(pipeline, "bf16"):
        numbers = Draw(pipeline).numbers(None, {"seed": words["kernel"]})
        run = fresh.run(words, numbers, None)
        hold(tape, numbers, words, run)
    with pytest.raises(RecordingError, match=r"has ."):  # the other kernel's events are others
        hold(tape, numbers, {**words, "kernel": "flash"}, run)
    old, new = json.loads(before), json.loads(after)
    assert {**new, "routines": None} == {**old, "routines": None}
    with pytest.raises(RecordingError, match="has math attention"):
        entry_tape.add_kernel(pipeline, lambda _: None, "bf16", "math", after)
    old["components"]["model"]["parameters"] += 1
    with pytest.raises(RecordingError, match="of other weights"):
        entry_tape.add_kernel(pipeline, lambda _: None, "bf16", "math", json.dumps(old))
    old["recorded_with"]["torch"] = "1.0"
    with pytest.raises(RecordingError, match=r"1\.0.*record all of it"):
        entry_tape.add_kernel(pipeline, lambda _: None, "bf16", "math", json.dumps(old))


def test_a_kernel_is_added_at_images_of_whole_windows(monkeypatch) -> None:
    """An image that a vision model's windows do not fill is done in a way of its own."""
    drawn: list[Draw] = []
    pipeline = vae()
    runs = entry_tape._Recordings(pipeline, lambda _: None, ())
    runs.modules("bf16")
    head = {
        "schema": 1, "pipeline": "tiny", "recorded_with": entry_tape.versions(),
        "dims": {"n": "batch", "w": "width", "h": "height"}, "least": {}, "dtype_facts": {},
        "domain": {"n": [1, 4], "w": [16, 200], "h": [16, 200]}, "entry": "main",
        "components": runs._components,
        "routines": {"main": [{
            "if": None, "indices": [], "derived": {}, "sizes": ["512*n"], "outputs": [],
            "code": [["p", "decode_image"], 0, -1],
            "when": {"dtype": ["bf16"], "kernel": ["flash"]},
        }]},
    }  # fmt: skip

    def record(_words, _found, draw, _counts, *, remembers) -> None:
        assert remembers
        drawn.append(draw)

    monkeypatch.setattr(entry_settings, "_CAPABILITIES", ("8.6", "7.5"))
    monkeypatch.setattr(entry_tape, "tile_of", lambda _: 24)
    monkeypatch.setattr(entry_tape, "_record_under", record)
    entry_tape.add_kernel(pipeline, lambda _: None, "bf16", "math", json.dumps(head))
    (draw,) = drawn
    (words,) = (one for one in words_of(pipeline, "bf16") if one["kernel"] == "math")
    numbers = [draw.numbers(place, words) for place in (*range(8), None)]
    sides = {one[side] for one in numbers for side in ("width", "height")}
    assert len(sides) > 2
    assert not {side for side in sides if side % 24}


def test_a_loop_that_would_run_less_than_never_is_a_proof_that_fails() -> None:
    """So that more is recorded, instead of nothing: what was found from few runs may say so."""
    (folder,) = open_catalog().folders
    text = gzip.decompress(Path(folder, "tapes", "whisper-tiny.json.gz").read_bytes()).decode()
    assert '"new-1"' in text
    tape = parse_tape(text.replace('"new-1"', '"new-100"'), "the tape")
    (job,) = make_jobs(["whisper-tiny"], open_catalog(), {})
    words = next(words_of(of_torch(job.pipeline), str(job.settings["dtype"])))
    numbers = Draw(of_torch(job.pipeline)).numbers(None, words)
    with pytest.raises(RecordingError, match="does not hold for -"):
        hold(tape, numbers, words, Recorded(runs=[Stream(MAIN, {})]))


@pytest.mark.parametrize("name", ["flux1-dev", "clip-vit-l-14", "flux1-vae", "whisper-tiny"])
def test_a_tape_is_proved_with_a_batch_of_one_and_with_several(name: str) -> None:
    """FLUX.1's was wrong for several: its proof had drawn one, and its two runs one area."""
    (job,) = make_jobs([name], open_catalog(), {})
    draw = Draw(of_torch(job.pipeline))
    most = job.pipeline.constraints["batch"].maximum
    for words in words_of(of_torch(job.pipeline), str(job.settings["dtype"])):
        drawn, other = draw.numbers(None, words), draw.other_batch(words)
        assert other is not None
        assert (drawn["batch"] == 1) != (other["batch"] == 1)
        assert other["batch"] <= most
        assert other.keys() == drawn.keys()
        area, other_area = (
            one["batch"] * one.get("width", 1) * one.get("height", 1) for one in (drawn, other)
        )
        assert other_area <= max(area, 64 * 2048)


@pytest.mark.parametrize(
    ("name", "dtypes"),
    [
        ("all-minilm-l6-v2", ("fp32", "fp16")),
        ("bge-m3", ("fp16", "fp32")),
        ("nomic-embed-text-v1.5", ("fp32", "fp16")),
        ("clip-vit-l-14", ("fp32",)),
        ("siglip-base", ("fp32",)),
    ],
)
def test_a_tape_holds_for_the_shortest_prompt(name: str, dtypes: tuple[str, ...]) -> None:
    """As the entry says: nothing is generated, so that a prompt may be two tokens long."""
    (job,) = make_jobs([name], open_catalog(), {})
    pipeline = of_torch(job.pipeline)
    shortest = int(pipeline.constraints["prompt_tokens"].minimum)
    assert shortest == 2
    drawn = [Draw(pipeline).numbers(place, {})["prompt_tokens"] for place in range(8)]
    assert min(drawn) == shortest
    for dtype in dtypes:
        for capability in ("7.5", "8.6", "9.0"):
            at = {**job.settings, "prompt_tokens": shortest, "batch": 1, "dtype": dtype}
            assert settled(pipeline, at, capability).counted is None


LAYERS = {**LLAMA, "num_hidden_layers": 4}
#: every second layer sees a window, which the prompt is longer than
GEMMA = {**LAYERS, "head_dim": 8, "sliding_window": 12, "sliding_window_pattern": 2}
WHISPER = {
    "d_model": 16, "encoder_layers": 3, "decoder_layers": 4, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "vocab_size": 300,
    "num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 40, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3,
}  # fmt: skip


#: goes over a video in chunks, and keeps the last frames of each in a list that it hands on
WAN = {
    "base_dim": 8, "z_dim": 4, "dim_mult": [1, 1, 1], "num_res_blocks": 1,
    "temperal_downsample": [False, True], "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4,
}  # fmt: skip


@pytest.mark.usefixtures("one_kernel")
@pytest.mark.parametrize(
    ("class_path", "config", "settings", "least"),
    [
        ("diffusers.AutoencoderKLWan", WAN, {"width": 16, "height": 16, "frames": 9}, 2),
        ("transformers.CLIPTextModel", CLIP, {"prompt_tokens": 9}, 2),
        ("transformers.LlamaForCausalLM", LAYERS, {"prompt_tokens": 20, "new_tokens": 5}, 5),
        ("transformers.Gemma3ForCausalLM", GEMMA, {"prompt_tokens": 20, "new_tokens": 5}, 10),
        ("transformers.WhisperForConditionalGeneration", WHISPER, {"new_tokens": 5}, 6),
    ],
    ids=["chunks", "encoder", "cache", "sliding cache", "two caches"],
)
def test_what_is_remembered_is_what_would_have_run(class_path, config, settings, least) -> None:
    """Of a model that generates each pass runs one layer of a kind: its cache is remembered too."""
    pipeline = tiny(class_path, config, settings, {})
    (words,) = words_of(pipeline, "bf16")
    runs = entry_tape._Recordings(pipeline, lambda _: None, ())
    numbers = {"batch": 2, **settings}
    known: dict = {}
    first = runs.run(words, numbers, known)
    assert sum(one is not None for one in known.values()) >= least
    assert (
        events(runs.run(words, numbers, known))
        == events(first)
        == events(runs.run(words, numbers, None))
    )


def test_within_its_settings_a_tape_answers_and_outside_of_them_what_is_counted(tmp_path) -> None:
    from vramplan.engines.torch.counted_model import CountedModel, CountedPart

    part = CountedPart(name="model", parameters=1, elements=1, fixed_bytes=0, quantised=None)
    counted = CountedModel(parts=(part,), decoder=None, language=None)
    head = {
        "schema": 1, "pipeline": "tiny", "recorded_with": {}, "dims": {"n": "batch"}, "least": {},
        "dtype_facts": {}, "domain": {"n": [1, 4]}, "entry": "main", "components": {},
        "routines": {"main": [{
            "if": None, "indices": [], "derived": {}, "sizes": ["512*n"], "outputs": [],
            "code": [["p", "encode_prompt"], 0, -1], "when": {"dtype": ["bf16"]},
        }]},
    }  # fmt: skip
    from vramplan.engines.torch.tape.format import write_tape

    (tmp_path / "tapes").mkdir()
    place = tmp_path / "tapes" / "tiny.json.gz"
    place.write_bytes(gzip.compress(write_tape(head).encode()))
    entry = llama()
    from vramplan.quick_dataclass import replace

    pipeline = replace(entry, folders=(tmp_path,), tape_within="tiny", counted=counted)
    inside = settled(pipeline, {**pipeline.defaults, "batch": 4})
    assert (inside.tape, inside.counted) == ("tiny", None)
    assert look_for_tape(inside) == place
    for other in ({"batch": 5}, {"dtype": "fp32"}):
        outside = settled(pipeline, {**pipeline.defaults, **other})
        assert outside.counted is counted
        assert "does not hold here" in outside.beyond_tape
    with pytest.raises(OutsideError, match="batch is 5"):
        conditions_at(inside, {**pipeline.defaults, "batch": 5}, "8.6", open_tape(place))


def test_a_component_that_is_cast_has_its_weights_changed_in_place() -> None:
    """SDXL's VAE in fp16: no weight of it is taken for one more that is there."""
    import torch

    from vramplan.engines.torch.record.saved.build import SavedPart, build_part
    from vramplan.engines.torch.record.saved.casts import watch_casts
    from vramplan.engines.torch.record.saved.wrapped import (
        CUDA,
        WrappedDevice,
        cuda_asked_for,
        place_on_device,
    )
    from vramplan.engines.torch.record.stream import Cast

    part = SavedPart(name="vae", class_path="diffusers.AutoencoderKL", config=VAE, elements=None)
    module = build_part(part, torch.float16)
    device = WrappedDevice(Stream("main", {}), place_on_device([module]))
    watch_casts(device, {"vae": module})
    with cuda_asked_for("flash"), device, torch.no_grad():
        module.to(torch.float16)  # it is so already
        assert not device.stream.events
        module.to(dtype=torch.float32)
        assert device.stream.events == [Cast("vae", 4)]
        assert {one.dtype for one in module.parameters()} == {torch.float32}
        out = module.decode(torch.empty(1, 4, 8, 8).to(CUDA)).sample
    assert out.dtype == torch.float32
    sizes = [event.size_bytes for event in device.stream.events if isinstance(event, Alloc)]
    assert sizes
    assert sizes[-1] == 4 * 3 * 16 * 16


def test_a_pipeline_that_begins_with_an_image_takes_a_step_at_least() -> None:
    """Of three steps a strength of a fifth leaves none."""
    import inspect

    from vramplan.engines.torch.record.saved.whole_pipeline import steps_of

    def call(image: object, strength: float = 0.2) -> None: ...

    wanted = inspect.signature(call).parameters
    assert steps_of(wanted, 3) == 15
    assert steps_of(wanted, 3, 0.5) == 3  # one step: as it was asked for
    assert steps_of({}, 3) == 3


def test_a_progress_bar_may_be_told_how_it_looks() -> None:
    from types import SimpleNamespace

    from vramplan.engines.torch.record.saved.whole_pipeline import watch_pipeline
    from vramplan.engines.torch.record.saved.wrapped import WrappedDevice

    device, pipe = WrappedDevice(Stream("main", {}), set()), SimpleNamespace(components={})
    watched = watch_pipeline(pipe, device)
    assert list(pipe.progress_bar(range(2), leave=False, desc="a")) == [0, 1]
    assert list(watched.counts().values()) == [2]


def test_a_weight_that_leaves_the_device_is_no_longer_one() -> None:
    """What is allocated next may have its identity, and would not be written down."""
    import torch

    from vramplan.engines.torch.record.saved.wrapped import WrappedDevice, place_on_device

    module = torch.nn.Linear(8, 8)
    device = WrappedDevice(Stream("main", {}), place_on_device([module]))
    assert len(device.weights) == 2
    module.weight = torch.nn.Parameter(torch.zeros(8, 8))
    assert device.weights == {module.bias.content.untyped_storage()._cdata}


@pytest.mark.parametrize("choose", ["topk", "sort"])
def test_what_is_chosen_of_some_that_nobody_knows_are_different_ones(choose: str) -> None:
    """A router's experts: code that counts the tokens of each adds them up."""
    import torch

    from vramplan.engines.torch.record.saved.wrapped import (
        CUDA,
        Functions,
        WrappedDevice,
        cuda_asked_for,
    )

    device = WrappedDevice(Stream("main", {}), set())
    with cuda_asked_for("flash"), device, Functions("flash"), torch.no_grad():
        scores = torch.empty(1000, 8, device=CUDA)[:100]  # of no content
        chosen = scores.topk(2).indices if choose == "topk" else scores.sort().indices
        assert chosen[7].tolist() == list(range(chosen.shape[1]))
        least = scores.topk(2, dim=0).indices
        assert least[:, 3].tolist() == [0, 1]
        many = torch.empty(20_000, 8, device=CUDA)  # tokens of an image, in HiDream
        counts = many.topk(2).indices.view(-1).bincount().tolist()
        assert counts == [20_000, 20_000]


def test_settings_that_stay_at_their_defaults_do_so_where_a_tape_is_proved() -> None:
    """FLUX.1 Kontext takes its image at another size for another shape."""
    (job,) = make_jobs(["flux1-kontext-dev"], open_catalog(), {})
    pipeline = of_torch(job.pipeline)
    draw = Draw(pipeline, ["image"])
    width, height = job.settings["image"]
    for words in words_of(pipeline, str(job.settings["dtype"])):
        runs = [*(draw.numbers(place, words) for place in range(8)), draw.numbers(None, words)]
        runs += draw.others(words)
        assert {(run["width"], run["height"]) for run in runs} == {(width, height)}
        for is_one in (True, False):
            alike = [run for run in runs[:8] if (run["batch"] == 1) == is_one]
            assert len({run["steps"] for run in alike}) > 2


def test_a_loop_that_an_images_strength_shortens_is_counted_by_it() -> None:
    assert entry_tape._count("step1", {8: 8, 10: 10}) == "steps"
    assert entry_tape._count("step1", {8: 15, 10: 19}) == "2*steps-1"
    assert evaluate(entry_tape._count("step1", {8: 2, 10: 3, 13: 3}), {"steps": 50}) == 15
    with pytest.raises(RecordingError, match="is not known"):
        entry_tape._count("step1", {8: 2, 10: 9})


def stream_of(routine, dims, sizes, left):
    """Return a stream that makes things of these sizes, and frees those that are not `left`."""
    stream = Stream(routine, dims)
    made = [Alloc(stream.new_birth(), size, operator) for operator, size in sizes]
    stream.events = [*made, *(Free(one.birth) for n, one in enumerate(made) if n not in left)]
    return stream


def test_a_list_that_is_freed_at_once_is_freed_behind_the_loop_that_makes_it() -> None:
    """The shortest run has one iteration, and all but it before the loop."""
    streams = []
    for steps in (8, 9, 11, 13, 16):
        stream, listed = Stream(MAIN, {"steps": steps}), []
        for _ in range(steps):
            work, kept = (Alloc(stream.new_birth(), 512, name) for name in ("log", "mul"))
            stream.events += [work, kept, Free(work.birth)]
            listed.append(kept.birth)
        table = Alloc(stream.new_birth(), 4 * steps, "copy")
        stream.events += [*map(Free, listed), table, Free(table.birth)]
        streams.append(stream)
    (variant,) = Finder(["steps"], ["steps"], ()).assembled(MAIN, streams)
    assert [evaluate(text, {"steps": 40}) for text in variant["sizes"]] == [512, 160]
    # the loop, then the frees of what came before it and of all that it made
    loop = next(step for step in variant["code"] if isinstance(step, list) and step[0] == "l")
    assert (loop[1], loop[2]) == ("row1", "-7+steps")
    behind = variant["code"][variant["code"].index(loop) + 1 :]
    assert ["f", 0, [[0, "all"]], 1] in behind


def test_a_result_that_is_made_in_a_loop_is_refused() -> None:
    """A tape has no name for it: its caller would get nothing."""
    streams = []
    for p in (2, 3, 4, 6, 9):
        stream = stream_of("transformer", {"p": p}, [("a", 512 * p)], ())
        for _ in range(p):
            work, result = (Alloc(stream.new_birth(), 64 * p, name) for name in "bc")
            stream.events += [work, result, Free(work.birth)]
        streams.append(stream)
    with pytest.raises(RecordingError, match="what it leaves is made in a loop"):
        Finder(["p"], ["p"], ()).assembled("transformer", streams)


def test_prompts_inside_a_window_and_beyond_have_code_of_their_own() -> None:
    streams = [
        stream_of(MAIN, {"p": p, "new": 4}, [("a", 64 * p), *([("mask", p * p)] * (p >= 30))], ())
        for p in (5, 7, 11, 23, 30, 47, 61, 97)
    ]
    sides = ("p<30", "p>=30")
    inside, beyond = Finder(["p"], ["p"], (), sides).assembled(MAIN, streams)
    assert (inside["if"], beyond["if"]) == ("(p<30)", "(p>=30)")
    assert inside["sizes"] == ["64*p"]
    assert beyond["sizes"] == ["64*p", "p*p"]
    with pytest.raises(RecordingError):
        Finder(["p"], ["p"], ()).assembled(MAIN, streams[:5])


@pytest.mark.parametrize(("extra", "runs"), [((0, 0, 0, 0), 2), ((0, 1, 0, 0), 4)])
def test_a_proof_remembers_a_component_that_did_twice_the_same_and_no_other(extra, runs) -> None:
    class Component(torch.nn.Module):
        calls = 0

        def forward(self, pixels):
            for _ in range(extra[self.calls]):
                pixels + 1
            self.calls += 1
            return pixels * 2

    component = Component()
    device = WrappedDevice(Stream("main", {}), set())
    Memory(device, {}, "bf16", "flash", doubts=True).watch({"component": component})
    with cuda_asked_for("flash"), device, Functions("flash"), torch.no_grad():
        pixels = torch.empty(1 << 16).to(CUDA)
        for _ in range(4):
            component(pixels)
    assert component.calls == runs
    made = [event for event in device.stream.events if isinstance(event, Alloc)]
    assert len(made) == 1 + 4 + sum(extra)


@pytest.mark.parametrize(
    ("work", "runs"),
    [
        (lambda pixels: pixels * 2, 1),
        (lambda pixels: torch.nn.functional.scaled_dot_product_attention(*[pixels] * 3), 2),
        (lambda pixels: torch.nn.functional.scaled_dot_product_attention(*[pixels.half()] * 3), 3),
        (lambda pixels: pixels * torch.cuda.get_device_capability()[0], 3),
    ],
)
def test_a_call_is_remembered_for_the_architectures_on_which_it_does_the_same(work, runs) -> None:
    class Component(torch.nn.Module):
        calls = 0

        def forward(self, pixels):
            self.calls += 1
            return work(pixels)

    calls, component = {}, Component()
    for kernel in ("flash", "cudnn", "math", "flash"):
        device = WrappedDevice(Stream("main", {}), set())
        component.__dict__.pop("forward", None)
        memory = Memory(device, calls, "fp32", kernel)
        memory.watch({"component": component})
        asked = cuda_asked_for(kernel, device.chose), Functions(kernel, chose=device.chose)
        with asked[0], device, asked[1], torch.no_grad():
            component(torch.empty(1, 1, 1 << 10, 64).to(CUDA))
        calls.update(memory.fresh)
    assert component.calls == runs


def test_a_list_of_images_is_found_to_grow_with_the_batch() -> None:
    streams = [
        stream_of("transformer", {"n": n}, [("a", 512 * n), *[("b", 64)] * n], range(1, n + 1))
        for n in (1, 2, 1, 3, 1, 5)
    ]
    with pytest.raises(GrowingResultError, match="more of its results in a larger batch"):
        Finder(["n"], ["n"], ()).assembled("transformer", streams)


def padded(height: int, width: int) -> Stream:
    """Return a run that makes an image's tokens up to whole blocks of 32, of 16x16 pixels each."""
    tokens = height * width // 256
    whole = -(-tokens // 32) * 32
    made = [("a", 128 * tokens), ("pad", 128 * (whole - tokens)), ("cat", 128 * whole)]
    sizes = [one for one in made if one[1]] if whole > tokens else made[:1]
    sizes.append(("scores", 4 * whole * whole))
    return stream_of("transformer", {"h": height, "w": width}, sizes, (len(sizes) - 1,))


def test_tokens_that_are_made_up_to_whole_blocks_have_code_for_either() -> None:
    sides = [
        (2016, 2048),
        (2048, 64),
        (64, 1056),
        (1024, 128),
        (832, 256),
        (416, 1248),
        (720, 1280),
    ]
    found = Finder(["h", "w"], ["h", "w"], ()).assembled("transformer", [padded(*s) for s in sides])
    assert len(found) == 2
    for height, width in ((1024, 1024), (1088, 1920), (480, 832), (768, 1344), (80, 144)):
        dims = {"h": height, "w": width}
        (variant,) = (one for one in found if evaluate(str(one["if"]), dims))
        derived = derive(variant["derived"], dims)
        sizes = [evaluate(text, derived) for text in variant["sizes"]]
        wanted = [one.size_bytes for one in padded(height, width).events if isinstance(one, Alloc)]
        assert set(sizes) == set(wanted)


def test_videos_are_recorded_up_to_a_multiple_of_the_default_one() -> None:
    (job,) = make_jobs(["wan2.1-t2v-1.3b"], open_catalog(), {})
    pipeline = of_torch(job.pipeline)
    width, height = pipeline.defaults["image"]
    usual = width * height * pipeline.defaults["frames"]
    (words, *_) = words_of(pipeline, "bf16")
    for times in (1.0, 2.5):
        draw = Draw(pipeline, times=times)
        runs = [draw.numbers(place, words) for place in (*range(8), None)]
        sizes = [run["batch"] * run["width"] * run["height"] * run["frames"] for run in runs]
        # at least the entry's own, which is recorded itself where none is larger
        assert usual <= max(sizes) <= times * usual
        assert runs[0]["frames"] == pipeline.defaults["frames"]


def test_a_video_that_is_decoded_in_parts_is_recorded_with_a_last_part_as_long_as_its_own() -> None:
    (job,) = make_jobs(["hunyuanvideo"], open_catalog(), {})
    pipeline = of_torch(job.pipeline)
    (words, *_) = words_of(pipeline, "bf16")
    draw = Draw(pipeline, stride=12)
    frames = [draw.numbers(place, words)["frames"] for place in (*range(8), None)]
    assert frames[0] == pipeline.defaults["frames"] == 129
    assert {one % 12 for one in frames} == {129 % 12}
    decoder = torch.nn.Module()
    assert entry_settings.stride_of(decoder) is None
    decoder.tile_sample_stride_num_frames, decoder.use_framewise_decoding = 12, True
    assert entry_settings.stride_of(decoder) == 12
    decoder.use_framewise_decoding = False
    assert entry_settings.stride_of(decoder) is None


def test_a_list_of_layers_may_have_empty_places() -> None:
    module = torch.nn.Module()
    module.layers = torch.nn.ModuleList([torch.nn.Identity(), None, torch.nn.Identity()])
    device = WrappedDevice(Stream("main", {}), set())
    Memory(device, {}, "bf16", "flash").watch({"transformer": module})
    assert module.layers[2](1) == 1
    assert module.layers[1] is None


@pytest.mark.parametrize(
    ("problem", "given_up"),
    [
        (RecordingError, [[], [], ["batch"], ["batch", "frames"], ["batch", "frames", "image"]]),
        (GrowingResultError, [[], ["batch"], ["batch"], ["batch", "frames"]]),
    ],
)
def test_axes_are_given_up_one_after_the_other(monkeypatch, problem, given_up) -> None:
    tries = []

    def fails(*given):
        fixed, times = given[3:5]
        tries.append((list(fixed), times))
        raise (problem if len(tries) == 1 else RecordingError)(f"it differs by {'x' * len(tries)}")

    monkeypatch.setattr(entry_tape, "_record", fails)
    (job,) = make_jobs(["wan2.1-t2v-1.3b"], open_catalog(), {})
    with pytest.raises(RecordingError):
        entry_tape.record_entry(of_torch(job.pipeline), lambda _: None)
    assert [fixed for fixed, _ in tries][: len(given_up)] == given_up
    times = [times for _, times in tries]
    assert times == sorted(times, reverse=True)
    assert times[-1] == 1.0


def test_an_axis_whose_giving_up_changes_nothing_is_kept(monkeypatch) -> None:
    """Qwen-Image-Edit Plus takes one prompt alone: that is no reason to record one size."""
    tries = []

    def fails(*given):
        tries.append(list(given[3]))
        if "batch" not in tries[-1]:
            raise RecordingError(f"no more than one, and not {len(tries)}")
        return "a tape"

    monkeypatch.setattr(entry_tape, "_record", fails)
    (job,) = make_jobs(["flux1-dev"], open_catalog(), {})
    assert entry_tape.record_entry(of_torch(job.pipeline), lambda _: None) == "a tape"
    assert tries == [[], ["image"], ["batch"]]


def test_all_axes_are_given_up_together_where_none_alone_is_why(monkeypatch) -> None:
    """Mochi's autoencoder splits what is larger than two gibibytes, by batch, frames and image."""
    tries = []

    def fails(*given):
        tries.append(list(given[3]))
        if len(tries[-1]) < 3:
            raise RecordingError(f"it is split at {len(tries)}")
        return "a tape"

    monkeypatch.setattr(entry_tape, "_record", fails)
    (job,) = make_jobs(["mochi-1"], open_catalog(), {})
    assert entry_tape.record_entry(of_torch(job.pipeline), lambda _: None) == "a tape"
    assert tries[2:] == [["batch"], ["frames"], ["image"], ["batch", "frames", "image"]]


def test_fewer_at_once_are_recorded_where_the_largest_batch_fails(monkeypatch) -> None:
    """LLaVA-OneVision makes 3,699 tokens of an image: 64 prompts have more than keep values."""
    tries = []

    def fails(*given):
        tries.append((list(given[3]), given[5]))
        raise (FailedRunError if given[5] is None else RecordingError)("tokens do not match")

    monkeypatch.setattr(entry_tape, "_record", fails)
    (job,) = make_jobs(["llava-onevision-7b"], open_catalog(), {})
    pipeline = of_torch(job.pipeline)
    with pytest.raises(RecordingError):
        entry_tape.record_entry(pipeline, lambda _: None)
    assert tries == [([], None), ([], 8), (["batch"], 8)]
    words = next(words_of(pipeline, "fp16"))
    batches = [Draw(pipeline, most_at_once=8).numbers(place, words)["batch"] for place in range(8)]
    assert max(batches) == 8


def test_a_call_is_not_remembered_for_another_mask() -> None:
    """Lumina 2 cuts prompts to what their masks leave: an unguided one had a guided one's size."""

    def run(calls, *kept):
        device = WrappedDevice(Stream("main", {}), set())
        module = torch.nn.Module()
        module.forward = lambda tokens, mask: tokens[:, : int(mask.sum())] * 2
        Memory(device, calls, "bf16", "flash").watch({"transformer": module})
        with cuda_asked_for("flash"), device, Functions("flash"), torch.no_grad():
            tokens = torch.empty(1, 64, 1 << 10).to(CUDA)
            for count in kept:
                module(tokens, (torch.arange(64)[None] < count).to(CUDA))
        return [event.size_bytes for event in device.stream.events if isinstance(event, Alloc)]

    calls: dict = {}
    sizes = run(calls, 64, 16, 64)
    assert [one for one in sizes if one > 1 << 12][1:] == [1 << 18, 1 << 16, 1 << 18]
    assert len({id(one) for one in calls.values()}) == 2  # whatever the kernel
    assert run(calls, 64, 16, 64) == sizes


def test_what_is_edited_keeps_its_size_where_the_result_is_told_another() -> None:
    from vramplan.engines.torch.record.saved.whole_pipeline import arguments
    from vramplan.quick_dataclass import replace

    class EditPipeline:
        def __call__(self, image, prompt=None, height=None, width=None): ...

    (job,) = make_jobs(["qwen-image-edit"], open_catalog(), {})
    facts = {"dtype": "bf16", "kernel": "flash"}
    asked = entry_tape.request_at(of_torch(job.pipeline), facts, {"width": 512, "height": 256})
    given = arguments(asked, EditPipeline())
    assert (given["width"], given["height"]) == (512, 256)
    assert given["image"].size == (1024, 1024)
    assert arguments(replace(asked, picture=None), EditPipeline())["image"].size == (512, 256)


def test_a_kernel_that_cannot_be_proved_is_left_out_and_the_others_stay(monkeypatch) -> None:
    real = entry_tape._Recordings.record

    def record_but(self, words, settings):
        if words["kernel"] == "math":
            raise RecordingError("it differs")
        real(self, words, settings)

    monkeypatch.setattr(entry_tape._Recordings, "record", record_but)
    monkeypatch.setattr(entry_settings, "_CAPABILITIES", ("8.6", "7.5"))
    tape, told = record(clip())
    assert [line for line in told if "without math attention" in line]
    whens = [variant.when["kernel"] for one in tape.routines.values() for variant in one]
    assert {kernel for one in whens for kernel in one} == {"flash"}
