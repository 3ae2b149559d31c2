"""Architectures of transformers at their default configs, with two layers and small sides."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import isqrt
from typing import Any

from tools.coverage.results import Report, Subject

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
_BRACKETS = re.compile(r" \([^()]*\)")
#: kinds that are given a prompt alone, so that what fails is not what they are given
_OF_TEXT = ("causal", "seq2seq")
#: what else a class's default config does not fit, by reading it; that it does not run is tried
_AT_ODDS: Mapping[str, str] = {
    "EdgeTamModel": "its neck takes 384, 192, 96, 48 channels; its RepViT gives other ones",
    "EdgeTamVisionModel": "as EdgeTamModel's",
    "LwDetrModel": "no scale of its projector, so no level of features",
    "PPOCRV6SmallDetModel": "its neck takes PP-LCNetV4's channels; its backbone is PP-LCNetV3",
    "Pop2PianoForConditionalGeneration": "no composers, which are in its checkpoint's files alone",
    "Step3p7ForConditionalGeneration": "layers of a sliding window, and no size of it",
    "UVDocModel": "its bridge takes six stages; its backbone hands on the last alone",
}
#: new tokens of a run with real data
_REAL_TOKENS = (4,)
#: sides that a CPU runs at once, by what configs call them
_SIDES: Mapping[str, int] = {
    "hidden_size": 64, "d_model": 64, "n_embd": 64, "intermediate_size": 128, "d_ff": 128,
    "ffn_dim": 128, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "num_attention_heads": 4,
    "n_head": 4, "num_heads": 4, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "d_kv": 16, "vocab_size": 512,
    "moe_intermediate_size": 32, "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16,
    "q_lora_rank": 32, "kv_lora_rank": 32,
}  # fmt: skip
#: parameters of a model that a CPU runs with real data
_MOST_REAL = 300_000_000
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


def record(subject: Subject, report: Report) -> None:
    """Build one small model and record it. Raises whatever its class does.

    Two layers are tried first, then eight, among which is one of each kind where kinds alternate,
    then all of a default config: some do not build with two. What does not run in half precision is
    recorded in full.
    """
    from vramplan.engines.torch.record.saved.build import said

    problem: Exception | None = None
    for way in _WAYS:
        try:
            _record(subject, way, report)
        except Exception as other:  # noqa: BLE001  # any class, any failure
            problem = problem or other
            continue
        if subject.is_compared:
            report(fidelity=_fidelity(subject, way))
        return
    if problem is not None:
        for place in _places_to_try(subject):
            why = _why_not(subject, place)
            if _is_alike(why, said(problem)) or (why and subject.class_name in _AT_ODDS):
                report(stage="none")
                raise LookupError(f"nor does its default without a recorder: {why}") from problem
        raise problem


def _places_to_try(subject: Subject) -> Sequence[str]:
    """Return where a class is tried without a recorder: where what it is given is beyond doubt."""
    if subject.kind in _OF_TEXT:
        return "cpu", "meta"
    return ("cpu",) if subject.class_name in _AT_ODDS else ()


def _is_alike(one: str, other: str) -> bool:
    """Return whether two errors are the same; devices differ in what they add in brackets."""
    return bool(one) and _BRACKETS.sub("", one) == _BRACKETS.sub("", other)


def _why_not(subject: Subject, place: str) -> str:
    """Return why a class does not run there in any form of its inputs; "" where it does."""
    from vramplan.engines.torch.record.saved.build import said

    try:
        request, model = _made_plainly(subject, place)
    except Exception as problem:  # noqa: BLE001  # any class, any failure
        return said(problem)
    return _why_not_run(request, model)


def _why_not_run(request: Value, model: Value) -> str:
    from vramplan.engines.torch.record.saved.build import said
    from vramplan.engines.torch.record.saved.inputs import count_forms

    why = ""
    for form in range(count_forms(request, model)):
        try:
            _run_plainly(request, model, form)
        except Exception as problem:  # noqa: BLE001  # as above
            why = said(problem)
            continue
        return ""
    return why


class _Nowhere:
    """What is told where nothing is recorded."""

    def begin_phase(self, *_: Value) -> None:
        """Hear nothing."""

    iterate = begin_phase

    @contextmanager
    def unheard(self) -> Iterator[None]:
        """Run something."""
        yield


def _made_plainly(subject: Subject, place: str) -> tuple[Value, Value]:
    """Return a model without any device of ours, and its request. Raises whatever its class does.

    On a CPU its sides are small; on `meta` they are its own, and what asks for values fails there.
    """
    import torch
    import transformers

    cls = getattr(transformers, subject.class_name)
    small = (shrink_sides,) if place == "cpu" else ()
    with torch.device(place):
        try:
            config = _config(subject, cls, shrink_layers, *small)
            model = cls(config).eval()
        except Exception:  # noqa: BLE001  # as above: some are made with all their layers alone
            config = _config(subject, cls, *small)
            model = cls(config).eval()
    return _request(subject, config), model


def _run_plainly(request: Value, model: Value, form: int) -> None:
    """Run a model without any device of ours. Raises whatever its class does."""
    import torch

    from vramplan.engines.torch.record.saved import models
    from vramplan.engines.torch.record.saved.asked_model import generates

    nowhere: Value = _Nowhere()
    with torch.no_grad():
        if generates(model):
            models.run_generation(request, model, nowhere, _REAL_TOKENS[0], form)
        else:
            models.run_once(request, model, nowhere, form)


def _leave(_: Value) -> None:
    """Leave a config as it is."""


def _config(subject: Subject, cls: Value, *shrinks: Callable[[Value], None]) -> Value:
    """Return a default config: the architecture's, or of a class that wants a part of it, its."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[subject.name]()
    wanted = cls.config_class
    if isinstance(wanted, type) and not isinstance(config, wanted):
        config = wanted()
    for shrink in shrinks:
        shrink(config)
    complete(config)
    return config


def _request(subject: Subject, config: Value, dtype: str = "bf16") -> Value:
    import torch
    import transformers

    from vramplan.engines.torch.record.saved.build import SavedPart
    from vramplan.engines.torch.record.saved.request import Request

    with torch.device("meta"):
        built = getattr(transformers, subject.class_name)(config)
    elements = sum(one.numel() for one in built.parameters())
    path = f"transformers.{subject.class_name}"
    part = SavedPart(name="model", class_path=path, config=config.to_dict(), elements=elements)
    return Request(
        name="small",
        kind="model",
        class_path=path,
        parts=(part,),
        index={},
        schedulers={},
        dtype=dtype,
        kernel="flash" if dtype == "bf16" else "efficient",
        batch=1,
        image=None,
        frames=None,
        prompt_tokens=_PROMPT_TOKENS,
    )


def _record(subject: Subject, way: _Way, report: Report) -> None:
    import transformers

    from vramplan.engines.torch.record.saved.build import build_part
    from vramplan.engines.torch.record.saved.constant_tape import write_recording
    from vramplan.engines.torch.record.saved.recording_child import record_modules
    from vramplan.engines.torch.record.session import DTYPES
    from vramplan.engines.torch.tape.format import parse_tape

    cls, dtype = getattr(transformers, subject.class_name), DTYPES[way.dtype]
    request = _request(subject, _config(subject, cls, way.shrink), way.dtype)
    modules = {"model": build_part(request.parts[0], dtype)}
    report(stage="built")
    recorded = record_modules(request, modules, lambda _: None)
    parse_tape(write_recording("small", recorded, modules, dtype.itemsize), "small")
    report(stage="recorded", how=f"its inputs by name{way.said}")


def _fidelity(subject: Subject, way: _Way) -> str:
    """Return how the recording is like the same run with real data, at sides that a CPU can run.

    Sides that do not fit together are tried as the class has them.
    """
    from vramplan.engines.torch.record.saved.build import said

    problem: Exception | None = None
    for shrinks in ((way.shrink, shrink_sides), (way.shrink,)):
        try:
            return _compared(subject, way.dtype, *shrinks)
        except Exception as other:  # noqa: BLE001  # any class, any failure
            problem = problem or other
    return f"no real run: {said(problem)}" if problem is not None else ""


def _compared(subject: Subject, dtype: str, *shrinks: Callable[[Value], None]) -> str:
    import torch
    import transformers

    from tools.coverage.real_run import HeardDevice, compare, run_heard, run_really
    from vramplan.engines.torch.record.saved.build import build_part, load_as
    from vramplan.engines.torch.record.session import DTYPES

    cls = getattr(transformers, subject.class_name)
    request = _request(subject, _config(subject, cls, *shrinks), dtype)
    if request.parts[0].elements > _MOST_REAL:
        raise MemoryError(f"{request.parts[0].elements:,} parameters are too many for a CPU")
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[dtype])
    try:
        real = cls(cls.config_class.from_dict(request.parts[0].config))
    finally:
        torch.set_default_dtype(before)
    real = real.eval().requires_grad_(requires_grad=False)
    load_as(real, DTYPES[dtype], is_of_diffusers=False)  # what a class keeps in fp32
    hollow = build_part(request.parts[0], DTYPES[dtype])
    really = run_really(request, {"model": real}, _REAL_TOKENS)
    recorded = run_heard(request, {"model": hollow}, HeardDevice, _REAL_TOKENS)
    return compare(recorded, really)


def shrink_layers(config: Value, layers: int = 2) -> None:
    """Give a config few layers, and lists of layers as many: of two, its first and another kind."""
    before = getattr(config, "num_hidden_layers", None)
    of_layers = config.to_dict().get("per_layer_config")
    for name in _COUNTS:
        if type(getattr(config, name, None)) is int:
            with suppress(Exception):
                setattr(config, name, layers)
    for name, value in list(vars(config).items()):
        if isinstance(value, (list, tuple)) and len(value) == before and len(value) > layers:
            other = next((one for one in value if one != value[0]), value[-1])
            few = [value[0], other] if layers == 2 else value[:layers]
            setattr(config, name, type(value)(few))
        elif name.endswith("_indices") and isinstance(value, list) and layers <= (before or 0):
            setattr(config, name, [min(one, layers - 1) for one in value])  # as many as before
    if of_layers:
        config.per_layer_config = {
            int(number): told for number, told in of_layers.items() if int(number) < layers
        }
    for inner in _INNER:
        if hasattr(getattr(config, inner, None), "to_dict"):
            shrink_layers(getattr(config, inner), layers)


def _shrink_to_eight(config: Value) -> None:
    shrink_layers(config, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """One way to make a class small: what is done to its config, its type of numbers, in words."""

    shrink: Callable[[Value], None]
    dtype: str = "bf16"
    said: str = ""


_WAYS = (
    _Way(shrink=shrink_layers),
    _Way(shrink=_shrink_to_eight, said=", eight layers"),
    _Way(shrink=_leave, said=", whole"),
    _Way(shrink=shrink_layers, dtype="fp32", said=", in fp32"),
    _Way(shrink=_leave, dtype="fp32", said=", whole, in fp32"),
)


#: how the names of special tokens end
_TOKEN_NAMES = ("_token_id", "_token_index")
#: how configs call how many of an image's tokens become one along a side
_SCALES = ("scale_factor", "pixel_shuffle_factor")
#: how configs call the token of an image or of a video
_IMAGE_TOKENS = ("image_token_id", "image_token_index", "video_token_index")
#: and how wide a vision tower's result is, which its text model has to take
_HANDED_ON = ("out_hidden_size", "text_hidden_size", "projection_dim")


def complete(config: Value) -> None:
    """Let the default config of a model that sees agree with itself.

    Its parts are the defaults of other classes: a tower hands on what is wider than the text model,
    an image has fewer patches than the projector pools, and no token stands for it.
    """
    if hasattr(config, "audio_config") and getattr(config, "audio_token_id", 0) is None:
        config.audio_token_id = config.get_text_config().vocab_size - 1
    text, vision = getattr(config, "text_config", None), getattr(config, "vision_config", None)
    if text is None:
        _complete_positions(config)
    if not hasattr(text, "hidden_size") or not hasattr(vision, "to_dict"):
        return
    for name in _IMAGE_TOKENS:
        if getattr(config, name, 0) is None:
            setattr(config, name, text.vocab_size - 1)
    for name in _HANDED_ON:
        if type(getattr(vision, name, None)) is int:
            setattr(vision, name, text.hidden_size)
    if hasattr(vision, "embed_dim") and hasattr(
        vision, "hidden_size"
    ):  # then that is what it gives
        vision.hidden_size = text.hidden_size
    if getattr(config, "visual_indicator_token_ids", None):  # a table of looks, as wide as text
        config.hidden_size = text.hidden_size
    if ratio := getattr(vision, "pixel_shuffle_ratio", None):  # four patches are one, side by side
        vision.hidden_size = int(vision.intermediate_size * ratio**2)
        vision.vision_output_dim = vision.projector_output_dim
    if hasattr(config, "audio_start_token_id") and not hasattr(config, "vision_start_token_id"):
        config.vision_start_token_id = text.vocab_size - 2  # read where an image is looked for
    _complete_image(config, vision)
    _complete_positions(text)


def _complete_image(config: Value, vision: Value) -> None:
    """Give an image as many patches as what pools them takes."""
    patch, side = getattr(vision, "patch_size", 0), getattr(vision, "image_size", 0)
    if type(patch) is not int or type(side) is not int or not patch or not side:
        return
    pooled = getattr(config, "mm_tokens_per_image", None)
    queries = getattr(config, "projector_patch_to_query_dict", None)
    if pooled and side // patch < isqrt(pooled):
        vision.image_size = isqrt(pooled) * patch
    elif queries:
        vision.image_size = isqrt(min(map(int, queries))) * patch
    elif scale := next((n for key in _SCALES if (n := getattr(config, key, None))), None):
        vision.image_size = -(-side // (patch * scale)) * patch * scale


def _complete_positions(text: Value) -> None:
    """Say which part of a head tells time, rows and columns, where a class would guess it."""
    rope = getattr(text, "rope_parameters", None)
    if "mrope_section" not in getattr(text, "ignore_keys_at_rope_validation", ()) or not rope:
        return
    if "mrope_section" not in rope:
        heads = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        pairs = len(range(0, int(heads * rope.get("partial_rotary_factor", 1.0)), 2))
        side = 3 * pairs // 8
        rope["mrope_section"] = [side, side, pairs - 2 * side]


def shrink_sides(config: Value, depth: int = 0) -> None:
    """Give a config small sides, and the configs in it, as far as it has them."""
    for key, value in _SIDES.items():
        if type(getattr(config, key, None)) is int:
            with suppress(Exception):
                setattr(config, key, value)
    for inner in list(vars(config).values()):
        if hasattr(inner, "to_dict") and depth < 2:
            shrink_sides(inner, depth + 1)
    _number_tokens(config)


def _number_tokens(config: Value) -> None:
    """Give special tokens that are beyond a small vocabulary numbers in it, each its own."""
    words = getattr(config, "vocab_size", None)
    words = words or getattr(getattr(config, "text_config", None), "vocab_size", None)
    if type(words) is not int:
        return
    beyond = [
        name
        for name, value in vars(config).items()
        if name.endswith(_TOKEN_NAMES) and type(value) is int and value >= words
    ]
    for place, name in enumerate(beyond, start=1):
        setattr(config, name, words - place)
