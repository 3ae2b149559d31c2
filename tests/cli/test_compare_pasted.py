"""``vramplan compare TARGET --smi``: what people pasted, explained or refused in one line."""

from __future__ import annotations

import io
import sys

import pytest

MIB = 1 << 20
GIB = 1 << 30

HEADING = "| NVIDIA-SMI 590.48.01     Driver Version: 590.48.01      CUDA Version: 13.1     |"
GPU = "|   0  NVIDIA GeForce RTX 3060        On  |   00000000:01:00.0  On |       N/A |"
MEMORY = "|  0%   49C    P5             40W /  170W |   10908MiB /  12288MiB |      7%  |"
PROCESSES = """\
| Processes:                                                                              |
|    0   N/A  N/A            1001      G   /usr/lib/Xorg                           210MiB |
|    0   N/A  N/A            2002      C   /usr/bin/ollama                       10500MiB |
"""
TABLE = f"{HEADING}\n{GPU}\n{MEMORY}\n{PROCESSES}"

MIG = """\
| NVIDIA-SMI 580.65.06              Driver Version: 580.65.06      CUDA Version: 13.0     |
|   0  NVIDIA H100 80GB HBM3          Off |   00000000:42:00.0 Off |                   On |
| N/A   30C    P0            141W /  700W |    9087MiB /  81559MiB |     N/A      Default |
| MIG devices:                                                                            |
|  0    1   0   0  |            4544MiB / 40448MiB    | 60      0 |  3   0    3    0    3 |
|                  |               0MiB / 24740MiB    |           |                       |
|  0    2   0   1  |            4543MiB / 40448MiB    | 60      0 |  3   0    3    0    3 |
|                  |               0MiB / 24740MiB    |           |                       |
| Processes:                                                                              |
|    0    1    0             4001      C   python                                 4500MiB |
|    0    2    0             4002      C   python                                 4500MiB |
"""

CSV = """\
index, uuid, name, memory.total [MiB], memory.used [MiB]
0, GPU-00000000-0000-0000-0000-000000000001, NVIDIA GeForce RTX 4090, 24564 MiB, 512 MiB
1, GPU-00000000-0000-0000-0000-000000000002, NVIDIA GeForce RTX 4090, 24564 MiB, 6100 MiB
gpu_uuid, pid, process_name, used_gpu_memory [MiB]
GPU-00000000-0000-0000-0000-000000000002, 4242, /usr/bin/python3, 5570 MiB
"""
APPS = "pid, process_name, used_gpu_memory [MiB]\n4242, /usr/bin/python3, 5570 MiB\n"

OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 876.00 MiB. GPU 0 has a total "
    "capacity of 11.63 GiB of which 250.00 MiB is free. Process 2001 has 458.00 MiB memory in use. "
    "Including non-PyTorch memory, this process has 10.50 GiB memory in use. Of the allocated "
    "memory 10.00 GiB is allocated by PyTorch, and 400.00 MiB is reserved by PyTorch but "
    "unallocated."
)


@pytest.fixture
def explain(run, tmp_path, validate):
    """Return what explains a text: the table's words on a line, the waterfall, its steps."""

    def go(text: str, *words: str) -> tuple[str, dict, dict]:
        (tmp_path / "pasted.txt").write_text(text, encoding="utf-8")
        shown = run("compare", "sd15", "--smi", "pasted.txt", *words)
        assert (shown.code, shown.err) == (0, "")
        found = run("compare", "sd15", "--smi", "pasted.txt", "--json", *words)
        validate(found.json)
        waterfall = found.json["result"]["waterfall"]
        steps = {step["name"]: step["bytes"] for step in waterfall["steps"]}
        return " ".join(shown.out.split()), waterfall, steps

    return go


def test_an_instance_has_its_own_memory_limit_and_neighbours(explain) -> None:
    said, waterfall, steps = explain(MIG)
    assert waterfall["shown_bytes"] == 4544 * MIB
    assert "other processes" not in steps
    assert "GPU 0, MIG instance 1 of 39.50 GiB" in said
    assert "GPU 0:1 of 0:1, 0:2; --gpu takes another" in said
    assert explain(MIG, "--gpu", "0:2")[1]["shown_bytes"] == 4543 * MIB
    assert explain(MIG, "--gpu", "0")[1]["shown_bytes"] == 4544 * MIB


def test_of_two_snapshots_one_is_explained_and_it_is_said(explain) -> None:
    later = TABLE.replace("10908", " 4711").replace("10500", " 4301")
    said, waterfall, steps = explain(TABLE + later)
    assert waterfall["shown_bytes"] == 4711 * MIB
    assert steps["other processes"] == 210 * MIB
    assert "the last of 2 reports in the text; the other is not read" in said
    assert "other processes: /usr/lib/Xorg (1001) 210 MiB" in said


def test_a_process_is_explained_on_the_gpu_that_its_uuid_names(explain) -> None:
    said, waterfall, _ = explain(CSV)
    assert waterfall["shown_bytes"] == 6100 * MIB
    assert "taken for the pipeline: /usr/bin/python3 (4242), 5,570 MiB" in said


def test_processes_alone_are_explained_and_what_is_missing_is_said(explain) -> None:
    said, waterfall, _ = explain(APPS)
    assert waterfall["shown_bytes"] == 5570 * MIB
    assert "what the card has used in all is not told: --query-gpu=" in said


@pytest.mark.parametrize("mark", ["> ", "|", "# "])
def test_a_quoted_table_is_read_as_the_table(explain, mark: str) -> None:
    said, waterfall, steps = explain("".join(f"{mark}{line}\n" for line in TABLE.splitlines()))
    assert waterfall["shown_bytes"] == 10908 * MIB
    assert steps["other processes"] == 210 * MIB
    assert "taken for the pipeline: /usr/bin/ollama (2002), 10.25 GiB" in said


def test_a_gpu_with_the_hosts_memory_has_its_process_explained(explain) -> None:
    said, waterfall, _ = explain(TABLE.replace("10908MiB /  12288MiB", "Not Supported       "))
    assert waterfall["shown_bytes"] == 10500 * MIB
    assert "what the card has used in all is not told (Not Supported)" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
         "nvidia-smi itself failed: NVIDIA-SMI has failed because"),
        ("Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95",
         "Driver/library version mismatch. NVML library version: 580.95"),
        (f"{HEADING}\n{GPU}\n", "nvidia-smi's, but it lacks the memory of NVIDIA GeForce RTX 3060"),
        ("RuntimeError: CUDA error: out of memory", "torch's out-of-memory message, but without"),
        ("hello", "not what nvidia-smi prints"),
        (f"{HEADING}\n{GPU}\n{MEMORY.replace('10908', '  512')}\n",
         "nvidia-smi shows 512 MiB for it, less than the weights of sd15 alone"),
        (TABLE.replace("10500", "  300"), "nvidia-smi shows 300 MiB for it, less than the weights"),
        ("x" * (2 << 20), "more than 1,048,576 characters"),
    ],
)  # fmt: skip
def test_what_cannot_be_explained_is_one_line_with_a_hint(run, tmp_path, text, said) -> None:
    (tmp_path / "pasted.txt").write_text(text)
    result = run("compare", "sd15", "--smi", "pasted.txt")
    assert (result.code, result.out) == (2, "")
    assert said in result.error
    assert result.hint


def test_less_than_the_steps_add_up_to_is_said(explain) -> None:
    said, waterfall, _ = explain(TABLE.replace("10908", " 3300").replace("10500", " 3000"))
    assert waterfall["unaccounted_bytes"] < 0
    assert "more than is shown: the estimate's are those of the peak" in said


def test_processes_that_only_draw_are_neighbours(explain) -> None:
    drawn = "\n".join(TABLE.splitlines()[:-1])
    said, _, steps = explain(drawn)
    assert "no process computes: what none of them holds is taken for the pipeline's" in said
    assert steps["other processes"] == 210 * MIB


def test_sizes_that_windows_does_not_tell_name_no_neighbours(explain) -> None:
    said, _, steps = explain(TABLE.replace("10500MiB", "    N/A ").replace("210MiB", "   N/A"))
    assert "what single processes hold is not told" in said
    assert "other processes" not in said
    assert "other processes" not in steps


def test_torchs_message_has_every_step_of_the_waterfall(explain) -> None:
    said, waterfall, steps = explain(OOM)
    assert waterfall["shown_by"] == "torch"
    used = round(11.63 * GIB) - 250 * MIB
    assert waterfall["shown_bytes"] == used
    assert sum(steps[name] for name in ("weights", "activations", "workspace")) == 10 * GIB
    assert steps["allocator slack"] == 400 * MIB
    assert steps["CUDA context"] == round(10.5 * GIB) - 10 * GIB - 400 * MIB
    assert steps["other processes"] == 458 * MIB
    assert waterfall["unaccounted_bytes"] == used - round(10.5 * GIB) - 458 * MIB
    assert "it asked for 876 MiB, 250 MiB of 11.63 GiB were free" in said
    assert "other processes: process 2001 458 MiB" in said


def test_a_run_that_stopped_while_it_loaded_has_no_negative_step(explain) -> None:
    _, waterfall, steps = explain(OOM.replace("10.00 GiB", "1.00 GiB"))
    assert steps["weights"] == GIB
    assert steps["activations"] == 0
    assert all(size >= 0 for size in steps.values())
    assert waterfall["unaccounted_bytes"] >= 0


def test_what_a_driver_spills_into_the_hosts_memory_is_said(explain) -> None:
    text = OOM[: OOM.index("Process 2001")] + OOM[OOM.index("Of the allocated") :]
    said, waterfall, _ = explain(text.replace("10.00 GiB", "13.00 GiB"))
    assert waterfall["shown_bytes"] == 13 * GIB + 400 * MIB
    assert "of it is in the host's memory: the driver spills" in said


def test_the_message_goes_before_a_report_in_the_same_text(explain) -> None:
    said, waterfall, _ = explain(f"{TABLE}\n{OOM}\n")
    assert waterfall["shown_by"] == "torch"
    assert "nvidia-smi's report in the same text is not read" in said
    said, waterfall, _ = explain(f"{TABLE}\nRuntimeError: CUDA error: out of memory\n")
    assert waterfall["shown_by"] == "nvidia-smi"
    assert "torch's out-of-memory message in the text is not read: it has no sizes" in said


def test_a_file_of_powershell_and_stdin_are_read(run, tmp_path, monkeypatch) -> None:
    (tmp_path / "smi.txt").write_text(TABLE, encoding="utf-16")
    assert "10.65 GiB" in run("compare", "sd15", "--smi", "smi.txt").out
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe" + TABLE.encode("utf-16-le")))
    )
    assert "10.65 GiB" in run("compare", "sd15", "--smi", "-").out


@pytest.mark.parametrize("gpu", ["1", "GPU-1", "0:1", "²"])
def test_a_gpu_that_a_message_is_not_about_is_one_line(run, tmp_path, gpu) -> None:
    (tmp_path / "oom.txt").write_text(OOM)
    result = run("compare", "sd15", "--smi", "oom.txt", "--gpu", gpu)
    assert (result.code, result.out) == (2, "")
    assert "torch's message" in result.error


def test_of_many_gpus_the_hint_names_the_first_twenty(run, tmp_path) -> None:
    heading, *_ = CSV.splitlines()
    rows = [f"{n}, GPU-{n}, NVIDIA GeForce RTX 4090, 24564 MiB, 512 MiB" for n in range(30)]
    (tmp_path / "pasted.txt").write_text("\n".join([heading, *rows]))
    result = run("compare", "sd15", "--smi", "pasted.txt", "--gpu", "40")
    assert result.code == 2
    assert result.hint.endswith("it lists " + ", ".join(map(str, range(20))))


def test_of_one_gpu_no_other_is_offered(explain) -> None:
    assert "--gpu takes another" not in explain(TABLE)[0]
    assert "--gpu takes another" not in explain(CSV, "--gpu", "1")[0]
    assert "GPU 1 of 0, 1; --gpu takes another" in explain(CSV)[0]


def test_where_no_process_is_told_the_fullest_gpu_is_explained(explain) -> None:
    rows = CSV.splitlines()[:3]
    rows[1] = rows[1].replace(" 512 MiB", " [N/A]")
    assert explain("\n".join(rows))[1]["shown_bytes"] == 6100 * MIB
    assert (
        explain("\n".join([rows[0], rows[2].replace("1,", "0,"), rows[1].replace("0,", "1,")]))[1][
            "shown_bytes"
        ]
        == 6100 * MIB
    )


def test_a_process_that_computes_is_there_though_its_size_is_not_told(explain) -> None:
    said, _, steps = explain(TABLE.replace("10500MiB", "    N/A "))
    assert "no process computes" not in said
    assert steps["other processes"] == 210 * MIB


def test_a_gpu_of_which_nothing_is_told_is_named(run, tmp_path) -> None:
    (tmp_path / "smi.txt").write_text(CSV.replace(" 512 MiB", " [N/A]"))
    result = run("compare", "sd15", "--smi", "smi.txt", "--gpu", "0")
    assert result.code == 2
    assert "GPU 0 (NVIDIA GeForce RTX 4090): neither its memory nor a process's" in result.error


def test_what_nvidia_smi_reserves_is_not_in_what_it_shows(explain) -> None:
    report = CSV.replace("memory.used [MiB]", "memory.reserved [MiB], memory.used [MiB]")
    report = report.replace("24564 MiB, ", "24564 MiB, 300 MiB, ")
    _, waterfall, steps = explain(report)
    assert waterfall["shown_bytes"] == 6100 * MIB
    assert "system reserved" not in steps


def test_the_gpu_of_the_largest_process_is_explained(explain) -> None:
    """Not the fullest, which others may have filled."""
    report = CSV + "GPU-00000000-0000-0000-0000-000000000001, 4343, /usr/bin/python3, 200 MiB\n"
    fuller = report.replace("24564 MiB, 512 MiB", "24564 MiB, 9000 MiB")
    assert explain(fuller)[1]["shown_bytes"] == 6100 * MIB


def test_what_just_fills_the_card_is_not_in_the_hosts_memory(explain) -> None:
    full = OOM.replace("11.63 GiB", "10.50 GiB").replace("400.00 MiB is res", "512.00 MiB is res")
    assert "the driver spills" not in explain(full)[0]
    assert "the driver spills" in explain(full.replace("512.00", "612.00"))[0]


def test_a_process_whose_size_is_not_told_is_no_less_than_none(explain) -> None:
    """Then the fullest of the two is explained."""
    untold = CSV.replace(", 5570 MiB", ", [N/A]")
    assert explain(untold.replace(" 512 MiB", " 9000 MiB"))[1]["shown_bytes"] == 9000 * MIB
    assert explain(untold)[1]["shown_bytes"] == 6100 * MIB


# -- without a TARGET -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "steps", "left", "closing"),
    [
        (
            CSV,
            {"process": 5570},
            530,
            "of the 6,100 MiB that nvidia-smi shows, 5,570 MiB are the largest process's, and",
        ),
        (
            OOM,
            {
                "live tensors": 10240,
                "allocator slack": 400,
                "CUDA context": 112,
                "other processes": 458,
            },
            None,
            "of the 11.39 GiB that torch shows, 10.00 GiB are torch's live tensors, and ",
        ),
    ],
)  # fmt: skip
def test_without_a_target_it_is_said_whose_the_memory_is(
    run, tmp_path, validate, text, steps, left, closing
) -> None:
    (tmp_path / "pasted.txt").write_text(text, encoding="utf-8")
    words = ("compare", "--smi", "pasted.txt")
    shown = run(*words)
    assert (shown.code, shown.err) == (0, "")
    assert "estimate" not in shown.out
    assert f"In short: {closing}" in " ".join(shown.out.split())
    found = run(*words, "--json").json
    validate(found)
    result = found["result"]
    assert result["pipeline"] is None
    waterfall = result["waterfall"]
    assert {one["name"]: round(one["bytes"] / MIB) for one in waterfall["steps"]} == steps
    assert all(one["estimate_bytes"] is None for one in waterfall["steps"])
    assert left is None or waterfall["unaccounted_bytes"] == left * MIB
    for other in ("markdown", "html"):
        assert "In short: of the " in run(*words, "--format", other).out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "nothing to compare"),
        (("--smi", "pasted.txt", "--batch", "2"), "belong to a TARGET, and none was named"),
        (("--smi", "pasted.txt", "--tolerance", "4"), "belong to a TARGET, and none was named"),
    ],
)
def test_what_belongs_to_a_target_needs_one(run, tmp_path, words, said) -> None:
    (tmp_path / "pasted.txt").write_text(CSV, encoding="utf-8")
    result = run("compare", *words)
    assert (result.code, result.out) == (2, "")
    assert said in result.error


def test_the_last_sentence_says_how_much_is_explained(explain) -> None:
    said, waterfall, _ = explain(CSV)
    percent = round(100 * abs(waterfall["unaccounted_bytes"]) / waterfall["shown_bytes"])
    assert "In short: of the 6,100 MiB that nvidia-smi shows, " in said
    assert f"({percent} %) " in said
