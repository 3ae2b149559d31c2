"""What of a component is on the device at once under diffusers' group offload.

A component's blocks come one group at a time; what is in no list of blocks is there for as long as
the component runs. With a stream the next group comes while one runs. Source: diffusers,
hooks/group_offloading.py, `_apply_group_offloading_block_level` and `_leaf_level`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vramplan.engines.torch.module_list import Module, ModuleList
from vramplan.model import Settings

BLOCK_LEVEL, LEAF_LEVEL = "block_level", "leaf_level"


def resident(
    modules: ModuleList, places: Sequence[Module | None], sizes: Sequence[int], at: Settings
) -> list[int]:
    """Return the places of the modules that are on the device at once, where that is most.

    `places` are the component's modules as its weights have them, `sizes` their bytes.
    """
    together = 2 if at.get("use_stream") == "on" else 1
    numbers = range(len(places))
    if at.get("offload_type") == LEAF_LEVEL:
        return sorted(sorted(numbers, key=sizes.__getitem__, reverse=True)[:together])
    blocks = at.get("num_blocks_per_group", 1)
    # diffusers sets it to one where there is a stream
    count = blocks if isinstance(blocks, int) and together == 1 else 1
    names = {number: one.name if one is not None else "" for number, one in enumerate(places)}
    return sorted(_most(modules, names, "", sizes, count, together))


def _most(
    modules: ModuleList,
    names: Mapping[int, str],
    inside: str,
    sizes: Sequence[int],
    count: int,
    together: int,
) -> list[int]:
    """Return what is there at once of the modules in one that looks for blocks."""
    mine = {n: name for n, name in names.items() if not inside or _is_within(name, inside)}
    lists = [one for one in modules.lists if _is_child(one, inside)]
    looked_in = [one for one in modules.inner if _is_child(one, inside)]
    rest = [
        number
        for number, name in mine.items()
        if not any(_is_within(name, one) for one in (*lists, *looked_in))
    ]
    groups = [group for one in lists for group in _groups(mine, one, count)]
    ranked = sorted(groups, key=lambda group: _sum(sizes, group), reverse=True)
    best = [number for group in ranked[:together] for number in group]
    for one in looked_in:
        deeper = _most(modules, mine, one, sizes, count, together)
        if _sum(sizes, deeper) > _sum(sizes, best):
            best = deeper
    return rest + best


def _sum(sizes: Sequence[int], numbers: Sequence[int]) -> int:
    return sum(sizes[number] for number in numbers)


def _groups(names: Mapping[int, str], path: str, count: int) -> Iterator[list[int]]:
    """Yield the modules of `count` blocks of a list after another."""
    blocks: dict[int, list[int]] = {}
    for number, name in names.items():
        if _is_within(name, path):
            place = name[len(path) + 1 :].partition(".")[0]
            blocks.setdefault(int(place) if place.isdigit() else 0, []).append(number)
    order = sorted(blocks)
    for first in range(0, len(order), count):
        yield [number for block in order[first : first + count] for number in blocks[block]]


def _is_child(path: str, inside: str) -> bool:
    return path.rpartition(".")[0] == inside


def _is_within(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}.")
