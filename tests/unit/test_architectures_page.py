"""The page of architectures is what its command writes."""

from __future__ import annotations

from tools import architectures
from vramplan.engines.ggml.coverage import ENCODERS, KNOWN, NO_OUTPUT
from vramplan.engines.ggml.graph.families import FAMILIES
from vramplan.engines.ggml.windows import RULES


def test_the_page_is_what_the_command_writes() -> None:
    assert architectures.OUT.read_text(encoding="utf-8") == architectures.page()


def test_what_is_known_has_a_name_that_the_engine_knows() -> None:
    names = set(architectures.NAMES)
    known = KNOWN | ENCODERS | NO_OUTPUT | set(FAMILIES) | set(RULES)
    assert len(names) == 150
    assert known <= names
    assert set(architectures.NOT_TAKEN) <= names - KNOWN
    assert set(FAMILIES) <= KNOWN
