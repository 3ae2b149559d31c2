"""JSON: the contract's fields, valid against the schema that ships."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramplan import __version__
from vramplan.report import serial

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "profiles" / "schema" / "output.schema.json"


@pytest.fixture(scope="module")
def validate():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema).validate


def _object(command: str, result: dict[str, Any]) -> dict[str, Any]:
    return json.loads(serial.to_json(command, result))


def test_the_frame_names_schema_version_and_command() -> None:
    assert _object("doctor", {"a": None}) == {
        "schema_version": 1,
        "vramplan": __version__,
        "command": "doctor",
        "result": {"a": None},
    }


def test_check_has_the_fields_scripts_rely_on(samples) -> None:
    verdict = serial.check_result(samples.verdicts)["verdicts"][0]
    assert set(verdict) >= {
        "pipeline", "card", "verdict", "need_low_bytes", "need_bytes", "need_high_bytes",
        "budget_bytes", "headroom_bytes", "offload_risk", "peak_phase", "peak_component", "advice",
    }  # fmt: skip
    assert verdict["verdict"] == "fits"
    assert verdict["headroom_bytes"] == verdict["budget_bytes"] - verdict["need_bytes"]
    assert verdict["components"][1] == {"name": "unet", "weights_bytes": 859_520_964}


def test_estimate_has_the_fields_scripts_rely_on(samples) -> None:
    result = serial.estimate_result(samples.llava)
    assert set(result["components"][0]) == {
        "name", "parameters", "dtype", "weights_bytes", "device"
    }  # fmt: skip
    assert set(result["phases"][0]) >= {
        "name", "allocated_peak_bytes", "reserved_peak_bytes", "device_used_bytes"
    }  # fmt: skip
    assert set(result["terms"][0]) == {
        "name", "kind", "device", "phase", "component", "low_bytes", "bytes", "high_bytes",
        "origin", "source",
    }  # fmt: skip
    assert set(result["peak"]) == {
        "phase", "component", "allocated_bytes", "reserved_bytes", "device_low_bytes",
        "device_bytes", "device_high_bytes",
    }  # fmt: skip
    assert set(result["buffers"]) == {
        "model_bytes", "kv_cache_bytes", "compute_bytes", "host_model_bytes",
        "host_kv_cache_bytes", "host_compute_bytes", "projector_bytes",
        "projector_compute_bytes", "pool_bytes", "recurrent_state_bytes",
    }  # fmt: skip
    assert result["layers"] == {"total": 33, "on_gpu": 33, "experts_on_cpu": 0}
    assert serial.estimate_result(samples.sd15)["settings"]["image"] == "512x512"


def test_absent_is_null_and_never_zero(samples) -> None:
    result = serial.estimate_result(samples.sd15)
    assert result["buffers"] is None
    assert result["layers"] is None
    assert result["terms"][0]["phase"] is None
    assert result["published"][1]["remark"] is None


def test_every_size_is_a_whole_number_of_bytes(samples) -> None:
    whole = [
        serial.check_result(samples.verdicts),
        *(serial.estimate_result(estimate) for estimate in samples.estimates),
        serial.cards_result(samples.cards),
    ]
    sizes = [value for key, value in _leaves(whole) if key == "bytes" or key.endswith("_bytes")]
    assert len(sizes) > 100
    assert all(value is None or type(value) is int for value in sizes)


def _leaves(node: Any, key: str = "") -> list[tuple[str, Any]]:
    if isinstance(node, dict):
        return [leaf for name, value in node.items() for leaf in _leaves(value, name)]
    if isinstance(node, list):
        return [leaf for value in node for leaf in _leaves(value, key)]
    return [(key, node)]


def test_the_timeline_loses_no_step(samples) -> None:
    runs = serial.estimate_result(samples.sd15)["timeline"]
    steps = [
        (run["phase"], run["component"], *sizes)
        for run in runs
        for sizes in zip(run["allocated_bytes"], run["reserved_bytes"], strict=True)
    ]
    assert steps == [
        (point.phase, point.component, point.allocated_bytes, point.reserved_bytes)
        for point in samples.sd15.timeline
    ]


def test_results_are_valid_by_the_schema(samples, validate) -> None:
    validate(_object("check", serial.check_result(samples.verdicts)))
    for estimate in samples.estimates:
        validate(_object("estimate", serial.estimate_result(estimate)))
    validate(_object("cards", serial.cards_result(samples.cards)))
    validate(_object("catalog", serial.catalog_result(samples.pipelines)))


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("verdict", "FITS"),
        ("need_bytes", 1.5),
        ("need_bytes", None),
        ("budget_bytes", "7 GiB"),
        ("offload_risk", 31),
        ("advice", None),
    ],
)
def test_the_schema_refuses_what_the_contract_forbids(samples, validate, field, wrong) -> None:
    import jsonschema

    result = serial.check_result(samples.verdicts)
    result["verdicts"][0][field] = wrong
    with pytest.raises(jsonschema.ValidationError):
        validate(_object("check", result))


def test_check_json_looks_as_it_did(samples, golden) -> None:
    text = serial.to_json("check", serial.check_result(samples.verdicts[:1]))
    golden("report_check.json", text.replace(__version__, "VERSION"))


def test_hostile_text_is_kept_and_cannot_reach_a_terminal(samples) -> None:
    evil = "\x1b[2J\u202e<script>\ud800\x9b"
    verdict = replace(samples.verdicts[0], pipeline=evil, offload_risk=float("nan"))
    text = serial.to_json("check", serial.check_result([verdict]))
    assert text.isascii()
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert json.loads(text)["result"]["verdicts"][0]["pipeline"] == evil
    assert json.loads(text)["result"]["verdicts"][0]["offload_risk"] is None


def test_json_loads_no_renderer() -> None:
    code = (
        "import sys; import vramplan.report.serial; "
        "print(sorted({'tabulate', 'jinja2', 'numpy', 'markupsafe', 'xml'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


_NUMBERS = st.integers() | st.floats(allow_infinity=False, allow_nan=False)


@given(
    st.recursive(
        st.none() | st.booleans() | _NUMBERS | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_is_written_as_the_standard_library_writes_it(value: Any) -> None:
    found = serial.to_json("doctor", {"a": value})
    whole = {"schema_version": 1, "vramplan": __version__, "command": "doctor"}
    assert found == json.dumps({**whole, "result": {"a": value}}, indent=2) + "\n"
