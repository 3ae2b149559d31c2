"""Real values in the small tensors of a pretended card, so that code that decides by them can.

Kernels compute nothing. Loops over time steps, token ids, stopping criteria and masks need the
truth: what a program calls on small tensors runs once more on the CPU, on the card's own memory.
It is done where Python calls torch, so that what torch does inside a call stays its own.

What depends on values that nobody computed is 0, and reading it is counted.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch.multiprocessing import reductions
from torch.overrides import TorchFunctionMode

from vramplan.engines.torch.witness.card_state import COPIED_BYTES
from vramplan.engines.torch.witness.code_places import Place, calling_places, own_place

if TYPE_CHECKING:
    from vramplan.engines.torch.witness.loaded_libraries import LoadedCore

#: parts of torch that have no types
_cuda: Any = torch.cuda
_text: Any = torch._tensor_str
_weak_storage: Any = reductions.StorageWeakRef

#: of floating-point operands that are still computed; of whole numbers what copies are made of
_MOST_FLOAT_BYTES = 64 << 10
_MOST_WHOLE_BYTES = COPIED_BYTES

#: their results are the host's, or they change nothing that has values
_LEAVE = frozenset(
    {
        "__get__", "__set__", "__delete__", "size", "dim", "numel", "stride", "data_ptr", "__len__",
        "is_contiguous", "element_size", "storage_offset", "untyped_storage", "requires_grad_",
        "retain_grad", "register_hook", "record_stream", "resize_", "set_", "share_memory_",
        "detach_", "backward", "empty", "empty_like", "new_empty", "empty_strided",
        "new_empty_strided", "is_floating_point", "is_complex", "__deepcopy__",
        "__hash__", "__dlpack__", "_make_subclass", "get_device", "is_pinned", "pin_memory",
        "__reduce_ex__", "is_same_size", "has_names", "rename_", "is_shared",
    }
)  # fmt: skip
_DRAWN = ("rand", "normal", "multinomial", "dropout", "bernoulli", "exponential", "uniform",
          "cauchy", "geometric", "poisson")  # fmt: skip
_READS = frozenset({"item", "tolist", "__bool__", "__int__", "__float__", "__index__", "numpy",
                    "__array__", "is_nonzero", "equal", "allclose"})  # fmt: skip
#: torch itself reads from the card whether a matrix has no solution
_SOLVES = frozenset({"linalg_solve", "linalg_inv", "inverse", "linalg_lu_factor"})
#: and a count or a truth while it runs these
_ASKS_BACK = frozenset({"nonzero", "argwhere", "masked_select", "where", "__getitem__",
                        "__setitem__", "equal", "allclose", "index_put_", "index_put",
                        "repeat_interleave", "bincount", "one_hot", "unique", "unique_consecutive",
                        "_unique2", "_return_output", "_return_counts", "_return_inverse",
                        "_unique_impl", "__contains__", *_SOLVES})  # fmt: skip
_MOVES = frozenset({"to", "cuda", "cpu", "type", "type_as"})
#: of numbers that follow from what nobody computed, so many are: scores that loops are ended by
_MOST_GUESSED = 64
_MOST_KNOWN = 65_536
_MOST_PLACES = 8


def alias(tensor: torch.Tensor) -> torch.Tensor:
    """Return a CPU tensor over the memory of one on a card."""
    if not tensor.numel():
        return torch.empty(tensor.shape, dtype=tensor.dtype)
    span = _span_bytes(tensor)
    memory = (ctypes.c_uint8 * span).from_address(tensor.data_ptr())
    flat = torch.frombuffer(memory, dtype=tensor.dtype)
    return flat.as_strided(tensor.shape, tensor.stride())


def _span_bytes(tensor: torch.Tensor) -> int:
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()


def is_small(tensor: torch.Tensor) -> bool:
    """True where a tensor is computed on the CPU as well."""
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return False
    is_whole = not (tensor.is_floating_point() or tensor.is_complex())
    most = _MOST_WHOLE_BYTES if is_whole else _MOST_FLOAT_BYTES
    return not tensor.numel() or _span_bytes(tensor) <= most


class _Values(TorchFunctionMode):
    """Computes small results on the CPU, in the card's memory."""

    def __init__(self, core: LoadedCore) -> None:
        super().__init__()
        self._core = core
        self._known: dict[int, Any] = {}
        self.reads = 0
        self.places: Counter[Place] = Counter()
        self.failed: Counter[str] = Counter()
        self.operator = ""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():  # what is compiled has no values of ours
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _LEAVE:
            return func(*args, **kwargs)
        if not _cuda.is_initialized():
            out = func(*args, **kwargs)
            if not _cuda.is_initialized():  # this was not the first use of a card
                return out
            return self._after_or_left(name, func, args, kwargs, out)
        self.operator = name
        if name in _READS:
            self._read(args)
        if name == "__repr__":
            return self._write_out(args[0])
        if name not in _ASKS_BACK:
            out = func(*args, **kwargs)
        else:
            out = self._ask_back(name, func, args, kwargs)
        return self._after_or_left(name, func, args, kwargs, out)

    def _after_or_left(
        self, name: str, func: Any, args: Any, kwargs: dict[str, Any], out: Any
    ) -> Any:
        try:
            return self._after(name, func, args, kwargs, out)
        except Exception as problem:  # noqa: BLE001  # an operator that the CPU does not have
            self._fail(name, problem, out)
            return out

    # -------------------------------------------------------------------------- what is known
    def _is_known(self, tensor: torch.Tensor) -> bool:
        if not tensor.is_cuda:
            return True
        storage = _storage(tensor)
        known = None if storage is None else self._known.get(storage._cdata)
        return known is not None and not known.expired()

    def _learn(self, tensors: list[torch.Tensor], is_known: bool) -> None:
        for one in tensors:
            storage = _storage(one)
            if storage is None:
                continue
            if is_known:
                self._known[storage._cdata] = _weak_storage(storage)
            else:
                self._known.pop(storage._cdata, None)
        if len(self._known) > _MOST_KNOWN:
            self._known = {key: one for key, one in self._known.items() if not one.expired()}

    def _read(self, args: Any) -> None:
        """Count a read of what nobody computed."""
        if any(one.is_cuda and not self._is_known(one) for one in _tensors(args)):
            self.reads += 1
            place = own_place(calling_places())
            if place is not None and (place in self.places or len(self.places) < _MOST_PLACES):
                self.places[place] += 1

    def _write_out(self, tensor: torch.Tensor) -> str:
        """Return a tensor as text: choosing how to write its numbers asks the card about them."""
        with self:
            return str(_text._str(tensor))

    # ------------------------------------------------------------------------------ computing
    def _ask_back(self, name: str, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run what reads a count from the card, and let it read the true one."""
        tensors = _tensors((args, kwargs))
        if not any(one.is_cuda for one in tensors):
            return func(*args, **kwargs)
        try:
            answers = self._answers(name, func, args, kwargs)
        except Exception as problem:  # noqa: BLE001  # as above
            self.failed[f"{name}: {problem}"[:120]] += 1
            answers = [0]
        if answers:
            self._core.answer_next_copies(answers)
        try:
            return func(*args, **kwargs)
        finally:
            self._core.drop_answers()

    def _answers(self, name: str, func: Any, args: Any, kwargs: dict[str, Any]) -> list[int]:
        """Return what torch will read, in its order; nothing where it reads nothing."""
        if name in _SOLVES:
            return [0]
        if name in ("equal", "allclose", "__contains__"):
            is_small_enough = _are_small(args[:2])
            return [int(is_small_enough and bool(func(*_map_here(args), **_map_here(kwargs))))]
        if name == "repeat_interleave":  # their sum; and that none is negative
            repeats = kwargs.get("repeats", args[1] if len(args) > 1 else args[0])
            if not isinstance(repeats, torch.Tensor) or kwargs.get("output_size") is not None:
                return []
            return [int(_here(repeats).sum()) if is_small(repeats) else 0, 1]
        if name in ("one_hot", "bincount"):
            most = int(_here(args[0]).max()) if is_small(args[0]) and args[0].numel() else 0
            return [0, most] if name == "bincount" else [most]  # that none is negative; the most
        if "unique" in name or name.startswith("_return_"):
            if not is_small(args[0]):
                return [1]
            own = func(*_map_here(args), **_map_here(kwargs))
            return [int(_tensors(own)[0].shape[kwargs.get("dim") or 0])]
        counted = self._counted(name, args)
        if counted is None:
            return []
        return [int(_here(counted).count_nonzero()) if is_small(counted) else 0]

    @staticmethod
    def _counted(name: str, args: Any) -> torch.Tensor | None:
        """Return of what torch counts those that are not 0; None where it counts nothing."""
        asked: torch.Tensor = args[0]
        if name in ("nonzero", "argwhere") or (name == "where" and len(args) == 1):
            return asked
        if name == "masked_select":
            return args[1].expand(asked.shape)  # type: ignore[no-any-return]  # a tensor
        if name == "where":
            return None
        index = args[1] if isinstance(args[1], tuple | list) else (args[1],)
        masks = [
            one
            for one in index
            if isinstance(one, torch.Tensor) and one.dtype in (torch.bool, torch.uint8)
        ]
        return masks[0] if any(one.is_cuda for one in masks) else None

    def _after(self, name: str, func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> Any:
        """Write the true values where the results are; return the result."""
        outs = [one for one in _tensors(out) if one.is_cuda]
        ins = _tensors((args, kwargs))
        if name in _MOVES:
            return self._moved(args, out)
        is_set = name == "__setitem__"
        if is_set or _is_in_place(name):
            outs = [one for one in ins[:1] if one.is_cuda]  # what is changed comes first
        if not outs or not all(map(is_small, outs)):
            self._learn(outs, False)
            return out
        if not is_set and not _is_in_place(name):
            begun = {one.untyped_storage()._cdata for one in ins}
            if all(one.untyped_storage()._cdata in begun for one in outs):
                return out  # views have their values already
        is_known = all(map(self._is_known, ins))
        is_decided_by = all(
            not one.is_floating_point() or one.numel() <= _MOST_GUESSED for one in outs
        )
        is_drawn = any(word in name for word in _DRAWN)
        if is_drawn or not _are_small(ins) or not (is_known or is_decided_by):
            self._clear(name, outs)
            return out
        with torch.no_grad():
            own = func(*_map_here(args), **_map_here(kwargs))
            if not is_set and not _is_in_place(name):
                for one, result in zip(outs, _tensors(own), strict=True):
                    alias(one.detach()).copy_(result)
        self._learn(outs, is_known)
        return out

    def _moved(self, args: Any, out: Any) -> Any:
        """Convert what was moved or cast: torch does it with a kernel."""
        source = args[0] if args else None
        if not (isinstance(source, torch.Tensor) and isinstance(out, torch.Tensor)):
            return out
        if out is source or not (source.is_cuda or out.is_cuda):
            return out
        is_whole = is_small(source) and is_small(out)
        if not is_whole or not self._is_known(source):
            if out.is_cuda and out.untyped_storage()._cdata != source.untyped_storage()._cdata:
                self._learn([out], False)
            elif not out.is_cuda and is_whole and not out.is_floating_point():
                self._read(args)
            return out
        with torch.no_grad():
            target = alias(out.detach()) if out.is_cuda else out.detach()
            target.copy_(_here(source.detach()))
        if out.is_cuda:
            self._learn([out], True)
        return out

    def _clear(self, name: str, outs: list[torch.Tensor]) -> None:
        self._learn(outs, False)
        for one in outs:
            alias(one.detach()).fill_(name == "isfinite")

    def _fail(self, name: str, problem: Exception, out: Any) -> None:
        if len(self.failed) < _MOST_PLACES * 8:
            self.failed[f"{name}: {type(problem).__name__}: {problem}"[:120]] += 1
        self._learn([one for one in _tensors(out) if one.is_cuda], False)


def _storage(tensor: torch.Tensor) -> Any:
    """Return a tensor's storage; None where it has none of its own, as within `vmap`."""
    try:
        return tensor.untyped_storage()
    except RuntimeError:
        return None


def _are_small(tensors: Any) -> bool:
    return all(is_small(one) for one in _tensors(tensors))


def _is_in_place(name: str) -> bool:
    if name.startswith("__i") and name.endswith("__"):
        return name not in ("__invert__", "__index__", "__int__")
    return name.endswith("_") and not name.endswith("__")


def _tensors(value: Any) -> list[torch.Tensor]:
    """Return the tensors in a value, in lists, tuples and dictionaries too."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [one for part in value for one in _tensors(part)]
    if isinstance(value, dict):
        return [one for part in value.values() for one in _tensors(part)]
    return []


def _here(value: Any) -> Any:
    """Return a value as it is on the CPU."""
    if isinstance(value, torch.Tensor):
        return alias(value.detach()) if value.is_cuda else value
    if isinstance(value, torch.device):
        return torch.device("cpu")
    if isinstance(value, str) and value.startswith("cuda"):
        return "cpu"
    return value


def _map_here(value: Any) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_map_here, value))
    if isinstance(value, list | tuple):
        return type(value)(map(_map_here, value))
    if isinstance(value, dict):
        return {key: _map_here(one) for key, one in value.items()}
    return _here(value)


class Values:
    """The values of this process."""

    def __init__(self, core: LoadedCore) -> None:
        self._values = _Values(core)

    def begin(self) -> None:
        """Compute small values from now on, in this thread and in those that begin later.

        Below whatever modes a program has: it may begin one before it uses a card.
        """
        mode: Any = self._values
        mode.__enter__()
        kind: Any = threading.Thread
        work = kind._bootstrap_inner

        @functools.wraps(work)
        def work_with_values(thread: threading.Thread) -> None:
            with mode:
                work(thread)

        kind._bootstrap_inner = work_with_values

    def operator(self) -> str:
        """Return the operator that the program called last on a card."""
        return self._values.operator

    def reads(self) -> dict[str, Any]:
        """Return how often the program read what nobody computed, and where."""
        return {
            "count": self._values.reads,
            "places": [
                {"file": file, "line": line, "function": function, "count": count}
                for (file, line, function), count in self._values.places.most_common()
            ],
            "not_computed": dict(self._values.failed),
        }
