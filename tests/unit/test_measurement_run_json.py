"""A run as JSON and back, and hostile files of runs."""

from __future__ import annotations

import gzip
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramplan.engine_buffer import EngineBuffer
from vramplan.errors import MeasurementError
from vramplan.measurement.files import find_runs, is_run_file, read_run, runs_in
from vramplan.measurement.reading import DeviceMemory, ProcessMemory, TorchMemory
from vramplan.measurement.run import (
    ContextStep,
    Emulation,
    Failure,
    FailureKind,
    Held,
    MeasuredComponent,
    MeasuredGpu,
    PhaseEnd,
    Run,
    Stretch,
    Witness,
)
from vramplan.measurement.run_json import decode_run, encode_run

MEMORY = TorchMemory(
    allocated_bytes=1,
    reserved_bytes=2,
    allocated_peak_bytes=3,
    reserved_peak_bytes=4,
    requested_peak_bytes=3,
    inactive_split_bytes=0,
    retries=0,
)
DEVICE = DeviceMemory(
    total_bytes=8 << 30,
    used_bytes=1 << 30,
    free_bytes=6 << 30,
    reserved_bytes=1 << 30,
    processes=(ProcessMemory(pid=7, name="python", used_bytes=None),),
)
RUN = Run(
    pipeline="sd15",
    title="Stable Diffusion 1.5",
    runtime="diffusers",
    settings={"image": (512, 768), "batch": 1, "dtype": "fp16", "guidance": 7.5},
    weights="random",
    witness=Witness.SYNTHETIC,
    created="2026-11-26T12:00:00Z",
    command="vramplan profile sd15",
    gpu=MeasuredGpu(
        name="A card",
        compute_capability="9.0",
        total_bytes=8 << 30,
        reserved_bytes=None,
        driver="570.0",
    ),
    versions={"torch": "2.11.0"},
    kernels="8.6",
    emulation=Emulation(card="8gb", free_bytes=7 << 30, compute_capability="8.6"),
    before=DEVICE,
    context=(
        ContextStep(name="context", process_used_bytes=5, device_used_bytes=6, reserved_bytes=0),
    ),
    components=(MeasuredComponent(name="unet", parameters=1, weights_bytes=2, allocated_bytes=2),),
    stretches=(
        Stretch(phase="load", component="unet", turn="load", began_s=0, ended_s=1, torch=MEMORY),
        Stretch(phase="denoise", component="unet", turn="cold", began_s=1, ended_s=2.5),
    ),
    phase_ends=(
        PhaseEnd(
            phase="load",
            component="unet",
            turn="load",
            at_s=1.25,
            device_used_bytes=6 << 20,
            process_used_bytes=None,
            smi_used_bytes=6 << 20,
            smi_process_bytes=None,
            smi="| N/A |",
        ),
    ),
    buffers=(EngineBuffer(device="CUDA0", name="KV", size_bytes=256 << 20),),
    held=Held(device=DEVICE, torch=MEMORY, process_used_bytes=1 << 30, smi="| N/A |"),
    failure=Failure(
        kind=FailureKind.OOM, phase="denoise", component="unet", message="no", asked_bytes=20 << 20
    ),
    facts={"tokens": "64"},
    notes=("a note",),
)


def envelope(run: Run) -> dict[str, object]:
    return {
        "schema_version": 1,
        "vramplan": "0",
        "command": "profile",
        "result": {"run": encode_run(run)},
    }


def save(path: Path, run: Run) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(envelope(run)).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def test_a_run_comes_back_as_it_was() -> None:
    assert decode_run(json.loads(json.dumps(encode_run(RUN)))) == RUN


def test_a_run_of_before_nvidia_smi_was_asked_at_each_phases_end_is_read() -> None:
    written = json.loads(json.dumps(encode_run(RUN)))
    del written["phase_ends"]
    assert decode_run(written) == replace(RUN, phase_ends=())


def test_absent_is_null_and_an_image_is_written_as_on_the_command_line() -> None:
    written = encode_run(RUN)
    assert written["settings"]["image"] == "512x768"
    assert written["held"]["device"]["processes"][0]["used_bytes"] is None


@pytest.mark.parametrize("name", ["run.json", "run.json.gz"])
def test_a_file_comes_back(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, RUN)
    assert read_run(path) == RUN
    assert is_run_file(path)


def test_runs_are_found_by_pipeline_and_settings(tmp_path: Path) -> None:
    wide = replace(RUN, settings={**RUN.settings, "image": (768, 768)})
    save(tmp_path / "measured" / "card" / "b.json.gz", wide)
    save(tmp_path / "measured" / "card" / "a.json", RUN)
    (tmp_path / "measured" / "card" / ".a.json.7.part").write_text("{")
    (tmp_path / "measured" / "README.md").write_text("words")
    assert [path.name for path, _ in runs_in(tmp_path)] == ["a.json", "b.json.gz"]
    found = find_runs([tmp_path], "sd15", RUN.settings)
    assert [path.name for path, _ in found] == ["a.json"]
    assert not find_runs([tmp_path], "sdxl", RUN.settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpu": 7}, "run.gpu: is not an object"),
        ({"stretches": {}}, "run.stretches: is not a list"),
        ({"stretches": [{"phase": "load"}]}, r"run.stretches\[0\].component: is missing"),
        ({"created": 3}, "run.created: is not a text"),
        ({"witness": "me"}, "run.witness: is not one of gpu, pretended, dry, synthetic"),
        ({"settings": {"image": "0x0"}}, "run.settings.image"),
        ({"settings": {"colour": "red"}}, "unknown setting 'colour'"),
        ({"settings": {"batch": True}}, "run.settings.batch: is not a setting's value"),
        ({"versions": {"torch": 2}}, "run.versions.torch: is not a text"),
        ({"period_s": "soon"}, "run.period_s: is not a number"),
        ({"buffers": [{"device": "x", "name": "y", "size_bytes": 1 << 80}]}, "not a whole number"),
        ({"notes": ["x" * 300_000]}, "is not a text"),
    ],
)
def test_what_is_not_a_run_is_refused_with_its_place(change: dict, message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        decode_run({**encode_run(RUN), **change})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", "not JSON"),
        ("a.json", b"[1]", "not an object"),
        ("a.json", b'{"result": {}}', "not a measured run"),
        ("a.json", b"\xff\xfe", "not JSON"),
        ("a.json", b"[" * 100_000, "not JSON"),
        ("a.json.gz", b"not gzip", "damaged"),
        ("a.json.gz", gzip.compress(b"{}", mtime=0)[:-9], "damaged"),
        ("a.json.gz", gzip.compress(b" " * (70 << 20), mtime=0), "larger than"),
    ],
)
def test_a_damaged_file_is_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MeasurementError, match=message):
        read_run(path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(sorted(encode_run(RUN))),
)
def test_any_json_is_a_run_or_one_error(value: object, key: str) -> None:
    with suppress(MeasurementError):
        once = decode_run({**encode_run(RUN), key: value})
        run = decode_run(encode_run(once))  # six decimals are kept
        assert decode_run(encode_run(run)) == run
