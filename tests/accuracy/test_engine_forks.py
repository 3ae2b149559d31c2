"""A copy of a process that has loaded the engine does what a process of its own does."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from vramplan.engines.ggml import engine_process
from vramplan.engines.ggml.graph.recording import record
from vramplan.engines.ggml.open import open_model
from vramplan.engines.ggml.witness.answer import RefusedError, ask_engine
from vramplan.engines.ggml.witness.dry_run import request_of
from vramplan.engines.ggml.witness.pretended_card import PretendedCard
from vramplan.model import Settings
from vramplan.settings import resolve_settings

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux")

_PATH = Path(__file__).parents[1] / "sparse_gguf.py"
_SPEC = importlib.util.spec_from_file_location("sparse_gguf", _PATH)
sparse = sys.modules.setdefault("sparse_gguf", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(sparse)

forks = sys.modules["engine_forks"]  # which this folder's conftest has loaded
CARD = PretendedCard(name="pretended", total_bytes=8 << 30, free_bytes=7 << 30)


@pytest.mark.parametrize("name", ["llama", "qwen35"])
def test_a_copy_says_what_a_process_of_its_own_says(tmp_path, monkeypatch, name) -> None:
    path = sparse.write(tmp_path / "model.gguf", sparse.families()[name])
    pipeline = open_model(str(path), None)
    wanted = {"context": 2048, "parallel": 2, "gpu_layers": "auto"}
    chosen = resolve_settings(pipeline, {**pipeline.defaults, **wanted})
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(path.read_bytes()[:4000])
    found = []
    for start in (forks.start, forks.started_alone):
        monkeypatch.setattr(engine_process, "start", start)
        with pytest.raises(RefusedError) as refused:
            ask_engine(broken, chosen, card=CARD)
        request = request_of(path, chosen, None, "xllamacpp")
        graph = record(json.loads(request), tokens=512, outputs=1)
        planned = ask_engine(path, chosen, card=CARD)
        found.append((planned, ask_engine(path, chosen), graph, str(refused.value)))
    assert found[0] == found[1]


def test_a_copy_that_fails_is_told_by_its_exit_code() -> None:
    nothing = subprocess.DEVNULL
    with forks.Forked(["no-such-program.py"], nothing, subprocess.PIPE) as copy:
        assert b"no-such-program" in copy.stderr.read()
        assert copy.wait() == 1


def test_a_copy_works_in_the_folder_of_who_asks(tmp_path, monkeypatch) -> None:
    sparse.write(tmp_path / "model.gguf", sparse.families()["llama"])
    ask_engine(tmp_path / "model.gguf", _chosen(tmp_path), card=CARD)  # what is copied runs now
    monkeypatch.chdir(tmp_path)
    assert ask_engine(Path("model.gguf"), _chosen(tmp_path), card=CARD) is not None


def _chosen(folder: Path) -> Settings:
    pipeline = open_model(str(folder / "model.gguf"), None)
    return resolve_settings(pipeline, {"context": 2048})
