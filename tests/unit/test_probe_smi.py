"""nvidia-smi's output in its forms, of several drivers, and what is not its output."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramplan.errors import MeasurementError
from vramplan.probe.smi import read_report, used_bytes

MIB = 1 << 20

#: the form of drivers 535 and later
TABLE = """\
Fri Nov 27 10:00:00 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 570.124.04             Driver Version: 570.124.04     CUDA Version: 12.8     |
|-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|
|   0  NVIDIA GeForce RTX 3060        Off |   00000000:01:00.0  On |                  N/A |
|  0%   45C    P8             15W /  170W |    4735MiB /  12288MiB |      3%      Default |
|                                         |                        |                  N/A |
+-----------------------------------------+------------------------+----------------------+
|   1  NVIDIA A100-SXM4-40GB          On  |   00000000:41:00.0 Off |                    0 |
| N/A   30C    P0             50W /  400W |       1MiB /  40960MiB |      0%      Default |
|                                         |                        |             Disabled |
+-----------------------------------------+------------------------+----------------------+

+-----------------------------------------------------------------------------------------+
| Processes:                                                                              |
|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |
|        ID   ID                                                               Usage      |
|=========================================================================================|
|    0   N/A  N/A            1823      G   /usr/lib/xorg/Xorg                      300MiB |
|    0   N/A  N/A           47110    C+G   ...a long name with spaces --flag      4435MiB |
+-----------------------------------------------------------------------------------------+
"""

#: the form of drivers before 450
OLD = """\
+-----------------------------------------------------------------------------+
| NVIDIA-SMI 418.87.00    Driver Version: 418.87.00    CUDA Version: 10.1     |
|-------------------------------+----------------------+----------------------+
| GPU  Name        Persistence-M| Bus-Id        Disp.A | Volatile Uncorr. ECC |
| Fan  Temp  Perf  Pwr:Usage/Cap|         Memory-Usage | GPU-Util  Compute M. |
|===============================+======================+======================|
|   0  GeForce GTX 1080    Off  | 00000000:01:00.0 Off |                  N/A |
| 27%   35C    P8     6W / 180W |    512MiB /  8119MiB |      0%      Default |
+-------------------------------+----------------------+----------------------+

+-----------------------------------------------------------------------------+
| Processes:                                                       GPU Memory |
|  GPU       PID   Type   Process name                             Usage      |
|=============================================================================|
|    0     12345      C   python                                       500MiB |
+-----------------------------------------------------------------------------+
"""

CSV = """\
index, name, memory.total [MiB], memory.reserved [MiB], memory.used [MiB], memory.free [MiB]
0, NVIDIA GeForce RTX 3060, 12288 MiB, 368 MiB, 900 MiB, 11020 MiB
pid, process_name, used_gpu_memory [MiB]
4711, /usr/bin/python3, 600 MiB
4712, C:\\Program Files\\x.exe, [N/A]
"""

XML = """\
<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
  <driver_version>570.124.04</driver_version>
  <gpu id="00000000:01:00.0">
    <product_name>NVIDIA GeForce RTX 3060</product_name>
    <uuid>GPU-abc</uuid>
    <fb_memory_usage>
      <total>12288 MiB</total><reserved>368 MiB</reserved>
      <used>900 MiB</used><free>11020 MiB</free>
    </fb_memory_usage>
    <processes>
      <process_info><pid>4711</pid><type>C</type><process_name>python</process_name>
        <used_memory>600 MiB</used_memory></process_info>
    </processes>
  </gpu>
</nvidia_smi_log>
"""


def test_the_table_of_todays_drivers() -> None:
    report = read_report(TABLE)
    assert report.driver == "570.124.04"
    first, second = report.gpus
    assert (first.index, first.name) == (0, "NVIDIA GeForce RTX 3060")
    assert (first.memory.used_bytes, first.memory.total_bytes) == (4735 * MIB, 12288 * MIB)
    xorg, own = first.memory.processes
    assert (xorg.pid, xorg.kind, xorg.used_bytes) == (1823, "G", 300 * MIB)
    assert (own.pid, own.kind, own.name) == (47110, "C+G", "...a long name with spaces --flag")
    assert (second.index, second.memory.used_bytes) == (1, MIB)
    assert second.memory.processes is None
    assert used_bytes(TABLE) == 4735 * MIB


def test_the_table_of_old_drivers() -> None:
    (gpu,) = read_report(OLD).gpus
    assert gpu.name == "GeForce GTX 1080"
    assert gpu.memory.used_bytes == 512 * MIB
    (process,) = gpu.memory.processes
    assert (process.pid, process.used_bytes) == (12345, 500 * MIB)


def test_windows_and_wsl_list_processes_without_their_memory() -> None:
    text = TABLE.replace("4435MiB |", "    N/A |").replace("Off |   00000000", "WDDM | 00000000")
    own = read_report(text).gpus[0].memory.processes[-1]
    assert own.used_bytes is None


def test_nobody_listed_is_not_nobody_there() -> None:
    text = TABLE[: TABLE.index("|    0   N/A  N/A            1823")]
    text += "|  No running processes found                                        |\n"
    assert read_report(text).gpus[0].memory.processes is None


def test_csv_has_the_systems_share_and_the_processes() -> None:
    (gpu,) = read_report(CSV).gpus
    assert gpu.memory.reserved_bytes == 368 * MIB
    assert gpu.memory.free_bytes == 11020 * MIB
    first, second = gpu.memory.processes
    assert (first.pid, first.used_bytes) == (4711, 600 * MIB)
    assert second.used_bytes is None


def test_xml_is_read_whole() -> None:
    report = read_report(XML)
    (gpu,) = report.gpus
    assert (report.driver, gpu.uuid) == ("570.124.04", "GPU-abc")
    assert gpu.memory.reserved_bytes == 368 * MIB
    assert [one.pid for one in gpu.memory.processes] == [4711]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        XML.replace("<!DOCTYPE", '<!ENTITY a "b"><!DOCTYPE'),
        "a,b\n1,2\n",
        "x" * (2 << 20),
        "NVIDIA-SMI" + "|" * 500_000,
        "step, loss\n100, 2000\n",
    ],
)
def test_other_text_is_one_line_and_soon(calls, text: str) -> None:
    with pytest.raises(MeasurementError, match="not what nvidia-smi prints") as raised, calls:
        read_report(text)
    assert "\n" not in str(raised.value)
    assert calls.made < 5_000, calls.made


@given(st.text(max_size=400))
def test_any_text_is_a_report_or_an_error(text: str) -> None:
    for head in ("", "NVIDIA-SMI\n", "<nvidia_smi_log>", "memory.used, memory.total\n"):
        try:
            assert read_report(head + text).gpus
        except MeasurementError:
            continue


MIG = """\
+---------------------------------------------------------------------------------------+
| NVIDIA-SMI 535.104.12             Driver Version: 535.104.12   CUDA Version: 12.2     |
|-----------------------------------------+----------------------+----------------------+
|   0  NVIDIA H100 80GB HBM3          On  | 00000000:8B:00.0 Off |                   On |
| N/A   48C    P0             138W / 700W |                  N/A |     N/A      Default |
|                                         |                      |              Enabled |
+-----------------------------------------+----------------------+----------------------+
| MIG devices:                                                                          |
|  0    9   0   0  |              12MiB /  9984MiB  | 16      0 |  1   0    1    0    1 |
|                  |               0MiB / 16383MiB  |           |                       |
+------------------+--------------------------------+-----------+-----------------------+
"""


def test_an_instance_tells_its_memory_where_the_gpu_does_not() -> None:
    (gpu,) = read_report(MIG).gpus
    assert (gpu.used_bytes, gpu.untold) == (None, "N/A")
    (instance,) = gpu.instances
    assert (instance.instance, instance.place) == (9, "GPU 0, MIG instance 9")
    assert (instance.used_bytes, instance.total_bytes) == (12 * MIB, 9984 * MIB), "not BAR1's"


def test_a_gpu_that_tells_its_memory_keeps_it_beside_mig_devices() -> None:
    told = MIG.replace("|                  N/A |     N/A", "|     39MiB / 81559MiB |     N/A", 1)
    assert read_report(told).gpus[0].memory.total_bytes == 81559 << 20


def test_an_indented_table_is_a_table() -> None:
    told = MIG.replace("|                  N/A |     N/A", "|     39MiB / 81559MiB |     N/A", 1)
    indented = "\n".join("    " + line for line in told.splitlines())
    assert read_report(indented) == read_report(told)


QUERY = """\

==============NVSMI LOG==============

Timestamp                                 : Mon Jan  1 00:00:00 2026
Driver Version                            : 550.54.14
CUDA Version                              : 12.4

Attached GPUs                             : 2
GPU 00000000:01:00.0
    Product Name                          : NVIDIA GeForce RTX 3060
    GPU UUID                              : GPU-11111111-2222-3333-4444-555555555555
    FB Memory Usage
        Total                             : 12288 MiB
        Reserved                          : 230 MiB
        Used                              : 5512 MiB
        Free                              : 6545 MiB
    BAR1 Memory Usage
        Total                             : 16384 MiB
        Used                              : 5 MiB
        Free                              : 16379 MiB
    Processes
        GPU instance ID                   : N/A
        Process ID                        : 1234
            Type                          : G
            Name                          : /usr/lib/xorg/Xorg
            Used GPU Memory               : 312 MiB
        Process ID                        : 4711
            Type                          : C
            Name                          : C:\\python: 3
            Used GPU Memory               : 5100 MiB
GPU 00000000:02:00.0
    Product Name                          : NVIDIA A2
    FB Memory Usage
        Total                             : 15356 MiB
        Used                              : 0 MiB
        Free                              : 15356 MiB
    Processes                             : None
"""


def test_the_log_is_read_as_its_xml_is() -> None:
    report = read_report(QUERY)
    assert report.driver == "550.54.14"
    first, second = report.gpus
    assert (first.name, first.index) == ("NVIDIA GeForce RTX 3060", 0)
    assert first.uuid == "GPU-11111111-2222-3333-4444-555555555555"
    memory = first.memory
    assert (memory.total_bytes, memory.used_bytes) == (12288 * MIB, 5512 * MIB), "not BAR1's"
    assert (memory.free_bytes, memory.reserved_bytes) == (6545 * MIB, 230 * MIB)
    assert [(p.pid, p.kind, p.name, p.used_bytes) for p in memory.processes] == [
        (1234, "G", "/usr/lib/xorg/Xorg", 312 * MIB),
        (4711, "C", "C:\\python: 3", 5100 * MIB),
    ]
    assert (second.name, second.memory.used_bytes) == ("NVIDIA A2", 0)
    assert second.memory.processes is None


def test_nothing_at_all_is_said_to_be_empty() -> None:
    with pytest.raises(MeasurementError, match="it is empty"):
        read_report(" \n")
