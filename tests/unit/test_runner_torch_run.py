"""The measured process, on a CPU with counters of the test's own: every step but the card."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from vramplan.catalog import load_catalog  # noqa: E402  # after the libraries are known to be here
from vramplan.engines.torch.open import open_entry  # noqa: E402  # after torch is known to be there
from vramplan.engines.torch.record.workload import Workload  # noqa: E402  # after torch is known to be there
from vramplan.engines.torch.run.environment import torch_environment  # noqa: E402  # after torch is known to be there
from vramplan.engines.torch.run.failure import failure_of  # noqa: E402  # after torch is known to be there
from vramplan.engines.torch.run.load_weights import make_up, parameters_of, size_of, tensors_of  # noqa: E402  # after torch is known to be there
from vramplan.engines.torch.run.torch_run import TorchRun  # noqa: E402  # after torch is known to be there
from vramplan.errors import MissingError, UsageError  # noqa: E402  # after torch is known to be there
from vramplan.measurement.reading import (  # noqa: E402  # after torch is known to be there
    DeviceMemory,
    Reading,
    TorchMemory,
)
from vramplan.measurement.run import (  # noqa: E402  # after torch is known to be there
    ContextStep,
    Failure,
    FailureKind,
    MeasuredComponent,
    Stretch,
)
from vramplan.measurement.run_json import decode_part  # noqa: E402  # after torch is known to be there
from vramplan.runner.ballast import STEP_BYTES, fill  # noqa: E402  # after torch is known to be there
from vramplan.runner.task import Task  # noqa: E402  # after torch is known to be there
from vramplan.settings import resolve_settings  # noqa: E402  # after torch is known to be there

MIB = 1 << 20


@dataclass
class Heard:
    """A channel that keeps what is said and answers at once."""

    said: list[dict] = field(default_factory=list)

    def say(self, kind: str, **more: object) -> None:
        self.said.append({"say": kind, **more})

    def hear(self) -> str:
        return "go"

    def tell_end(self, turn: str, phase: str, component: str) -> None:
        self.say("phase_end", turn=turn, phase=phase, component=component)

    def of(self, kind: str, key: str, cls: type) -> list:
        return [decode_part(cls, one[key]) for one in self.said if one["say"] == kind]

    def stretches(self) -> dict[tuple[str, str, str], Stretch]:
        found = self.of("stretch", "stretch", Stretch)
        return {(one.turn, one.phase, one.component): one for one in found}


class Counters:
    """Counts how it is asked: each reading's peak is one more than the last one's."""

    def __init__(self) -> None:
        self.peak = 0
        self.asked: list[str] = []

    def read(self) -> Reading:
        self.peak += 1
        memory = TorchMemory(
            allocated_bytes=100 * self.peak,
            reserved_bytes=self.peak,
            allocated_peak_bytes=self.peak,
            reserved_peak_bytes=self.peak,
            requested_peak_bytes=self.peak,
            inactive_split_bytes=0,
            retries=0,
        )
        return Reading(at_s=time.monotonic(), torch=memory)

    def reset_peaks(self) -> None:
        self.asked.append("reset")

    def open_context(self) -> None:
        self.asked.append("context")

    def keep_within_free(self) -> int:
        self.asked.append("limit")
        return 123

    def settle(self) -> None:
        self.asked.append("settle")


class Card:
    """A card that is ever fuller."""

    def __init__(self) -> None:
        self.used = 1000

    def read(self) -> Reading:
        self.used += 10
        memory = DeviceMemory(
            total_bytes=1 << 30, used_bytes=self.used, free_bytes=0, reserved_bytes=None
        )
        return Reading(at_s=time.monotonic(), device=memory)


def a_program(name: str = "denoising-ae", **settings: object) -> Workload:
    pipeline = open_entry(load_catalog([]).pipeline(name), ())
    return Workload(pipeline, resolve_settings(pipeline, {**pipeline.defaults, **settings}), "8.6")


class Recorder:
    """Stands for the allocator's recorder; `problem` is what it meets after its turn."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.problem = problem
        self.places: list[tuple[str, str]] = []

    def begin(self, phase: str, component: str) -> None:
        self.places.append((phase, component))

    def record(self, work) -> None:
        work()
        if self.problem is not None:
            raise self.problem


def measured(
    program: object, historian: Recorder | None = None, **task: object
) -> tuple[Heard, Counters]:
    heard, counters = Heard(), Counters()
    wanted = Task(pipeline="x", compute_capability="8.6", device="cpu", **task)
    run = TorchRun(
        wanted,
        program,
        heard,
        counters=counters,
        device=Card(),
        own_share=lambda memory: memory.used_bytes - 1000,
        historian=historian,
    )
    run.run()
    return heard, counters


def test_the_allocators_events_are_taken_in_a_turn_of_their_own() -> None:
    historian = Recorder()
    heard, _ = measured(a_program(image=(32, 32), batch=1), historian)
    assert ("encode_image", "encoder") in historian.places
    assert {turn for turn, _, _ in heard.stretches()} == {"load", "cold", "warm"}
    assert [one["say"] for one in heard.said[-2:]] == ["history", "done"]


def test_a_recorder_that_fails_spoils_no_figure() -> None:
    heard, _ = measured(a_program(image=(32, 32), batch=1), Recorder(OSError("disk full")))
    assert not heard.of("failure", "failure", Failure)
    note, done = heard.said[-2:]
    assert note == {
        "say": "note",
        "text": "the allocator's events were not kept: OSError: disk full",
    }
    assert done["say"] == "done"


def test_components_are_loaded_one_by_one_and_phases_measured_cold_and_warm() -> None:
    heard, counters = measured(a_program(image=(32, 32), batch=1))
    assert heard.said[-1]["say"] == "done"
    assert not heard.of("failure", "failure", Failure)
    parts = heard.of("component", "component", MeasuredComponent)
    assert [(part.name, part.parameters) for part in parts] == [
        ("decoder", 370_563),
        ("encoder", 370_816),
    ]
    assert all(part.weights_bytes == 4 * part.parameters for part in parts)
    assert all(part.allocated_bytes > 0 for part in parts)
    (context,) = heard.of("context", "step", ContextStep)
    assert context.process_used_bytes == context.device_used_bytes - 1000
    stretches = heard.stretches()
    places = [("encode_image", "encoder"), ("decode_image", "decoder")]
    for turn in ("cold", "warm"):
        for phase, component in places:
            one = stretches[turn, phase, component]
            assert one.torch.allocated_peak_bytes > 0
            assert one.process_used_bytes == one.device_used_bytes - 1000
            assert one.ended_s >= one.began_s
    assert counters.asked[0] == "context"
    assert "limit" not in counters.asked
    assert counters.asked.count("settle") == 2


def test_peaks_of_a_stretch_are_its_own() -> None:
    heard, counters = measured(a_program(image=(32, 32), batch=1), turns=1)
    begun = [one for one in heard.said if one["say"] == "stretch"]
    # peaks are reset where a stretch begins, once each
    assert counters.asked.count("reset") >= len({tuple(s["windows"][0]) for s in begun})


def test_a_limit_is_set_after_the_context_is_there() -> None:
    heard, counters = measured(a_program(image=(32, 32), batch=1), wants_limit=True)
    assert counters.asked[:2] == ["context", "limit"]
    facts = [one["facts"] for one in heard.said if one["say"] == "facts"]
    assert {"torch_limit_bytes": "123"} in facts


def test_a_training_step_has_gradients() -> None:
    heard, _ = measured(a_program(image=(32, 32), batch=1, mode="train", steps=2), turns=1)
    assert not heard.of("failure", "failure", Failure)
    places = {(phase, component) for _, phase, component in heard.stretches()}
    assert ("train_step", "backward") in places
    assert ("train_step", "optimizer") in places


def test_a_run_that_fails_says_where_and_what_it_asked_for() -> None:
    program = a_program(image=(32, 32), batch=1)
    prepare = program.prepare

    def broken(modules, target, begin):
        work = prepare(modules, target, begin)

        def run() -> None:
            work()
            begin("decode_image", "decoder")
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.25 GiB. GPU 0")

        return run

    program.prepare = broken
    heard, _ = measured(program)
    (failure,) = heard.of("failure", "failure", Failure)
    assert failure.kind is FailureKind.OOM
    assert (failure.phase, failure.component) == ("decode_image", "decoder")
    assert failure.asked_bytes == int(2.25 * (1 << 30))
    assert ("cold", "encode_image", "encoder") in heard.stretches(), "what was measured is kept"
    assert heard.said[-1]["say"] == "done"


@pytest.mark.parametrize(
    ("problem", "kind", "asked"),
    [
        (RuntimeError("CUDA error: out of memory"), FailureKind.OOM, None),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling"), FailureKind.OOM, None),
        (RuntimeError("Tried to allocate 512.00 MiB: out of memory"), FailureKind.OOM, 512 * MIB),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), FailureKind.ERROR, None),
    ],
)
def test_errors_of_cuda_and_its_libraries_are_told_apart(problem, kind, asked) -> None:
    failure = failure_of(problem, "denoise", "unet")
    assert (failure.kind, failure.asked_bytes) == (kind, asked)


# -- weights ------------------------------------------------------------------------------------


def test_made_up_weights_have_the_shapes_the_dtype_and_the_ties() -> None:
    with torch.device("meta"):
        first = torch.nn.Linear(4, 4, dtype=torch.float16)
        second = torch.nn.Linear(4, 4, dtype=torch.float16)
    second.weight = first.weight
    module = torch.nn.Sequential(first, second)
    module.register_buffer("position_ids", torch.zeros(3, dtype=torch.int64, device="meta"))
    make_up(module, torch.device("cpu"))
    assert module[0].weight is module[1].weight
    assert module[0].weight.dtype == torch.float16
    assert module[0].weight.requires_grad
    assert {tensor.device.type for tensor in tensors_of(module)} == {"cpu"}
    assert module.position_ids.tolist() == [0, 0, 0]
    assert parameters_of(module) == 16 + 4 + 4
    assert size_of(module) == 2 * 24 + 8 * 3


def test_tables_that_a_class_does_not_register_stay_in_system_memory() -> None:
    module = torch.nn.Linear(2, 2, device="meta")
    module.tables = [torch.ones(3, device="meta"), (torch.ones(2, device="meta"), "axes")]
    module.angles, module.sizes = torch.ones(5, dtype=torch.complex64, device="meta"), [1, 2]
    sizes = module.sizes
    make_up(module, torch.device("cpu"))
    assert module.tables[0].tolist() == [0, 0, 0]
    assert module.tables[1][0].tolist() == [0, 0]
    assert module.tables[1][1] == "axes"
    assert (module.angles.device.type, module.angles.dtype) == ("cpu", torch.complex64)
    assert module.sizes is sizes


def test_tensors_come_in_the_order_in_which_to_moves_them() -> None:
    module = torch.nn.Module()
    module.own = torch.nn.Parameter(torch.zeros(1))
    module.child = torch.nn.Linear(2, 2)
    module.register_buffer("last", torch.zeros(5))
    moved: list[int] = []
    module._apply(lambda tensor: moved.append(tensor.numel()) or tensor)
    assert [tensor.numel() for tensor in tensors_of(module)] == moved


def test_a_checkpoint_of_a_folder_is_loaded_without_unpickling(tmp_path: Path) -> None:
    program = a_program("sd15-vae")
    vae = program.build()["vae"]
    make_up(vae, torch.device("cpu"))
    vae.save_pretrained(tmp_path, safe_serialization=True)
    assert list(tmp_path.glob("*.safetensors"))
    loaded = program.load("vae", str(tmp_path), torch.device("cpu"))
    assert parameters_of(loaded) == 83_653_863
    assert loaded.dtype == torch.float16
    assert not loaded.training


def test_a_checkpoint_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="vae cannot be loaded") as raised:
        a_program("sd15-vae").load("vae", str(tmp_path), torch.device("cpu"))
    assert "\n" not in str(raised.value)


def test_a_checkpoint_of_pickles_is_refused(tmp_path: Path) -> None:
    program = a_program("sd15-vae")
    vae = program.build()["vae"]
    (tmp_path / "config.json").write_text(vae.to_json_string())
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(MissingError, match="vae cannot be loaded"):
        program.load("vae", str(tmp_path), torch.device("cpu"))


def test_layers_of_torch_have_no_checkpoint() -> None:
    with pytest.raises(UsageError, match="has no checkpoints"):
        a_program().load("encoder", "somewhere", torch.device("cpu"))


# -- smaller cards ------------------------------------------------------------------------------


def test_the_ballast_leaves_what_was_asked_for_to_a_step() -> None:
    free = [10 << 30]

    def take(size: int) -> int:
        if size > 700 * MIB:
            raise RuntimeError("out of memory")  # not in one piece
        free[0] -= size + 64 * 1024  # and the driver's own tables
        return size

    held = fill(3 << 30, lambda: free[0], take)
    assert 0 <= free[0] - (3 << 30) < STEP_BYTES
    assert max(held) <= 700 * MIB


def test_a_card_with_less_free_is_not_filled() -> None:
    assert fill(1 << 30, lambda: 1 << 29, lambda size: size) == []


def test_the_environment_is_the_smaller_cards() -> None:
    assert torch_environment({}, "machine") == {}
    assert torch_environment({}, "9.0") == {}
    assert torch_environment({}, "8.6") == {"CUBLAS_WORKSPACE_CONFIG": ":4096:2:16:8"}
    found = torch_environment({"expandable_segments": "on"}, "machine")
    assert found["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
