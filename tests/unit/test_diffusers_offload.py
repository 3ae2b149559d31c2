"""Which parts of a pipeline offload leaves on the device, held to what its classes say."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from vramplan.engines.torch.diffusers_offload import stays_on_device

_CLASS = re.compile(r"^class (\w+)", re.MULTILINE)
_KEPT = re.compile(r"^    _exclude_from_cpu_offload = \[(.*?)\]", re.MULTILINE | re.DOTALL)
_CHAIN = re.compile(r"^    model_cpu_offload_seq = \(?\s*\"(.*?)\"", re.MULTILINE | re.DOTALL)


def _classes() -> dict[str, tuple[frozenset[str], frozenset[str], bool]]:
    """Return what each class keeps, its chain, and whether it has a safety checker."""
    found = find_spec("diffusers")
    if found is None or not found.submodule_search_locations:
        pytest.skip("diffusers is not installed")
    said = {}
    for path in Path(found.submodule_search_locations[0], "pipelines").rglob("pipeline_*.py"):
        text = path.read_text(encoding="utf-8")
        begins = [*_CLASS.finditer(text)]
        ends = [one.start() for one in begins[1:]] + [len(text)] * bool(begins)
        for one, end in zip(begins, ends, strict=True):
            body = text[one.start() : end]
            if "Flax" in one[1] or "Onnx" in one[1] or "DiffusionPipeline" not in body[:400]:
                continue
            kept, chain = _KEPT.search(body), _CHAIN.search(body)
            said[one[1]] = (
                frozenset(re.findall(r'"(\w+)"', kept[1])) if kept else frozenset(),
                frozenset(chain[1].split("->")) if chain else frozenset(),
                "safety_checker=" in body,
            )
    return said


def test_each_class_keeps_what_its_source_says() -> None:
    classes = _classes()
    assert len(classes) > 200
    wrong = {}
    for name, (kept, chain, has_checker) in classes.items():
        expected = {"sequential": kept, "model": kept - chain, "group": frozenset()}
        for offload, parts in expected.items():
            ours = stays_on_device(f"diffusers.{name}", offload)
            if not has_checker:  # the usual word says nothing of a part that is not there
                ours -= {"safety_checker"}
                parts -= {"safety_checker"}
            if ours != parts:
                wrong[name, offload] = sorted(ours), sorted(parts)
    assert not wrong


def test_a_class_that_is_not_known_is_as_stable_diffusion() -> None:
    assert stays_on_device(None, "model") == {"safety_checker"}
    assert stays_on_device("mine.Pipeline", "sequential") == {"safety_checker"}
    assert stays_on_device(None, "group") == frozenset()
