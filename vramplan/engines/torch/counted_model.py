"""What is counted of a saved model without a tape: its parts, and what configs tell of its work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod

from vramplan.dtypes import ELEMENT_BYTES
from vramplan.engines.torch.attention_kernel import parse_capability
from vramplan.engines.torch.compressed_tensors import unpacked
from vramplan.engines.torch.packed_weights import (
    EIGHT_BITS,
    is_cast,
    is_elsewhere,
    packing_of,
    unpacked_below,
)
from vramplan.engines.torch.sight import Sight, find_sight
from vramplan.quick_dataclass import dataclass, replace
from vramplan.sources.saved_model import Part, SavedModel

#: what a dtype of the settings is called in a file
SAVED_DTYPES: Mapping[str, str] = {"F16": "fp16", "BF16": "bf16", "F32": "fp32", "F64": "fp32"}
#: and what it is called in a config
_TOLD_DTYPES: Mapping[str, str] = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
#: classes that keep these tensors in fp32 when they are loaded in fp16 (not in bf16): a third of a
#: T5 by weight. Source: transformers 5.23.0, `_keep_in_fp32_modules` of models/{t5,mt5,umt5,udop,
#: pop2piano} and modeling_utils.py, where it is applied
_KEPT_IN_FP16 = (("T5", "MT5", "UMT5", "Udop", "Pop2Piano"), ".wo.weight")
#: classes that keep other modules in fp32 in half precision, which are not told by their tensors'
#: names here. Source: the same and `_keep_in_fp32_modules_strict` there; diffusers 0.42.1, likewise
_KEEPS_MORE = (
    "Afmoe", "AnyFlow", "AutoencoderKLMiniMax", "AutoencoderRFD4", "AXK", "Bailing", "Beam",
    "Blip2", "ChronoEdit", "Cosmos", "Deepseek", "Dots", "Ernie4_5", "EsmFold2", "ExaoneMoe",
    "Flint", "Flux3", "Glm4Moe", "Glm4v", "Glm5", "GlmMoe", "GptOss", "Gradium",
    "GraniteSpeech5", "HYV3", "HYV4", "Helios", "Inkling", "InstructBlip", "JoyImage",
    "Kandinsky", "Kolibri1", "Krea2", "Kyutai", "LongcatFlash", "MiMo", "MiniMaxH3",
    "MistralLarge4", "MuseSpark", "Nemotron", "OpenAIPrivacy", "PocketTTS", "RFD4", "Rwkv",
    "SLANe", "SkyReels", "SolarOpen", "Voxtral", "Wan",
)  # fmt: skip
#: a config's numbers: what is beyond is no model's, or no number
_LARGEST = 1 << 24
#: what makes sound, and what its configs say by default: channels at the full rate, latents, and
#: how much slower than each level the next one is; source: diffusers 0.42.1
_SOUND_DECODER, _SOUND_DENOISER = "diffusers.AutoencoderOobleck", "diffusers.StableAudioDiTModel"
_SOUND_CHANNELS, _SOUND_LATENTS, _RATIOS = 128, 1024, (2, 4, 4, 8, 8)
#: what makes a sound as long as its call is asked for: the seconds that it says by default, and
#: the numbers a second that the decoder's config says by default
_TIMED_DENOISER, _TIMED_SECONDS = "diffusers.AceStepTransformer1DModel", 60
_SOUND_RATE = 44_100
_LARGEST_RATIO, _MOST_RATIOS = 64, 8
_LAST_CONVOLUTION = ("decoder.conv_out.weight", "decoder.conv_out.conv.weight")
#: how configs call the number of experts
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
#: in configs of models that take more than a text, or have several models inside
_OF_SEVERAL = (
    "text_config", "vision_config", "audio_config", "image_size", "num_mel_bins", "encoder",
    "decoder_layers", "num_decoder_layers", *_EXPERTS,
)  # fmt: skip
_GENERATES = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedPart:
    """A component by its tensors.

    `elements` are loaded in the dtype that is asked for; `fixed_bytes` stay as they are in the file
    (quantised weights, positions).
    """

    name: str
    parameters: int
    elements: int
    fixed_bytes: int
    quantised: str | None  # the type of most of its bytes, where that is no float
    kept_elements: int = 0  # of `elements`, those that are in fp32 where the rest is in fp16
    keeps_more: bool = False  # its class keeps others in fp32 in half precision
    dtype: str | None = None  # its own, whatever is asked for: all of it is fixed then
    unpacked_below: str | None = None  # the compute capability below which it is held unpacked
    packed: int = 0  # of `parameters`, those that are packed then
    packed_bytes: int = 0  # of `fixed_bytes`, what those and their scales take

    def on(self, compute_capability: str) -> CountedPart:
        """Return the part as it is held on a card of a compute capability."""
        below = self.unpacked_below
        if below is None or parse_capability(compute_capability) >= parse_capability(below):
            return self
        return replace(
            self,
            elements=self.elements + self.packed,
            fixed_bytes=self.fixed_bytes - self.packed_bytes,
            quantised=None,
            unpacked_below=None,
        )

    def bytes_in(self, dtype: str) -> int:
        """Return what it takes on the device when it is loaded in `dtype`."""
        kept = self.kept_elements * 2 if dtype == "fp16" else 0
        return self.bytes_at(ELEMENT_BYTES[dtype]) + kept

    def bytes_at(self, element_bytes: int) -> int:
        """Return what it takes on the device."""
        return self.elements * element_bytes + self.fixed_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """A part that makes images: its channels at the full resolution."""

    part: str
    channels: int
    is_video: bool
    is_upcast: bool  # the pipeline casts it to fp32 where the rest is fp16
    tape: str | None = None  # of this autoencoder alone
    dtype: str | None = None  # its own, whatever the rest's

    def dtype_in(self, dtype: str) -> str:
        """Return what it decodes in where the pipeline is in `dtype`."""
        return self.dtype or ("fp32" if self.is_upcast and dtype == "fp16" else dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundDecoder:
    """A part that makes a sound: the numbers of one at its full rate, in all channels there."""

    part: str
    elements: int
    seconds: int | None = None  # that its call makes unless it is asked for others


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """A part that generates text; `cache_elements` are keys and values of one token, all layers.

    `heads` are those of its queries.
    """

    part: str
    hidden: int
    intermediate: int
    words: int
    cache_elements: int
    heads: int = 0
    is_routed: bool = False  # to experts: which of them work is not counted
    sight: Sight | None = None  # how it sees, where it does and its config tells


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A part that encodes text; `heads` are those of its queries.

    One that is a language model without its last layer makes a cache all the same.
    """

    part: str
    hidden: int
    intermediate: int
    heads: int
    cache_elements: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedModel:
    """A saved model as far as it is known without a tape."""

    parts: tuple[CountedPart, ...]
    decoder: Decoder | None
    language: Language | None
    encoder: Encoder | None = None  # of a lone model that encodes text and does nothing else
    sound: SoundDecoder | None = None
    counted_from: str = "the headers of its files"

    @property
    def largest(self) -> CountedPart:
        """The component with the most bytes at half precision."""
        return max(self.parts, key=lambda part: part.bytes_at(2))

    def on(self, compute_capability: str) -> CountedModel:
        """Return the model as it is held on a card of a compute capability."""
        parts = tuple(part.on(compute_capability) for part in self.parts)
        return replace(self, parts=parts) if parts != self.parts else self


def count(model: SavedModel) -> CountedModel:
    """Return what is counted of a saved model."""
    return CountedModel(
        parts=tuple(_count_part(part) for part in model.parts),
        decoder=next((one for part in model.parts if (one := _find_decoder(part))), None),
        language=_find_language(model),
        encoder=_find_encoder(model),
        sound=_find_sound(model),
    )


def saved_dtype(model: SavedModel) -> str:
    """Return the dtype that a model is taken to be loaded in: its config's, or that of its files.

    Of its files it is that of most floating-point bytes; fp16 where they have none.
    """
    return told_dtype(model) or dtype_of_files(model)


def told_dtype(model: SavedModel) -> str | None:
    """Return the dtype that a lone model of transformers names in its config, and is loaded in.

    None where it names none. Source: transformers 5.23.0, modeling_utils.py: dtype="auto" is the
    default of `from_pretrained`.
    """
    if model.runtime != "transformers":
        return None
    said = model.config.get("dtype", model.config.get("torch_dtype"))
    return _TOLD_DTYPES.get(said.removeprefix("torch.")) if isinstance(said, str) else None


def dtype_of_files(model: SavedModel) -> str:
    """Return the dtype of most of a model's floating-point bytes; fp16 where it has none."""
    sizes: Counter[str] = Counter()
    for part in model.parts:
        for tensor in part.tensors:
            if tensor.dtype in SAVED_DTYPES:
                sizes[SAVED_DTYPES[tensor.dtype]] += tensor.size_bytes
    return sizes.most_common(1)[0][0] if sizes else "fp16"


def quantised_by(model: SavedModel) -> str | None:
    """Return who quantised a model's weights, or in which type most of a part is; None where none.

    Such weights are held as they are in their files.
    """
    for part in model.parts:
        said = part.config.get("quantization_config")
        method = said.get("quant_method") if isinstance(said, Mapping) else None
        if isinstance(method, str):
            return method[:40]
    kinds = [_count_part(part).quantised for part in model.parts]
    return next((kind for kind in kinds if kind), None)


def _count_part(part: Part) -> CountedPart:
    sizes: Counter[str] = Counter()
    elements = fixed = parameters = kept = packed = packed_bytes = 0
    class_name = part.class_path.rpartition(".")[2]
    classes, kept_name = _KEPT_IN_FP16
    packing, casts = packing_of(part), is_cast(part)
    for tensor in unpacked(part):
        if is_elsewhere(tensor):
            continue
        is_beside = packing.is_beside(tensor)
        is_float = tensor.dtype in SAVED_DTYPES or (casts and tensor.dtype in EIGHT_BITS)
        sizes["F16" if is_float else tensor.dtype] += tensor.size_bytes
        count = 0 if is_beside else packing.parameters(tensor)
        parameters += count
        if is_float and not is_beside:
            elements += tensor.elements
            if class_name.startswith(classes) and tensor.name.endswith(kept_name):
                kept += tensor.elements
            continue
        fixed += tensor.size_bytes
        packed += count
        packed_bytes += tensor.size_bytes
    most = sizes.most_common(1)[0][0] if sizes else ""
    return CountedPart(
        name=part.name,
        parameters=parameters,
        elements=0 if part.dtype else elements,
        fixed_bytes=fixed + (elements * ELEMENT_BYTES[part.dtype] if part.dtype else 0),
        quantised=None if most in SAVED_DTYPES else most.lower() or None,
        kept_elements=kept,
        keeps_more=class_name.startswith(_KEEPS_MORE),
        dtype=part.dtype,
        unpacked_below=unpacked_below(part),
        packed=packed,
        packed_bytes=packed_bytes,
    )


def _find_decoder(part: Part) -> Decoder | None:
    for tensor in part.tensors:
        if tensor.name.endswith(_LAST_CONVOLUTION) and len(tensor.shape) in (4, 5):
            return Decoder(
                part=part.name,
                channels=tensor.shape[1],
                is_video=len(tensor.shape) == 5,
                is_upcast=part.config.get("force_upcast") is True,
            )
    return None


def _find_sound(model: SavedModel) -> SoundDecoder | None:
    """Return the autoencoder of sound of a pipeline, which makes as much as its denoiser does.

    That is always the same (Stable Audio), or as long as its call is asked for (ACE-Step).
    """
    by_class = {part.class_path: part for part in model.parts}
    decoder, denoiser = by_class.get(_SOUND_DECODER), by_class.get(_SOUND_DENOISER)
    if decoder is None or (denoiser is None and _TIMED_DENOISER not in by_class):
        return None
    ratios = decoder.config.get("downsampling_ratios")
    factors = [
        min(one, _LARGEST_RATIO)
        for one in (ratios if isinstance(ratios, (list, tuple)) else _RATIOS)[:_MOST_RATIOS]
        if isinstance(one, int) and one > 0
    ]
    channels = _number(decoder.config, ("decoder_channels",)) or _SOUND_CHANNELS
    if denoiser is None:
        length = _TIMED_SECONDS * (_number(decoder.config, ("sampling_rate",)) or _SOUND_RATE)
        return SoundDecoder(part=decoder.name, elements=channels * length, seconds=_TIMED_SECONDS)
    latents = _number(denoiser.config, ("sample_size",)) or _SOUND_LATENTS
    return SoundDecoder(part=decoder.name, elements=channels * latents * prod(factors))


def _find_language(model: SavedModel) -> Language | None:
    """Return the language model of a lone model that generates text, from its config."""
    if model.kind != "model" or not model.class_name.endswith(_GENERATES):
        return None
    inner = model.config.get("text_config")
    config = inner if isinstance(inner, Mapping) else model.config
    hidden = _number(config, ("hidden_size", "d_model", "n_embd"))
    layers = _number(config, ("num_hidden_layers", "n_layer", "num_layers"))
    heads = _number(config, ("num_attention_heads", "n_head", "num_heads"))
    if not hidden or not layers or not heads:
        return None
    key_heads = _number(config, ("num_key_value_heads",)) or heads
    width = _number(config, ("head_dim",)) or hidden // heads
    return Language(
        part=model.parts[0].name,
        hidden=hidden,
        intermediate=_number(config, ("intermediate_size", "d_ff", "n_inner")) or 4 * hidden,
        words=_number(config, ("vocab_size",)),
        cache_elements=2 * layers * key_heads * width,
        heads=heads,
        sight=find_sight(model.config, model.class_name),
        is_routed=any(config.get(key) for key in _EXPERTS),
    )


def _find_encoder(model: SavedModel) -> Encoder | None:
    """Return the encoder of a lone model that is given text alone, from its config."""
    is_encoder = model.kind == "model" and not model.class_name.endswith(_GENERATES)
    is_of_text = not any(key in model.config for key in _OF_SEVERAL)
    if not is_encoder or not is_of_text or not _number(model.config, ("vocab_size",)):
        return None
    hidden = _number(model.config, ("hidden_size", "d_model", "n_embd"))
    heads = _number(model.config, ("num_attention_heads", "n_head", "num_heads"))
    inner = _number(model.config, ("intermediate_size", "d_ff", "n_inner"))
    if not hidden or not heads:
        return None
    layers = _number(model.config, ("num_hidden_layers", "n_layer", "num_layers"))
    key_heads = _number(model.config, ("num_key_value_heads",))  # what looks both ways has none
    width = _number(model.config, ("head_dim",)) or hidden // heads
    return Encoder(
        part=model.parts[0].name,
        hidden=hidden,
        intermediate=inner or 4 * hidden,
        heads=heads,
        cache_elements=2 * layers * key_heads * width,
    )


def _number(config: Mapping[str, object], names: Sequence[str]) -> int:
    """Return the first of some numbers of a config that is one; 0 where none is."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _LARGEST:
            return value
    return 0
