"""Cards: the shipped ones, files of a user's, and what a CARD stands for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vramplan.catalog.cards import (
    CardChoice,
    capability_named,
    class_names,
    load_card_file,
    match_card,
    usable_bytes,
)
from vramplan.catalog.multiprocessors import find_printed, multiprocessors_of
from vramplan.catalog.search import catalog_files
from vramplan.catalog.shipped import profiles_dir
from vramplan.errors import CatalogError, UsageError
from vramplan.model import Card
from vramplan.units import GIB, MIB

SHIPPED = {
    card.name: card for file in catalog_files(profiles_dir())[1] for card in load_card_file(file)
}
CARD = """\
cards:
  - name: rtx-1
    title: RTX 1
    kind: consumer
    class_gib: 8
    total_bytes: 8192MiB
    reserved_bytes: 408MiB
    compute_capability: "8.6"
    bandwidth_bytes_per_s: 448GB
    source: nvidia-smi
"""


def card(name: str, class_gib: int, total: int, reserved: int, capability: str) -> Card:
    return Card(
        name=name,
        title=name.upper(),
        kind="consumer",
        class_gib=class_gib,
        total_bytes=total * MIB,
        reserved_bytes=reserved * MIB,
        compute_capability=capability,
        bandwidth_bytes_per_s=448 * 10**9,
        source="test",
        aliases=(f"{name}-alias",),
    )


FEW = {
    found.name: found
    for found in (
        card("gtx-1080", 8, 8192, 94, "6.1"),
        card("rtx-4060", 8, 8188, 408, "8.9"),
        card("rtx-5060", 8, 8151, 408, "12.0"),
        card("rtx-3060-8gb", 8, 8192, 300, "8.6"),
        card("rtx-3060-12gb", 12, 12288, 378, "8.6"),
        card("rtx-4070", 12, 12282, 464, "8.9"),
        card("rtx-4060-laptop", 8, 8188, 408, "8.9"),
    )
}


def match(text: str) -> CardChoice:
    return match_card(text, FEW)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rtx-3060-12gb", "rtx-3060-12gb"),
        ("RTX 3060 12GB", "rtx-3060-12gb"),
        ("RTX 3060 12 GB", "rtx-3060-12gb"),
        ("NVIDIA GeForce RTX 3060 8GB", "rtx-3060-8gb"),
        ("rtx_4070", "rtx-4070"),
        ("NVIDIA GeForce RTX 4060 Laptop GPU", "rtx-4060-laptop"),
        ("GeForce GTX 1080", "gtx-1080"),
        ("gtx-1080-alias", "gtx-1080"),
    ],
)
def test_a_name_is_one_card(text: str, name: str) -> None:
    choice = match(text)
    assert choice.label == name
    assert choice.title == name.upper()
    assert choice.candidates == (FEW[name],)


@pytest.mark.parametrize("text", ["8gb", "8GB", " 8 GB ", "8", "8g", "8G"])
def test_a_class_is_its_least_capacity_on_each_capability(text: str) -> None:
    choice = match(text)
    assert choice.label == "8gb"
    assert choice.title == "8 GB class"
    assert [found.compute_capability for found in choice.candidates] == [
        "6.1",
        "8.6",
        "8.9",
        "12.0",
    ]
    assert {usable_bytes(found) for found in choice.candidates} == {(8151 - 408) * MIB}
    assert {found.kind for found in choice.candidates} == {"assumed"}
    assert choice.candidates[0].title == "8 GB class, compute capability 6.1"
    assert choice.candidates[0].source == (
        "the least of 5 cards of this class: rtx-5060, 8,151 MiB less 408 MiB reserved"
    )


def test_a_size_is_what_cuda_offers_on_every_capability() -> None:
    choice = match("11.5GiB")
    assert choice.label == "11.5GiB"
    assert {usable_bytes(found) for found in choice.candidates} == {23 * GIB // 2}
    assert {found.reserved_bytes for found in choice.candidates} == {0}
    assert len(choice.candidates) == 4
    assert usable_bytes(match("11900mib").candidates[0]) == 11900 * MIB


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("rtx-3061-12gb", "unknown card 'rtx-3061-12gb'", "did you mean 'rtx-3060-12gb'?"),
        ("voodoo", "unknown card 'voodoo'", "vramplan cards shows them"),
        ("", "unknown card ''", "vramplan cards shows them"),
        ("9gb", "no card of the class 9gb is known", "known classes: 8gb, 12gb; write 9GiB"),
        ("rtx-3060", "'rtx-3060' comes in several sizes", "rtx-3060-8gb or rtx-3060-12gb"),
        ("8M", "not a card: '8M'", "11.6GiB or 11900MiB"),
        ("3060", "'3060' comes in several sizes", "use rtx-3060-8gb or rtx-3060-12gb"),
        ("RTX3060", "'RTX3060' comes in several sizes", "use rtx-3060-8gb or rtx-3060-12gb"),
        ("9", "no card of the class 9gb is known", "write 9GiB"),
        ("m3-max", "'m3-max' is known but not modelled", "a size is judged as an NVIDIA card's"),
        ("H100 1g.10gb", "is a MIG slice, which is known but not modelled", "--card 9.5GiB"),
        ("8gb,12gb", "unknown card '8gb,12gb'", "name each one with a --card of its own"),
        ("RX 7900 XTX", "vramplan does not plan for AMD's GPUs", "--card 24GiB"),
        ("mi300x", "vramplan does not plan for AMD's GPUs", "--card 24GiB"),
        ("Intel Arc A770", "vramplan does not plan for Intel's GPUs", "--card 24GiB"),
        ("11.6GB", "not a card: '11.6GB'", "12gb for a class"),
        ("-8GiB", "a size cannot be negative", ""),
        ("0GiB", "a card cannot have 0GiB", ""),
        ("8.GiB", "not a size: '8.GiB'", ""),
    ],
)
def test_what_is_no_card_is_refused_with_a_way_out(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        match(text)
    assert message in str(caught.value)
    assert hint in (caught.value.hint or "")


def test_a_card_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "cards.yaml"
    file.write_text(CARD)
    (found,) = load_card_file(file)
    assert found == Card(
        name="rtx-1",
        title="RTX 1",
        kind="consumer",
        class_gib=8,
        total_bytes=8192 * MIB,
        reserved_bytes=408 * MIB,
        compute_capability="8.6",
        bandwidth_bytes_per_s=448 * 10**9,
        source="nvidia-smi",
    )


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("8192MiB", "8G", "cards.rtx-1.total_bytes: unclear unit", "8,000,000,000 bytes"),
        ("8192MiB", "large", "cards.rtx-1.total_bytes: not a size", ""),
        ("408MiB", "9GiB", "cards.rtx-1.reserved_bytes: must be less than total_bytes", ""),
        ("408MiB", "-1", "cards.rtx-1.reserved_bytes: must be less", ""),
        ('"8.6"', "sm_86", "compute_capability: 'sm_86' is not a compute", 'such as "8.6"'),
        ("consumer", "gamer", "cards.rtx-1.kind: unknown kind 'gamer'", "use consumer, laptop"),
        ("    source: nvidia-smi\n", "", ":2:5: cards.rtx-1: the key 'source' is missing", "where"),
        ("name: rtx-1", "name: RTX 1", "cards.RTX 1.name: 'RTX 1' is not accepted", "lower-case"),
        ("class_gib: 8", "class_gib: 8.5", "class_gib: expected a whole number", "the number on"),
    ],
)
def test_mistakes_in_a_card_file_are_named(
    tmp_path: Path, old: str, new: str, message: str, hint: str
) -> None:
    assert old in CARD
    file = tmp_path / "cards.yaml"
    file.write_text(CARD.replace(old, new, 1))
    with pytest.raises(CatalogError) as caught:
        load_card_file(file)
    assert message in str(caught.value)
    assert hint in (caught.value.hint or "")


def test_an_unquoted_capability_is_understood(tmp_path: Path) -> None:
    file = tmp_path / "cards.yaml"
    file.write_text(CARD.replace('"8.6"', "12.0"))
    assert load_card_file(file)[0].compute_capability == "12.0"


def test_a_card_listed_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "cards.yaml"
    file.write_text(CARD + CARD.removeprefix("cards:\n"))
    with pytest.raises(CatalogError, match="a card 'rtx-1' stands above already"):
        load_card_file(file)


# what ships


def test_enough_cards_ship_among_them_the_common_ones() -> None:
    assert len(SHIPPED) >= 45
    common = """
        rtx-3060-12gb rtx-3060-8gb rtx-3060-ti rtx-3070 rtx-3070-ti rtx-4060 rtx-4060-ti-8gb
        rtx-4060-ti-16gb rtx-4070 rtx-4070-super rtx-4070-ti rtx-2060-6gb rtx-2060-12gb rtx-2070
        rtx-2080 rtx-2080-ti rtx-3080-10gb rtx-3080-12gb rtx-3080-ti rtx-3090 rtx-4080 rtx-4090
        rtx-5060 rtx-5060-ti-8gb rtx-5060-ti-16gb rtx-5070 rtx-5070-ti rtx-5080 rtx-5090
        gtx-1060-6gb gtx-1070 gtx-1080 gtx-1080-ti gtx-1660 rtx-3060-laptop rtx-4060-laptop
        rtx-a2000-12gb rtx-a4000 rtx-a5000 rtx-a6000 rtx-6000-ada rtx-pro-6000 t4 p100-16gb
        v100-16gb v100-32gb a10 a10g a30 a40 l4 l40s a100-40gb a100-80gb h100-80gb h200 b200
    """
    assert set(common.split()) <= set(SHIPPED)
    assert {"consumer", "laptop", "workstation", "datacenter"} == {
        found.kind for found in SHIPPED.values()
    }


@pytest.mark.parametrize("found", SHIPPED.values(), ids=SHIPPED)
def test_a_shipped_card_is_plausible(found: Card) -> None:
    # never more than what is on the box; ECC may take a sixteenth of it
    assert 0.92 * found.class_gib * GIB < found.total_bytes <= found.class_gib * GIB
    if found.shares_memory:  # what CUDA calls the total: there is nothing beside it
        assert found.reserved_bytes == 0
    else:
        assert 64 * MIB < found.reserved_bytes < 1024 * MIB
    assert found.total_bytes % MIB == 0
    assert 50 * 10**9 < found.bandwidth_bytes_per_s < 10**13
    assert found.multiprocessors is not None
    assert 8 <= found.multiprocessors <= 188
    major, _, _ = found.compute_capability.partition(".")
    assert 6 <= int(major) <= 12
    assert re.search(r"https://|code search|assumed", found.source)


def test_every_shipped_name_stands_for_its_own_card() -> None:
    for found in SHIPPED.values():
        for name in (found.name, found.title, *found.aliases):
            assert match_card(name, SHIPPED).candidates == (found,), name


def test_every_shipped_class_is_judged_at_its_least_card() -> None:
    for name in class_names(SHIPPED.values()):
        choice = match_card(name, SHIPPED)
        members = [
            found
            for found in SHIPPED.values()
            if f"{found.class_gib}gb" == name and not found.shares_memory
        ]
        assert {usable_bytes(found) for found in choice.candidates} == {
            min(usable_bytes(found) for found in members)
        }
        assert {found.compute_capability for found in choice.candidates} == {
            found.compute_capability for found in members
        }


@pytest.mark.parametrize(
    ("name", "mib"),
    [("t4", 14912), ("rtx-3090", 24121), ("l40s", 45459), ("rtx-5070", 11763), ("h200", 143157)],
)
def test_what_cuda_offers_on_known_cards(name: str, mib: int) -> None:
    """T4 and RTX 3090: what llama.cpp printed as CUDA's total; the others: NVML's difference."""
    assert usable_bytes(SHIPPED[name]) == mib * MIB


@pytest.mark.parametrize(
    ("printed", "capability"),
    [
        ("NVIDIA GeForce RTX 3060", "8.6"),  # two sizes, one chip
        ("GeForce RTX 2070", "7.5"),  # as drivers before 460 print it
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "8.9"),
        ("NVIDIA A100-SXM4-40GB", "8.0"),
        ("NVIDIA A100 80GB PCIe", "8.0"),
        ("Tesla V100-SXM2-16GB", "7.0"),
        ("NVIDIA H100 80GB HBM3", "9.0"),
        ("NVIDIA GeForce ...", None),
        ("", None),
    ],
)
def test_an_architecture_is_known_by_the_name_that_the_driver_prints(printed, capability) -> None:
    assert capability_named(printed, SHIPPED.values()) == capability


@pytest.mark.parametrize(
    ("asked", "name", "usable_mib"),
    [
        ("gb10", "gb10", 122040),
        ("dgx-spark", "gb10", 122040),
        ("DGX Spark", "gb10", 122040),
        ("gb200", "gb200", 188733),  # torch's total in public logs: 184.31 GiB
        ("b300", "b300", 274115),  # 267.69 GiB
        ("NVIDIA B300 SXM6 AC", "b300", 274115),
        ("gh200", "gh200", 97285),
        ("NVIDIA GH200 480GB", "gh200", 97285),
        ("h20", "h20", 97285),
        ("a16", "a16", 15105),
        ("jetson-agx-orin", "orin-64gb", 62827),
        ("orin-nano", "orin-8gb", 7607),
    ],
)
def test_a_card_of_the_reports_is_known(asked: str, name: str, usable_mib: int) -> None:
    """cases/23: names as people wrote them, with what the driver or CUDA reports."""
    (found,) = match_card(asked, SHIPPED).candidates
    assert (found.name, usable_bytes(found) // MIB) == (name, usable_mib)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("4090", "rtx-4090"),
        ("rtx4090", "rtx-4090"),
        ("4060", "rtx-4060"),
        ("2080ti", "rtx-2080-ti"),
        ("1080Ti", "gtx-1080-ti"),
        ("gtx1660", "gtx-1660"),
        ("4070 Ti Super", "rtx-4070-ti-super"),
        ("4090laptop", "rtx-4090-laptop"),
    ],
)
def test_a_card_is_known_by_its_number_alone(asked: str, name: str) -> None:
    assert match_card(asked, SHIPPED).label == name


def test_orin_alone_names_several_boards() -> None:
    with pytest.raises(UsageError, match="comes in several sizes") as problem:
        match_card("orin", SHIPPED)
    assert problem.value.hint == "use orin-64gb or orin-8gb"


def test_a_gpu_that_shares_the_cpus_memory_belongs_to_no_class() -> None:
    shared = {found.name for found in SHIPPED.values() if found.shares_memory}
    assert shared == {"gb10", "orin-64gb", "orin-8gb"}
    assert "128gb" not in class_names(SHIPPED.values())
    for asked in ("8gb", "64GiB", "120GiB"):
        assert "8.7" not in {
            one.compute_capability for one in match_card(asked, SHIPPED).candidates
        }


@pytest.mark.parametrize(
    ("asked", "capability", "count"),
    [
        ("12gb", "8.6", 80),  # RTX 3080 Ti
        ("8gb", "6.1", 20),  # GTX 1080
        ("11.6GiB", "8.6", 80),  # as for the class that it is nearest to
        ("24GiB", "8.9", 128),
        (
            "10GiB",
            "9.0",
            20,
        ),  # an eighth of an H100: a seventh of its 132 multiprocessors, rounded up
    ],
)
def test_a_kind_has_the_most_multiprocessors_of_its_cards(asked, capability, count) -> None:
    found = {one.compute_capability: one for one in match_card(asked, SHIPPED).candidates}
    assert found[capability].multiprocessors == count


@pytest.mark.parametrize(
    ("printed", "mib", "name"),
    [
        ("NVIDIA GeForce RTX 3080", 10240, "rtx-3080-10gb"),
        ("NVIDIA GeForce RTX 3080", 12288, "rtx-3080-12gb"),
        ("NVIDIA H100 PCIe", 81559, "h100-pcie"),
        ("NVIDIA H100 80GB HBM3", 81559, "h100-80gb"),
        ("NVIDIA A100-SXM4-40GB", 40960, "a100-40gb"),
        ("NVIDIA Imaginary", 8192, None),
    ],
)
def test_a_card_is_found_by_the_name_and_size_that_the_driver_prints(printed, mib, name) -> None:
    found = find_printed(printed, mib * MIB, SHIPPED.values())
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("cores", "capability", "count"),
    [
        (3584, "8.6", 28),
        (16896, "9.0", 132),
        (2560, "7.5", 40),
        (21760, "12.0", 170),
        (10, "8.6", None),
    ],
)
def test_cores_are_counted_in_multiprocessors(cores, capability, count) -> None:
    assert multiprocessors_of(cores, capability) == count
