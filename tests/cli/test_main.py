"""What all commands share: help, errors, exit codes, what is imported, where output goes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vramplan import __version__
from vramplan.cli import COMMANDS, build_parser

ROOT = Path(__file__).parents[2]

#: what no command may load to answer in JSON: the start is fast, and needs none of them
HEAVY = [
    *("torch", "numpy", "diffusers", "transformers", "accelerate"),
    *("pynvml", "jinja2", "tabulate", "yaml"),
    *("importlib.metadata", "hashlib", "asyncio", "unittest", "email", "http"),
]

#: what a start can do without of the standard library, too; with the latter two there `cli.start`
#: would take the process down piece by piece
SLOW = ["typing", "dataclasses", "atexit", "threading"]


def imported(*words: str, code: str = "main()") -> tuple[int, set[str]]:
    """Return the exit code of a command and every module that its process loaded."""
    script = (
        "import sys\n"
        "from vramplan.cli import main, build_parser\n"
        f"sys.argv = ['vramplan', *{list(words)!r}]\n"
        f"result = {code}\n"
        "sys.stderr.write('\\n'.join(['', 'MODULES', *sys.modules]))\n"
        "sys.exit(result if isinstance(result, int) else 0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("VRAMPLAN_CATALOG", None)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert "MODULES" in done.stderr, done.stderr
    return done.returncode, set(done.stderr.partition("MODULES\n")[2].split())


def loaded(modules: set[str], names: list[str]) -> list[str]:
    return [name for name in names if name in modules]


# -- help ---------------------------------------------------------------------------------------


def test_version(run) -> None:
    result = run("--version")
    assert (result.code, result.out, result.err) == (0, f"vramplan {__version__}\n", "")


def test_help_names_every_command(run) -> None:
    result = run("--help")
    assert (result.code, result.err) == (0, "")
    for name, summary in COMMANDS.items():
        assert re.search(rf"^ +{name} +{re.escape(summary)}$", result.out, re.MULTILINE)


def test_without_a_command_the_help_is_bad_usage(run) -> None:
    result = run()
    assert (result.code, result.out) == (2, "")
    assert "COMMAND" in result.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_teaches(run, command: str) -> None:
    result = run(command, "--help")
    assert (result.code, result.err) == (0, "")
    assert f"vramplan {command}" in result.out.partition("examples:")[2], "no example"
    assert "exit codes: 0" in result.out
    assert "`" not in result.out
    assert result.out.isascii(), "a terminal that knows only ASCII could not show it"


def test_help_of_check_says_what_the_verdicts_mean(run) -> None:
    out = run("check", "--help").out
    for word in ("fits", "tight", "offload", "oom"):
        assert re.search(rf"^  {word} ", out, re.MULTILINE), word


def test_build_parser_knows_every_command_whole() -> None:
    parser = build_parser()
    known = parser.parse_args(["check", "sd15", "--card", "8gb", "--image", "512", "--json"])
    assert known.settings == [("image", (512, 512))]
    assert parser.parse_args(["catalog", "show", "sd15"]).action == "show"


# -- what is imported ---------------------------------------------------------------------------


def test_help_loads_no_command() -> None:
    code, modules = imported("--help")
    assert code == 0
    commands = {name for name in modules if name.startswith("vramplan.commands.")}
    assert commands == {"vramplan.commands.streams"}
    assert not loaded(modules, [*HEAVY, "vramplan.model", "vramplan.catalog", "vramplan.report"])


def test_the_whole_parser_loads_nothing_heavy() -> None:
    code, modules = imported(code="build_parser()")
    assert code == 0
    others = ["vramplan.ask.judge", "vramplan.probe.nvml", "vramplan.page", "http.server"]
    assert not loaded(modules, [*HEAVY, *others])


def test_check_as_json_loads_only_what_it_needs() -> None:
    code, modules = imported("check", "llava:7b", "--card", "8gb", "--json")
    assert code == 0
    assert not loaded(modules, [*HEAVY, *SLOW] if is_fresh() else list({*HEAVY} - {"yaml"}))
    commands = {name for name in modules if name.startswith("vramplan.commands.")}
    others = {f"vramplan.commands.{name}" for name in COMMANDS} - {"vramplan.commands.check"}
    assert not commands & others
    reports = {name for name in modules if name.startswith("vramplan.report.")}
    assert reports == {f"vramplan.report.{name}" for name in ("look", "serial", "verdicts")}


@pytest.mark.parametrize("card", ["8gb", "12gb"])
def test_a_table_and_advice_load_no_slow_module(card: str) -> None:
    """Neither does a model that replays: `dataclasses` takes longer than the replay."""
    _, modules = imported("check", "sdxl", "--image", "1032x1024", "--card", card, "--no-cache")
    assert "vramplan.report.verdict_rows" in modules
    assert not loaded(modules, [*HEAVY, "typing", "dataclasses", "inspect"] if is_fresh() else [])


def is_fresh() -> bool:
    """Whether the snapshot of the catalogue is what its sources say; else YAML is read."""
    from vramplan.catalog.shipped import profiles_dir
    from vramplan.catalog.snapshot import read_snapshot

    found = read_snapshot(profiles_dir())
    return found is not None and found.is_fresh()


# -- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["chek"], "unknown command 'chek'", "did you mean 'check'?"),
        (["frobnicate"], "unknown command 'frobnicate'", "commands: check, "),
        (["check", "--bacth", "2"], "unknown option '--bacth'", "did you mean '--batch'?"),
        (["check", "--bacth=2"], "unknown option '--bacth'", "did you mean '--batch'?"),
        (["--joson", "check"], "unknown option '--joson'", "did you mean '--json'?"),
        (["check", "--qqqqqq"], "unknown option '--qqqqqq'", "vramplan check --help"),
        (["check", "--card"], "--card: expected one argument", "vramplan check --help"),
        (["check", "sd15", "--format", "xml"], "--format: invalid choice", "check --help"),
        (["check", "--fail-on", "fits"], "--fail-on: invalid choice", "check --help"),
        (["estimate"], "the following arguments are required: TARGET", "estimate --help"),
        (["estimate", "sd15", "sdxl"], "unknown argument 'sdxl'", "estimate --help"),
        (["check", "--cata", "x"], "unknown option '--cata'", "did you mean '--catalog'?"),
        (["catalog"], "vramplan catalog: what is to be done", "actions: list, show"),
        (["catalog", "lst"], "ACTION: invalid choice: 'lst'", "did you mean 'list'?"),
    ],
)
def test_bad_usage_is_one_line(run, words, error, hint) -> None:
    result = run(*words)
    assert (result.code, result.out) == (2, "")
    assert result.error.startswith(error)
    assert hint in result.hint


def test_an_error_of_ours_has_no_traceback_without_debug(run, monkeypatch) -> None:
    def explode(*_: object) -> None:
        raise ZeroDivisionError("over\nthe edge")

    monkeypatch.setattr("vramplan.commands.cards.open_catalog", explode)
    result = run("cards")
    assert (result.code, result.out) == (2, "")
    assert result.error == "internal error: ZeroDivisionError: over the edge"
    assert "--debug" in result.hint


@pytest.mark.parametrize("words", [["--debug", "cards", "nope"], ["cards", "nope", "--debug"]])
def test_debug_shows_the_traceback_and_the_same_error(run, words) -> None:
    result = run(*words)
    assert result.code == 2
    assert result.err.startswith("Traceback")
    assert "error: unknown card 'nope'" in result.err.splitlines()[-2]


def test_text_of_strangers_cannot_act_on_the_terminal(run) -> None:
    result = run("check", "a\x1b[31mb\nc", "--card", "8gb")
    assert result.code == 2
    assert "\x1b" not in result.err
    assert result.error.startswith("unknown pipeline")


def test_interrupted_is_130(run, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vramplan.commands.cards.open_catalog", interrupt)
    result = run("cards")
    assert (result.code, result.out, result.err) == (130, "", "interrupted\n")


def test_a_signal_interrupts_quietly(tmp_path) -> None:
    slow = (
        "import sys, time; import vramplan.commands.cards as cards\n"
        "def wait(args): print('ready', flush=True); time.sleep(30)\n"
        "cards.open_catalog = wait\n"
        "from vramplan.cli import main; sys.exit(main(['cards']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", slow],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=20)
    assert (running.returncode, err) == (130, "interrupted\n")


# -- output -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["cards"], 0),
        (["--help"], 0),
        # a verdict's exit code survives a reader that does not read to the end
        (["check", "llava:7b", "--card", "4gb"], 1),
    ],
)
def test_a_reader_that_goes_away_is_no_error(words, code: int) -> None:
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "vramplan", *words],
            env=environment,
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_line() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vramplan", "cards"],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard output cannot be written: No space left")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "start"),
    [("out.md", "| card  "), ("out.json", "{"), ("out.txt", "card "), ("out", "card ")],
)
def test_a_file_gets_the_format_of_its_suffix(run, tmp_path, name: str, start: str) -> None:
    result = run("cards", "-o", name)
    assert (result.code, result.out) == (0, "")
    assert result.err == f"wrote {name}\n"
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [name], "something is left beside it"


def test_a_format_wins_over_the_suffix(run, tmp_path) -> None:
    assert run("cards", "-o", "out.md", "--json").code == 0
    assert (tmp_path / "out.md").read_text(encoding="utf-8").startswith("{")


def test_a_suffix_the_command_has_no_format_for_is_refused(run, tmp_path) -> None:
    result = run("cards", "-o", "out.html")
    assert result.code == 2
    assert result.error == "out.html: cards has no html"
    assert not list(tmp_path.iterdir())


def test_a_file_that_fails_half_way_is_not_there(run, tmp_path, monkeypatch) -> None:
    target = tmp_path / "out.json"
    target.write_text("old", encoding="utf-8")

    def fail(_self: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    result = run("cards", "-o", target, "--force")
    assert result.code == 2
    assert result.error == f"{target}: cannot be written: No space left on device"
    assert target.read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_what_is_there_is_replaced_only_when_that_is_asked_for(run, tmp_path) -> None:
    target = tmp_path / "out.json"
    target.write_text("old", encoding="utf-8")
    target.chmod(0o640)
    result = run("cards", "-o", "out.json")
    assert (result.code, result.error) == (2, "out.json: is there already")
    assert result.hint == "--force replaces it"
    assert target.read_text(encoding="utf-8") == "old"
    assert run("cards", "-o", "out.json", "--force").code == 0
    assert target.stat().st_size > 1000
    assert target.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_a_file_that_is_put_there_meanwhile_is_left(run, tmp_path, monkeypatch) -> None:
    """Between the first look and the last one a long time may pass."""
    target, link = tmp_path / "out.json", os.link

    def late(source, place) -> None:
        target.write_text("another's", encoding="utf-8")
        link(source, place)

    monkeypatch.setattr(os, "link", late)
    assert run("cards", "-o", "out.json").error == "out.json: is there already"
    assert target.read_text(encoding="utf-8") == "another's"
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_a_read_only_file_is_never_replaced(run, tmp_path) -> None:
    """Not by root either, who may write to it."""
    target = tmp_path / "out.json"
    target.write_text("old", encoding="utf-8")
    target.chmod(0o444)
    result = run("cards", "-o", "out.json", "--force")
    assert result.code == 2
    assert result.error.startswith("out.json: cannot be written: it is ")
    assert target.read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize("name", ["out.json", "fit.html"])
def test_a_disk_that_runs_full_leaves_the_old_file_whole(tmp_path, name) -> None:
    resource = pytest.importorskip("resource")
    target = tmp_path / name
    target.write_text("old", encoding="utf-8")
    words = ["cards", "--json"] if name == "out.json" else ["report", "log-anomaly-ae"]
    done = subprocess.run(
        [sys.executable, "-m", "vramplan", *words, "-o", name, "--force"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "VRAMPLAN_CACHE": "off"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {name}: cannot be written: File too large\n"
    assert target.read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_that_is_not_there_is_one_line(run) -> None:
    result = run("cards", "-o", "no/such/folder/out.json")
    assert result.code == 2
    assert "cannot be written: there is no folder" in result.error


def test_a_link_stays_a_link_and_a_device_a_device(run, tmp_path) -> None:
    (tmp_path / "real.json").touch()
    (tmp_path / "link.json").symlink_to("real.json")
    assert run("cards", "-o", "link.json").code == 0
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").stat().st_size > 1000
    assert run("cards", "-o", os.devnull).code == 0
    assert not Path(os.devnull).is_file()


def test_a_dash_is_stdout(run) -> None:
    result = run("cards", "-o", "-", "--json")
    assert result.json["command"] == "cards"


def on_a_terminal(*words: str, **variables: str) -> str:
    """Return what a command writes to a terminal of 80 columns."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    inherited = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    environment = {**inherited, "PYTHONPATH": str(ROOT), "COLUMNS": "80", **variables}
    with subprocess.Popen(
        [sys.executable, "-m", "vramplan", *words], env=environment, stdout=theirs
    ):
        os.close(theirs)
        shown = b""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux's way to say that the other end is closed
                break
            if not piece:
                break
            shown += piece
    os.close(ours)
    return shown.decode("utf-8").replace("\r\n", "\n")


def test_colour_is_for_terminals_only(run) -> None:
    words = ("check", "llava:7b", "--card", "8gb")
    coloured = on_a_terminal(*words, TERM="xterm")
    plain = on_a_terminal(*words, TERM="xterm", NO_COLOR="1")
    assert "\x1b[" in coloured
    assert "\x1b[" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain
    assert max(len(line) for line in plain.splitlines()) <= 80
    assert "\x1b[" not in run(*words).out


def test_output_is_readable_where_only_ascii_is(process) -> None:
    result = process("check", "llava:7b", "--card", "8gb", PYTHONIOENCODING="ascii")
    assert (result.code, result.err) == (0, "")
    assert "+ fits" in result.out


@pytest.mark.parametrize("option", ["--batch", "--card", "--set", "--margin", "--format", "-o"])
def test_two_dashes_are_no_value(run, option) -> None:
    result = run("check", "sd15", f"{option}=--", "--card", "8gb")
    assert (result.code, result.out) == (2, "")
    assert result.error == f"{option}: expected one argument"


def test_help_of_a_command_is_its_own_help(run) -> None:
    assert run("help", "plan").out == run("plan", "--help").out
    assert run("help").out == run("--help").out
    assert run("help", "catalog", "list").out == run("catalog", "list", "--help").out
    unknown = run("help", "plam")
    assert (unknown.code, unknown.hint) == (2, "did you mean 'plan'?")


def test_frames_have_an_option_of_their_own(run) -> None:
    shown = run("estimate", "mochi", "--frames", "25", "--json").json["result"]
    assert (shown["pipeline"], shown["settings"]["frames"]) == ("mochi-1", 25)
