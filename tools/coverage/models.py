"""Architectures of transformers at their default configs, with two layers and small sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from tools.coverage.results import Subject

Value = Any

#: what is tried of transformers, and its own table of which class an architecture has for it
KINDS: Mapping[str, str] = {
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "image-text": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "speech": "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "encoder": "MODEL_MAPPING_NAMES",
}
_PROMPT_TOKENS = 24
#: layers of each kind, by what configs call their number
_COUNTS = (
    *("num_hidden_layers", "num_layers", "n_layer", "n_layers"),
    *("decoder_layers", "encoder_layers", "num_decoder_layers", "num_encoder_layers"),
    *("encoder_num_hidden_layers", "decoder_num_hidden_layers", "depth"),
)
_INNER = (
    *("text_config", "vision_config", "audio_config", "decoder", "encoder", "text_encoder"),
    *("language_config", "backbone_config", "qformer_config", "thinker_config"),
)


def subjects() -> Iterator[Subject]:
    """Yield the classes of each kind; an encoder is a base model that no other kind has tried."""
    from transformers.models.auto import modeling_auto

    seen: set[str] = set()
    for kind, table in KINDS.items():
        for name, classes in sorted(getattr(modeling_auto, table).items()):
            class_name = classes if isinstance(classes, str) else classes[0]
            if kind == "encoder" and name in seen:
                continue
            seen.add(name)
            yield Subject(kind=kind, name=name, class_name=class_name)


def record(subject: Subject, reached: Callable[[str], None]) -> str:
    """Build one small model and record it. Raises whatever its class does."""
    import torch
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from vramplan.engines.torch.record.saved.build import SavedPart, build_part
    from vramplan.engines.torch.record.saved.constant_tape import write_recording
    from vramplan.engines.torch.record.saved.recording_child import record_modules
    from vramplan.engines.torch.record.saved.request import Request
    from vramplan.engines.torch.tape.format import parse_tape

    cls = getattr(transformers, subject.class_name)
    config = CONFIG_MAPPING[subject.name]()
    _shrink(config)
    with torch.device("meta"):
        elements = sum(one.numel() for one in cls(config).parameters())
    path = f"transformers.{subject.class_name}"
    part = SavedPart(name="model", class_path=path, config=config.to_dict(), elements=elements)
    modules = {"model": build_part(part, torch.bfloat16)}
    reached("built")
    request = Request(
        name="small",
        kind="model",
        class_path=path,
        parts=(part,),
        index={},
        schedulers={},
        dtype="bf16",
        kernel="flash",
        batch=1,
        image=None,
        frames=None,
        prompt_tokens=_PROMPT_TOKENS,
    )
    recorded = record_modules(request, modules, lambda _: None)
    parse_tape(write_recording("small", recorded, modules, 2), "small")
    return "its inputs by name"


def _shrink(config: Value) -> None:
    """Give a config two layers, and lists of layers as many: its first and its last kinds."""
    layers = 2
    before = getattr(config, "num_hidden_layers", None)
    for name in _COUNTS:
        if type(getattr(config, name, None)) is int:
            with suppress(Exception):
                setattr(config, name, layers)
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == before and len(value) > layers:
            other = next((one for one in value if one != value[0]), value[-1])
            setattr(config, name, [value[0], other])
    for inner in _INNER:
        if hasattr(getattr(config, inner, None), "to_dict"):
            _shrink(getattr(config, inner))
