"""A new tape of a pipeline, recorded and then proved: what is not proved is not handed out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from vramplan.engines.torch.libraries import QUIET, require_libraries
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.quick_dataclass import replace
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.engines.torch.record.session import Recipe, Sample


def make_tape(
    pipeline: TorchPipeline, progress: Callable[[str], None], *, is_proved: bool = True
) -> str:
    """Return the tape of a pipeline as the text of its file, the same for the same versions.

    Unless `is_proved` is False it is held, event by event, against a fresh run of every session at
    sizes it was not recorded at together. Raises MissingError without the libraries, UsageError
    where no recipe knows the classes, RecordingError where the tape does not hold.
    """
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    require_libraries("recording")
    from vramplan.engines.torch.record.recipes.registry import find_recipe

    recipe = find_recipe(pipeline)
    if recipe is None:
        from vramplan.engines.torch.record.saved.entry_tape import record_entry

        return record_entry(pipeline, progress)
    from vramplan.engines.torch.record.recorder import record_tape
    from vramplan.engines.torch.tape.format import write_tape

    tape = record_tape(pipeline.name, recipe, progress)
    if is_proved:
        from vramplan.engines.torch.record.proof import prove

        for sample in unseen_samples(recipe):
            words = " ".join(f"{key}={value}" for key, value in sample.numbers.items())
            progress(f"proving  run at {words}")
            prove(tape, recipe, sample)
    return write_tape(tape)


def unseen_samples(recipe: Recipe) -> Iterator[Sample]:
    """Yield, for every session, its first whole run at numbers that were not recorded together.

    Each number alone is one that was recorded, so that each is one that the pipeline takes.
    """
    for _, samples in recipe.sessions:
        whole = [sample for sample in samples if sample.keep_main]
        if whole:
            alike = [sample for sample in whole if sample.facts == whole[0].facts]
            yield _mixed(alike)


def _mixed(alike: Sequence[Sample]) -> Sample:
    """Return the first sample with numbers of the others, no two of the same if that can be."""
    seen = [dict(sample.numbers) for sample in alike]
    for step in range(1, len(alike)):
        numbers = {key: seen[place * step % len(seen)][key] for place, key in enumerate(seen[0])}
        if numbers not in seen:
            return replace(alike[0], numbers=numbers)
    return alike[0]
