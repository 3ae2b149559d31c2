"""Pipelines of diffusers with the dummy components of its own tests, which lie in a folder.

The tests come from diffusers' repository at the installed version or near it. What they would fetch
is made here: tokenizers and processors are stand-ins, small text encoders are built from configs.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.coverage.results import Subject

Value = Any

KIND = "pipeline"
_NOT_ONE = ("DiffusionPipeline", "ModularPipeline")
_STEPS = 3
#: what the small models of diffusers' tests have for sides, whatever their architecture
_SMALL: Mapping[str, Value] = {
    "hidden_size": 32, "d_model": 32, "d_ff": 37, "d_kv": 8, "num_layers": 2, "num_heads": 4,
    "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 2000, "projection_dim": 32,
    "n_embd": 32, "n_head": 4, "n_layer": 2,
}  # fmt: skip


def subjects(folders: Sequence[Path]) -> Iterator[Subject]:
    """Yield every pipeline class that the installed diffusers exports, with its test's file.

    A modular pipeline is put together of blocks, and has no ``__call__`` of its own.
    """
    import diffusers

    places: dict[str, str] = {}
    for folder in reversed(folders):
        places |= dict(_places(folder.resolve()))
    for name in sorted(set(dir(diffusers))):
        if name.endswith("Pipeline") and not name.endswith(_NOT_ONE):
            yield Subject(kind=KIND, name=name, class_name=name, place=places.get(name, ""))


def _places(tests: Path) -> Iterator[tuple[str, str]]:
    """Yield a pipeline's name with the file and the class that make its dummies."""
    for path in sorted((tests / "pipelines").rglob("test_*.py"), reverse=True):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        classes = {one.name: one for one in tree.body if isinstance(one, ast.ClassDef)}
        module = ".".join(path.relative_to(tests.parent).with_suffix("").parts)
        for name, one in classes.items():
            pipeline = _assigned(one, classes, "pipeline_class")
            if pipeline and _has(one, classes, "get_dummy_components"):
                yield pipeline, f"{tests.parent}:{module}:{name}"


def _bases(one: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    yield one
    for base in one.bases:
        if isinstance(base, ast.Name) and base.id in classes and classes[base.id] is not one:
            yield from _bases(classes[base.id], classes)


def _assigned(one: ast.ClassDef, classes: Mapping[str, ast.ClassDef], name: str) -> str:
    for body in _bases(one, classes):
        for line in body.body:
            if (
                isinstance(line, ast.Assign)
                and isinstance(line.value, ast.Name)
                and any(isinstance(t, ast.Name) and t.id == name for t in line.targets)
            ):
                return line.value.id
    return ""


def _has(one: ast.ClassDef, classes: Mapping[str, ast.ClassDef], name: str) -> bool:
    return any(
        isinstance(line, ast.FunctionDef) and line.name == name
        for body in _bases(one, classes)
        for line in body.body
    )


def record(subject: Subject, reached: Callable[[str], None]) -> str:
    """Record a pipeline with its dummies. Raises whatever its class, or its test, does."""
    if not subject.place:
        raise LookupError("diffusers' tests have no dummy components of it")
    folder, module, name = subject.place.rsplit(":", 2)
    sys.path.insert(0, folder)
    for known in [one for one in sys.modules if one.split(".")[0] == "tests"]:
        del sys.modules[known]
    _make_instead_of_fetching()
    tester = getattr(importlib.import_module(module), name)()
    components = tester.get_dummy_components()
    reached("built")
    inputs = _inputs(tester)
    try:
        _record(subject, components, inputs, by_name=True)
    except Exception as problem:  # noqa: BLE001  # any class, any failure
        again = tester.get_dummy_components()
        try:
            _record(subject, again, inputs, by_name=False)
        except Exception as other:
            raise other from problem
        return "its test's inputs"
    return "its arguments by name"


def _inputs(tester: Value) -> dict[str, Value]:
    wanted = inspect.signature(tester.get_dummy_inputs).parameters
    given: dict[str, Value] = tester.get_dummy_inputs(*(["cpu"] if "device" in wanted else []))
    return given


def _record(
    subject: Subject, components: Mapping[str, Value], inputs: Mapping[str, Value], *, by_name: bool
) -> None:
    import diffusers
    import torch

    from vramplan.engines.torch.record.saved import whole_pipeline
    from vramplan.engines.torch.record.saved.constant_tape import write_recording
    from vramplan.engines.torch.record.saved.recording_child import record_modules
    from vramplan.engines.torch.record.saved.request import Request
    from vramplan.engines.torch.tape.format import parse_tape

    # some put their parts together anew when they are made: they are run as they then are
    made = getattr(diffusers, subject.class_name)(**components).components
    modules = {
        name: one.to(torch.bfloat16).eval().requires_grad_(requires_grad=False)
        for name, one in made.items()
        if isinstance(one, torch.nn.Module)
    }
    sides = inputs.get("width"), inputs.get("height")
    request = Request(
        name="small",
        kind="pipeline",
        class_path=f"diffusers.{subject.class_name}",
        parts=(),
        index={},
        schedulers={},
        dtype="bf16",
        kernel="flash",
        batch=1,
        image=sides if all(type(side) is int for side in sides) else None,
        frames=inputs.get("num_frames"),
        prompt_tokens=0,
        steps=_STEPS,
        values={name: one for name, one in components.items() if name not in modules},
    )
    if not by_name:
        given = {**inputs}
        if "num_inference_steps" in given:
            given["num_inference_steps"] = _STEPS
        whole_pipeline.arguments = lambda _request, _pipe: given
    recorded = record_modules(request, modules, lambda _: None)
    parse_tape(write_recording("small", recorded, modules, 2), "small")


def _make_instead_of_fetching() -> None:
    """Let whatever a test would fetch from the hub be made here."""
    import transformers
    from transformers.image_processing_utils import ImageProcessingMixin

    from vramplan.engines.torch.record.saved.stand_ins import stand_in

    def tokenizer(cls: type, place: str = "", *_: Value, **__: Value) -> Value:
        name = cls.__name__
        if name.startswith("Auto"):
            kinds = ("CLIP", "T5", "Qwen", "Gemma", "Bert")
            kind = next((one for one in kinds if one.lower() in str(place).lower()), "")
            name = f"{kind}Tokenizer"
        return stand_in(f"transformers.{name}", {})

    def processor(cls: type, *_: Value, **__: Value) -> Value:
        return stand_in(f"transformers.{cls.__name__}", {})

    def config(cls: Value, place: str = "", *_: Value, **__: Value) -> Value:
        if cls is not transformers.AutoConfig:
            return _small(cls)
        kinds = {"t5": "T5Config", "clip": "CLIPTextConfig", "gemma": "Gemma2Config"}
        kinds |= {"qwen": "Qwen2Config", "llama": "LlamaConfig", "gpt2": "GPT2Config"}
        name = next((kinds[one] for one in kinds if one in str(place).lower()), "")
        if not name:
            raise LookupError(f"the config of {place} is not here")
        return _small(getattr(transformers, name))

    def model(cls: Value, *_: Value, **__: Value) -> Value:
        return cls(_small(cls.config_class))

    replaced: tuple[tuple[Value, Value], ...] = (
        (transformers.PreTrainedTokenizerBase, tokenizer),
        (transformers.AutoTokenizer, tokenizer),
        (transformers.ProcessorMixin, processor),
        (ImageProcessingMixin, processor),
        (transformers.PreTrainedConfig, config),
        (transformers.AutoConfig, config),
        (transformers.PreTrainedModel, model),
    )
    for owner, made in replaced:
        owner.from_pretrained = classmethod(made)


def _small(cls: Value) -> Value:
    made = cls()
    for key, value in _SMALL.items():
        if type(getattr(made, key, None)) is int:
            setattr(made, key, value)
    return made
