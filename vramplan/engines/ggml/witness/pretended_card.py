"""CUDA cards that are not there, for llama.cpp to plan for.

The engine's library takes devices from a program that loads it (ggml_backend_register). These
answer for their memory, their buffers' alignment and sizes, and which operators they compute, as
the CUDA backend would. They compute nothing and copy nothing: their buffers are addresses in no
memory. With them a CPU build allocates weights, caches and compute buffers of partial offload, and
shares layers out over several cards; figures that real cards printed come out to the hundredth of
a MiB (tests/accuracy/test_device_witness.py).

A card that another machine serves over RPC answers as llama.cpp's RPC backend does, which asks the
server's card for sizes, says that every operator is computed, and has no memory of the host's to
copy from. Source: ggml-org/llama.cpp, ggml/src/ggml-rpc/ggml-rpc.cpp.

Only on Linux, and only in a process of its own: a wrong answer is a crash.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable, Sequence
from ctypes import addressof, c_size_t, c_void_p

from vramplan.engines.ggml.cuda_facts import ALIGNMENT
from vramplan.engines.ggml.witness import ggml_backend as ggml
from vramplan.engines.ggml.witness.cuda_backend import CudaRules
from vramplan.engines.ggml.witness.llama_library import builds_known
from vramplan.errors import MissingError
from vramplan.quick_dataclass import dataclass
from vramplan.units import MIB

#: where the first card's memory seems to be: above all that a process has, below the end of
#: addresses; and how many addresses each card has
_FIRST_ADDRESS, _ADDRESSES_EACH = 0x7100_0000_0000, 0x80_0000_0000
_PAGE = 2 * MIB
#: linux/mman.h: whose memory it is, of no file, and not set aside
_OWN, _ANONYMOUS, _UNRESERVED = 0x02, 0x20, 0x4000
#: interface whose backends may keep tensors
_KEEPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PretendedCard:
    """A card's memory as the engine will see it, and what its fit is to leave free.

    `is_remote`: another machine has it, and serves it over RPC.
    """

    name: str
    total_bytes: int
    free_bytes: int
    margin_bytes: int = 1 << 30  # what the server leaves (common/common.h, fit_params_target)
    is_remote: bool = False

    def told(self) -> dict[str, object]:
        """Return what it is made of again, by name."""
        return {
            "name": self.name,
            "total_bytes": self.total_bytes,
            "free_bytes": self.free_bytes,
            "margin_bytes": self.margin_bytes,
            "is_remote": self.is_remote,
        }


def plug_in(library: ctypes.CDLL, cards: Sequence[PretendedCard]) -> object:
    """Make `library` see `cards` as CUDA0, CUDA1, …; what is returned must live as long as it.

    Those of other machines must come first, as the engine has them; they are named like the others,
    so that all have numbers. Raises MissingError for a library whose interface is not known.
    """
    try:
        find = library.ggml_backend_cpu_reg
        register = library.ggml_backend_register
    except AttributeError:
        message = "this build of the engine takes no devices from outside"
        raise MissingError(message, hint=builds_known()) from None
    find.restype, register.argtypes = c_void_p, [c_void_p]
    version = ggml.Registry.from_address(find()).api_version
    if version not in ggml.BUFFER_TYPES:
        message = f"this build of the engine has device interface {version}"
        raise MissingError(message, hint=builds_known())
    host = _Host(library, version)
    remotes = sum(one.is_remote for one in cards)
    families = [_Family(library, "CUDA", cards[remotes:], remotes, version)]
    if remotes:
        families.append(_Family(library, "RPC", cards[:remotes], 0, version))
    for family in families:
        register(addressof(family.registry))
    return host, families


class _Answers:
    """Answers to the engine's calls; everything that C has the address of is kept here."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._bases: dict[int, int] = {}  # where the memory of a buffer begins
        self._kept: list[object] = []
        self._new_buffer = library.ggml_backend_buffer_init
        self._new_buffer.restype = c_void_p
        self._new_buffer.argtypes = [c_void_p, ggml.BufferInterface, c_void_p, c_size_t]
        library.ggml_backend_cpu_buffer_type.restype = c_void_p
        self._host_type: int = library.ggml_backend_cpu_buffer_type()

    def _answer(self, structure: ctypes.Structure, **functions: Callable[..., object]) -> None:
        """Put Python functions into a structure's places."""
        kinds = {field[0]: field[1] for field in structure._fields_}
        for place, function in functions.items():
            pointer = kinds[place](function)
            self._kept.append(pointer)
            setattr(structure, place, pointer)

    def _answer_for_buffers(
        self, buffers: ggml.BufferInterface, free: Callable[[int], None]
    ) -> None:
        self._answer(
            buffers,
            free_buffer=free,
            get_base=lambda buffer: self._bases[buffer],
            set_tensor=lambda *_: None,
            get_tensor=lambda *_: None,
            clear=lambda *_: None,
        )

    def _say(self, text: str) -> Callable[[object], int]:
        address = self._word(text)
        return lambda _: address

    def _word(self, text: str) -> int:
        word = ctypes.create_string_buffer(text.encode())
        self._kept.append(word)
        return addressof(word)


class _Host(_Answers):
    """The host's memory, of which the cards are the only users."""

    def __init__(self, library: ctypes.CDLL, version: int) -> None:
        super().__init__(library)
        self._host_memory: dict[int, mmap.mmap] = {}
        self._host_buffer = ggml.BufferInterface()
        self._answer_for_buffers(self._host_buffer, self._free_on_host)
        host = ggml.BUFFER_TYPES[version].from_address(self._host_type)
        self._answer(host, alloc_buffer=self._allocate_on_host)

    def _allocate_on_host(self, kind: int, size: int) -> int | None:
        """Return memory of the host that takes none until it is written: nobody clears it.

        Caches there may be larger than the machine.
        """
        try:
            memory = mmap.mmap(-1, max(size, 1), _OWN | _ANONYMOUS | _UNRESERVED)
        except (OSError, ValueError):
            return None
        buffer = int(self._new_buffer(kind, self._host_buffer, None, size))
        self._bases[buffer] = addressof(ctypes.c_char.from_buffer(memory))
        self._host_memory[buffer] = memory
        return buffer

    def _free_on_host(self, buffer: int) -> None:
        del self._bases[buffer], self._host_memory[buffer]


class _Family(_Answers):
    """The cards of one backend, the first of them with the number `first`."""

    def __init__(
        self,
        library: ctypes.CDLL,
        name: str,
        cards: Sequence[PretendedCard],
        first: int,
        version: int,
    ) -> None:
        super().__init__(library)
        self.registry = ggml.Registry()
        self.registry.api_version = version
        self._devices = [
            _Device(library, card, number, self.registry)
            for number, card in enumerate(cards, start=first)
        ]
        addresses = [addressof(one.device) for one in self._devices]
        self._answer(
            self.registry.interface,
            get_name=self._say(name),
            get_device_count=lambda _: len(addresses),
            get_device=lambda _, number: addresses[number],
            get_proc_address=lambda *_: None,  # among them split buffers, which CUDA has no longer
        )


class _Device(_Answers):
    """One card."""

    def __init__(
        self, library: ctypes.CDLL, card: PretendedCard, number: int, registry: ggml.Registry
    ) -> None:
        super().__init__(library)
        self._card, self._number = card, number
        self._rules = CudaRules(library)
        self._taken_bytes = 0
        self._next_address = _FIRST_ADDRESS + number * _ADDRESSES_EACH
        self._name = f"CUDA{number}"
        self._words = self._word(self._name), self._word(card.name)
        self._guid = (ctypes.c_uint8 * 16)(*f"vramplan's {self._name:6}"[:16].encode())
        self._node_count = library.ggml_graph_n_nodes
        self._node_count.argtypes = [c_void_p]
        self._node = library.ggml_graph_node
        self._node.restype, self._node.argtypes = c_void_p, [c_void_p, ctypes.c_int]
        self._new_host_buffer = library.ggml_backend_buft_alloc_buffer
        self._new_host_buffer.restype = c_void_p
        self._new_host_buffer.argtypes = [c_void_p, c_size_t]
        self._version = registry.api_version
        self.device, self.backend = ggml.Device(), ggml.Backend()
        kind = ggml.BUFFER_TYPES[self._version]
        self.memory, self.pinned, self.buffer = kind(), kind(), ggml.BufferInterface()
        self.device.registry = addressof(registry)
        self._fill_device()
        self._fill_memory()

    def _fill_device(self) -> None:
        is_remote = self._card.is_remote
        self._answer(
            self.device.interface,
            get_name=self._say(self._name),
            get_description=self._say(self._card.name),
            get_memory=self._tell_memory,
            get_type=lambda _: ggml.GPU,
            get_props=self._tell_properties,
            init_backend=lambda *_: addressof(self.backend),
            get_buffer_type=lambda _: addressof(self.memory),
            supports_op=lambda _, tensor: is_remote or self._rules.supports(tensor),
            supports_buft=lambda _, kind: kind == addressof(self.memory),
        )
        if not is_remote:
            self._answer(
                self.device.interface,
                get_host_buffer_type=lambda _: addressof(self.pinned),
                offload_op=lambda _, tensor: self._rules.is_worth_copying(tensor),
            )
        self.backend.guid, self.backend.device = addressof(self._guid), addressof(self.device)
        self._answer(
            self.backend.interface,
            get_name=self._say(self._name),
            free=lambda _: None,
            synchronize=lambda _: None,
            graph_compute=lambda *_: 0,
        )
        if not is_remote:
            self._answer(self.backend.interface, graph_optimize=self._optimize)

    def _fill_memory(self) -> None:
        self.memory.device = self.pinned.device = addressof(self.device)
        self._answer(
            self.memory,
            get_name=self._say(self._name),
            alloc_buffer=self._allocate,
            get_alignment=lambda _: ALIGNMENT,
            get_alloc_size=lambda _, tensor: self._rules.size_bytes(tensor),
        )
        host = type(self.pinned).from_address(self._host_type)
        self.pinned.get_alignment, self.pinned.is_host = host.get_alignment, host.is_host
        self._answer(
            self.pinned, get_name=self._say("CUDA_Host"), alloc_buffer=self._allocate_pinned
        )
        self._answer_for_buffers(self.buffer, self._free)

    @property
    def _free_bytes(self) -> int:
        return max(self._card.free_bytes - self._taken_bytes, 0)

    def _tell_memory(self, _: int, free: ggml.Sizes, total: ggml.Sizes) -> None:
        free[0], total[0] = self._free_bytes, self._card.total_bytes

    def _tell_properties(self, _: int, told: ggml.PropertiesPointer) -> None:
        properties = told[0]
        properties.name, properties.description = self._words
        properties.memory_free, properties.memory_total = self._free_bytes, self._card.total_bytes
        properties.type, properties.device_id = ggml.GPU, None
        properties.is_async = properties.has_mmap = True
        properties.has_host_buffer = not self._card.is_remote
        # of several cards with events the engine makes a pipeline; nobody waits for one here
        properties.has_events = True
        properties.has_buffer_from_host = False

    def _allocate(self, kind: int, size: int) -> int | None:
        if size > self._free_bytes:
            sys.stderr.write(
                f"ggml_backend_cuda_buffer_type_alloc_buffer: allocating {size / MIB:.2f} MiB on "
                f"device {self._number}: cudaMalloc failed: out of memory\n"
            )
            return None
        buffer = int(self._new_buffer(kind, self.buffer, None, size))
        self._bases[buffer] = self._next_address
        self._next_address += -(-size // _PAGE) * _PAGE
        self._taken_bytes += size
        return buffer

    def _allocate_pinned(self, kind: int, size: int) -> int | None:
        """Return memory of the host that bears the name CUDA gives it."""
        buffer = self._new_host_buffer(self._host_type, size)
        if buffer:
            ggml.Buffer.from_address(buffer).type = kind
        return buffer  # type: ignore[no-any-return]  # an address or None

    def _optimize(self, _: int, graph: int, parameters: int) -> None:
        """Keep what a fused kernel reads until it is done, as the CUDA backend does.

        Only builds of interface 3 are known to ask this way.
        """
        if self._version < _KEEPS:
            return
        asked = ggml.OptimizeParameters.from_address(parameters)
        nodes = [self._node(graph, number) for number in range(self._node_count(graph))]
        for kept, until in self._rules.fused_sums(nodes):
            asked.keep(asked.context, kept, until)

    def _free(self, buffer: int) -> None:
        self._taken_bytes -= ggml.Buffer.from_address(buffer).size
        del self._bases[buffer]
