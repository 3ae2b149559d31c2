"""``vramplan check``: verdicts, exit codes, formats, projects, this machine's GPUs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from vramplan.catalog import profiles_dir

MIB = 1 << 20

#: ggml pipelines need no tape, so a verdict takes milliseconds
QUICK = ("check", "llava:7b")


def results_ship() -> bool:
    return (profiles_dir() / "tapes" / "results.json").is_file()


def test_a_verdict_for_each_pipeline_on_each_card(run, validate) -> None:
    result = run(*QUICK, "llava-v1.5-7b", "--card", "8gb", "--card", "12gb", "--json")
    assert result.err == ""
    validate(result.json)
    assert result.json["command"] == "check"
    verdicts = result.json["result"]["verdicts"]
    assert [(verdict["pipeline"], verdict["card"]) for verdict in verdicts] == [
        ("llava:7b", "8gb"),
        ("llava:7b", "12gb"),
        ("llava-v1.5-7b", "8gb"),
        ("llava-v1.5-7b", "12gb"),
    ]
    failed = any(verdict["verdict"] in ("offload", "oom") for verdict in verdicts)
    assert result.code == int(failed)
    for verdict in verdicts:
        assert verdict["headroom_bytes"] == verdict["budget_bytes"] - verdict["need_bytes"]
        names = [part["name"] for part in verdict["components"]]
        assert names == ["language_model", "vision_encoder", "projector"]


@pytest.mark.skipif(not results_ship(), reason="no replay results ship yet")
def test_the_first_command_of_the_readme(run, validate) -> None:
    result = run("check", "sd15", "llava:7b", "--card", "8gb", "--card", "12gb", "--json")
    assert (result.code, result.err) == (0, "")
    validate(result.json)
    verdicts = result.json["result"]["verdicts"]
    assert [verdict["verdict"] for verdict in verdicts] == ["fits"] * 4
    parts = {part["name"]: part["weights_bytes"] for part in verdicts[0]["components"]}
    assert parts["unet"] == 2 * 859_520_964
    assert {"text_encoder", "vae.encoder", "vae.decoder", "safety_checker"} <= set(parts)


def test_table(run) -> None:
    result = run(*QUICK, "--card", "8gb")
    assert (result.code, result.err) == (0, "")
    first, rule, row, *_ = result.out.splitlines()
    assert first.split()[:3] == ["pipeline", "card", "verdict"]
    assert set(rule) == {"─", " "}
    assert row.startswith("llava:7b")
    assert "✓ fits" in row
    assert "language_model  7,241,732,096  q4_0" in result.out


def test_markdown(run) -> None:
    result = run(*QUICK, "--card", "8gb", "--format", "markdown")
    assert (result.code, result.err) == (0, "")
    assert re.match(r"## Will it fit\?\n\n\| pipeline +\| card +\| verdict +\|", result.out)
    assert "| `llava:7b` | `8gb`" in result.out


def test_html(run, tmp_path) -> None:
    result = run(*QUICK, "--card", "8gb", "--card", "4gb", "-o", "fit.html")
    assert (result.code, result.out, result.err) == (1, "", "wrote fit.html\n")
    page = (tmp_path / "fit.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "llava:7b" in page
    assert "4gb" in page


# -- exit codes ---------------------------------------------------------------------------------


def test_what_does_not_fit_exits_with_1(run) -> None:
    result = run(*QUICK, "--card", "8gb", "--card", "4gb", "--json")
    assert result.code == 1
    assert [verdict["verdict"] for verdict in result.json["result"]["verdicts"]] == [
        "fits",
        "offload",
    ]


def tight_card(run) -> str:
    """Return a card between what llava:7b needs and what it may need."""
    verdict = run(*QUICK, "--gpu-layers", "all", "--card", "24GiB", "--json").json["result"][
        "verdicts"
    ][0]
    low, high = verdict["need_bytes"], verdict["need_high_bytes"]
    assert low < high
    return f"{(low + high) // 2 // MIB}MiB"


@pytest.mark.parametrize(("fail_on", "code"), [(None, 0), ("offload", 0), ("oom", 0), ("tight", 1)])
def test_tight_is_a_failure_only_when_asked(run, fail_on, code: int) -> None:
    card = tight_card(run)
    words = [*QUICK, "--gpu-layers", "all", "--card", card, "--json"]
    result = run(*words, *(["--fail-on", fail_on] if fail_on else []))
    assert result.json["result"]["verdicts"][0]["verdict"] == "tight"
    assert result.code == code


@pytest.mark.parametrize(("fail_on", "code"), [("tight", 1), ("offload", 1), ("oom", 0)])
def test_offload_may_be_let_pass(run, fail_on: str, code: int) -> None:
    result = run(*QUICK, "--card", "4gb", "--fail-on", fail_on, "--json")
    assert result.json["result"]["verdicts"][0]["verdict"] == "offload"
    assert result.code == code


# -- settings and budget ------------------------------------------------------------------------


def need(run, *words: str) -> int:
    return run(*QUICK, "--card", "24gb", "--json", *words).json["result"]["verdicts"][0][
        "need_bytes"
    ]


def test_settings_count_in_both_spellings(run) -> None:
    assert need(run, "--context", "8192") == need(run, "--set", "context=8192")
    assert need(run, "--context", "8192") > need(run)
    assert need(run, "--kv-type", "q8_0") < need(run)


def test_of_two_values_the_later_wins(run) -> None:
    assert need(run, "--set", "context=8192", "--context", "4096") == need(run)
    assert need(run, "--context", "4096", "--set", "context=8192") > need(run)


def test_margin_and_other_come_off_the_budget(run) -> None:
    def budget(*words: str) -> int:
        verdict = run(*QUICK, "--card", "12GiB", "--json", *words).json["result"]["verdicts"][0]
        return verdict["budget_bytes"]

    assert budget() == 12288 * MIB
    assert budget("--margin", "512MiB") == 11776 * MIB
    assert budget("--margin", "1GB") == 12288 * MIB - 10**9
    assert budget("--margin", "512MiB", "--other", "1GiB") == 10752 * MIB


def test_a_setting_that_one_target_does_not_have_names_that_target(run) -> None:
    result = run("check", "llava:7b", "sd15", "--card", "8gb", "--context", "4096")
    assert (result.code, result.out) == (2, "")
    assert result.error == "sd15 has no setting 'context'"
    assert result.hint.startswith("it has: mode, image,")


def test_each_target_has_settings_of_its_own(run, validate) -> None:
    """They go before what is meant for all, and what is shown names them."""
    own = "llava:7b[context=8192,kv_type=q8_0]"
    words = ("check", own, "llava:7b", "--context", "2048", "--card", "24gb")
    result = run(*words, "--json")
    assert (result.code, result.err) == (0, "")
    validate(result.json)
    first, second = result.json["result"]["verdicts"]
    assert first["need_bytes"] == need(run, "--context", "8192", "--kv-type", "q8_0")
    assert second["need_bytes"] == need(run, "--context", "2048")
    assert first["pipeline"] == second["pipeline"] == "llava:7b"
    assert (first["target"], second["target"]) == (own, "llava:7b[context=2048]")
    assert first["settings"] == {"context": 8192, "kv_type": "q8_0"}
    for format_ in ("table", "markdown", "html"):
        shown = run(*words, "--format", format_).out
        assert "context=8192 kv_type=q8_0" in shown.replace("\\", "")
        assert "context=2048" in shown
    assert shown.count("<section class=") >= 2 or shown.count("7b") > 4


def test_a_setting_for_all_that_one_does_not_have_says_where_it_may_stand(run) -> None:
    result = run("check", "llava:7b", "sd15[batch=2]", "--card", "8gb", "--context", "4096")
    assert (result.code, result.out) == (2, "")
    assert result.error == "sd15 has no setting 'context'"
    assert result.hint.endswith("for one target alone: 'TARGET[KEY=VALUE]'")
    assert run("check", "llava:7b[context=4096]", "sd15[batch=2]", "--card", "8gb").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("check", "{}", "--card", "8gb"),
        ("estimate", "{}"),
        ("plan", "{}", "--card", "8gb"),
        ("report", "{}", "--card", "8gb", "--json"),
        ("sweep", "{}", "--card", "8gb"),
        ("fit", "{}", "--card", "8gb"),
    ],
)
@pytest.mark.parametrize(
    ("target", "error", "hint"),
    [
        ("llava:7b[contxt=1]", "llava:7b: unknown setting 'contxt'", "did you mean 'context'?"),
        ("llava:7b[image=512]", "llava:7b has no setting 'image'", "it has: "),
        ("llava:7b[context=1", "'llava:7b[context=1': the bracket is not closed", "context=1]'"),
        ("lava:7b[context=1]", "unknown pipeline 'lava:7b'", "llava:7b"),
    ],
)
def test_every_command_reads_brackets_alike(run, words, target, error, hint) -> None:
    result = run(*(word.format(target) for word in words))
    assert (result.code, result.out) == (2, "")
    assert error in result.error
    assert hint in result.hint


@pytest.mark.parametrize("format_", ["table", "json", "markdown"])
def test_the_largest_that_fits_is_what_plan_says(run, validate, format_) -> None:
    words = ("check", "denoising-ae", "llava:7b", "--card", "8gb", "--largest")
    result = run(*words, "--format", format_)
    assert (result.code, result.err) == (0, "")
    plans = [
        run("plan", name, "--card", "8gb", "--json").json["result"]["largest"]
        for name in words[1:3]
    ]
    if format_ != "json":
        assert "largest that fits, with all else as it is" in result.out
        assert plans[0]["image"] in result.out
        return
    validate(result.json)
    assert [one["largest"] for one in result.json["result"]["verdicts"]] == plans
    plain = run(*words[:-1], "--json").json["result"]["verdicts"]
    assert [one["largest"] for one in plain] == [None, None]


def test_the_largest_has_no_page(run) -> None:
    assert "--largest has no page" in run(*QUICK, "--largest", "-o", "x.html").error


def test_together_names_what_differs(run) -> None:
    words = ("check", "llava:7b[context=2048]", "llava:7b", "--together", "--card", "24gb")
    (verdict,) = run(*words, "--json").json["result"]["verdicts"]
    assert verdict["pipeline"] == "llava:7b + llava:7b"
    assert verdict["target"] == "llava:7b[context=2048] + llava:7b"
    assert "llava:7b[context=2048] + llava:7b" in run(*words).out.replace("\n", " ")


def test_the_same_card_is_judged_once(run) -> None:
    result = run(*QUICK, "--card", "8gb", "--card", "8GB", "--json")
    assert len(result.json["result"]["verdicts"]) == 1


def test_together_adds_up(run, validate) -> None:
    words = ("check", "llava:7b", "llava-v1.5-7b", "--json", "--card")
    alone = run(*words, "24gb").json["result"]["verdicts"]
    result = run(*words, "24gb", "--together")
    validate(result.json)
    (verdict,) = result.json["result"]["verdicts"]
    assert verdict["pipeline"] == "llava:7b + llava-v1.5-7b"
    assert verdict["need_bytes"] == sum(one["need_bytes"] for one in alone)
    assert result.code == 0
    assert run(*words, "12gb", "--together").code == 1
    table = run(*words[:3], "--card", "24gb", "--together").out
    assert "llava:7b + llava-v1.5-7b" in table


# -- targets ------------------------------------------------------------------------------------


def test_a_yaml_file_is_a_target(run, tiny: Path) -> None:
    result = run("check", tiny, "--card", "8gb", "--json")
    assert (result.code, result.err) == (0, "")
    assert result.json["result"]["verdicts"][0]["pipeline"] == "tiny:1b"


def test_an_alias_in_any_case_is_a_target(run) -> None:
    result = run("check", "LLaVA:latest", "--card", "8gb", "--json")
    assert result.json["result"]["verdicts"][0]["pipeline"] == "llava:7b"


@pytest.mark.parametrize(
    ("target", "said", "hint"),
    [
        ("model.gguf", "model.gguf: cannot be read", ""),
        ("hf:sd15", "hf:sd15: not a repository", "the catalogue has it: sd15; hf:ORG/NAME"),
        (
            "ollama:llava:7b",
            "ollama:llava:7b: not installed, and http",
            "the catalogue has it: llava:7b; ollama pull llava:7b",
        ),
        (".", ".: no GGUF file in it", "name a .gguf file"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(
    run, tmp_path, monkeypatch, target: str, said: str, hint: str
) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    result = run("check", target, "--card", "8gb")
    assert (result.code, result.out) == (2, "")
    assert said in result.error
    assert not hint or hint in result.hint


# -- cards --------------------------------------------------------------------------------------


def test_without_a_card_and_a_gpu_two_classes_are_judged(run) -> None:
    result = run(*QUICK, "--json")
    assert [verdict["card"] for verdict in result.json["result"]["verdicts"]] == ["8gb", "12gb"]
    assert result.err.startswith("note: judged on 8gb and 12gb; this machine: no NVIDIA driver")
    assert len(result.err.splitlines()) == 1


def test_without_a_card_this_machines_gpu_is_judged(run, driver, gpu) -> None:
    driver(gpu(used=1000 * MIB))
    result = run(*QUICK, "--json")
    assert result.err == "note: judged on this machine: NVIDIA GeForce RTX 3060\n"
    (verdict,) = result.json["result"]["verdicts"]
    assert (verdict["card"], verdict["card_title"]) == ("auto", "NVIDIA GeForce RTX 3060")
    assert verdict["budget_bytes"] == (12288 - 368 - 1000) * MIB


def test_auto_is_every_gpu_of_this_machine(run, driver, gpu) -> None:
    driver(gpu(used=0), gpu(name="NVIDIA GeForce GTX 1650", total=4096 * MIB, used=100 * MIB))
    result = run(*QUICK, "--card", "auto", "--json")
    assert result.err == ""
    assert [
        (verdict["card"], verdict["verdict"]) for verdict in result.json["result"]["verdicts"]
    ] == [("auto:0", "fits"), ("auto:1", "offload")]


def test_other_replaces_what_nvml_says_others_hold(run, driver, gpu) -> None:
    driver(gpu(used=8000 * MIB))
    assert run(*QUICK, "--card", "auto", "--json").code == 1
    result = run(*QUICK, "--card", "auto", "--other", "0B", "--json")
    assert result.json["result"]["verdicts"][0]["budget_bytes"] == (12288 - 368) * MIB
    assert result.code == 0


def test_auto_without_a_gpu_is_3(run) -> None:
    result = run(*QUICK, "--card", "auto")
    assert (result.code, result.out) == (3, "")
    assert result.error.startswith("no NVIDIA driver on this machine")
    assert "--card 8gb" in result.hint


def test_a_lost_gpu_is_said_and_left_out(run, driver, gpu) -> None:
    pynvml = pytest.importorskip("pynvml")
    driver(gpu(error=pynvml.NVML_ERROR_GPU_IS_LOST), gpu())
    result = run(*QUICK, "--card", "auto", "--json")
    assert result.err.startswith("note: left out: GPU 0: the GPU is lost")
    assert len(result.json["result"]["verdicts"]) == 1


# -- projects -----------------------------------------------------------------------------------

PROJECT = """\
targets: [llava:7b, tiny:1b]
cards: [24gb]
settings: {parallel: 2, context: 2048}
together: off
pipelines:
"""


@pytest.fixture
def project(tmp_path, tiny: Path) -> Path:
    """A project with a pipeline of its own."""
    lines = tiny.read_text(encoding="utf-8").splitlines()
    own = "".join(f"{'  - ' if not n else '    '}{line}\n" for n, line in enumerate(lines))
    path = tmp_path / "vramplan.yaml"
    path.write_text(PROJECT + own, encoding="utf-8")
    tiny.unlink()
    return path


@pytest.mark.usefixtures("project")
def test_without_a_target_the_project_is_judged(run) -> None:
    result = run("check", "--json")
    assert (result.code, result.err) == (0, "")
    verdicts = result.json["result"]["verdicts"]
    assert [(one["pipeline"], one["card"]) for one in verdicts] == [
        ("llava:7b", "24gb"),
        ("tiny:1b", "24gb"),
    ]
    words = ("--set", "parallel=2", "--context", "2048")
    assert verdicts[0]["need_bytes"] == need(run, *words) != need(run)


@pytest.mark.usefixtures("project")
def test_options_win_over_the_project(run) -> None:
    result = run("check", "--card", "12gb", "--context", "4096", "--together", "--json")
    (verdict,) = result.json["result"]["verdicts"]
    assert (verdict["pipeline"], verdict["card"]) == ("llava:7b + tiny:1b", "12gb")
    assert verdict["need_bytes"] > need(run, "--set", "parallel=2", "--context", "4096")


def test_a_projects_settings_are_for_the_targets_that_have_them(run, tmp_path) -> None:
    path = tmp_path / "vramplan.yaml"
    path.write_text("targets: [llava:7b]\ncards: [8gb]\nsettings: {image: 512}\n", encoding="utf-8")
    result = run("check")
    assert result.code == 2
    assert result.error == "vramplan.yaml: none of the targets has a setting 'image'"


def test_without_a_target_and_a_project_it_says_what_to_do(run) -> None:
    result = run("check")
    assert (result.code, result.out) == (2, "")
    assert result.error == "no TARGET, and no vramplan.yaml here"
    assert "vramplan check sd15" in result.hint


DEPLOYED = """\
targets:
  - llava:7b
  - {target: llava:7b, name: chat, settings: {context: 8192}}
  - target: llava-v1.5-7b
cards: [24gb]
settings: {parallel: 2}
together: [[chat, llava-v1.5-7b]]
margin: 1GiB
fail_on: tight
"""


def test_a_project_says_what_runs_together_and_what_fails(run, validate, tmp_path) -> None:
    (tmp_path / "vramplan.yaml").write_text(DEPLOYED, encoding="utf-8")
    result = run("check", "--json")
    validate(result.json)
    alone, both = result.json["result"]["verdicts"]
    assert (alone["pipeline"], both["pipeline"]) == ("llava:7b", "llava:7b + llava-v1.5-7b")
    assert both["target"].startswith("llava:7b[context=8192,parallel=2] + llava-v1.5-7b")
    wide = run("check", "--margin", "0B", "--json").json["result"]["verdicts"][0]
    assert wide["budget_bytes"] - alone["budget_bytes"] == 1 << 30
    assert "chat + llava-v1.5-7b" in run("check").out.replace("\n", " ")
    everything = run("check", "--together", "--json").json["result"]["verdicts"]
    assert [one["pipeline"].count("+") for one in everything] == [2]
    # a target's own settings go before what is given for all
    again = run("check", "--context", "2048", "--json").json["result"]["verdicts"]
    assert again[0]["settings"]["context"] == 2048
    assert "llava:7b[context=8192" in again[1]["target"]


@pytest.mark.parametrize(
    ("line", "error", "hint"),
    [
        ("  - sd51", "vramplan.yaml:3:5: unknown pipeline 'sd51'", "sd15"),
        ("  - nowhere.gguf", "vramplan.yaml:3:5: ", ""),
        ("  - llava:7b[image=512]", "vramplan.yaml:3:5: llava:7b has no setting 'image'", "it has"),
        ("  - sd15[image=500]", "vramplan.yaml:3:5: sd15: image 500x500: width and", "504x504"),
        (
            "  - {target: sd15, name: small, settings: {image: 500}}",
            "vramplan.yaml:3:5: small: image 500x500: width and height must be multiples of 8",
            "504x504",
        ),
    ],
)
def test_a_target_of_a_project_that_cannot_be_has_its_place(
    run, tmp_path, line, error, hint
) -> None:
    (tmp_path / "vramplan.yaml").write_text(f"targets:\n  - sd15\n{line}\n", encoding="utf-8")
    for command in ("check", "plan"):
        result = run(command, "--card", "8gb")
        assert (result.code, result.out) == (2, "")
        assert result.error.startswith(error)
        assert hint in result.err
    if "[" in line:
        alone = run("check", line.strip(" -"), "--card", "8gb")
        assert alone.error == result.error.removeprefix("vramplan.yaml:3:5: ")


def test_a_projects_fail_on_holds_unless_another_is_given(run, tmp_path) -> None:
    card = tight_card(run)
    text = "targets: ['llava:7b[gpu_layers=all]']\nfail_on: tight\n"
    (tmp_path / "vramplan.yaml").write_text(text, encoding="utf-8")
    assert run("check", "--card", card).code == 1
    assert run("check", "--card", card, "--fail-on", "oom").code == 0


def test_a_project_is_not_a_target(run, project) -> None:
    result = run("check", project, "--card", "8gb")
    assert result.code == 2
    assert result.error == f"{project}: describes a project, not a pipeline"


def test_a_mistake_in_the_project_has_its_place(run, tmp_path) -> None:
    (tmp_path / "vramplan.yaml").write_text("targets: [llava:7b]\ncars: [8gb]\n", encoding="utf-8")
    result = run("check")
    assert result.code == 2
    assert result.error.startswith("vramplan.yaml:2:1: cars: unknown key")
    assert result.hint == "did you mean 'cards'?"


@pytest.mark.parametrize(
    ("target", "added"),
    [
        ("llama-3.2-1b[cache_implementation=static,max_cache_len=8k]", "kv_cache"),
        ("llama-3.2-1b[cache_implementation=quantized,cache_config=nbits:2]", "kv_cache"),
        ("sd15[controlnet=canny,ip_adapter=ip-adapter_sd15]", "activations"),
    ],
)
def test_what_settings_add_is_in_the_json_that_is_promised(run, validate, target, added) -> None:
    found = run("estimate", target, "--card", "rtx-4090", "--json")
    document = json.loads(found.out)
    validate(document)
    result = document["result"]
    assert added in {term["kind"] for term in result["terms"]}
    checked = run("check", target, "--card", "rtx-4090", "--json")
    document = json.loads(checked.out)
    validate(document)
    (verdict,) = document["result"]["verdicts"]
    assert verdict["verdict"] == "fits"
    need = result["peak"]["device_bytes"]
    assert verdict["need_bytes"] <= need


def test_a_class_whose_oldest_cards_alone_fail_says_so(run) -> None:
    """bf16 has no convolution of cuDNN's on compute capability 7.5, nor attention that saves."""
    (verdict,) = run("check", "flux1-vae", "--card", "8gb", "--json").json["result"]["verdicts"]
    assert verdict["verdict"] == "oom"
    assert (
        "that is on compute capability 7.5: on 6.1, 8.6, 8.9 or 12.0 it needs" in verdict["reason"]
    )
    assert verdict["reason"].endswith("(fits)")
    (verdict,) = run("check", "flux1-vae", "--card", "24gb", "--json").json["result"]["verdicts"]
    assert verdict["verdict"] == "fits"
    assert "that is on" not in verdict["reason"]
