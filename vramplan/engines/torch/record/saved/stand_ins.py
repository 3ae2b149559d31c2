"""Tokenizers and processors without files: a token for each byte.

What a tokenizer would say of a prompt decides nothing about memory but how many tokens there are,
and pipelines pad prompts to a length of their own. So a folder's tokenizers are not needed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vramplan.engines.torch.record.classes import find_class
from vramplan.errors import RecordingError

Value = Any

#: a chat template of turns, as pipelines hand prompts to language models
_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif c['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: special tokens of each kind of tokenizer, and which of them are what
_QWEN = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
_PLAIN = ("<unk>", "<s>", "</s>", "<pad>", "<image>", "<|begin_of_text|>", "<|eot_id|>")
_GEMMA = (
    *("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
    *("<image_soft_token>", "<start_of_image>", "<end_of_image>"),
)
_MOST_TOKENS = 1 << 24
#: what a processor asks its tokenizer for, and how many such things it may ask for
_ASKED = re.compile(r"has no attribute '?([a-z][a-z0-9_]{0,40}_token)'?$")
_MOST_ASKED = 16
#: what stands for an image and for a video in a prompt, and around them, whatever the kind
_PICTURES = {
    "image_token": ("<|image_pad|>", "<image_soft_token>", "<image>"),
    "video_token": ("<|video_pad|>",),
    "vision_start_token": ("<|vision_start|>", "<start_of_image>"),
    "vision_end_token": ("<|vision_end|>", "<end_of_image>"),
}
#: how many tokens a prompt has at most, where a pipeline asks the tokenizer
_LONGEST = {"CLIP": 77, "T5": 512, "Bert": 512, "Roberta": 512, "XLMRoberta": 512, "MPNet": 512}
_LONGEST_OTHER = 4096


def stand_in(class_path: str, image_tokens: dict[str, int]) -> Value:
    """Return a tokenizer, processor or feature extractor of a class of transformers.

    `image_tokens` are the ids of a language model's config for images (image_token_id). Raises
    RecordingError where there is no stand-in.
    """
    name = class_path.rpartition(".")[2]
    plain = name.removesuffix("Fast").removesuffix("Pil")
    if not plain.endswith(("Tokenizer", "Processor", "FeatureExtractor")):
        raise RecordingError(f"{class_path} has no weights, and there is no stand-in for it")
    try:
        if "Tokenizer" in name:
            return _tokenizer(name, image_tokens)
        cls = find_class(class_path)
        if name.endswith("Processor") and "tokenizer" in inspect.signature(cls.__init__).parameters:
            return _processor(cls, image_tokens)
        return cls()
    except RecordingError:
        raise
    except Exception as problem:  # noqa: BLE001  # whatever a class does at its defaults
        of_images = ("ImageProcessor", "VideoProcessor", "FeatureExtractor")
        if isinstance(problem, ImportError) and not plain.endswith(of_images):
            # what reads images wants a library; prompts alone do not
            return _tokenizer(name, image_tokens)
        words = " ".join(str(problem).split())[:200]
        raise RecordingError(f"there is no stand-in for {class_path}: {words}") from None


def _tokenizer(name: str, image_tokens: dict[str, int]) -> Value:
    ids = {
        token: image_tokens[f"{key}_id"]
        for key, tokens in _PICTURES.items()
        if f"{key}_id" in image_tokens
        for token in tokens
    }
    kinds: tuple[tuple[str, Callable[[], Value]], ...] = (
        ("CLIP", _clip),
        ("T5", _t5),
        ("Qwen", lambda: _bytewise(_QWEN, ids, pad="<|endoftext|>", eos="<|im_end|>")),
        ("Gemma", lambda: _bytewise(_GEMMA, ids, pad="<pad>", eos="<eos>", bos="<bos>")),
        ("Bert", lambda: _bytewise(("[PAD]", "[UNK]", "[CLS]", "[SEP]"), ids, pad="[PAD]")),
    )
    make = next((make for kind, make in kinds if name.startswith(kind)), None)
    made = make() if make else _bytewise(_PLAIN, ids, pad="<pad>", eos="</s>", bos="<s>")
    longest = next((n for kind, n in _LONGEST.items() if name.startswith(kind)), _LONGEST_OTHER)
    made.model_max_length = longest
    known = made.get_vocab()
    for key, tokens in _PICTURES.items():
        token = next((one for one in tokens if one in known), None)
        if token is not None:
            setattr(made, key, token)
            setattr(made, f"{key}_id", known[token])
    return made


def _alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _bytewise(specials: tuple[str, ...], ids: Mapping[str, int], **which: str) -> Value:
    """Return a tokenizer of bytes; `ids` are what a model's config says of special tokens."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    words = [*specials, *_alphabet()]
    made = Tokenizer(models.BPE(vocab=_numbered(words, ids), merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if "bos" in which:  # so an empty prompt is a token too
        begin = which["bos"]
        made.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, made.token_to_id(begin))]
        )
    tokens = {f"{key}_token": token for key, token in which.items()}
    found = transformers.PreTrainedTokenizerFast(tokenizer_object=made, **tokens)
    others = [token for token in specials if token not in which.values()]
    found.add_special_tokens({"additional_special_tokens": others})
    found.chat_template = _CHAT
    return found


def _numbered(words: Sequence[str], ids: Mapping[str, int]) -> dict[str, int]:
    """Give words numbers one after the other, but for those that have theirs."""
    own = {word: ids[word] for word in words if 0 <= ids.get(word, -1) < _MOST_TOKENS}
    taken = set(own.values())
    free = (number for number in range(len(words) + len(own)) if number not in taken)
    return {word: own[word] if word in own else next(free) for word in words}


def _clip() -> Value:
    import transformers

    words = [*_alphabet(), *(f"{word}</w>" for word in _alphabet())]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {word: n for n, word in enumerate(words)}
    if _takes_words(transformers.CLIPTokenizer):
        return transformers.CLIPTokenizer(vocab=vocab, merges=[])
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    made = Tokenizer(
        models.BPE(vocab, [], unk_token="<|endoftext|>", end_of_word_suffix="</w>")  # noqa: S106  # no secret
    )
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    first, last = ((word, vocab[word]) for word in words[-2:])
    made.post_processor = processors.RobertaProcessing(last, first)
    return transformers.CLIPTokenizerFast(tokenizer_object=made)


def _t5() -> Value:
    import transformers

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(chr(code), -3.0) for code in range(33, 127)]
    if _takes_words(transformers.T5TokenizerFast):
        return transformers.T5TokenizerFast(vocab=pieces, extra_ids=0)
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.Unigram(pieces, 2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return transformers.T5TokenizerFast(tokenizer_object=made, extra_ids=0)


def _takes_words(cls: Value) -> bool:
    """True where a tokenizer is made of words.

    Before transformers 5 it is read from files; one in tokenizers' own form is taken by each.
    """
    return "vocab" in inspect.signature(cls.__init__).parameters


def _processor(cls: Value, image_tokens: dict[str, int]) -> Value:
    import transformers

    tokenizer = _tokenizer(cls.__name__, image_tokens)
    wanted = inspect.signature(cls.__init__).parameters
    parts: dict[str, Value] = {"tokenizer": tokenizer}
    if "Qwen" in cls.__name__:
        is_third = cls.__name__.startswith("Qwen3")
        patch = {"patch_size": 16} if is_third else {}  # of its own a processor has the second's
        parts["image_processor"] = transformers.Qwen2VLImageProcessor(**patch)
        if "video_processor" in wanted:
            kind = "Qwen3VLVideoProcessor" if is_third else "Qwen2VLVideoProcessor"
            parts["video_processor"] = getattr(transformers, kind)()
    else:
        stem = cls.__name__.removesuffix("Processor")
        parts["image_processor"] = find_class(f"transformers.{stem}ImageProcessor")()
    template = {"chat_template": _CHAT} if "chat_template" in wanted else {}
    for _ in range(_MOST_ASKED):
        try:
            return cls(**parts, **template)
        except AttributeError as problem:  # a special token of this family alone
            asked = _ASKED.search(str(problem))
            if asked is None:
                raise
            token = f"<|{asked[1].removesuffix('_token')}|>"
            more = {"additional_special_tokens": [token]}
            tokenizer.add_special_tokens(more, False)  # besides those it has; its name has changed
            setattr(tokenizer, asked[1], token)
            setattr(tokenizer, f"{asked[1]}_id", tokenizer.convert_tokens_to_ids(token))
    raise RecordingError(f"{cls.__name__} wants too many tokens of its own")
