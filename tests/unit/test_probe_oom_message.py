"""torch's out-of-memory messages, of torch 1.0 to 2.14, with names and numbers invented.

Forms: pytorch/pytorch#99699 (2.1), #124673 (private pools), THCCachingAllocator ("cached"),
c10/cuda/CUDAMallocAsyncAllocator.cpp, ComfyUI's logs, ROCm/TheRock#2118 (HIP, "allowed").
"""

from __future__ import annotations

import pytest

from vramplan.errors import MeasurementError
from vramplan.probe.oom_message import OomMessage, has_oom_message, read_oom_message
from vramplan.probe.wrappings import clean_paste

MIB = 1 << 20
GIB = 1 << 30

ADVICE = (
    " If reserved but unallocated memory is large try setting "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation"
)
CURRENT = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 876.00 MiB. GPU 0 has a total "
    "capacity of 23.68 GiB of which 251.06 MiB is free. Process 2001 has 458.00 MiB memory in use. "
    "Including non-PyTorch memory, this process has 20.00 GiB memory in use. Process 2002 has "
    "2.50 GiB memory in use. Of the allocated memory 19.25 GiB is allocated by PyTorch, and "
    "77.68 MiB is reserved by PyTorch but unallocated." + ADVICE
)
OLD = (
    "RuntimeError: CUDA out of memory. Tried to allocate 130.00 MiB (GPU 1; 7.80 GiB total "
    "capacity; 5.50 GiB already allocated; 33.56 MiB free; 6.00 GiB reserved in total by PyTorch)"
)
ASYNC = """\
Allocation on device 0 would exceed allowed memory. (out of memory)
Currently allocated     : 8.25 GiB
Requested               : 512.00 KiB
Device limit            : 15.75 GiB
Free (according to CUDA): 0 bytes
PyTorch limit (set by user-supplied memory fraction)
                        : 17179869184.00 GiB
"""


def hundredths(size: float, unit: int) -> int:
    return round(size * unit)


def test_the_message_of_today_has_every_step() -> None:
    read = read_oom_message(CURRENT)
    assert (read.device, read.asked_bytes) == (0, 876 * MIB)
    assert read.capacity_bytes == hundredths(23.68, GIB)
    assert read.free_bytes == hundredths(251.06, MIB)
    assert read.in_use_bytes == 20 * GIB
    assert read.allocated_bytes == hundredths(19.25, GIB)
    assert read.unallocated_bytes == hundredths(77.68, MIB)
    assert read.reserved_bytes == read.allocated_bytes + read.unallocated_bytes
    assert read.others == ((2001, 458 * MIB), (2002, hundredths(2.5, GIB)))
    assert read.remarks == ()


@pytest.mark.parametrize(
    "around",
    [
        lambda text: text.replace("capacity of", "capacty of"),
        lambda text: text.replace("CUDA out", "HIP out"),
        lambda text: text.replace("torch.OutOfMemoryError: ", ""),
        lambda text: text[text.index("Tried") :],
        lambda text: "".join(f"> {line}\n" for line in text.replace(". ", ".\n").split("\n")),
        lambda text: "".join(
            f"| {line}\n" for line in text.replace(" memory", "\nmemory").split("\n")
        ),
        lambda text: (
            'Traceback\n  File "a.py", line 1\n' + text + "\n\nDuring handling of it\n" + text
        ),
        lambda text: f"E   {text}\nFAILED test_x.py::test_y - {text[:60]}...\n",
        lambda text: f"{{'error': '{text}', 'metric': None}}",
    ],
)
def test_what_stands_around_a_message_does_not_matter(around) -> None:
    assert read_oom_message(clean_paste(around(CURRENT))) == read_oom_message(CURRENT)


def test_private_pools_and_a_limit_are_told() -> None:
    text = CURRENT.replace(
        "is allocated by PyTorch, and",
        "is allocated by PyTorch, with 328.00 MiB allocated in private pools (e.g., Graphs), and",
    ).replace("MiB is free. ", "MiB is free. 9.50 GiB allowed; ")
    read = read_oom_message(text)
    assert read.allowed_bytes == hundredths(9.5, GIB)
    assert read.unallocated_bytes == hundredths(77.68, MIB)
    assert read.remarks == ("in private pools (CUDA graphs): 328 MiB of it",)


def test_in_a_container_torchs_own_process_is_the_one_that_is_large_enough() -> None:
    text = CURRENT.replace("Including non-PyTorch memory, this process", "Process 2000")
    read = read_oom_message(text)
    assert read.in_use_bytes == 20 * GIB
    assert read.others == ((2001, 458 * MIB), (2002, hundredths(2.5, GIB)))
    assert "process 2000 is taken for torch's own" in read.remarks[0]
    two = read_oom_message(text.replace("2.50 GiB", "21.50 GiB"))
    assert (two.in_use_bytes, two.others) == (None, None)
    assert "is not told" in two.remarks[0]


def test_windows_names_no_process() -> None:
    text = CURRENT[: CURRENT.index("Process 2001")] + CURRENT[CURRENT.index("Of the allocated") :]
    read = read_oom_message(text)
    assert (read.in_use_bytes, read.others) == (None, None)


def test_what_wsl_does_not_tell_is_not_a_size() -> None:
    text = CURRENT.replace("458.00 MiB", "17179869184.00 GiB").replace("20.00", "17179869184.00")
    read = read_oom_message(text)
    assert (read.in_use_bytes, read.others) == (None, None)
    assert read.allocated_bytes == hundredths(19.25, GIB)
    assert "does not tell what a process has in use" in read.remarks[0]


def test_a_message_that_is_cut_tells_what_stands_there() -> None:
    read = read_oom_message(CURRENT[: CURRENT.index("Of the allocated")])
    assert (read.allocated_bytes, read.reserved_bytes) == (20 * GIB, None)
    assert "not in the text" in read.remarks[0]


@pytest.mark.parametrize(
    ("text", "unallocated"),
    [
        (OLD, GIB // 2),
        (OLD.replace("6.00 GiB reserved in total by PyTorch", "4.68 MiB cached"),
         hundredths(4.68, MIB)),
        (OLD.replace("33.56 MiB free; ", "33.56 MiB free; 7.00 GiB allowed; "), GIB // 2),
        (OLD.replace("; 33.56", "; 5.50 GiB current active; 33.56").replace("(GPU", "(NPU"),
         GIB // 2),
        (OLD.replace("; ", ";\n"), GIB // 2),
    ],
)  # fmt: skip
def test_the_messages_before_2_1(text: str, unallocated: int) -> None:
    read = read_oom_message(text)
    assert (read.device, read.asked_bytes) == (1, 130 * MIB)
    assert read.capacity_bytes == hundredths(7.8, GIB)
    assert read.free_bytes == hundredths(33.56, MIB)
    assert read.allocated_bytes == hundredths(5.5, GIB)
    assert read.unallocated_bytes == unallocated
    assert (read.in_use_bytes, read.others) == (None, None)
    assert read.allowed_bytes == (7 * GIB if "allowed" in text else None)


@pytest.mark.parametrize("text", [ASYNC, " ".join(ASYNC.split()), f"!!! Exception !!! {ASYNC}"])
def test_comfyuis_message_is_cuda_malloc_asyncs(text: str) -> None:
    read = read_oom_message(text)
    assert (read.device, read.asked_bytes) == (0, 512 << 10)
    assert (read.capacity_bytes, read.free_bytes) == (hundredths(15.75, GIB), 0)
    assert read.allocated_bytes == hundredths(8.25, GIB)
    assert (read.reserved_bytes, read.allowed_bytes, read.in_use_bytes) == (None, None, None)
    limited = text.replace("17179869184.00 GiB", "12.00 GiB")
    assert read_oom_message(limited).allowed_bytes == 12 * GIB


def test_comfyui_tells_the_cards_name_when_it_starts() -> None:
    text = f"Device: cuda:0 NVIDIA GeForce RTX 3090 : cudaMallocAsync\nUsing xformers\n{ASYNC}"
    assert read_oom_message(text).gpu_name == "NVIDIA GeForce RTX 3090"


SUMMARY = """\
|===========================================================================|
|                  PyTorch CUDA memory summary, device ID 0                 |
|---------------------------------------------------------------------------|
|        Metric         | Cur Usage  | Peak Usage | Tot Alloc  | Tot Freed  |
|---------------------------------------------------------------------------|
| Allocated memory      |   1062 MiB |   4877 MiB |  89299 MiB |  88237 MiB |
|       from large pool |   1048 MiB |   4865 MiB |  89263 MiB |  88215 MiB |
| GPU reserved memory   |  12420 MB  |  12420 MB  |  16924 MB  |   4504 MB  |
"""


def test_a_memory_summary_alone_is_read() -> None:
    read = read_oom_message(SUMMARY)
    assert (read.allocated_bytes, read.reserved_bytes) == (1062 * MIB, 12420 * MIB)
    assert (read.capacity_bytes, read.device) == (None, 0)
    both = read_oom_message(ASYNC + SUMMARY)
    assert both.allocated_bytes == hundredths(8.25, GIB)
    assert both.remarks == ("torch's memory summary in the text is not read",)


def test_of_several_messages_the_last_is_read_or_that_of_the_gpu_named() -> None:
    other = OLD.replace("5.50", "5.75").replace("GPU 1", "GPU 0")
    assert read_oom_message(OLD + "\n" + other).allocated_bytes == hundredths(5.75, GIB)
    assert "the last of 2 messages" in read_oom_message(OLD + "\n" + other).remarks[0]
    named = read_oom_message(OLD + "\n" + other, 1)
    assert named.allocated_bytes == hundredths(5.5, GIB)
    assert named.remarks == ("messages about other GPUs: 1, not read",)
    with pytest.raises(MeasurementError, match="not about GPU 3"):
        read_oom_message(OLD, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("RuntimeError: CUDA error: out of memory", "without its sizes"),
        (
            "THCudaCheck FAIL: cuda runtime error (2) : out of memory at x.cu:66",
            "without its sizes",
        ),
        ("torch.OutOfMemoryError: Allocation on device \n", "without its sizes"),
        ("CUDA out of memory. Tried to allocate more than 1EB memory.", "without its sizes"),
        (CURRENT[:60], "without its sizes"),
        ("MPS backend out of memory (MPS allocated: 17.50 GB, max allowed: 18.13 GB).", "Apple"),
    ],
)
def test_a_message_without_sizes_is_torchs_all_the_same(text: str, said: str) -> None:
    assert has_oom_message(text)
    with pytest.raises(MeasurementError, match="torch's out-of-memory message") as raised:
        read_oom_message(text)
    assert said in str(raised.value)


def test_other_text_has_no_message() -> None:
    assert not has_oom_message(
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4"
    )
    assert isinstance(read_oom_message(OLD), OomMessage)
