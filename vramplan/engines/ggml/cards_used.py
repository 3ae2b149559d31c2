"""Which of several cards an engine uses, and how they share a model.

llama.cpp uses all of them, layer by layer (``--split-mode layer``), or one (``none``, and
``--main-gpu``). Ollama takes the one with most free memory where its rough sum for the model is at
most 80 % of that, else all; OLLAMA_SCHED_SPREAD has it always take all, and the option main_gpu
always that one. Cards that other machines serve over RPC come first, whatever the order in which
they are named: shares and the number of the one card to use count them so. Sources: llama.cpp,
src/llama.cpp (llama_prepare_model_devices: "add RPC servers at the front of the list"); Ollama,
server/sched.go (selectLlamaServerPlacement, bestSingleGPUFit).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vramplan.errors import UsageError
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.setting_values import AUTO, split_of
from vramplan.units import format_size

if TYPE_CHECKING:
    from vramplan.engines.ggml.card_memory import CardMemory
    from vramplan.model import Settings

#: of a card's free memory, in percent, that Ollama lets a model take alone
_ALONE = 80
_NOT_MODELLED = {
    "row": (
        "llama.cpp's CUDA backend has it no longer (b11549 refuses: 'device CUDA0 does not support "
        "split buffers'), and what older builds did is not modelled"
    ),
    "tensor": "llama.cpp calls it experimental, and vramplan does not model it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CardsUsed:
    """The cards that are used, by their numbers; of several their parts of the layers.

    They stand in the engine's order, in which `remotes` cards of other machines come first.
    `remark` is what is to be said of a choice that the engine made.
    """

    numbers: tuple[int, ...] = (0,)
    shares: tuple[float, ...] = ()
    remotes: int = 0
    remark: str = ""


def choose_cards(
    chosen: Settings,
    cards: Sequence[CardMemory],
    predict: Callable[[], int] | None,
    *,
    is_even: bool = False,
) -> CardsUsed:
    """Return which of `cards` are used at these settings.

    `predict` is Ollama's rough sum for the model, in bytes; None for llama.cpp. `is_even`: layers
    are shared out alike, whatever is free. Raises UsageError for a way to share that is not
    modelled, and for cards that there are not.
    """
    mode, count = str(chosen.get("split_mode", "layer")), len(cards)
    if mode in _NOT_MODELLED:
        hint = "split_mode=layer is llama.cpp's default"
        raise UsageError(f"split_mode={mode}: {_NOT_MODELLED[mode]}", hint=hint)
    shares = split_of(chosen.get("tensor_split", AUTO))
    main = chosen.get("main_gpu", 0)
    assert isinstance(main, int)
    _check(count, len(shares), main)
    order = sorted(range(count), key=lambda at: not cards[at].is_remote)
    if mode == "none" or count == 1:
        only = order[main if mode == "none" else 0]
        return CardsUsed(numbers=(only,), remotes=int(cards[only].is_remote))
    if predict is not None and mode == AUTO:
        best = max(range(count), key=lambda at: (cards[at].free_bytes, -at))
        need = predict()
        if need <= cards[best].free_bytes * _ALONE // 100:
            said = (
                f"Ollama takes one card, number {best}: by its rough sum the model needs "
                f"{format_size(need, up=True)}, at most {_ALONE} % of what is free there; "
                "OLLAMA_SCHED_SPREAD=1 (split_mode=layer) has it take all"
            )
            return CardsUsed(numbers=(best,), remark=said)
    free = (1.0 if is_even else float(cards[at].beside_context_bytes) for at in order)
    told = shares or tuple(free)
    return CardsUsed(
        numbers=tuple(order),
        shares=(*told, *(0.0,) * (count - len(told))),
        remotes=sum(one.is_remote for one in cards),
    )


def _check(cards: int, shares: int, main: int) -> None:
    are = "there is one card" if cards == 1 else f"there are {cards} cards"
    hint = "name several cards by --card 2xrtx-3090 or --card rtx-4090+rtx-3060-12gb"
    if shares > cards:
        raise UsageError(f"tensor_split has {shares} shares, and {are}", hint=hint)
    if main >= cards:
        raise UsageError(f"main_gpu={main}: {are}, counted from 0", hint=hint)
