"""llama.cpp's server out of a Python binding: the real one over a small model, on the CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vramplan.engines.ggml.run import llama_binding
from vramplan.engines.ggml.run.llama_server import ServerJob, find_server, measure_server
from vramplan.engines.ggml.run.served_run import EngineTools
from vramplan.errors import MissingError

COMMAND = (sys.executable, "-m", llama_binding.__name__)


def a_model(path: Path) -> Path:
    """Write a llama of one layer with random weights; its words are the 256 bytes."""
    gguf = pytest.importorskip("gguf")
    import numpy as np

    pytest.importorskip(llama_binding.LIBRARY)
    width, hidden = 64, 128
    words = ["<unk>", "<s>", "</s>", *(f"<0x{number:02X}>" for number in range(256))]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types([2, 3, 3, *[6] * 256])
    random = np.random.default_rng(0)
    shapes = {
        "token_embd": (len(words), width),
        "output": (len(words), width),
        **{f"blk.0.attn_{part}": (width, width) for part in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (hidden, width),
        "blk.0.ffn_up": (hidden, width),
        "blk.0.ffn_down": (width, hidden),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.standard_normal(shape).astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_server_in_the_binding_is_measured_as_any_other(tmp_path: Path) -> None:
    pids: list[int] = []
    settings = {
        "context": 4096, "ubatch": 64, "kv_type": "q8_0", "flash_attention": "on",
        "gpu_layers": "all", "parallel": 2,
    }  # fmt: skip
    job = ServerJob(
        model=a_model(tmp_path / "m.gguf"),
        settings=settings,
        command=COMMAND,
        started=pids.append,
        new_tokens=2,
    )
    outcome = measure_server(job, EngineTools(limit_seconds=60))
    assert outcome.failure is None
    assert [one.phase for one in outcome.stretches] == [
        "load", "prefill", "generate", "prefill", "generate",
    ]  # fmt: skip
    sizes = {one.name: one.size_bytes for one in outcome.buffers}
    # keys and values of 64 numbers a token, in blocks of 32 that take 34 bytes each
    assert sizes["KV"] == pytest.approx(4096 * 2 * 2 * 34, abs=0.01 * (1 << 20))
    assert outcome.facts["n_ubatch"] == "64"
    assert outcome.facts["flash_attn"] == "enabled"
    assert llama_binding.LIBRARY in outcome.versions
    assert not Path(f"/proc/{pids[0]}").exists()


def test_a_model_that_the_binding_refuses_is_a_result(tmp_path: Path) -> None:
    pytest.importorskip(llama_binding.LIBRARY)
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF and no more")
    job = ServerJob(model=path, settings={}, command=COMMAND)
    outcome = measure_server(job, EngineTools(limit_seconds=60))
    assert outcome.failure is not None
    assert outcome.failure.phase == "load"


#: a binding that sees what is said
FAKE = """
BUILD_INFO = {{}}
def get_device_info():
    {body}
"""


@pytest.mark.parametrize(
    ("body", "is_taken"),
    [
        ("return [{'name': 'CPU'}, {'name': 'CUDA0'}]", True),
        ("return [{'name': 'CPU'}]", False),
        ("raise SystemExit(9)", False),
    ],
)
def test_without_a_llama_server_a_binding_with_cuda_will_do(
    tmp_path: Path, monkeypatch, body: str, is_taken: bool
) -> None:
    (tmp_path / f"{llama_binding.LIBRARY}.py").write_text(FAKE.format(body=body))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    if is_taken:
        assert find_server() == COMMAND
        return
    with pytest.raises(MissingError, match="llama-server is not on the PATH") as raised:
        find_server()
    assert "wheel for CUDA" in raised.value.hint
