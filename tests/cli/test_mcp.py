"""``vramplan mcp``: what an assistant may ask, and what it may not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vramplan.ask import fit
from vramplan.commands.questions import QUESTIONS
from vramplan.errors import VramplanError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "asked", "words"),
    [
        ("check", {"targets": ["sd15"], "cards": ["8gb"]}, "check sd15 --card 8gb"),
        ("estimate", {"target": "llava:7b", "card": "8gb", "settings": {"context": "8k"}},
         "estimate llava:7b --card 8gb --context 8k"),
        ("plan", {"target": "sdxl", "card": "8gb"}, "plan sdxl --card 8gb"),
        ("cards", {"words": ["laptop"]}, "cards laptop"),
        ("catalog", {"words": ["llava"]}, "catalog list llava"),
    ],
)  # fmt: skip
def test_an_assistant_is_told_what_the_command_writes(run, name, asked, words) -> None:
    assert QUESTIONS[name](**asked) == run(*words.split(), "--json").json["result"]


@pytest.mark.usefixtures("run")
def test_what_runs_on_a_card_is_ranked(monkeypatch) -> None:
    """Of a catalogue of four: `test_fit` looks at all of it."""
    few = ("sd15", "sdxl", "llava:7b", "log-anomaly-ae")
    opened = fit.open_pipelines
    monkeypatch.setattr(
        fit,
        "open_pipelines",
        lambda entries, known: opened([one for one in entries if one.name in few], known),
    )
    names = [row["name"] for row in QUESTIONS["fit"](card="8gb")["models"]]
    assert {"sd15", "sdxl", "llava:7b"} <= set(names)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"targets": ["sd51"]}, "unknown pipeline 'sd51'"),
        ({"targets": ["mine.yaml"]}, "unknown pipeline 'mine.yaml'"),
        ({"targets": ["./model.gguf"]}, "unknown pipeline './model.gguf'"),
        ({"targets": ["/etc/passwd"]}, "unknown pipeline '/etc/passwd'"),
        ({"targets": ["hf:../../etc"]}, "unknown pipeline"),
        ({"targets": ["ollama:../../etc"]}, "unknown pipeline"),
        ({"targets": ["lmstudio:/etc"]}, "unknown pipeline"),
        ({"targets": ["sd15"] * 9}, "9 targets: at most 8"),
        ({"targets": ["x" * 10_000]}, "at most 200 characters"),
        ({"cards": ["8gb"] * 13}, "13 cards: at most 12"),
        ({"cards": ["no-such-card"]}, "unknown card"),
        ({"settings": {str(n): n for n in range(25)}}, "25 settings: at most 24"),
        ({"settings": {"image": "x" * 10_000}}, "at most 200 characters"),
        ({"settings": {"lora": "/etc/passwd"}}, "files of this machine are not read"),
        ({"settings": {"control_vector": "/etc/passwd"}}, "files of this machine are not read"),
        ({"settings": {"controlnet": "/etc"}}, "files of this machine are not read"),
        ({"settings": {"ip_adapter": "a.safetensors"}}, "files of this machine are not read"),
        ({"settings": {"mmproj": "/etc/passwd"}}, "unknown setting 'mmproj'"),
        ({"settings": {"catalog": "/etc"}}, "unknown setting 'catalog'"),
        ({"settings": {"engine_check": True}}, "unknown setting"),
    ],
)  # fmt: skip
def test_what_an_assistant_asks_is_bounded(tmp_path, monkeypatch, asked, said) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "profiles" / "pipelines" / "sd15.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(VramplanError, match=said.replace("(", r"\(")):
        QUESTIONS["check"](**{"targets": ["sd15"], "cards": ["8gb"], **asked})


def test_without_the_extra_it_says_what_to_install(run, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    result = run("mcp")
    assert (result.code, result.out) == (3, "")
    assert "mcp" in result.hint


def test_a_server_answers_on_its_streams_alone() -> None:
    pytest.importorskip("mcp.server", reason="mcp is not installed")

    def ask(number: int, method: str, **params: object) -> str:
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        return json.dumps(message) + "\n"

    about = {"name": "test", "version": "0"}
    spoken = [
        ask(1, "initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=about),
        json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}) + "\n",
        ask(2, "tools/list"),
        ask(3, "tools/call", name="check", arguments={"targets": ["sd15"], "cards": ["8gb"]}),
        ask(4, "tools/call", name="check", arguments={"targets": ["sd51"], "cards": ["8gb"]}),
    ]
    answers: dict[int, dict] = {}
    with subprocess.Popen(
        [sys.executable, "-m", "vramplan", "mcp"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        for words in spoken:
            server.stdin.write(words)
            server.stdin.flush()
            if '"id"' in words:
                answer = json.loads(server.stdout.readline())
                answers[answer["id"]] = answer["result"]
        server.stdin.close()
        assert server.wait(30) == 0
        assert server.stdout.read() == ""
        assert "Traceback" not in server.stderr.read()
    assert {one["name"] for one in answers[2]["tools"]} == set(QUESTIONS)
    assert answers[3]["structuredContent"]["verdicts"][0]["verdict"] == "fits"
    assert answers[4]["isError"] is True
    assert "did you mean 'sd15'?" in answers[4]["content"][0]["text"]
