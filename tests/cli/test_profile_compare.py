"""``vramplan profile`` and ``vramplan compare``, on machines with and without a GPU."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from tools.tiny import write_tiny
from vramplan.ask.profile import played_card
from vramplan.ask.targets import make_jobs
from vramplan.catalog import load_catalog
from vramplan.engines.torch.checkpoint import checkpoint_of
from vramplan.engines.torch.measure import Order, measure_order
from vramplan.errors import MissingError, UsageError
from vramplan.extras import install_command
from vramplan.measurement.files import read_run
from vramplan.measurement.run import Failure, FailureKind, Witness
from vramplan.report.comparison_serial import comparison_result
from vramplan.report.serial import to_json

ROOT = Path(__file__).parents[2]
MIB = 1 << 20


def _load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules.setdefault(path.stem, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


synthetic = _load(ROOT / "tests" / "synthetic_runs.py")
sparse = _load(ROOT / "tests" / "sparse_gguf.py")
projectors = _load(ROOT / "tests" / "sparse_projectors.py")


@pytest.fixture
def a_file(tmp_path):
    """Write a run as `vramplan profile -o` does."""
    from vramplan.compare.comparison import compare_run

    def write(name: str = "run.json", **changes: object) -> Path:
        planned = synthetic.an_estimate()
        off = changes.pop("off", 0.01)
        run = replace(synthetic.a_run(planned, off=off), **changes)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        result = comparison_result(compare_run(planned, run), None)
        path.write_text(to_json("profile", result), encoding="utf-8")
        return path

    return write


# -- profile ------------------------------------------------------------------------------------


def test_without_a_gpu_it_says_what_can_be_done(run) -> None:
    pytest.importorskip("torch")
    result = run("profile", "sd15")
    assert (result.code, result.out) == (3, "")
    assert "no NVIDIA driver" in result.error
    assert "--dry-run" in result.hint
    assert "compare RUN" in result.hint


def test_without_torch_the_extra_is_named(run, monkeypatch) -> None:
    monkeypatch.setattr(
        "vramplan.engines.torch.libraries._is_installed", lambda name: name != "torch"
    )
    result = run("profile", "sd15", "--dry-run")
    assert result.code == 3
    assert result.error == "profiling needs torch, which is not installed"
    assert install_command("gpu") in result.hint


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sd15", "--weights", "/no/such/folder"], "not a folder"),
        (["denoising-ae", "--weights", "pretrained"], "names no repository"),
        (["sd15", "--dry-run", "--as-card", "8gb"], "--dry-run plays no card"),
        (["sd15", "--dry-run", "-o", "no/such/run.json"], "there is no folder"),
        (["sd15", "--dry-run", "-o", "/"], "it is a folder"),
        (["sd15", "--dry-run", "--weights", "hf:"], "not a name on the hub"),
        (["sd15", "--dry-run", "--weights", "hf:a/b/c"], "not a name on the hub"),
        (["sd16"], "sd16"),
        (["sd15", "--steps", "0"], "steps"),
    ],
)
def test_bad_use_is_one_line(run, words, said) -> None:
    result = run("profile", *words)
    assert (result.code, result.out) == (2, "")
    assert said in result.error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sd15", "--events"], "beside a run's file"),
        (["sd15", "--events", "-o", "run.html"], "beside a run's file"),
        (["sd15", "--events", "--json", "-o", "-"], "beside a run's file"),
        (["sd15", "--events", "-o", "run.json", "--dry-run"], "leave it out"),
        (["llava:7b", "--events", "-o", "run.json"], "leave it out"),
    ],
)
def test_events_need_torch_a_gpu_and_a_run_to_stand_beside(run, tmp_path, words, said) -> None:
    result = run("profile", *words)
    assert (result.code, result.out) == (2, "")
    assert said in result.error
    assert not list(tmp_path.iterdir())


def test_events_of_another_run_are_not_replaced_unasked(run, tmp_path) -> None:
    events = tmp_path / "run.history.json.gz"
    events.write_bytes(b"of another run")
    result = run("profile", "sd15", "--events", "-o", "run.json")
    assert (result.code, result.hint) == (2, "--force replaces it")
    assert result.error.endswith("run.history.json.gz: is there already")
    assert events.read_bytes() == b"of another run"


def test_events_are_never_there_by_half_nor_without_their_run(tmp_path) -> None:
    """An older run's go when a new one begins, a dead process's pieces when it has ended."""
    from vramplan.ask.events_file import events_beside, written_beside
    from vramplan.engines.torch.measure import no_half_of
    from vramplan.measurement.history import part_of

    events = events_beside(tmp_path / "run.json")
    assert events == tmp_path / "run.history.json.gz"
    events.write_bytes(b"of an older run")
    with no_half_of(str(events)):
        assert not events.exists()
        part_of(events).write_bytes(b"a half")
    assert not list(tmp_path.iterdir())

    def is_cut_short(problem: BaseException) -> None:
        with written_beside(events):
            events.write_bytes(b"whole")
            raise problem

    with pytest.raises(KeyboardInterrupt):
        is_cut_short(KeyboardInterrupt())
    assert not list(tmp_path.iterdir())
    with written_beside(events):
        events.write_bytes(b"whole")
    assert events.exists()


def test_a_card_that_is_too_full_names_who_holds_it(run, driver, gpu) -> None:
    pytest.importorskip("torch")
    busy = gpu(uuid="GPU-a", used=11000 * MIB, computing=[(77, 10000 * MIB)])
    driver(busy, names={77: "ollama"})
    result = run("profile", "sd15", "--as-card", "8gb")
    assert (result.code, result.out) == (3, "")
    assert "it cannot play it" in result.err
    assert "ollama (77): 10,000 MiB" in result.err


def test_where_weights_come_from() -> None:
    catalog = load_catalog([])
    (vae,) = make_jobs(["sd15-vae"], catalog, {})
    assert checkpoint_of("random", vae.pipeline) is None
    assert checkpoint_of("pretrained", vae.pipeline) == "stabilityai/sd-vae-ft-mse"
    assert checkpoint_of("hf:me/mine", vae.pipeline) == "me/mine"


def test_a_class_is_played_on_an_architecture_of_today() -> None:
    card = played_card("8gb", load_catalog([]))
    assert (card.name, card.compute_capability) == ("8gb", "8.6")
    assert card.total_bytes - card.reserved_bytes < 8 << 30
    with pytest.raises(UsageError):
        played_card("8M", load_catalog([]))


def test_a_dry_run_executes_the_code_and_has_no_figures(process, tmp_path, validate) -> None:
    pytest.importorskip("diffusers")
    tiny = write_tiny(tmp_path / "tiny")
    words = ("profile", "log-anomaly-ae", "--dry-run", "--catalog", tiny)
    result = process(*words, "-o", "run.json")
    assert (result.code, result.out) == (0, "")
    assert "loading encoder" in result.err
    data = json.loads((tmp_path / "run.json").read_text())
    validate(data)
    measured = read_run(tmp_path / "run.json")
    assert measured.witness is Witness.DRY
    assert measured.failure is None
    assert {one.torch for one in measured.stretches} == {None}
    assert {one.turn for one in measured.stretches} == {"load", "cold", "warm"}
    again = process("compare", "run.json")
    assert again.code == 0
    assert "nothing was measured" in again.out


def test_a_pipeline_that_breaks_exits_with_1_and_says_where(process, tmp_path) -> None:
    pytest.importorskip("diffusers")
    text = (ROOT / "profiles/pipelines/log-anomaly-ae.yaml").read_text(encoding="utf-8")
    broken = tmp_path / "broken.yaml"
    broken.write_text(text.replace("in_features: 16, out", "in_features: 17, out"))
    result = process("profile", broken, "--dry-run", "--json")
    assert result.code == 1, result.err
    failure = result.json["result"]["run"]["failure"]
    assert (failure["kind"], failure["phase"]) == ("error", "decode")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_no_process_and_no_file(tmp_path, number) -> None:
    pytest.importorskip("torch")
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("ignored here, as below nohup: it stays so")
    # so many rows take minutes
    words = ["profile", "log-anomaly-ae", "--mode=train", "--batch=100000"]
    words += ["--dry-run", "-o", "run.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, "-m", "vramplan", *words],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in parent.stderr:  # until the child is at work
            if line.startswith("loading"):
                break
        children = _children(parent.pid)
        assert children
        parent.send_signal(number)
        _, rest = parent.communicate(timeout=30)
    finally:
        parent.kill()
    assert parent.returncode == 130
    assert "interrupted" in rest
    assert not list(tmp_path.iterdir())
    _assert_gone(children)


def _assert_gone(children: list[int]) -> None:
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in children):
            return
        time.sleep(0.05)
    raise AssertionError("a child is left")


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    if not path.exists():
        pytest.skip("the kernel does not list a process's children")
    return [int(word) for word in path.read_text().split()]


def test_a_run_is_made_again_where_neighbours_moved(monkeypatch) -> None:
    from vramplan.engines.torch import measure as measuring
    from vramplan.runner.outcome import Outcome

    outcomes = [
        Outcome(before=synthetic.a_device(10 * MIB, ()), after=synthetic.a_device(90 * MIB, ())),
        Outcome(before=synthetic.a_device(90 * MIB, ()), after=synthetic.a_device(90 * MIB, ())),
    ]
    monkeypatch.setattr(measuring, "_measure_once", lambda *_: outcomes.pop(0))
    (job,) = make_jobs(["sd15"], load_catalog([]), {})
    said: list[str] = []
    found = measure_order(Order(job=job), said.append)
    assert not outcomes
    assert said == ["other processes moved 80 MiB meanwhile: measuring again"]
    assert found.notes == ()


def test_neighbours_that_do_not_keep_still_are_said(monkeypatch) -> None:
    from vramplan.engines.torch import measure as measuring
    from vramplan.runner.outcome import Outcome

    def moving(*_: object) -> Outcome:
        before, after = synthetic.a_device(10 * MIB, ()), synthetic.a_device(90 * MIB, ())
        return Outcome(before=before, after=after)

    monkeypatch.setattr(measuring, "_measure_once", moving)
    (job,) = make_jobs(["sd15"], load_catalog([]), {})
    found = measure_order(Order(job=job), lambda _: None)
    assert "moved 80 MiB" in found.notes[0]


def test_without_an_ollama_it_is_one_line(run, monkeypatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    result = run("profile", "llava:7b")
    assert (result.code, result.out) == (3, "")
    assert "error: no Ollama server" in result.err
    assert "ollama serve" in result.err


def test_a_server_of_our_own_does_not_outlive_a_kill(tmp_path) -> None:
    """SIGTERM is how `timeout` and service managers end us; the server holds a card's memory."""
    server = tmp_path / "llama-server"
    server.write_text(f"#!{sys.executable}\nimport time\nprint('up')\ntime.sleep(60)\n")
    server.chmod(0o755)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    parent = subprocess.Popen(
        [sys.executable, "-m", "vramplan", "profile", "llava-v1.5-7b", "--weights", "m.gguf"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in parent.stderr:
        if line.startswith("loading"):
            break
    children = []
    while not children:
        children = _children(parent.pid)
    parent.send_signal(signal.SIGTERM)
    _, rest = parent.communicate(timeout=30)
    assert (parent.returncode, rest.splitlines()[-1:]) == (130, ["interrupted"])
    _assert_gone(children)


def test_an_engine_is_not_run_dry(run) -> None:
    result = run("profile", "llava:7b", "--dry-run")
    assert result.code == 2
    assert "--dry-run is for torch pipelines" in result.error


# -- what was measured is never lost ------------------------------------------------------------


@pytest.mark.parametrize("tape", ["log-anomaly-ae", "nobody-recorded-it"])
def test_a_file_of_ones_own_is_measured_and_kept(process, tmp_path, validate, tape) -> None:
    """Whether or not there is a tape to plan it from."""
    pytest.importorskip("diffusers")
    text = (ROOT / "profiles/pipelines/log-anomaly-ae.yaml").read_text(encoding="utf-8")
    text = text.replace("name: log-anomaly-ae", "name: mine", 1)
    text = text.replace("tape: log-anomaly-ae", f"tape: {tape}", 1)
    assert f"tape: {tape}" in text
    (tmp_path / "my.yaml").write_text(text, encoding="utf-8")
    result = process("profile", "my.yaml", "--dry-run", "-o", "run.json")
    assert result.code == 0, result.err
    assert read_run(tmp_path / "run.json").pipeline == "mine"
    data = json.loads((tmp_path / "run.json").read_text())
    validate(data)
    assert (data["result"]["peak"] is None) == (tape != "log-anomaly-ae")
    said = "note: no estimate beside it: mine: no tape nobody-recorded-it.json"
    assert (said in result.err) == (tape != "log-anomaly-ae")


@pytest.fixture
def measured(monkeypatch) -> None:
    """Stand in for the GPU: what is measured is a made-up run."""
    from vramplan.engines.torch.engine import TorchEngine

    run = synthetic.a_run(synthetic.an_estimate())
    monkeypatch.setattr(TorchEngine, "measure", lambda *_: run)


@pytest.mark.usefixtures("measured")
def test_a_run_outlives_whatever_goes_wrong_with_its_estimate(run, monkeypatch, tmp_path) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("vramplan.ask.profile.compare_measured", fail)
    result = run("profile", "sd15", "-o", "run.json")
    assert result.code == 2
    assert "a mistake of ours" in result.err
    assert read_run(tmp_path / "run.json").pipeline == "sd15"


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("name", ["run.md", "run.html", "run.txt", "run.json"])
def test_a_run_without_an_estimate_is_shown_in_every_format(
    run, monkeypatch, tmp_path, name
) -> None:
    def fail(*_: object) -> None:
        raise UsageError("no tape <b>", hint="record one")

    monkeypatch.setattr("vramplan.ask.profile.compare_measured", fail)
    result = run("profile", "sd15", "-o", name)
    assert result.code == 0
    assert "note: no estimate beside it: no tape <b>; record one" in result.err
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert "decode" in text
    assert ("no tape" in text) == (name != "run.json")
    assert name != "run.html" or "no tape &lt;b&gt;" in text


#: a llama-server that loads at once, answers, and says what it was told
SERVER = """#!{python}
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
words = sys.argv
print("load_tensors:        CUDA0 model buffer size =  3847.55 MiB", file=sys.stderr, flush=True)
class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self): self.reply(b'{{"status":"ok"}}')
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kinds = [part["type"] for part in asked["messages"][0]["content"]]
        open({seen!r}, "w").write(json.dumps([words, kinds]))
        part = b'data: {{"choices":[{{"finish_reason":%s}}]}}\\n\\n'
        self.reply(part % b"null" + part % b'"stop"')
    def reply(self, data):
        self.send_response(200); self.end_headers(); self.wfile.write(data)
HTTPServer(("127.0.0.1", int(words[words.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture
def server(tmp_path, monkeypatch) -> Path:
    """Put a llama-server of ours on the PATH; what it was asked is in the file returned."""
    seen, path = tmp_path / "seen.json", tmp_path / "bin" / "llama-server"
    path.parent.mkdir()
    path.write_text(SERVER.format(python=sys.executable, seen=str(seen)))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)
    return seen


def test_a_model_file_is_measured_with_a_picture_where_it_sees(
    run, server, tmp_path, validate
) -> None:
    """The file is the model, the projector beside it is loaded and gets a picture."""
    sparse.write(tmp_path / "m.gguf", sparse.families()["llama"])
    blind = run("profile", "m.gguf", "-o", "blind.json")
    assert blind.code == 0, blind.err
    words, kinds = json.loads(server.read_text())
    assert words[words.index("-m") + 1] == "m.gguf"
    assert kinds == ["text"]
    sparse.write(tmp_path / "mmproj-f16.gguf", projectors.llava())
    seeing = run("profile", "m.gguf", "-o", "seeing.json")
    assert seeing.code == 0, seeing.err
    words, kinds = json.loads(server.read_text())
    assert words[words.index("--mmproj") + 1] == "mmproj-f16.gguf"
    assert kinds == ["text", "image_url"]
    for name, phase in (("blind", "prefill"), ("seeing", "encode_image")):
        data = json.loads((tmp_path / f"{name}.json").read_text())
        validate(data)
        assert data["result"]["pipeline"] == "m"
        assert data["result"]["run"]["stretches"][1]["phase"] == phase
        assert data["result"]["buffers"], "the estimate stands beside it"


#: fills a card up, says what is free then, and holds it until it is let go
BALLAST = """
import os, sys
from vramplan.runner.channel import Channel
channel = Channel()
open({pid!r}, "w").write(str(os.getpid()))
channel.say("held", free_bytes=int(channel.hear()) - 7)
channel.hear()
"""


@pytest.mark.usefixtures("server")
def test_an_engine_runs_on_a_larger_card_that_plays_a_smaller_one(
    run, tmp_path, driver, gpu, monkeypatch, validate
) -> None:
    sparse.write(tmp_path / "m.gguf", sparse.families()["llama"])
    driver(gpu(uuid="GPU-a", total=24 << 30))
    script = BALLAST.format(pid=str(tmp_path / "pid"))
    asked = []

    def ballast(uuid: str) -> list[str]:
        asked.append(uuid)
        return [sys.executable, "-c", script]

    monkeypatch.setattr("vramplan.ask.profile.ballast_command", ballast)
    result = run("profile", "m.gguf", "--as-card", "8gb", "-o", "run.json")
    assert result.code == 0, result.err
    data = json.loads((tmp_path / "run.json").read_text())
    validate(data)
    eight = load_catalog([]).card("8gb").candidates[0]
    assert data["result"]["run"]["emulation"] == {
        "card": "8gb",
        "compute_capability": "8.6",
        "free_bytes": eight.total_bytes - eight.reserved_bytes - 7,
    }
    assert asked == ["GPU-a"]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_an_engine_needs_a_larger_card_to_play_one(run, server, tmp_path, driver, gpu) -> None:
    sparse.write(tmp_path / "m.gguf", sparse.families()["llama"])
    none = run("profile", "m.gguf", "--as-card", "8gb")
    assert none.code == 3
    assert none.error.startswith("no GPU to play 8 GB class"), none.error
    assert "--engine-check" in none.err
    driver(gpu(uuid="GPU-a", total=6 << 30))
    small = run("profile", "m.gguf", "--as-card", "8gb")
    assert small.code == 3
    assert "it cannot play it" in small.err
    assert not server.exists(), "nothing was started"


def test_a_catalogued_model_that_sees_says_when_it_gets_no_picture(run, server, tmp_path) -> None:
    sparse.write(tmp_path / "x.gguf", sparse.families()["llama"])
    result = run("profile", "llava-v1.5-7b", "--weights", "x.gguf", "--json")
    assert result.code == 0, result.err
    assert "note: measured without a picture: no projector beside x.gguf" in result.err
    assert json.loads(server.read_text())[1] == ["text"]


def test_a_model_of_ollama_that_sees_is_known_by_its_projector() -> None:
    from vramplan.engines.ggml.measure import sees
    from vramplan.engines.ggml.pipeline import GgmlPipeline, ModelFile

    (catalogued,) = make_jobs(["llava:7b"], load_catalog([]), {})
    assert sees(catalogued)
    opened = GgmlPipeline(
        **{key: getattr(catalogued.pipeline, key) for key in (
            "name", "title", "summary", "runtime", "defaults", "constraints", "source", "path")},
        model=ModelFile(header=object(), projector=object()),
    )  # fmt: skip
    assert sees(replace(catalogued, pipeline=opened))
    blind = replace(opened, model=ModelFile(header=object()))
    assert not sees(replace(catalogued, pipeline=blind))


# -- compare ------------------------------------------------------------------------------------


def test_a_run_is_compared_on_any_machine(run, a_file, validate) -> None:
    path = a_file()
    result = run("compare", path)
    assert (result.code, result.err) == (0, "")
    assert "from the weights to what NVML shows" in result.out
    as_json = run("compare", path, "--json")
    validate(as_json.json)
    assert as_json.json["result"]["waterfall"]["unaccounted_bytes"] == 0
    # what compare writes can be compared again
    path.with_name("again.json").write_text(as_json.out)
    assert run("compare", path.with_name("again.json"), "--json").json == as_json.json


@pytest.mark.parametrize(("tolerance", "code"), [("10", 0), ("10%", 0), ("1", 1)])
def test_outside_the_tolerance_it_exits_with_1(run, a_file, tolerance, code) -> None:
    result = run("compare", a_file(off=0.03), "--tolerance", tolerance)
    assert result.code == code
    assert ("outside the tolerance" in result.err) == bool(code)


def test_a_page_and_markdown_are_written(run, a_file, tmp_path) -> None:
    path = a_file()
    assert run("compare", path, "-o", "c.html").code == 0
    assert "<svg" in (tmp_path / "c.html").read_text(encoding="utf-8")
    assert run("compare", path, "--format", "markdown").out.startswith("## sd15")


def test_a_target_takes_the_newest_run_at_its_settings(run, a_file) -> None:
    a_file("cat/measured/card/old.json", created="2026-01-01T00:00:00Z")
    newest = a_file("cat/measured/card/new.json", created="2026-02-01T00:00:00Z")
    result = run("compare", "sd15", "--catalog", newest.parents[2])
    assert result.code == 0
    assert result.err == f"note: {newest}; 1 others at these settings\n"
    none = run("compare", "sd15", "--image", "768", "--catalog", newest.parents[2])
    assert none.code == 3
    assert none.error == "sd15: no measured run at these settings"


def test_an_out_of_memory_error_is_shown_as_a_result(run, a_file) -> None:
    failure = Failure(
        kind=FailureKind.OOM,
        phase="decode_image",
        component="vae.decoder",
        message="OutOfMemoryError",
        asked_bytes=1152 * MIB,
    )
    result = run("compare", a_file(failure=failure))
    assert result.code == 0
    assert "✗ out of memory in decode_image · vae.decoder, asking for 1,152 MiB" in result.out


SMI = """\
| NVIDIA-SMI 570.124.04    Driver Version: 570.124.04    CUDA Version: 12.8     |
|   0  NVIDIA GeForce RTX 3060     Off |   00000000:01:00.0  On |           N/A |
|  0%   45C    P8    15W /  170W |    4735MiB /  12288MiB |      3%      Default |
| Processes:                                                                    |
|    0   N/A  N/A      1823      G   /usr/lib/xorg/Xorg                  300MiB |
|    0   N/A  N/A     47110      C   python                             4435MiB |
"""


def test_what_nvidia_smi_printed_is_explained(run, tmp_path, monkeypatch, validate) -> None:
    (tmp_path / "smi.txt").write_text(SMI)
    result = run("compare", "sd15", "--smi", "smi.txt")
    assert (result.code, result.err) == (0, "")
    assert "taken for the pipeline: python (47110), 4,435 MiB" in result.out
    assert "nvidia-smi shows" in result.out
    assert "is assumed" not in result.out, "the catalogue knows the card by its name"
    (tmp_path / "other.txt").write_text(SMI.replace("RTX 3060", "..."))
    other = run("compare", "sd15", "--smi", "other.txt")
    assert "compute capability 8.6 is assumed" in other.out
    monkeypatch.setattr(sys, "stdin", io.StringIO(SMI))
    piped = run("compare", "sd15", "--smi", "-", "--json")
    validate(piped.json)
    steps = {step["name"]: step for step in piped.json["result"]["waterfall"]["steps"]}
    assert steps["other processes"]["bytes"] == 300 * MIB
    assert piped.json["result"]["waterfall"]["shown_bytes"] == 4735 * MIB


def test_an_engine_of_buffers_has_no_activations(run, tmp_path) -> None:
    held = SMI.replace(" 4435MiB", " 5935MiB").replace(" 4735MiB", " 6235MiB")
    (tmp_path / "smi.txt").write_text(held)
    result = run("compare", "llava:7b", "--smi", "smi.txt", "--json")
    names = [step["name"] for step in result.json["result"]["waterfall"]["steps"]]
    assert "compute buffer" in names
    assert "activations" not in names
    torch = run("compare", "sd15", "--smi", "smi.txt", "--json").json["result"]["waterfall"]
    assert "activations" in [step["name"] for step in torch["steps"]]


def test_a_process_that_runs_is_explained(run, driver, gpu) -> None:
    card = gpu(uuid="GPU-a", used=4735 * MIB, computing=[(47110, 4435 * MIB), (5, 300 * MIB)])
    driver(card, names={47110: "python", 5: "other"})
    result = run("compare", "sd15", "--pid", "47110", "--json")
    waterfall = result.json["result"]["waterfall"]
    assert waterfall["shown_bytes"] == 4735 * MIB
    assert {"name": "other processes", "estimate_bytes": None, "bytes": 300 * MIB,
            "basis": "measured"} in waterfall["steps"]  # fmt: skip
    missing = run("compare", "sd15", "--pid", "6")
    assert missing.code == 2
    assert missing.error == "process 6 has no memory on any GPU"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing.json"], "nothing.json: no such file"),
        (["run.json", "--gpu", "0"], "--gpu is for --pid and --smi"),
        (["nothing.json.gz"], "nothing.json.gz: no such file"),
        (["sd15", "--pid", "x"], "not a process's number"),
        (["sd15", "--tolerance", "-1"], "not a percentage"),
        (["sd15", "--smi", "no.txt"], "cannot be read"),
        (["sd15", "--pid", "5"], "no NVIDIA driver"),
    ],
)
def test_bad_use_of_compare_is_one_line(run, words, said) -> None:
    result = run("compare", *words)
    assert result.code in (2, 3)
    assert result.out == ""
    assert said in result.error


def test_a_run_has_its_settings_already(run, a_file) -> None:
    path = a_file()
    assert "a run has its settings" in run("compare", path, "--batch", "2").error
    assert "neither --pid nor --smi" in run("compare", path, "--pid", "5").error


TWO = """\
index, name, uuid, memory.total [MiB], memory.used [MiB]
0, NVIDIA A2, GPU-a, 15356 MiB, 10 MiB
1, NVIDIA A2, GPU-b, 15356 MiB, 4435 MiB
"""


def test_of_several_gpus_the_one_that_works_is_explained(run, tmp_path) -> None:
    second = SMI.replace("|   0  NV", "|   1  NV").replace("|    0   N/A", "|    1   N/A")
    lines = [*SMI.splitlines()[:3], *second.splitlines()[1:]]
    idle = "\n".join(lines).replace("   4735MiB", "      1MiB", 1)
    (tmp_path / "smi.txt").write_text(idle)
    result = run("compare", "sd15", "--smi", "smi.txt")
    assert "GPU 1 of 0, 1; --gpu takes another" in result.out
    assert "python (47110)" in result.out
    (tmp_path / "two.csv").write_text(TWO)
    named = run("compare", "sd15", "--smi", "two.csv", "--gpu", "GPU-b", "--json")
    assert named.json["result"]["waterfall"]["shown_bytes"] == 4435 * MIB
    assert "it lists 0, 1" in run("compare", "sd15", "--smi", "two.csv", "--gpu", "7").hint


def test_sizes_that_windows_does_not_tell_are_said_to_be_unknown(run, tmp_path) -> None:
    (tmp_path / "smi.txt").write_text(
        SMI.replace(" 4435MiB", "     N/A").replace("300MiB", "N/A   ")
    )
    result = run("compare", "sd15", "--smi", "smi.txt")
    assert "what single processes hold is not told" in result.out


def test_a_driver_that_lists_nobody_is_told_from_a_process_that_holds_nothing(
    run, driver, gpu
) -> None:
    unsupported = 3  # NVML_ERROR_NOT_SUPPORTED
    mute = {"computing": unsupported, "drawing": unsupported}
    driver(gpu(uuid="GPU-a", used=4735 * MIB, **mute))
    result = run("compare", "sd15", "--pid", "6")
    assert result.code == 3
    assert "does not tell which processes" in result.error
    assert "--smi -" in result.hint


def test_text_that_nvidia_smi_did_not_print_is_refused(run, tmp_path) -> None:
    (tmp_path / "x.txt").write_text("hello")
    assert "not what nvidia-smi prints" in run("compare", "sd15", "--smi", "x.txt").error


def test_missing_errors_exit_with_3() -> None:
    assert MissingError("x").exit_code == 3


# -- nvidia-smi at the ends of phases ------------------------------------------------------------


SMI_LOG = """\
==============NVSMI LOG==============

Driver Version                            : 550.54.14
Attached GPUs                             : 1
GPU 00000000:01:00.0
    FB Memory Usage
        Total                             : 12288 MiB
        Used                              : 5512 MiB
        Free                              : 6545 MiB
    Processes                             : None
"""


def test_a_measurement_on_a_gpu_is_handed_nvidia_smi_and_keeps_what_it_said(
    tmp_path, monkeypatch
) -> None:
    from vramplan.engines.ggml import measure as engine_profile
    from vramplan.engines.torch import measure as measuring
    from vramplan.probe import nvml
    from vramplan.probe.nvml import Gpu
    from vramplan.runner.outcome import Outcome

    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!{sys.executable}\nprint({SMI_LOG!r})\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nvml, "NvmlProbe", lambda _uuid: nullcontext())
    gpu = Gpu(
        index=0, name="A card", uuid="GPU-1", total_bytes=12 << 30, used_bytes=0,
        free_bytes=12 << 30, reserved_bytes=0, compute_capability="8.6", bandwidth_bytes_per_s=1,
    )  # fmt: skip
    (job,) = make_jobs(["sd15"], load_catalog([]), {})
    order = Order(job=job, gpu=gpu)
    torch_tools = measuring._means(order, measuring.make_task(order), None, print)
    with ExitStack() as stack:
        engine_tools = engine_profile._engine_tools(gpu, stack, lambda _: None, print)
    for tools in (torch_tools, engine_tools):
        assert tools.smi_eyes.look().memory.used_bytes == 5512 * MIB
    ends = synthetic.a_run(synthetic.an_estimate()).phase_ends
    run = measuring._make_run(order, Outcome(phase_ends=list(ends)))
    assert run.phase_ends == ends
