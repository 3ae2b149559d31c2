"""Cards of the catalogue: what a file must say, and what a CARD on the command line stands for.

A class (``8gb``, ``8g``, ``8``) is judged at the smallest capacity of its cards and on each of
their compute capabilities, each with the most multiprocessors that a card of the class has there
(the CUDA context grows with them): a verdict on ``8gb`` must hold on every 8 GB card. GPUs that
share the CPU's memory belong to no class. A bare size is what CUDA offers (torch prints it as
"total capacity", Ollama and llama.cpp as total), so nothing is taken off it for the system, and it
is judged on every compute capability of the catalogue, with the multiprocessors of the cards whose
memory is nearest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from vramplan.catalog.card_choice import CardChoice
from vramplan.catalog.card_groups import TIMES, candidates_of, is_group, label_of, match_group
from vramplan.catalog.multiprocessors import chip_name, most_multiprocessors
from vramplan.errors import CatalogError, UsageError, did_you_mean
from vramplan.model import Card
from vramplan.quick_dataclass import replace
from vramplan.quick_typing import TYPE_CHECKING, cast
from vramplan.units import GIB, format_size, parse_size

if TYPE_CHECKING:
    from pathlib import Path

    from vramplan.catalog.yaml_reader import Document, KeyPath, Plain

    Data = Mapping[str, Plain]

#: what an estimate without a card assumes: the architecture of an RTX 3060, and its size
DEFAULT_CAPABILITY = "8.6"
_DEFAULT_MULTIPROCESSORS = 28

#: ``8gb``, and ``8g`` and ``8``: a card is never meant to have 8 of anything else
# compiled where one is used: few of them are in a run
_CLASS = r"(?a)([0-9]{1,4})\s*(?:[gG][bB]?)?"
_SIZE = r"(?ai)[-+]?[0-9.]+\s*[a-z]*"
#: a part of a GPU, as nvidia-smi calls it: so many sevenths of its work, and its memory
_MIG = r"(?ai)\b[1-7]g\.[0-9]{1,3}gb\b"
_CAPABILITY = r"[1-9][0-9]?\.[0-9]"
#: what people write before a card's name, behind the maker's
_SERIES = ("geforce-", "tesla-", "quadro-")


def usable_bytes(card: Card) -> int:
    """Return what NVML's total leaves after the system's reserve: what CUDA calls the total."""
    return card.total_bytes - card.reserved_bytes


def assumed_card(compute_capability: str = DEFAULT_CAPABILITY) -> Card:
    """Return the card that an estimate without one assumes: an architecture, and no capacity.

    8.6 has the multiprocessors of an RTX 3060; another may be any card of its architecture.
    """
    is_default = compute_capability == DEFAULT_CAPABILITY
    return Card(
        name="assumed",
        title=f"compute capability {compute_capability}",
        kind="assumed",
        class_gib=0,
        total_bytes=0,
        reserved_bytes=0,
        compute_capability=compute_capability,
        bandwidth_bytes_per_s=0,
        source="no card was named",
        multiprocessors=_DEFAULT_MULTIPROCESSORS if is_default else None,
    )


def load_card_file(path: Path) -> tuple[Card, ...]:
    """Return the cards that the YAML file at `path` lists.

    Raises CatalogError, with the first thing that is wrong in the file.
    """
    from vramplan.catalog.yaml_reader import read_yaml

    document = read_yaml(path)
    errors = check_cards(document)
    if errors:
        raise errors[0]
    return build_cards(cast("Data", document.data))


def check_cards(document: Document) -> list[CatalogError]:
    """Return what is wrong with the cards of `document`; the sizes only when the shape is right."""
    from vramplan.catalog.schema import check_shape

    errors = check_shape(document, "card")
    if errors:
        return errors
    seen: set[Plain] = set()
    for index, card in enumerate(_listed(cast("Data", document.data))):
        where = ("cards", index)
        if card["name"] in seen:
            message = f"a card {card['name']!r} stands above already"
            errors.append(document.error((*where, "name"), message))
        seen.add(cast("str", card["name"]))
        errors += _check_card(document, where, card)
    return errors


def _check_card(document: Document, where: KeyPath, card: Data) -> list[CatalogError]:
    errors = []
    sizes = {}
    for key in ("total_bytes", "reserved_bytes", "bandwidth_bytes_per_s"):
        try:
            sizes[key] = _size(card[key])
        except UsageError as problem:
            errors.append(document.error((*where, key), str(problem), hint=problem.hint))
    if not re.fullmatch(_CAPABILITY, str(card["compute_capability"])):
        message = f"{card['compute_capability']!r} is not a compute capability"
        errors.append(document.error((*where, "compute_capability"), message, hint='such as "8.6"'))
    if len(sizes) == 3 and not 0 <= sizes["reserved_bytes"] < sizes["total_bytes"]:
        message = "must be less than total_bytes and not negative"
        errors.append(document.error((*where, "reserved_bytes"), message))
    return errors


def build_cards(data: Data) -> tuple[Card, ...]:
    """Return the cards that the checked `data` of a card file lists."""
    return tuple(_build_card(card) for card in _listed(data))


def with_sizes_in_bytes(data: Data) -> dict[str, Plain]:
    """Return the checked `data` of a card file with every size as a number."""
    sizes = ("total_bytes", "reserved_bytes", "bandwidth_bytes_per_s")
    cards = [{**card, **{key: _size(card[key]) for key in sizes}} for card in _listed(data)]
    return {**data, "cards": cast("Plain", cards)}


def _listed(data: Data) -> list[Data]:
    return cast("list[Data]", data["cards"])


def _build_card(data: Data) -> Card:
    return Card(
        name=cast("str", data["name"]),
        title=cast("str", data["title"]),
        kind=cast("str", data["kind"]),
        class_gib=cast("int", data["class_gib"]),
        total_bytes=_size(data["total_bytes"]),
        reserved_bytes=_size(data["reserved_bytes"]),
        compute_capability=str(data["compute_capability"]),
        bandwidth_bytes_per_s=_size(data["bandwidth_bytes_per_s"]),
        source=cast("str", data["source"]),
        aliases=tuple(cast("list[str]", data.get("aliases", []))),
        multiprocessors=cast("int | None", data.get("multiprocessors")),
        shares_memory=cast("bool", data.get("shares_memory", False)),
    )


def _size(value: Plain) -> int:
    return value if isinstance(value, int) else parse_size(str(value))


def match_card(text: str, cards: Mapping[str, Card]) -> CardChoice:
    """Return what `text` stands for: a card's name, a class (``8gb``) or a size in MiB or GiB.

    Several cards have a plus between them, or their number before them; ``rpc:`` stands before one
    of another machine. Names come first, then classes, then sizes. ``auto`` is not for this
    function. Raises UsageError for a card or a class that the catalogue does not have, for a name
    that several cards share and for a size that cannot be a card's.
    """
    if is_group(text):
        return group_of(match_group(text, lambda one: match_card(one, cards)))
    named = _match_name(text, cards)
    if named is not None:
        return CardChoice(label=named.name, title=named.title, candidates=(named,))
    stripped = text.strip()
    if match := re.fullmatch(_CLASS, stripped):
        classes = class_names(cards.values())
        if stripped.isdecimal() and f"{stripped}gb" not in classes:
            _refuse_part(text, cards.values())
        return _match_class(int(match.group(1)), cards.values())
    if re.fullmatch(_SIZE, stripped):
        return _match_size(stripped, cards.values())
    raise _unknown(text, cards)


def _unknown(text: str, cards: Mapping[str, Card]) -> UsageError:
    """Return the error for a name that no card has: another maker's, a part of some, or neither."""
    from vramplan.catalog.other_makers import maker_of

    slug = _slug(text)
    maker = maker_of(slug)
    if maker is not None:
        hint = "a size is judged as an NVIDIA card's: --card 24GiB; vramplan cards shows the cards"
        message = f"{text!r} is known but not modelled: vramplan does not plan for {maker}"
        return UsageError(message, hint=hint)
    if re.search(_MIG, text):
        message = f"{text!r} is a MIG slice, which is known but not modelled"
        hint = "nvidia-smi -L and NVML tell its size, which is judged as a card's: --card 9.5GiB"
        return UsageError(message, hint=hint)
    if "," in text:
        hint = "name each one with a --card of its own, or several as one: rtx-4090+rtx-3060-12gb"
        return UsageError(f"unknown card {text!r}", hint=hint)
    try:
        _refuse_part(text, cards.values())
    except UsageError as refused:
        return refused
    near = did_you_mean(slug, [*cards, *class_names(cards.values())])
    return UsageError(f"unknown card {text!r}", hint=near or "vramplan cards shows them")


def _refuse_part(text: str, cards: Iterable[Card]) -> None:
    """Raise UsageError for a part of cards' names, with those that have it in theirs."""
    from vramplan.catalog.other_makers import cards_with, listed

    found = cards_with(_slug(text), cards)
    if len(found) == 1:
        raise UsageError(f"unknown card {text!r}", hint=f"did you mean {found[0]!r}?")
    if found:
        raise UsageError(f"{text!r} is in several cards' names", hint=f"use {listed(found)}")


def group_of(parts: Sequence[CardChoice]) -> CardChoice:
    """Return several cards, or classes of them, as one choice. Raises UsageError."""
    if len(parts) == 1 and not parts[0].candidates[0].is_remote:
        return parts[0]
    return CardChoice(
        label=label_of([part.label for part in parts]),
        title=label_of([part.title for part in parts], TIMES),
        candidates=candidates_of(parts),
    )


def capability_named(printed: str, cards: Iterable[Card]) -> str | None:
    """Return the compute capability of a GPU by its name as NVIDIA's driver prints it.

    None for a name that the catalogue does not have, or has on several architectures.
    """
    wanted = chip_name(printed)
    found = {card.compute_capability for card in cards if chip_name(card.title) == wanted}
    return found.pop() if len(found) == 1 else None


def class_names(cards: Iterable[Card]) -> list[str]:
    """Return the classes of `cards` as CARD takes them, smallest first."""
    sizes = {card.class_gib for card in cards if not card.shares_memory}
    return [f"{size}gb" for size in sorted(sizes)]


def class_of(text: str) -> int | None:
    """Return the number of a class that ``12gb``, ``12g`` or ``12`` names; None for other text."""
    match = re.fullmatch(_CLASS, text.strip())
    return int(match.group(1)) if match else None


def _slug(text: str) -> str:
    """Return a card's name as people write it, in the catalogue's form.

    "NVIDIA GeForce RTX 3060 12GB" and "rtx_3060_12gb" are both ``rtx-3060-12gb``.
    """
    words = "-".join(text.lower().replace("_", " ").split())
    if "-gb" in words:
        words = re.sub(r"([0-9])-gb\b", r"\1gb", words)
    words = words.replace("-laptop-gpu", "-laptop").removeprefix("nvidia-")
    series = next((one for one in _SERIES if words.startswith(one)), "")
    return words.removeprefix(series)


def _match_name(text: str, cards: Mapping[str, Card]) -> Card | None:
    slug = _slug(text)
    by_alias = {alias: card for card in cards.values() for alias in card.aliases}
    found = cards.get(slug) or by_alias.get(slug)
    if found is not None or not slug or _is_size(slug):
        return found
    slug = _written_out(slug, cards)
    if slug in cards:
        return cards[slug]
    sized = re.compile(re.escape(slug) + r"-[0-9]+gb")
    sizes = [
        name for name, card in cards.items() if any(map(sized.fullmatch, (name, *card.aliases)))
    ]
    if len(sizes) > 1:
        raise UsageError(f"{text!r} comes in several sizes", hint="use " + " or ".join(sizes))
    return cards[sizes[0]] if sizes else None


def _is_size(slug: str) -> bool:
    """Return whether a text may be a class: a bare number of four digits is rather a card's."""
    is_number = len(slug) == 4 and slug.isdecimal()
    return bool(re.fullmatch(_CLASS, slug)) and not is_number


def _written_out(slug: str, cards: Iterable[str]) -> str:
    """Return ``rtx-4060-ti`` for ``4060ti`` and ``rtx4060ti``, as cards' names begin."""
    short = slug.replace("-", "")
    wanted = (short, f"rtx{short}", f"gtx{short}")
    stems = (re.sub(r"-[0-9]+gb$", "", name) for name in cards)
    return next((stem for stem in stems if stem.replace("-", "") in wanted), slug)


def _match_class(class_gib: int, cards: Iterable[Card]) -> CardChoice:
    cards = list(cards)
    members = [card for card in cards if card.class_gib == class_gib and not card.shares_memory]
    if not members:
        known = ", ".join(class_names(cards))
        hint = f"known classes: {known}; write {class_gib}GiB for a size"
        raise UsageError(f"no card of the class {class_gib}gb is known", hint=hint)
    least = min(members, key=usable_bytes)
    source = (
        f"the least of {len(members)} cards of this class: {least.name}, "
        f"{format_size(least.total_bytes)} less {format_size(least.reserved_bytes)} reserved"
    )
    return _assume(f"{class_gib}gb", f"{class_gib} GB class", least, members, source)


def _match_size(text: str, cards: Iterable[Card]) -> CardChoice:
    if not re.search(r"[mg]ib$", text, re.IGNORECASE):
        hint = "write 11.6GiB or 11900MiB for a size, 12gb for a class, or a card's name"
        raise UsageError(f"not a card: {text!r}", hint=hint)
    size = parse_size(text)
    if size <= 0:
        raise UsageError(f"a card cannot have {text}")
    cards = [card for card in cards if not card.shares_memory]
    nearest = min(cards, key=lambda card: abs(usable_bytes(card) - size))
    least = replace(nearest, total_bytes=size, reserved_bytes=0, class_gib=round(size / GIB))
    source = "a size given by hand: what CUDA offers, with nothing taken off for the system"
    return _assume(text, f"a card with {text}", least, cards, source)


def _assume(
    label: str, title: str, least: Card, members: Iterable[Card], source: str
) -> CardChoice:
    """Return the choice of a kind: the capacity of `least` on each capability of `members`."""
    by_capability: dict[str, list[Card]] = {}
    for card in members:
        by_capability.setdefault(card.compute_capability, []).append(card)
    candidates = tuple(
        replace(
            least,
            name=label,
            title=f"{title}, compute capability {capability}",
            kind="assumed",
            compute_capability=capability,
            source=source,
            aliases=(),
            multiprocessors=most_multiprocessors(by_capability[capability], usable_bytes(least)),
        )
        for capability in sorted(
            by_capability, key=lambda text: [int(part) for part in text.split(".")]
        )
    )
    return CardChoice(label=label, title=title, candidates=candidates)
