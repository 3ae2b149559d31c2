"""What CI runs: the steps of `action.yml`, the hooks, and each recipe of docs/project.md."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from vramplan.catalog.project import load_project

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "project.md").read_text(encoding="utf-8")
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = {step["id"]: step for step in ACTION["runs"]["steps"]}
FITS = "targets: [log-anomaly-ae]\ncards: [8gb]\n"
TIGHTER = "targets: ['log-anomaly-ae[batch=524288]', sd15]\ncards: [8gb]\n"
WORSE = "targets: ['log-anomaly-ae[batch=1048576]']\ncards: [8gb]\n"

pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or shutil.which("git") is None, reason="no bash or no git here"
)


def block(language: str, first: str = "") -> str:
    """Return the page's block of a language that begins with a line."""
    found = re.findall(rf"(?ms)^```{language}\n(.*?)^```$", PAGE)
    return next(one for one in found if one.startswith(first))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A runner's: where `vramplan` is this one, and git belongs to nobody."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "vramplan").write_text(f'#!/bin/sh\nexec {sys.executable} -m vramplan "$@"\n')
    (tools / "pip").write_text("#!/bin/sh\nexit 0\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    for name in ("temp", "home"):
        (tmp_path / name).mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return {
        **kept,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path / "home"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        **{
            f"GIT_{who}_{what}": "x@y"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
        "RUNNER_TEMP": str(tmp_path / "temp"),
        "GITHUB_ACTION_PATH": str(ROOT),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_PATH": str(tmp_path / "path"),
    }


def bash(script: str, folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess:
    # as GitHub calls it: docs.github.com, workflow syntax, `shell: bash`
    return subprocess.run(
        [str(shutil.which("bash")), "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path, environment) -> Path:
    """A clone whose origin has a main branch that fits, and the branch of a change."""
    made = bash(
        f"""
        git init -q -b main origin && cd origin
        printf '{FITS}' >vramplan.yaml
        git add . && git commit -qm base
        cd .. && git clone -q "file://$PWD/origin" work && cd work && git switch -qc change
        """,
        tmp_path,
        environment,
    )
    assert made.returncode == 0, made.stderr
    return tmp_path / "work"


def step(
    name: str, checkout: Path, environment: Mapping[str, str], base_ref: str = "main", **inputs: str
) -> subprocess.CompletedProcess:
    """Run a step of the action with its inputs, as the runner would."""
    given = {key: one.get("default", "") for key, one in ACTION["inputs"].items()}
    given |= {key.replace("_", "-"): value for key, value in inputs.items()}
    known = {f"inputs.{key}": value for key, value in given.items()} | {"github.base_ref": base_ref}
    variables = {
        key: re.sub(r"\$\{\{ (\S+) \}\}", lambda match: known[match[1]], text)
        for key, text in STEPS[name].get("env", {}).items()
    }
    script = STEPS[name]["run"]
    assert "${{" not in script, "what a stranger chose would be code"
    return bash(script, checkout, {**environment, **variables})


def write(checkout: Path, text: str) -> None:
    (checkout / "vramplan.yaml").write_text(text)


def test_a_pull_request_says_what_it_changes(checkout, environment, tmp_path) -> None:
    write(checkout, TIGHTER)
    assert step("base", checkout, environment).returncode == 0
    done = step("check", checkout, environment, fail_on="worse")
    assert done.returncode == 0, done.stderr
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("## since base-branch.json")
    assert "1 new, 1 as before" in summary
    assert " MiB, other settings" in summary
    assert "## Will it fit?" in summary
    path = (tmp_path / "output").read_text().removeprefix("json=").strip()
    verdicts = json.loads(Path(path).read_text())["result"]["verdicts"]
    assert [one["since"]["change"] for one in verdicts] == ["same", "new"]


@pytest.mark.parametrize(
    ("fail_on", "code"),
    [
        ("worse", 1),
        pytest.param("", 1, marks=pytest.mark.slow),
        pytest.param("oom", 1, marks=pytest.mark.slow),
    ],
)
def test_a_pull_request_that_makes_it_worse_fails(checkout, environment, fail_on, code) -> None:
    write(checkout, WORSE)
    assert step("base", checkout, environment).returncode == 0
    done = step("check", checkout, environment, fail_on=fail_on)
    assert done.returncode == code
    assert "now oom" in Path(environment["GITHUB_STEP_SUMMARY"]).read_text()


@pytest.mark.slow
def test_a_push_has_nothing_to_compare_with(checkout, environment) -> None:
    done = step("check", checkout, environment, fail_on="worse")
    assert done.returncode == 0, done.stderr
    assert Path(environment["GITHUB_STEP_SUMMARY"]).read_text().startswith("## Will it fit?")


@pytest.mark.slow
def test_a_base_without_the_file_is_no_base(checkout, environment) -> None:
    gone = bash(
        "cd ../origin && git rm -q vramplan.yaml && git commit -qm gone", checkout, environment
    )
    assert gone.returncode == 0, gone.stderr
    done = step("base", checkout, environment)
    assert done.returncode == 0, done.stderr
    assert "the base branch has nothing to compare with" in done.stdout
    assert step("check", checkout, environment).returncode == 0


@pytest.mark.slow
def test_a_mistake_in_the_file_fails_with_its_place(checkout, environment, tmp_path) -> None:
    write(checkout, "targets: [llava:7b]\ncars: [8gb]\n")
    done = step("check", checkout, environment)
    assert done.returncode == 2
    assert "vramplan.yaml:2:1: cars: unknown key" in done.stderr
    assert not (tmp_path / "summary.md").exists()


def test_inputs_are_words_and_never_code(checkout, environment, tmp_path) -> None:
    targets = "llava:7b[context=2048]\n\n$(touch hacked)\n"
    done = step("check", checkout, environment, targets=targets, cards="12gb\n8gb\n")
    assert done.returncode == 2
    assert "unknown pipeline '$(touch hacked)'" in done.stderr
    assert not list(tmp_path.rglob("hacked"))
    done = step("check", checkout, environment, targets="llava:7b\nsd15", cards="12gb\n8gb")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "temp" / "vramplan.json").read_text())["result"]["verdicts"]
    assert len(found) == 4


def test_the_steps_are_those_that_are_tried_here() -> None:
    assert list(STEPS) == ["install", "base", "check"]
    assert STEPS["base"]["if"] == "inputs.compare == 'true' && github.base_ref != ''"
    assert all(one["shell"] == "bash" for one in STEPS.values())
    named = re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text())
    assert set(named) == set(ACTION["inputs"])


@pytest.mark.slow
@pytest.mark.network
def test_the_action_installs_itself(checkout, environment, tmp_path) -> None:
    done = step("install", checkout, environment, python=sys.executable)
    assert done.returncode == 0, done.stderr
    path = (tmp_path / "path").read_text().strip()
    del environment["PYTHONPATH"]
    environment["PATH"] = f"{path}{os.pathsep}{os.environ['PATH']}"
    assert step("base", checkout, environment).returncode == 0
    assert step("check", checkout, environment).returncode == 0


# ------------------------------------------------------------------------------------- the page
def test_the_pages_workflow_names_what_the_action_takes() -> None:
    workflow = yaml.safe_load(block("yaml", "# .github/workflows"))
    (job,) = workflow["jobs"].values()
    (use,) = [one for one in job["steps"] if "/vramplan@" in one["uses"]]
    assert set(use["with"]) <= set(ACTION["inputs"])
    for name in re.findall(
        r"`([\w-]+)`", PAGE.partition("are further inputs")[0].rpartition("hub.")[2]
    ):
        assert name in ACTION["inputs"]


def test_the_pages_gitlab_job_runs(checkout, environment) -> None:
    (job,) = yaml.safe_load(block("yaml", "# .gitlab-ci.yml")).values()
    given = {**environment, "CI_DEFAULT_BRANCH": "main", "CI_PROJECT_DIR": str(checkout)}
    write(checkout, WORSE)
    done = bash("\n".join(job["script"]), checkout, given)
    assert done.returncode == 1, done.stderr
    assert "since base.json" in done.stdout
    assert "now oom" in done.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_the_pages_make_rule_runs(checkout, environment) -> None:
    (checkout / "Makefile").write_text(block("make"))
    write(checkout, WORSE)
    assert bash("make vram", checkout, environment).returncode == 2


@pytest.mark.slow
def test_the_pages_two_commands_run(checkout, environment) -> None:
    first, second = (
        line.partition("#")[0] for line in block("sh", "vramplan check --json -o").splitlines()
    )
    assert bash(first, checkout, environment).returncode == 0
    write(checkout, WORSE)
    assert bash(second, checkout, environment).returncode == 1


def test_the_pages_file_is_right(tmp_path) -> None:
    path = tmp_path / "vramplan.yaml"
    path.write_text(block("yaml", "# vramplan.yaml"))
    project = load_project(path)
    assert [one.label for one in project.targets] == ["sd15", "sdxl", "chat"]
    assert project.groups == ((0, 2),)


# ------------------------------------------------------------------------------------ pre-commit
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_hooks_run_what_they_say(checkout, environment) -> None:
    """With the files that pre-commit would hand over."""
    said = yaml.safe_load(block("yaml", "# .pre-commit-config.yaml"))
    assert {one["id"] for one in said["repos"][0]["hooks"]} == {one["id"] for one in HOOKS}
    for hook in HOOKS:
        assert re.search(hook["files"], "vramplan.yaml")
        assert not re.search(hook["files"], "model.py")
        words = "" if hook.get("pass_filenames") is False else " vramplan.yaml"
        assert bash(hook["entry"] + words, checkout, environment).returncode == 0
        write(checkout, "targets: [llava:7b]\ncars: [8gb]\n")
        assert bash(hook["entry"] + words, checkout, environment).returncode == 2
        write(checkout, FITS)


@pytest.mark.slow
@pytest.mark.network
def test_pre_commit_runs_the_hooks_of_a_clone(checkout, environment, tmp_path: Path) -> None:
    """It installs this repository as a hook's language says, out of a clone of its files."""
    pytest.importorskip("pre_commit")
    clone = tmp_path / "vramplan"
    listed = bash("git ls-files -z --cached --others --exclude-standard", ROOT, environment)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    script = "git init -q -b main && git add -Af . && git commit -qm all"
    made = bash(script, clone, environment)
    assert made.returncode == 0, made.stderr
    config: dict[str, Any] = yaml.safe_load(block("yaml", "# .pre-commit-config.yaml"))
    config["repos"][0] |= {
        "repo": str(clone),
        "rev": bash("git rev-parse HEAD", clone, environment).stdout.strip(),
    }
    (checkout / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    del environment["PYTHONPATH"]
    run = f"git add . && '{sys.executable}' -m pre_commit run --all-files"
    done = bash(run, checkout, {**environment, "PRE_COMMIT_HOME": str(tmp_path / "cache")})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Passed") == 2
    write(checkout, WORSE)
    done = bash(run, checkout, {**environment, "PRE_COMMIT_HOME": str(tmp_path / "cache")})
    assert done.returncode == 1
    assert "exit code: 1" in done.stdout
    assert done.stdout.count("Failed") == 1
