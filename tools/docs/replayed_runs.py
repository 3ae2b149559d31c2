"""Runs replayed step by step, for the drawings: every allocation and free of a tape."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vramplan.ask.library import open_target
from vramplan.catalog import Catalog, load_catalog
from vramplan.engines.torch.pipeline import TorchPipeline, of_torch
from vramplan.engines.torch.replayed import conditions_at
from vramplan.engines.torch.tape.allocator import CachingAllocator
from vramplan.engines.torch.tape.blocks import Block
from vramplan.engines.torch.tape.format import Tape, read_tape
from vramplan.engines.torch.tape.replay import Conditions, Replay
from vramplan.engines.torch.tape_files import find_tape
from vramplan.model import Pipeline, Settings, SettingValue

#: what an estimate without a card assumes too
CAPABILITY = "8.6"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is held after one allocation or free. Bytes, without the CUDA context."""

    phase: str
    component: str
    weights_bytes: int
    allocated_bytes: int
    reserved_bytes: int


class _Recorder(CachingAllocator):
    """The allocator model, taking a note after every request."""

    def __init__(self, limit_bytes: int | None) -> None:
        super().__init__(limit_bytes=limit_bytes)
        self.steps: list[Step] = []
        self.run: Replay | None = None

    def malloc(self, size_bytes: int) -> Block:
        block = super().malloc(size_bytes)
        self._note()
        return block

    def free(self, block: Block) -> None:
        super().free(block)
        self._note()

    def _note(self) -> None:
        run = self.run
        assert run is not None
        weights = self.allocated_bytes if run.phase == "load" else sum(run.weight_bytes.values())
        self.steps.append(
            Step(
                phase=run.phase,
                component=run.component,
                weights_bytes=weights,
                allocated_bytes=self.allocated_bytes,
                reserved_bytes=self.reserved_bytes,
            )
        )


@cache
def shipped() -> Catalog:
    """Return the catalogue that ships, without any of the user's."""
    return load_catalog(())


def pipeline_of(name: str) -> TorchPipeline:
    """Return a pipeline that ships, as torch runs it."""
    return of_torch(open_target(name).pipeline)


def settings_of(pipeline: Pipeline, **changed: SettingValue) -> Settings:
    """Return a pipeline's defaults with some of them changed."""
    return {**pipeline.defaults, **changed}


def open_tape(pipeline: TorchPipeline) -> Tape:
    """Return the tape of a pipeline that ships."""
    return _read(find_tape(pipeline))


@cache
def _read(path: Path) -> Tape:
    return read_tape(path)


def conditions_of(name: str, **changed: SettingValue) -> tuple[Tape, Conditions]:
    """Return a pipeline's tape and the conditions of a replay at its defaults but for `changed`."""
    pipeline = pipeline_of(name)
    tape = open_tape(pipeline)
    return tape, conditions_at(pipeline, settings_of(pipeline, **changed), CAPABILITY, tape)


def replay_steps(
    name: str, *, limit_bytes: int | None = None, **changed: SettingValue
) -> list[Step]:
    """Return all steps of one run, loading included, on a card with room or under a limit."""
    tape, conditions = conditions_of(name, **changed)
    allocator = _Recorder(limit_bytes)
    run = allocator.run = Replay(tape, conditions, allocator)
    run.load()
    run.run()
    return allocator.steps
