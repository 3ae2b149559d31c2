"""A file with tensors that its family does not read is refused, as llama.cpp does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tools.model_files import sparse_module
from vramplan.engines.ggml.coverage import KNOWN
from vramplan.engines.ggml.family_tensors import READ
from vramplan.engines.ggml.tensor_names import IN_LAYERS, OUTSIDE, refuse_unknown, stem_of
from vramplan.errors import SourceError
from vramplan.sources.gguf import read_gguf
from vramplan.sources.gguf_header import GgufFile, GgufTensor

pytest.importorskip("gguf")

FAMILIES = sparse_module("sparse_gguf").families()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_own_tensors_are_taken(tmp_path, name) -> None:
    refuse_unknown(
        read_gguf(sparse_module("sparse_gguf").write(tmp_path / "m.gguf", FAMILIES[name]))
    )


@pytest.mark.parametrize(
    ("name", "tensor", "why"),
    [
        ("llama", "blk.0.attn_q_norm.weight", "it reads no blk.0.attn_q_norm.weight in llama"),
        ("llama", "blk.1.ssm_in.weight", "it reads no blk.1.ssm_in.weight in llama"),
        ("qwen3", "position_embd.weight", "it reads no position_embd.weight in qwen3"),
        ("gemma2", "blk.0.attn_sinks.weight", "it reads no blk.0.attn_sinks.weight in gemma2"),
        ("gemma3", "blk.0.ffn_gate_exps.weight", "it reads no blk.0.ffn_gate_exps.weight"),
        ("llama", "v.patch_embd.weight", "it does not know v.patch_embd.weight"),
    ],
)
def test_anothers_are_not(tmp_path, name, tensor, why) -> None:
    file = read_gguf(sparse_module("sparse_gguf").write(tmp_path / "m.gguf", FAMILIES[name]))
    more = GgufTensor(name=tensor, shape=(128,), type="f32")
    with pytest.raises(SourceError, match=rf"wrong number of tensors.*{why}"):
        refuse_unknown(replace(file, tensors=(*file.tensors, more)))


@pytest.mark.parametrize(
    ("name", "tensors"),
    [  # what the engine asks for with other keys than most files of the family have
        ("llama", "blk.0.ffn_gate_shexp.weight rope_factors_long.weight rope_freqs.weight"),
        ("llama", "blk.0.attn_q.bias blk.0.attn_q.scale blk.0.ffn_up.input_scale"),
        ("gemma4", "blk.0.ffn_gate_exps.weight blk.0.ffn_up_exps.scale"),
        ("exaone4", "blk.4.nextn.eh_proj.weight"),
        ("qwen3", "cls.output.weight"),
        ("lfm2", "cls.weight dense_2.weight"),
        ("deepseek2", "blk.0.attn_kv_b.weight blk.0.attn_k_b.weight blk.4.nextn.hnorm.weight"),
    ],
)
def test_what_keys_decide_is_taken(name, tensors) -> None:
    more = tuple(GgufTensor(name=one, shape=(128,), type="f32") for one in tensors.split())
    metadata = {"general.architecture": name}
    refuse_unknown(GgufFile(path="m", version=3, metadata=metadata, lengths={}, tensors=more))


def test_every_family_that_is_known_has_its_names() -> None:
    assert READ.keys() == KNOWN
    for name, (in_layers, outside) in READ.items():
        assert set(in_layers.split()) <= IN_LAYERS, name
        assert set(outside.split()) <= OUTSIDE, name
        assert "token_embd" in outside.split(), name


@pytest.mark.parametrize(
    ("tensor", "stem"),
    [
        ("blk.11.attn_q.weight", (True, "attn_q")),
        ("enc.blk.0.attn_rel_b.weight", (True, "attn_rel_b")),
        ("blk.3.ffn_down.7.weight", (True, "ffn_down.%d")),
        ("blk.0.ssm_a", (True, "ssm_a")),
        ("blk.0.attn_q.input_scale", (True, "attn_q")),
        ("output.bias", (False, "output")),
        ("convnext.2.dw.bias", (False, "convnext.%d.dw")),
    ],
)
def test_stems(tensor, stem) -> None:
    assert stem_of(tensor) == stem
