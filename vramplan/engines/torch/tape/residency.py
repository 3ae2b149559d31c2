"""Which weights are on the device: loading, and diffusers' and accelerate's offload.

none        every component comes at load and stays
model       a component comes when it is called, and the one before it in the chain goes
sequential  a module's tensors come when it runs and go when it is done
"""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.engines.torch.diffusers_offload import CHAIN
from vramplan.engines.torch.tape.allocator import Block, CachingAllocator
from vramplan.engines.torch.tape.conditions import Conditions
from vramplan.engines.torch.tape.format import Tape


class Residency:
    """The weights on the device, component by component (`unet`) or module by module (`unet:7`).

    `weight_bytes` are the bytes of the components that are there as a whole. Whatever brings
    something raises OutOfDeviceMemory.
    """

    __slots__ = ("_allocator", "_blocks", "_cast_bytes", "_conditions", "_tape", "weight_bytes")

    def __init__(self, tape: Tape, conditions: Conditions, allocator: CachingAllocator) -> None:
        self._tape = tape
        self._conditions = conditions
        self._allocator = allocator
        self._blocks: dict[str, list[list[Block]]] = {}  # by module, in load order
        self._cast_bytes: dict[str, int] = {}  # element sizes that the pipeline changed
        self.weight_bytes: dict[str, int] = {}

    def at_load(self) -> Iterator[str]:
        """Yield the components that loading brings to the device, in its order."""
        for name in self._tape.components:
            stays = self._conditions.offload == "none" or name in self._conditions.stays
            if stays and name not in self._conditions.skip_components:
                yield name

    def bring(self, component: str) -> int:
        """Allocate a component's tensors in load order; return how many."""
        weights = self._tape.components[component]
        element_bytes = self._element_bytes(component)
        malloc = self._allocator.malloc
        if self._conditions.loading == "device_map" and self._conditions.offload == "none":
            # transformers' caching_allocator_warmup: one block of the whole size, and back at once
            self._allocator.free(malloc(weights.total_bytes(element_bytes)))
        self._blocks[component] = [
            [malloc(size) for size in weights.tensor_bytes(module, element_bytes)]
            for module in range(len(weights.modules))
        ]
        self.weight_bytes[component] = weights.total_bytes(element_bytes)
        return sum(map(len, weights.modules))

    def cast_bytes(self, component: str) -> int:
        """Return the element size that the pipeline cast a component to; 0 where it did not."""
        return self._cast_bytes.get(component, 0)

    def _element_bytes(self, component: str) -> int:
        return self._cast_bytes.get(component, self._conditions.element_bytes)

    def send_away(self, name: str) -> None:
        """Free the tensors of a component, or of a module."""
        self.weight_bytes.pop(name, None)
        for blocks in self._blocks.pop(name, []):
            for block in blocks:
                self._allocator.free(block)

    def cast(self, component: str, element_bytes: int) -> int:
        """Give every tensor of a component a new element size; return how many there are.

        So does Module.to(dtype). What is in system memory just then comes in its new size.
        """
        self._cast_bytes[component] = element_bytes
        weights, blocks = self._tape.components[component], self._blocks.get(component)
        if blocks is None:
            return 0
        for module, held in enumerate(blocks):
            for i, size in enumerate(weights.tensor_bytes(module, element_bytes)):
                if isinstance(weights.modules[module][i], int):
                    new = self._allocator.malloc(size)
                    self._allocator.free(held[i])
                    held[i] = new
        self.weight_bytes[component] = weights.total_bytes(element_bytes)
        return sum(map(len, weights.modules))

    # -------------------------------------------------------------- offload
    def make_room_for(self, routine: str) -> str | None:
        """Send away what model offload sends away before `routine` runs.

        Returns the component that has to be brought now, None where it is there. Source:
        accelerate.hooks.CpuOffload.pre_forward: the component before this one in the chain leaves
        if it is there, and the cache is emptied; any other stays, such as image to image's VAE,
        which encodes before the UNet runs.
        """
        top = routine.partition(".")[0]
        if self._conditions.offload != "model" or top not in self._tape.components:
            return None
        chain = [name for name in CHAIN if name in self._tape.components]
        place = chain.index(top) if top in chain else 0
        if place and chain[place - 1] in self._blocks:
            self.send_away(chain[place - 1])
            self._allocator.empty_cache()
        return None if top in self._blocks else top

    def end_run(self) -> None:
        """Send every component away at the end of a run, as `maybe_free_model_hooks` does."""
        if self._conditions.offload != "model":
            return
        for name in [name for name in self._blocks if name not in self._conditions.stays]:
            self.send_away(name)
        self._allocator.empty_cache()

    def enter_module(self, component: str, module: int) -> int:
        """Bring a module's tensors for as long as it runs, under sequential offload.

        Returns how many came.
        """
        name = f"{component}:{module}"
        if self._conditions.offload != "sequential" or component in self._conditions.stays:
            return 0
        if name in self._blocks:
            return 0
        weights = self._tape.components[component]
        blocks = []
        # accelerate.utils.set_module_tensor_to_device empties the cache after each tensor it brings
        for size in weights.tensor_bytes(module, self._element_bytes(component)):
            blocks.append(self._allocator.malloc(size))
            self._allocator.empty_cache()
        self._blocks[name] = [blocks]
        return len(blocks)

    def exit_module(self, component: str, module: int) -> None:
        """Send away what `enter_module` brought."""
        if self._conditions.offload == "sequential":
            self.send_away(f"{component}:{module}")
