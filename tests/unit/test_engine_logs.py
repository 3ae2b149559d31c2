"""Engine logs others published: what a file must say, and what the shipped ones say together."""

from __future__ import annotations

from pathlib import Path

import pytest

from vramplan.catalog import profiles_dir
from vramplan.catalog.engine_logs import (
    ROUNDING_BYTES,
    LoggedLoad,
    load_engine_log,
    load_engine_logs,
)
from vramplan.engines.ggml.build_rules import rules_of
from vramplan.errors import CatalogError
from vramplan.model import LineKind
from vramplan.sources.block_sizes import BLOCKS
from vramplan.units import MIB

LOG = """\
schema: 1
name: one
source: a test
date: "2025-03-10"
program: llama.cpp
build: b4863
build_from: printed by the log
backend: CUDA
settings: {context: 2048, ubatch: 512, flash_attention: off, kv_type: f16, parallel: 1}
layers: {on_gpu: 1, total: 3}
model: {name: tiny, architecture: llama, layers: 2, embedding: 64, feed_forward: 128, heads: 2,
        kv_heads: 2, head_size: 32, vocabulary: 100}
buffers:
  - {device: CUDA0, name: KV, mib: 0.50}
  - {device: CUDA_Host, name: KV, mib: 0.25}
  - {device: CPU, name: KV, mib: 0.25}
"""

SHIPPED = load_engine_logs(profiles_dir())


def read(folder: Path, text: str) -> LoggedLoad:
    path = folder / "one.yaml"
    path.write_text(text, encoding="utf-8")
    return load_engine_log(path)


def test_a_log_tells_settings_that_an_estimate_takes(tmp_path: Path) -> None:
    log = read(tmp_path, LOG)
    assert log.settings["engine"] == "b4863"
    assert log.settings["gpu_layers"] == 1
    assert log.settings["flash_attention"] == "off"


def test_pinned_memory_is_the_hosts(tmp_path: Path) -> None:
    log = read(tmp_path, LOG)
    assert log.buffer_bytes(LineKind.KV_CACHE, on_gpu=True) == MIB // 2
    assert log.buffer_bytes(LineKind.KV_CACHE, on_gpu=False) == MIB // 2
    assert log.buffer_bytes(LineKind.COMPUTE_BUFFER, on_gpu=True) is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: one", "name: two", "the file is called one.yaml"),
        ("build: b4863\n", "", "one of `build`"),
        ("build: b4863", "build: newest", "'newest' is not accepted"),
        ("total: 3", "total: 5", "expected the model's layers and the output layer"),
        ("on_gpu: 1", "on_gpu: 4", "more than there are"),
        ("kv_type: f16", "kv_type: f17", "unknown kv_type 'f17'"),
        ("backend: CUDA", "backend: Metal", "unknown backend 'Metal'"),
        ("mib: 0.50", "mib: lots", "expected a number"),
        ("source: a test\n", "", "the key 'source' is missing"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in LOG
    with pytest.raises(CatalogError, match=said) as caught:
        read(tmp_path, LOG.replace(old, new))
    assert "one.yaml:" in str(caught.value)


def test_a_folder_without_logs_has_none(tmp_path: Path) -> None:
    assert load_engine_logs(tmp_path) == ()


def test_the_shipped_logs_are_many_and_from_many_builds() -> None:
    assert len(SHIPPED) >= 25
    assert len({log.model.architecture for log in SHIPPED}) >= 5
    assert len({log.settings["engine"] for log in SHIPPED}) >= 8
    assert sum(0 < log.on_gpu < log.total_layers for log in SHIPPED) >= 4


@pytest.mark.parametrize("log", SHIPPED, ids=lambda log: log.name)
def test_every_shipped_log_has_a_source_and_rules(log: LoggedLoad) -> None:
    assert log.source.startswith("https://")
    assert rules_of(str(log.settings["engine"])).build >= 2000
    assert log.buffer_bytes(LineKind.COMPUTE_BUFFER, on_gpu=True)


@pytest.mark.parametrize(
    "log",
    [log for log in SHIPPED if any(b.name == "KV" for b in log.buffers)],
    ids=lambda log: log.name,
)
def test_a_shipped_logs_cache_is_the_product_of_its_shapes(log: LoggedLoad) -> None:
    """A figure or a shape that was copied wrongly would show here."""
    model, context = log.model, log.settings["context"]
    assert isinstance(context, int)
    block, size = BLOCKS[str(log.settings["kv_type"])]
    total = 2 * model.layers * model.kv_heads * model.head_size * context * size // block
    printed = sum(b.size_bytes for b in log.buffers if b.name == "KV")
    assert printed == pytest.approx(total, abs=2 * ROUNDING_BYTES)


@pytest.mark.parametrize(
    "log",
    [log for log in SHIPPED if any(b.name == "output" for b in log.buffers)],
    ids=lambda log: log.name,
)
def test_a_shipped_logs_output_buffer_is_rows_of_its_vocabulary(log: LoggedLoad) -> None:
    printed = sum(b.size_bytes for b in log.buffers if b.name == "output")
    row = log.model.vocabulary * 4
    rows = max(round(printed / row), 1)
    assert printed == pytest.approx(rows * row, abs=2 * ROUNDING_BYTES)
