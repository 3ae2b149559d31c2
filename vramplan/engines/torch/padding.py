"""Padding: what a batch of prompts of different lengths takes that one of equal ones does not.

transformers makes no mask where nothing is padded, which is what tapes are recorded with. Else it
keeps one of every token before every other in a byte each, adds it to the scores in the run's dtype
in each layer, and repeats keys and values of grouped queries, for flash attention takes no mask.
Seen with transformers 5.23 in recordings of a Llama and a BERT (masking_utils.py, sdpa_mask;
integrations/sdpa_attention.py, use_gqa_in_sdpa).
"""

from __future__ import annotations

from vramplan.dtypes import ELEMENT_BYTES
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.model import Settings
from vramplan.units import format_size

_MASK_BYTES = 1


def mask_bytes(batch: int, tokens: int, element_bytes: int) -> int:
    """Return what masks take at once while a padded batch of prompts is read.

    The mask itself, and a layer's own in the run's dtype.
    """
    return batch * tokens * tokens * (_MASK_BYTES + element_bytes)


def padding_note(pipeline: TorchPipeline, settings: Settings) -> str | None:
    """Return that prompts are taken to be equally long, and what it would take otherwise.

    None where there is one prompt, or more than text in it.
    """
    batch, tokens = settings.get("batch", 1), settings.get("prompt_tokens")
    if pipeline.runtime != "transformers" or "image" in settings:
        return None
    if not isinstance(batch, int) or not isinstance(tokens, int) or batch < 2:
        return None
    most = mask_bytes(batch, tokens, ELEMENT_BYTES[str(settings.get("dtype", "fp32"))])
    return (
        f"the {batch} prompts are taken to be equally long: with padding transformers makes masks, "
        f"up to {format_size(most, up=True)} while they are read, and flash attention takes none"
    )
