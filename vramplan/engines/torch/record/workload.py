"""A pipeline of the catalogue as code for a real device: the very program its tape is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from vramplan.engines.torch.facts import facts_at, numbers_at, switched_off
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.record.live import Begin, Live
from vramplan.engines.torch.record.pretrained import load_part
from vramplan.engines.torch.record.recipes.registry import recipe_for
from vramplan.engines.torch.record.session import DTYPES, Sample
from vramplan.engines.torch.tape.expressions import derive
from vramplan.model import Settings


class Workload:
    """What a pipeline's components are, and what a user does with them, at some settings.

    Raises UsageError where no recipe knows the pipeline's classes.
    """

    def __init__(
        self, pipeline: TorchPipeline, settings: Settings, compute_capability: str
    ) -> None:
        self._pipeline = pipeline
        self._recipe = recipe_for(pipeline)
        self._settings = settings
        dtype = str(settings.get("dtype", "fp32"))
        facts = facts_at(pipeline, settings, compute_capability, self._recipe.known_facts())
        # a dtype's recording may serve another one; the real thing runs in its own
        facts |= {**self._recipe.dtype_facts.get(dtype, {}), "dtype": dtype}
        self._sample = Sample(numbers=numbers_at(settings), facts=facts)
        self.dtype = DTYPES[dtype]
        self.parts = self._recipe.parts
        self.loading = pipeline.loading
        self.keeps_on_host = str(settings.get("offload", "none")) in ("model", "sequential")
        self.is_training = self._recipe.is_training(facts)
        #: torch's plain attention kernel was asked for, where the code has no switch of its own
        self.wants_math_kernel = facts["kernel"] == "math"

    def build(self) -> dict[str, torch.nn.Module]:
        """Return the components on `meta`, in the order in which a tape loads them: by name."""
        built = self._recipe.build(self._sample.facts)
        skipped = switched_off(built, self._sample.facts)
        return {name: built[name] for name in sorted(built) if name not in skipped}

    def load(self, name: str, checkpoint: str, device: torch.device) -> torch.nn.Module:
        """Return a component with a checkpoint's weights; see `pretrained.load_component`."""
        whole = len(self._pipeline.components) == 1
        return load_part(self._pipeline, name, checkpoint, self.dtype, device, is_whole=whole)

    def prepare(
        self, modules: Mapping[str, torch.nn.Module], target: torch.device, begin: Begin
    ) -> Callable[[], None]:
        """Return what runs the program once on `modules`, telling `begin` where it is.

        What is returned may be called again: the second run in a process is a warm one.
        """
        dims = {
            name: derive({name: text}, self._sample.numbers)[name]
            for name, text in self._recipe.dims.items()
        }
        offload = str(self._settings.get("offload", "none"))
        stage = Live(modules, target, dims, begin, offload)
        work = self._recipe.run(stage, self._sample)
        stage.is_new = False

        def run() -> None:
            stage.marks.stream.open_loops.clear()
            work()

        return run
