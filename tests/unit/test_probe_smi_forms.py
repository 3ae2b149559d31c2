"""Forms of nvidia-smi's output that people posted, drivers 3xx to 6xx; names and numbers invented.

Each was read wrong once, or not at all. Sources: public issues of nvgpu, nvitop, nvtop, gpustat,
ollama, nvidia-docker and others, MIG's user guide, NVIDIA's man page of nvidia-smi.
"""

from __future__ import annotations

import json

import pytest

from vramplan.errors import MeasurementError
from vramplan.probe.smi import read_report
from vramplan.probe.wrappings import decode_paste

MIB = 1 << 20

HEADING = "| NVIDIA-SMI 590.48.01     Driver Version: 590.48.01      CUDA Version: 13.1     |"
TABLE = f"""\
Sun Jun 14 10:00:00 2026
+-----------------------------------------------------------------------------------------+
{HEADING}
+-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|
|   0  NVIDIA GeForce RTX 3060        On  |   00000000:01:00.0  On |                  N/A |
|  0%   49C    P5             40W /  170W |   10908MiB /  12288MiB |      7%      Default |
|                                         |                        |                  N/A |
+-----------------------------------------+------------------------+----------------------+

+-----------------------------------------------------------------------------------------+
| Processes:                                                                              |
|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |
|        ID   ID                                                               Usage      |
|=========================================================================================|
|    0   N/A  N/A            1001      G   /usr/lib/Xorg                           210MiB |
|    0   N/A  N/A            2002      C   /usr/bin/ollama                       10500MiB |
+-----------------------------------------------------------------------------------------+
"""


def sizes(text: str) -> tuple[list[int | None], list[tuple[int, int | None]]]:
    """Return what is used on each GPU, and each process with what it holds, in MiB."""
    gpus = read_report(text).gpus
    used = [None if one.used_bytes is None else one.used_bytes // MIB for one in gpus]
    held = [
        (process.pid, None if process.used_bytes is None else process.used_bytes // MIB)
        for one in gpus
        for process in one.processes or ()
    ]
    return used, held


READ = ([10908], [(1001, 210), (2002, 10500)])


def broken_at(text: str, width: int) -> str:
    lines = []
    for line in text.splitlines():
        lines += [line[at : at + width] for at in range(0, max(len(line), 1), width)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "around",
    [
        lambda text: "".join(f"> {line}\n" for line in text.splitlines()),
        lambda text: "".join(f">> > {line}\n" for line in text.splitlines()),
        lambda text: "He wrote:\n\n" + "".join(f">{line}\n" for line in text.splitlines()),
        lambda text: "".join(f"# {line}\n" for line in text.splitlines()),
        lambda text: "".join(f"    {line}\n" for line in text.splitlines()),
        lambda text: "".join(f"smi-1  | {line}\n" for line in text.splitlines()),
        lambda text: "".join(
            f"2026-06-14T10:00:00.123Z stdout F {line}\n" for line in text.splitlines()
        ),
        lambda text: f"```text\n{text}```\nand then it stops\n",
        lambda text: f"me@host:~$ nvidia-smi\n{text}me@host:~$\n",
        lambda text: text.replace("|", "||"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\n".join(" ".join(line.split()) for line in text.splitlines()),
        lambda text: text.replace("|", "│").replace("=", "═"),
        lambda text: text.replace(" ", "\u00a0"),
        lambda text: text.replace("> ", "&gt; ").replace(" ", "&nbsp;"),
        lambda text: "".join(f"&gt; {line}\n" for line in text.splitlines()),
        lambda text: json.dumps(text)[1:-1],
        lambda text: broken_at(text, 80),
        lambda text: "\x1b[2J\x1b[1;32m" + text + "\x1b[0m",
        lambda text: "Every 2.0s: nvidia-smi\n\n" + text,
        lambda text: "\n".join(text.splitlines()[8:]),
        lambda text: decode_paste(text.encode("utf-16")),
        lambda text: decode_paste(text.encode("utf-8-sig")),
        lambda text: decode_paste(text.encode("utf-16-le")),
    ],
)
def test_what_stands_around_a_table_is_taken_off(around) -> None:
    assert sizes(around(TABLE)) == READ


def test_several_tables_are_several_reports() -> None:
    later = (
        TABLE.replace("10:00:00", "10:00:05").replace("10908", " 4711").replace("10500", " 4301")
    )
    report = read_report(TABLE + later)
    assert sizes(TABLE + later) == ([4711], [(1001, 210), (2002, 4301)])
    assert "the last of 2 reports in the text (10:00:05)" in report.remarks[0]
    assert "the other is not read" in report.remarks[0]
    assert "the other 2 are not read" in read_report(TABLE + TABLE + later).remarks[0]
    without_heading = "\n".join(later.splitlines()[8:])
    assert sizes(TABLE + without_heading) == ([4711], [(1001, 210), (2002, 4301)])
    cut = TABLE + "\n".join(later.splitlines()[:7])
    assert sizes(cut) == READ, "the last that tells something"


@pytest.mark.parametrize(
    ("heading", "driver"),
    [
        ("| NVIDIA-SMI 610.43.02     KMD Version: 610.43.02     CUDA UMD Version: 13.3     |",
         "610.43.02"),
        ("| NVIDIA-SMI 5.325.15   Driver Version: 325.15         |", "325.15"),
        ("| NVIDIA-SMI 367.57                 Driver Version: 367.57                    |",
         "367.57"),
        ("| NVIDIA-SMI 540.3.0                Driver Version: N/A          CUDA Version: 12.2 |",
         None),
    ],
)  # fmt: skip
def test_headings_of_all_drivers(heading: str, driver: str | None) -> None:
    text = TABLE.replace(HEADING, heading)
    assert sizes(text) == READ
    assert read_report(text).driver == driver


@pytest.mark.parametrize(
    ("row", "pid", "kind", "name", "held"),
    [
        ("|    0   N/A  N/A     3003    M+C   python                      4500MiB |",
         3003, "M+C", "python", 4500),
        ("|    0   N/A  N/A     3003    C+G   ...n64\\Launcher.exe            N/A      |",
         3003, "C+G", "...n64\\Launcher.exe", None),
        ("|    0   N/A  N/A     3003      C   Insufficient Permissions       N/A      |",
         3003, "C", "Insufficient Permissions", None),
        ("|    0     3003      C   python a|b                                 500MiB |",
         3003, "C", "python a | b", 500),
        ("|    0      3003  /usr/bin/python                                     123MB  |",
         3003, "C", "/usr/bin/python", 123),
        ("|    0   N/A  N/A        3003      G   /Xwayland                       N/A      |",
         3003, "G", "/Xwayland", None),
        ("|    0   N/A  N/A   3003      C   python -m a --very-long-argument-1   1 MiB |",
         3003, "C", "python -m a --very-long-argument-1", 1),
    ],
)  # fmt: skip
def test_rows_of_processes(row: str, pid: int, kind: str, name: str, held: int | None) -> None:
    lines = [*TABLE.splitlines()[:-3], row]
    report = read_report("\n".join(lines))
    own = report.gpus[0].processes[-1]
    assert (own.pid, own.kind, own.name) == (pid, kind, name)
    assert own.used_bytes == (None if held is None else held * MIB)
    assert report.remarks == ()


def test_lines_that_are_not_understood_are_counted() -> None:
    text = TABLE.replace("10500MiB |", "         |").replace("210MiB |", "?       |")
    (remark,) = read_report(text).remarks
    assert remark.startswith("2 lines of the report not understood, the first: | 0 N/A N/A 1001")


def test_ten_gpus_and_more() -> None:
    gpus = "".join(
        f"|  {index:2}  NVIDIA L4     On  | 00000000:{index:02X}:00.0 Off |   0 |\n"
        f"| N/A   30C    P8    12W /   72W |   {index}MiB /  23034MiB |   0%      Default |\n"
        for index in range(12)
    )
    processes = "| Processes:  |\n|   11   N/A  N/A      77      C   python        11MiB |\n"
    used, held = sizes(f"{HEADING}\n{gpus}{processes}")
    assert used == list(range(12))
    assert held == [(77, 11)]


def test_processes_alone_are_a_report_without_the_cards_memory() -> None:
    text = TABLE[TABLE.index("| Processes:") :]
    assert sizes(text) == ([None], [(1001, 210), (2002, 10500)])


UNIFIED = TABLE.replace("NVIDIA GeForce RTX 3060  ", "NVIDIA GB10              ").replace(
    "  10908MiB /  12288MiB |", "Not Supported          |"
)


def test_a_gpu_with_the_hosts_memory_tells_its_processes() -> None:
    (gpu,) = read_report(UNIFIED).gpus
    assert (gpu.name, gpu.used_bytes, gpu.untold) == ("NVIDIA GB10", None, "Not Supported")
    assert [one.used_bytes for one in gpu.processes] == [210 * MIB, 10500 * MIB]


JETSON = """\
| NVIDIA-SMI 540.4.0                Driver Version: 540.4.0      CUDA Version: N/A      |
|=========================================+======================+======================|
|   0  Orin (nvgpu)                  N/A  | N/A              N/A |                  N/A |
| N/A   N/A  N/A               N/A /  N/A | Not Supported        |     N/A          N/A |
|                                         |                      |                  N/A |
+-----------------------------------------+----------------------+----------------------+
| Processes:                                                                            |
|  No running processes found                                                           |
"""

LACKING = [
    (JETSON, "the memory of Orin (nvgpu) and of its processes: there it says 'Not Supported'"),
    (TABLE[: TABLE.index("|  0%")], "the memory of NVIDIA GeForce RTX 3060"),
    ("name, memory.used [MiB], memory.total [MiB]\nNVIDIA GB10, [N/A], [N/A]\n",
     "the memory of NVIDIA GB10 and of its processes: there it says '[N/A]'"),
    ("NVIDIA GB10, [N/A], [N/A], 0", "the memory of NVIDIA GB10"),
    ("GPU 0: NVIDIA A2 (UUID: GPU-00000000-0000-0000-0000-000000000001)\n",
     "the memory of NVIDIA A2"),
    ("name, driver_version\nNVIDIA A2, 570.1\n", "the memory of NVIDIA A2"),
    ("0, NVIDIA A2, 15356, 15000, 356", "used is not told from free"),
    ("# gpu    pid  type    sm   mem   command\n    0   1001   C   30   20   python\n",
     "the memory of GPU"),
    ("==============NVSMI LOG==============\nDriver Version : 580.1\nAttached GPUs : 1\n",
     "no GPU is in it"),
    ("==NVSMI LOG==\nGPU 0000000F:01:00.0\n    FB Memory Usage\n        Used : N/A\n",
     "there it says 'N/A'"),
    ("<nvidia_smi_log>\n<driver_version>1</driver_version>\n<gpu id='0'><product_name>A",
     "no GPU is in it: the text ends in the middle"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), LACKING)
def test_a_report_that_tells_no_memory_is_still_nvidia_smis(text: str, said: str) -> None:
    with pytest.raises(MeasurementError, match="nvidia-smi's, but") as raised:
        read_report(text)
    assert said in str(raised.value)
    assert raised.value.hint is not None
    assert "not what nvidia-smi prints" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
        "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95",
        "Failed to initialize NVML: Unknown Error",
        "Failed to initialize NVML: GPU access blocked by the operating system",
        "Unable to determine the device handle for GPU0000:0B:00.0: Unknown Error",
        "Unable to determine the device handle for gpu 0000:01:00.0: Not Found",
        "Unable to detect the device handle for GPU0000:B1:00.0: Unknown Error",
        "Unable to determine the device handle for GPU 0000:0A:00.0: GPU is lost.  Reboot it",
        "No devices were found",
        "> No devices were found",
        "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure",
        "bash: nvidia-smi: command not found",
        "zsh: command not found: nvidia-smi",
        "Command 'nvidia-smi' not found, but can be installed with:",
        "'nvidia-smi' is not recognized as an internal or external command,",
        "Not supported on the device(s)\nFailed to process command line",
        'Field "memory.usd" is not a valid field to query.',
    ],
)
def test_its_own_failures_are_repeated(text: str) -> None:
    with pytest.raises(MeasurementError, match="nvidia-smi itself failed: ") as raised:
        read_report(text)
    assert text.splitlines()[0].removeprefix("> ").split("  ")[0].rstrip(".") in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.hint


# -------------------------------------------------------------------------------------------- MIG
MIG = """\
| NVIDIA-SMI 580.65.06     Driver Version: 580.65.06      CUDA Version: 13.0     |
|   0  NVIDIA A100-SXM4-80GB        On  | 00000000:42:00.0 Off |                   On |
| N/A   30C    P0            141W / 400W |    87MiB /  81920MiB |     N/A      Default |
|                                        |                      |              Enabled |
+----------------------------------------+----------------------+----------------------+
| MIG devices:                                                                |
+------------------+----------------------+-----------+-----------------------+
| GPU  GI  CI  MIG |         Memory-Usage |        Vol|         Shared        |
|      ID  ID  Dev |           BAR1-Usage | SM     Unc| CE  ENC  DEC  OFA  JPG|
|==================+======================+===========+=======================|
|  0    1   0   0  |   3337MiB / 40192MiB | 14      0 |  3   0    2    0    0 |
|                  |      0MiB / 65535MiB |           |                       |
+------------------+                      +-----------+-----------------------+
|  0    1   1   1  |                      | 28      0 |  3   0    2    0    0 |
+------------------+----------------------+-----------+-----------------------+
|  0    2   0   2  |     49MiB / 40192MiB | 14      0 |  4   0    2    0    0 |
+------------------+----------------------+-----------+-----------------------+
| Processes:                                                                  |
|    0    1    0       4001      C   python                           3000MiB |
|    0    1    1       4002      C   other                             300MiB |
|    0    2    0       4003      C   third                              12MiB |
"""


def test_compute_instances_of_one_gpu_instance_share_its_memory() -> None:
    (gpu,) = read_report(MIG).gpus
    first, second = gpu.instances
    assert (first.used_bytes, first.total_bytes) == (3337 * MIB, 40192 * MIB)
    assert [one.pid for one in first.processes] == [4001, 4002]
    assert [one.pid for one in second.processes] == [4003]
    assert second.used_bytes == 49 * MIB


MIG_XML = """\
<nvidia_smi_log><driver_version>575.57.08</driver_version><gpu id="00000000:55:00.0">
  <product_name>NVIDIA A2</product_name><uuid>GPU-1</uuid>
  <mig_mode><current_mig>Enabled</current_mig></mig_mode>
  <mig_devices>
    <mig_device><index>0</index><gpu_instance_id>3</gpu_instance_id>
      <fb_memory_usage><total>24576 MiB</total><used>1200 MiB</used></fb_memory_usage></mig_device>
    <mig_device><index>1</index><gpu_instance_id>4</gpu_instance_id>
      <fb_memory_usage><total>24576 MiB</total><used>48 MiB</used></fb_memory_usage></mig_device>
  </mig_devices>
  <fb_memory_usage><total>97871 MiB</total><used>N/A</used><free>N/A</free></fb_memory_usage>
  <processes><process_info><gpu_instance_id>3</gpu_instance_id><pid>7</pid><type>C</type>
    <process_name>python</process_name><used_memory>1100 MiB</used_memory></process_info>
  </processes>
</gpu></nvidia_smi_log>
"""

MIG_LOG = """\
==============NVSMI LOG==============
Driver Version                            : [Deprecated; use KMD Version]
KMD Version                               : 610.43.02
GPU 00000001:04:00.0
    Product Name                          : NVIDIA A2
    MIG Mode
        Current                           : Enabled
    MIG Device
        Index                             : 0
        GPU Instance ID                   : 3
        Shared FB Memory Usage
            Total                         : 24576 MiB
            Reserved                      : 0 MiB
            Used                          : 1200 MiB
            Free                          : 23376 MiB
        Shared BAR1 Memory
            Total                         : 65536 MiB
            Used                          : 9 MiB
    MIG Device
        Index                             : 1
        GPU Instance ID                   : 4
        FB Memory Usage
            Total                         : 24576 MiB
            Used                          : 48 MiB
    GPU UUID                              : GPU-1
    FB Memory Usage
        Total                             : 97871 MiB
        Used                              : 1248 MiB
    Processes
        GPU instance ID                   : 3
        Compute instance ID               : 0
        Process ID                        : 7
            Type                          : C
            Name                          : python
            Used GPU Memory               : 1100 MiB
"""


@pytest.mark.parametrize(
    "text", [MIG_XML, MIG_LOG, "\n".join(line.strip() for line in MIG_LOG.splitlines())]
)
def test_instances_in_xml_and_in_the_log(text: str) -> None:
    (gpu,) = read_report(text).gpus
    assert gpu.total_bytes == 97871 * MIB
    assert gpu.used_bytes in (None, 1248 * MIB)
    first, second = gpu.instances
    assert (first.instance, first.used_bytes) == (3, 1200 * MIB)
    assert (second.instance, second.used_bytes) == (4, 48 * MIB)
    assert [one.pid for one in first.processes] == [7]
    assert second.processes is None


def test_the_log_of_driver_610_tells_its_driver() -> None:
    assert read_report(MIG_LOG).driver == "610.43.02"


def test_several_logs_and_documents_are_several_reports() -> None:
    for text in (MIG_LOG, MIG_XML):
        later = text.replace("1200 MiB", "1300 MiB")
        report = read_report(text + later)
        assert report.gpus[0].instances[0].used_bytes == 1300 * MIB
        assert report.remarks == ("the last of 2 reports in the text; the other is not read",)


def test_of_xml_that_is_cut_the_whole_gpus_are_read() -> None:
    gpu = MIG_XML[MIG_XML.index("<gpu") : MIG_XML.index("</nvidia")]
    report = read_report(f"<nvidia_smi_log>{gpu}{gpu[:200]}")
    assert len(report.gpus) == 1
    assert report.remarks == (
        "the text ends in the middle of the report: what stands before is read",
    )


# -------------------------------------------------------------------------------------------- CSV
FIRST, SECOND = (f"GPU-00000000-0000-0000-0000-00000000000{number}" for number in (1, 2))
GPUS = f"""\
index, uuid, name, memory.total [MiB], memory.used [MiB]
0, {FIRST}, NVIDIA GeForce RTX 4090, 24564 MiB, 512 MiB
1, {SECOND}, NVIDIA GeForce RTX 4090, 24564 MiB, 6100 MiB
"""
APPS = f"""\
gpu_uuid, pid, process_name, used_gpu_memory [MiB]
{SECOND}, 4242, /usr/bin/python3 -c a, b, 5570 MiB
"""


@pytest.mark.parametrize("text", [GPUS + APPS, APPS + GPUS, f"$ nvidia-smi\n{GPUS}\n$\n{APPS}"])
def test_processes_are_joined_to_their_gpu_by_uuid(text: str) -> None:
    first, second = read_report(text).gpus
    assert first.processes is None
    (own,) = second.processes
    assert (own.pid, own.name, own.used_bytes) == (4242, "/usr/bin/python3 -c a, b", 5570 * MIB)


def test_processes_are_joined_by_bus_and_by_the_list_of_gpus() -> None:
    text = (
        "pci.bus_id, name, memory.used [MiB], memory.total [MiB]\n"
        "00000000:01:00.0, NVIDIA A2, 1 MiB, 15356 MiB\n"
        "00000000:02:00.0, NVIDIA A2, 2 MiB, 15356 MiB\n"
        "gpu_bus_id, pid, used_gpu_memory [MiB]\n00000000:02:00.0, 7, 2 MiB\n"
    )
    assert [one.processes is None for one in read_report(text).gpus] == [True, False]
    listed = f"GPU 0: NVIDIA A2 (UUID: {FIRST})\nGPU 1: NVIDIA L4 (UUID: {SECOND})\n" + APPS
    first, second = read_report(listed).gpus
    assert (second.index, second.name, second.used_bytes) == (1, "NVIDIA L4", None)
    assert (first.processes, len(second.processes)) == (None, 1)


def test_a_process_on_a_gpu_that_is_not_listed_is_not_lost() -> None:
    only_first = "\n".join(GPUS.splitlines()[:2]) + "\n"
    first, second = read_report(only_first + APPS).gpus
    assert first.processes is None
    assert (second.uuid, second.used_bytes, second.processes[0].pid) == (SECOND, None, 4242)


def test_processes_that_no_gpu_can_be_found_for_are_counted() -> None:
    text = GPUS + "pid, process_name, used_gpu_memory [MiB]\n7, a, 1 MiB\n8, b, 2 MiB\n"
    (remark,) = read_report(text).remarks
    assert remark.startswith("2 processes not read: the text does not say on which GPU")


def test_processes_alone_are_read() -> None:
    assert sizes("pid, process_name, used_gpu_memory [MiB]\n4242, python3, 5570 MiB\n") == (
        [None],
        [(4242, 5570)],
    )


@pytest.mark.parametrize(
    ("text", "used", "held"),
    [
        ("0, NVIDIA GeForce RTX 4090, 24564, 6100", [6100], []),
        ("NVIDIA GeForce RTX 4090, 6100, 24564", [6100], []),
        ("0, NVIDIA L4, 512 MiB, 23034 MiB\n1, NVIDIA L4, 6100 MiB, 23034 MiB", [512, 6100], []),
        ("2026/06/14 10:00:00.123, Tesla T4, 61, 35, 8000, 15360", [8000], []),
        ("6100 MiB, 24564 MiB", [6100], []),
        ("35 %, 6100 MiB, 24564 MiB", [6100], []),
        ("6100, 24564", [6100], []),
        ("35, 6100, 24564", [6100], []),
        (f"{SECOND}, 4242, /usr/bin/python3, 5570", [None], [(4242, 5570)]),
        ("4242, python3, 5570 MiB\n4243, [Not Found], [N/A]", [None], [(4242, 5570), (4243, None)]),
        ("4242, 5570 MiB", [None], [(4242, 5570)]),
        ("0, NVIDIA A2, 15356, 6100\n4242, /usr/bin/python3, 5570", [6100], [(4242, 5570)]),
    ],
)
def test_rows_without_headings_are_told_by_what_is_in_them(text, used, held) -> None:
    report = read_report(text, capacities={24564})
    assert [one.used_bytes and one.used_bytes // MIB for one in report.gpus] == used
    processes = [one for gpu in report.gpus for one in gpu.processes or ()]
    assert [(one.pid, one.used_bytes and one.used_bytes // MIB) for one in processes] == held
    assert any("no headings" in remark for remark in report.remarks)


def test_numbers_that_no_card_has_are_not_nvidia_smis() -> None:
    for text in ("4242, 5570", "35, 6100, 24564", "2026, 12, 31"):
        with pytest.raises(MeasurementError, match="not what nvidia-smi prints"):
            read_report(text)


def test_the_query_names_the_columns_that_have_no_headings() -> None:
    text = (
        "$ nvidia-smi --query-gpu=memory.total,memory.free,memory.used --format=csv,noheader\n"
        "24564, 18000, 6100\n"
        "$ nvidia-smi --query-compute-apps=used_memory,pid --format=csv,noheader,nounits\n"
        "5570, 4242\n"
    )
    assert sizes(text) == ([6100], [(4242, 5570)])
    assert read_report(text).remarks == ()


def test_what_is_used_is_the_total_less_what_is_free() -> None:
    text = "name, memory.total [MiB], memory.free [MiB]\nNVIDIA A2, 15356 MiB, 5356 MiB\n"
    assert sizes(text) == ([10000], [])
    assert sizes("memory.used [MiB]\n512 MiB\n") == ([512], [])


def test_a_loop_of_csv_is_several_looks() -> None:
    text = GPUS + "".join(GPUS.splitlines(keepends=True)[1:]).replace("6100", "7000")
    report = read_report(text)
    assert [one.used_bytes // MIB for one in report.gpus] == [512, 7000]
    assert report.remarks == ("the last of 2 reports in the text; the other is not read",)
    apps = "pid, used_gpu_memory [MiB]\n7, 1 MiB\n8, 1 MiB\n7, 2 MiB\n"
    assert sizes(apps) == ([None], [(7, 2)])


def test_the_monitor_of_processes_has_its_last_sample_read() -> None:
    text = (
        "# gpu        pid  type    fb    sm   mem   enc   dec   command\n"
        "# Idx          #   C/G    MB     %     %     %     %   name\n"
        "    0     447153     C  7669     -     -     -     -   python3.9\n"
        "    1          -     -     -     -     -     -     -   -\n"
        "    0     447153     C  7700     -     -     -     -   python3.9 -m x\n"
        "    1          -     -     -     -     -     -     -   -\n"
    )
    report = read_report(text)
    assert sizes(text) == ([None, None], [(447153, 7700)])
    assert report.gpus[0].processes[0].name == "python3.9 -m x"
    memory = "# gpu    fb   bar1\n# Idx    MB    MB\n    0   512     3\n    1   600     3\n"
    assert sizes(memory) == ([512, 600], [])


def test_one_form_of_several_in_a_text_is_read_and_the_others_named() -> None:
    report = read_report(TABLE + GPUS)
    assert len(report.gpus) == 1
    assert report.remarks == ("a table is read; the text also has CSV: not read",)


def test_a_loop_that_ran_long_has_its_last_look_read() -> None:
    row = "0, NVIDIA A2, 15356 MiB, {} MiB\n"
    text = "index, name, memory.total [MiB], memory.used [MiB]\n" + "".join(
        row.format(used) for used in range(25_000)
    )
    report = read_report(text)
    assert report.gpus[0].used_bytes == 24_999 * MIB
    assert "5,001 lines in the middle not read: 20,000 are" in report.remarks


def test_rows_that_nothing_names_are_taken_for_gpus_and_it_is_said() -> None:
    text = "memory.used [MiB], memory.total [MiB]\n1 MiB, 15356 MiB\n2 MiB, 15356 MiB\n"
    report = read_report(text)
    assert [one.used_bytes for one in report.gpus] == [MIB, 2 * MIB]
    assert report.remarks == ("2 rows without index or UUID: each is taken for a GPU",)
