"""What a test would fetch from the hub, made here: stand-ins, and small models from configs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vramplan.engines.torch.record.saved.stand_ins import stand_in

Value = Any

#: what the small models of diffusers' tests have for sides, whatever their architecture
_SMALL: Mapping[str, Value] = {
    "hidden_size": 32, "d_model": 32, "d_ff": 37, "d_kv": 8, "num_layers": 2, "num_heads": 4,
    "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 2000, "projection_dim": 32,
    "n_embd": 32, "n_head": 4, "n_layer": 2, "depth": 2,
    "decoder_layers": 2, "encoder_layers": 2, "decoder_attention_heads": 4,
    "encoder_attention_heads": 4, "decoder_ffn_dim": 37, "encoder_ffn_dim": 37,
}  # fmt: skip
#: what the hub's own small models of a kind have instead
_SMALLER: Mapping[str, Mapping[str, Value]] = {
    "LlamaConfig": {"hidden_size": 16, "head_dim": 4, "intermediate_size": 64},
    "Qwen3VLTextConfig": {"hidden_size": 16},
    "Qwen3VLVisionConfig": {"out_hidden_size": 16},
}
#: where the stand-in of Qwen's tokenizer has its special tokens
_TOKENS: Mapping[str, int] = {
    "image_token_id": 6, "video_token_id": 7, "vision_start_token_id": 3, "vision_end_token_id": 4,
}  # fmt: skip
_TOKENIZERS = ("CLIP", "T5", "Qwen", "Gemma", "Roberta", "Bert")
_USUAL = "Qwen"  # what a repository has whose name says nothing
#: configs by what a repository is called
_CONFIGS: Mapping[str, str] = {
    "t5": "T5Config", "clip": "CLIPTextConfig", "gemma": "Gemma2Config", "qwen": "Qwen2Config",
    "llama": "LlamaConfig", "gpt2": "GPT2Config", "mistral": "MistralConfig", "bert": "BertConfig",
}  # fmt: skip


def make_instead_of_fetching() -> None:
    """Let whatever a test would fetch from the hub be made here."""
    import transformers
    from transformers.feature_extraction_utils import FeatureExtractionMixin
    from transformers.image_processing_utils import ImageProcessingMixin

    def tokenizer(cls: type, place: str = "", *_: Value, **__: Value) -> Value:
        name = cls.__name__
        if name.startswith("Auto"):
            at = str(place).lower()
            kind = next((one for one in _TOKENIZERS if one.lower() in at), _USUAL)
            name = f"{kind}Tokenizer"
        return _standing_for(f"transformers.{name}", {})

    def processor(cls: type, place: str = "", *_: Value, **__: Value) -> Value:
        name = cls.__name__
        if name.startswith("Auto"):
            is_third = "qwen3" in str(place).lower()
            name = "Qwen3VLProcessor" if is_third else "Qwen2VLProcessor"
        return _standing_for(f"transformers.{name}", {})

    def config(cls: Value, place: str = "", *_: Value, **__: Value) -> Value:
        if cls is not transformers.AutoConfig:
            return small_config(cls)
        name = next((_CONFIGS[one] for one in _CONFIGS if one in str(place).lower()), "")
        if not name:
            raise LookupError(f"the config of {place} is not here")
        return small_config(getattr(transformers, name))

    def model(cls: Value, *_: Value, **__: Value) -> Value:
        return small_model(cls)

    replaced: tuple[tuple[Value, Value], ...] = (
        (transformers.PreTrainedTokenizerBase, tokenizer),
        (transformers.AutoTokenizer, tokenizer),
        (transformers.ProcessorMixin, processor),
        (transformers.AutoProcessor, processor),
        (ImageProcessingMixin, processor),
        (FeatureExtractionMixin, processor),
        (transformers.PreTrainedConfig, config),
        (transformers.AutoConfig, config),
        (transformers.PreTrainedModel, model),
    )
    for owner, made in replaced:
        owner.from_pretrained = classmethod(made)


def _standing_for(class_path: str, ids: dict[str, int]) -> Value:
    made = stand_in(class_path, ids)
    made.stands_for = class_path
    return made


def made_for(part: Value, modules: Iterable[Value]) -> Value:
    """Return a stand-in again with the special tokens that the models beside it have."""
    class_path = getattr(part, "stands_for", None)
    ids: dict[str, int] = {}
    for one in modules:
        config = getattr(one, "config", None)
        if hasattr(config, "get_text_config"):
            ids |= {
                key: value
                for key, value in vars(config).items()
                if key.endswith("_token_id") and type(value) is int
            }
    return part if class_path is None or not ids else _standing_for(class_path, ids)


def small_model(cls: Value) -> Value:
    """Return a model of transformers with few layers and small sides."""
    return cls(small_config(cls.config_class))


def small_config(cls: Value, depth: int = 0) -> Value:
    """Return a config with few layers and small sides, and so are the configs in it."""
    made = cls()
    for key, value in {**_SMALL, **_SMALLER.get(cls.__name__, {})}.items():
        if type(getattr(made, key, None)) is int:
            setattr(made, key, value)
    for key, value in _TOKENS.items():
        if type(getattr(made, key, None)) is int:
            setattr(made, key, value)
    if type(pad := getattr(made, "pad_token_id", None)) is int and pad >= _SMALL["vocab_size"]:
        made.pad_token_id = 0
    for key, inner in list(vars(made).items()):
        if hasattr(inner, "to_dict") and depth < 2:
            setattr(made, key, small_config(type(inner), depth + 1))
    return made
