"""The graph tapes that ship, against the engine: models made elsewhere, of numbers not recorded.

Without the engine's help every compute buffer is the engine's, to the byte: with no layer, one,
half and all of them on a card that is not there, caches in f16 and q8_0, one slot and four.
"""

from __future__ import annotations

import sys

import pytest

from tools import architectures
from tools.architectures import NOT_TAKEN
from vramplan.catalog.shipped import profiles_dir
from vramplan.engines.ggml.graph.families import FAMILIES

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pretended card is for Linux")

from tools.graphs.asking import Asking  # noqa: E402  # behind what it needs
from tools.graphs.counting import count, count_asked  # noqa: E402  # behind what it needs

NAMES = sorted(
    path.name.removesuffix(".json.gz") for path in (profiles_dir() / "graphs").glob("*.json.gz")
)
FEW = ("internlm2", "baichuan")
ASKED = ("hrm_text",)


@pytest.fixture(scope="module")
def card():
    with Asking(has_card=True) as asking:
        yield asking


@pytest.mark.parametrize("name", FEW)
def test_a_tape_takes_what_the_engine_takes(card, name) -> None:
    assert count(name, card) == "exact"


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", ASKED)
def test_the_engine_is_asked_for_what_is_not_known(card, name) -> None:
    assert count_asked(name, card, ["half"]) == "exact"


@pytest.mark.slow
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", sorted({*architectures.NAMES} - {*NOT_TAKEN}))
def test_with_the_engine_every_name_is_exact(card, name) -> None:
    assert "exact" in {count(name, card), count_asked(name, card)}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*NAMES, *FAMILIES}))
def test_over_every_family_whose_graph_is_known(card, name) -> None:
    said = count(name, card)
    assert said == "exact" or "assumed" in said
