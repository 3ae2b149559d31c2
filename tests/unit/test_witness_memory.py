"""The pretended cards' memory, without torch: limits, pages, virtual memory, threads and processes.

Each case is a small program in a process of its own, over the libraries themselves.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from vramplan.engines.torch.witness.card_state import (
    STATE_BYTES,
    PretendedCard,
    read_notes,
    read_use,
    write_state,
)

MIB = 1 << 20

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64", reason="Linux on x86-64 only"
)

BEGIN = """
import ctypes as c, os, sys
MIB = 1 << 20
core = c.CDLL(f"{FOLDER}/libvramplan_card.so", mode=c.RTLD_GLOBAL)
driver = c.CDLL(f"{FOLDER}/libcuda.so.1", mode=c.RTLD_GLOBAL)
cuda = c.CDLL(f"{FOLDER}/libcudart.so.13", mode=c.RTLD_GLOBAL)
nvml = c.CDLL(f"{FOLDER}/libnvidia-ml.so.1", mode=c.RTLD_GLOBAL)
core.memory_device.argtypes = [c.c_void_p]
cuda.cudaFree.argtypes = cuda.cudaFreeHost.argtypes = [c.c_void_p]
cuda.cudaMalloc.argtypes = [c.c_void_p, c.c_size_t]
cuda.cudaMemcpy.argtypes = [c.c_void_p, c.c_void_p, c.c_size_t, c.c_int]
def malloc(size):
    at = c.c_void_p()
    error = cuda.cudaMalloc(c.byref(at), size)
    return error, at.value
def free():
    free, total = c.c_size_t(), c.c_size_t()
    error = cuda.cudaMemGetInfo(c.byref(free), c.byref(total))
    assert error == 0, error
    return free.value
"""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vramplan.engines.torch.witness.built_libraries import build_memory
    from vramplan.errors import MissingError

    folder = tmp_path_factory.mktemp("stand-ins")
    try:
        build_memory(folder)
    except MissingError as problem:
        pytest.skip(str(problem))
    return folder


Talk = Callable[..., str]


@pytest.fixture
def talk(libraries: Path, tmp_path: Path) -> Talk:
    """Run a program on pretended cards; it prints what it found."""

    def run(program: str, *cards: PretendedCard, **environment: str) -> str:
        state = tmp_path / "cards"
        write_state(state, cards or [card()])
        code = f"FOLDER = {str(libraries)!r}\n{BEGIN}\n{textwrap.dedent(program)}"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "VRAMPLAN_PRETENDED_CARDS": str(state), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def card(total: int = 100 * MIB, context: int = 10 * MIB, name: str = "Card") -> PretendedCard:
    return PretendedCard(
        name=name,
        compute_capability=(8, 6),
        multiprocessors=28,
        total_bytes=total,
        context_bytes=context,
        reserved_bytes=5 * MIB,
    )


def test_what_fits_is_given_in_pages_and_what_does_not_is_an_error(
    talk: Talk, tmp_path: Path
) -> None:
    program = """
        before = free()
        first, at = malloc(1)
        second, _ = malloc(88 * MIB)
        third, none = malloc(1)
        assert at % (2 * MIB) == 0, hex(at)
        assert cuda.cudaFree(at) == 0 and cuda.cudaFree(at) == 1
        fourth, _ = malloc(2 * MIB)
        print(before // MIB, first, second, third, none, fourth, free())
    """
    assert talk(program) == "90 0 0 2 None 0 0"
    (use,) = read_use(tmp_path / "cards")
    assert (use.used_bytes, use.peak_bytes) == (0, 100 * MIB)  # it has ended
    assert (use.refused, use.refused_bytes) == (1, 2 * MIB)


def test_sizes_beyond_all_bounds_are_refused(talk: Talk) -> None:
    program = """
        print(malloc(2**64 - 1)[0], malloc(2**63)[0], malloc(2**40)[0], malloc(0), free() // MIB)
    """
    assert talk(program) == "2 2 2 (0, None) 90"


def test_context_is_taken_once_and_before_anything_else(talk: Talk) -> None:
    program = "malloc(2 * MIB), malloc(2 * MIB); print(free() // MIB)"
    assert talk(program) == "86"


def test_card_that_holds_no_context_holds_nothing(talk: Talk) -> None:
    program = """
        value = c.c_size_t()
        print(malloc(1)[0], cuda.cudaMemGetInfo(c.byref(value), c.byref(value)))
    """
    assert talk(program, card(total=8 * MIB)) == "2 2"


def test_memory_that_nobody_writes_costs_nothing(talk: Talk) -> None:
    program = """
        def resident():  # ru_maxrss would be that of the process which started this one
            (line,) = [line for line in open("/proc/self/status") if line.startswith("VmRSS")]
            return int(line.split()[1])
        for _ in range(9):
            assert malloc(100 << 30)[0] == 0
        print(resident() < 200 * 1024, free() >> 30)
    """
    assert talk(program, card(total=1000 << 30)) == "True 99"


def test_small_copies_are_real_and_large_ones_are_not_made(talk: Talk) -> None:
    program = """
        _, at = malloc(4 * MIB)
        words = c.create_string_buffer(b"token ids")
        cuda.cudaMemcpy(at, words, 9, 1)
        back = c.create_string_buffer(9)
        cuda.cudaMemcpy(back, at, 9, 2)
        large = c.create_string_buffer(b"x" * (3 * MIB))
        cuda.cudaMemcpy(at + MIB, large, 3 * MIB, 1)
        one = c.create_string_buffer(1)
        cuda.cudaMemcpy(one, at + MIB, 1, 2)
        core.answer_next_copies((c.c_longlong * 1)(7), 1)
        count = c.c_longlong(0)
        cuda.cudaMemcpy(c.byref(count), at, 8, 2)
        print(back.raw, one.raw, count.value)
    """
    assert talk(program, card(total=200 * MIB)) == "b'token ids' b'\\x00' 7"


def test_pointers_say_where_they_are(talk: Talk) -> None:
    program = """
        class About(c.Structure):
            _fields_ = [("kind", c.c_int), ("device", c.c_int), ("at", c.c_void_p * 2)]
        def kind(address):
            about = About()
            cuda.cudaPointerGetAttributes(c.byref(about), c.c_void_p(address))
            return about.kind
        _, at = malloc(4 * MIB)
        host = c.c_void_p()
        cuda.cudaHostAlloc(c.byref(host), 100, 0)
        plain = c.create_string_buffer(64)
        found = [kind(at), kind(at + 4 * MIB - 1), kind(host.value), kind(c.addressof(plain))]
        cuda.cudaFreeHost(host), cuda.cudaFree(at)
        print(found, kind(at), kind(host.value), cuda.cudaFreeHost(host))
    """
    assert talk(program) == "[2, 2, 1, 0] 0 0 1"


def test_virtual_memory_is_counted_where_it_is_made_not_where_it_is_reserved(talk: Talk) -> None:
    program = """
        class Wish(c.Structure):
            _fields_ = [("type", c.c_int), ("handles", c.c_int), ("where", c.c_int * 2)]
        size = c.c_size_t(20 * MIB)
        wish = Wish(1, 0, (c.c_int * 2)(1, 0))
        at, handle = c.c_size_t(), c.c_ulonglong()
        assert driver.cuMemAddressReserve(c.byref(at), c.c_size_t(1000 * MIB), 0, 0, 0) == 0
        steps = [free() // MIB]
        assert driver.cuMemCreate(c.byref(handle), size, c.byref(wish), c.c_ulonglong(0)) == 0
        assert driver.cuMemMap(at, size, c.c_size_t(0), handle, c.c_ulonglong(0)) == 0
        assert driver.cuMemRelease(handle) == 0  # the mapping holds it
        steps.append(free() // MIB)
        full = driver.cuMemCreate(
            c.byref(handle), c.c_size_t(72 * MIB), c.byref(wish), c.c_ulonglong(0)
        )
        odd = driver.cuMemCreate(c.byref(handle), c.c_size_t(1), c.byref(wish), c.c_ulonglong(0))
        assert core.memory_device(at.value + MIB) == 0
        assert driver.cuMemUnmap(at, size) == 0
        again = driver.cuMemUnmap(at, size)
        steps.append(free() // MIB)
        assert driver.cuMemAddressFree(at, c.c_size_t(1000 * MIB)) == 0
        print(steps, full, odd, again, core.memory_device(at.value))
    """
    assert talk(program) == "[90, 70, 90] 2 1 1 -1"


def test_several_cards_have_memory_of_their_own(talk: Talk) -> None:
    program = """
        count = c.c_int()
        cuda.cudaGetDeviceCount(c.byref(count))
        found = [count.value, cuda.cudaSetDevice(2)]
        for device in range(count.value):
            assert cuda.cudaSetDevice(device) == 0
            found.append(free() // MIB)
        print(found)
    """
    cards = (card(), card(total=50 * MIB))
    assert talk(program, *cards) == "[2, 101, 90, 40]"
    assert talk(program, *cards, CUDA_VISIBLE_DEVICES="1") == "[1, 101, 40]"
    assert talk(program, *cards, CUDA_VISIBLE_DEVICES="1,0") == "[2, 101, 40, 90]"
    assert talk(program, *cards, CUDA_VISIBLE_DEVICES="0,7,1") == "[1, 101, 90]"
    uuid = "GPU-70726574-656e-6465-642d-636172642d31"
    assert talk(program, *cards, CUDA_VISIBLE_DEVICES=uuid) == "[1, 101, 40]"


def test_hidden_cards_are_no_cards(talk: Talk) -> None:
    program = "n = c.c_int(); print(cuda.cudaGetDeviceCount(c.byref(n)), n.value, malloc(1)[0])"
    assert talk(program, CUDA_VISIBLE_DEVICES="") == "100 0 100"
    assert talk(program, VRAMPLAN_PRETENDED_CARDS="/nowhere") == "100 0 100"


def test_threads_lose_nothing(talk: Talk) -> None:
    program = """
        import threading
        def work():
            for _ in range(300):
                error, at = malloc(3 * MIB)
                if not error:
                    assert cuda.cudaFree(at) == 0
        many = [threading.Thread(target=work) for _ in range(8)]
        [one.start() for one in many], [one.join() for one in many]
        print(free() // MIB)
    """
    assert talk(program) == "90"


def test_child_of_a_process_has_none_of_its_memory(talk: Talk) -> None:
    program = """
        _, at = malloc(20 * MIB)
        child = os.fork()
        if not child:
            cuda.cudaFree(at)  # not its own
            assert malloc(30 * MIB)[0] == 0  # and a context of its own
            os._exit(free() // MIB)
        status = os.waitpid(child, 0)[1]
        print(os.waitstatus_to_exitcode(status), free() // MIB)
        assert malloc(60 * MIB)[0] == 0  # what the dead child had is there again
        print(free() // MIB)
    """
    assert talk(program) == "30 30\n10"


def test_memory_of_a_process_that_was_killed_is_there_again(talk: Talk) -> None:
    program = """
        import signal
        readable, writable = os.pipe()
        child = os.fork()
        if not child:
            malloc(60 * MIB)
            os.write(writable, b"x")
            signal.pause()
        os.read(readable, 1)
        full, _ = malloc(60 * MIB)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print(full, malloc(60 * MIB)[0])
    """
    assert talk(program) == "2 0"


def test_nvml_sees_what_processes_hold(talk: Talk) -> None:
    program = """
        class Memory(c.Structure):
            _fields_ = [(name, c.c_ulonglong) for name in ("total", "free", "used")]
        class Process(c.Structure):
            _fields_ = [("pid", c.c_uint), ("used", c.c_ulonglong), ("more", c.c_uint * 2)]
        assert nvml.nvmlInit_v2() == 0
        device, memory, count = c.c_void_p(), Memory(), c.c_uint(0)
        assert nvml.nvmlDeviceGetHandleByIndex_v2(0, c.byref(device)) == 0
        malloc(20 * MIB)
        nvml.nvmlDeviceGetMemoryInfo(device, c.byref(memory))
        room = nvml.nvmlDeviceGetComputeRunningProcesses_v3(device, c.byref(count), None)
        told = (Process * count.value)()
        nvml.nvmlDeviceGetComputeRunningProcesses_v3(device, c.byref(count), told)
        print(memory.total // MIB, memory.free // MIB, memory.used // MIB, room, count.value,
              told[0].pid == os.getpid(), told[0].used // MIB)
    """
    assert talk(program) == "105 70 35 7 1 True 30"


def test_launches_are_counted_and_impossible_ones_refused(talk: Talk) -> None:
    program = """
        class Dim(c.Structure):
            _fields_ = [(name, c.c_uint) for name in "xyz"]
        core.work_count.restype = c.c_size_t
        def launch(grid, block, shared=0):
            stream = c.c_void_p()
            return cuda.cudaLaunchKernel(None, Dim(*grid), Dim(*block), None, c.c_size_t(shared),
                                         stream)
        before = core.work_count()
        found = [launch((1, 1, 1), (256, 1, 1)), launch((0, 1, 1), (1, 1, 1)),
                 launch((1, 1, 1), (1024, 2, 1)), launch((1, 1, 1), (1, 1, 1), 99 << 10),
                 launch((1, 1, 1), (1, 1, 1), (99 << 10) + 1)]
        print(found, core.work_count() - before, cuda.cudaGetLastError(), cuda.cudaGetLastError())
    """
    assert talk(program) == "[0, 9, 9, 0, 9] 2 9 0"


def test_kernels_are_of_an_architecture_that_torch_has_some_for(talk: Talk) -> None:
    program = """
        class About(c.Structure):
            _fields_ = [("sizes", c.c_size_t * 3)] + [
                (name, c.c_int) for name in ("threads", "registers", "ptx", "binary")
            ] + [("more", c.c_int * 32)]
        about = About()
        cuda.cudaFuncGetAttributes(c.byref(about), None)
        print(about.ptx, about.binary)
    """
    assert talk(program) == "86 86"
    ada = PretendedCard(name="x", compute_capability=(8, 9), multiprocessors=1, total_bytes=1 << 30)
    assert talk(program, ada) == "86 86"  # CUB does not know 8.9


def test_what_is_not_known_is_noted_once(talk: Talk, tmp_path: Path) -> None:
    program = """
        made, none = c.c_void_p(), c.c_void_p()
        print(*(cuda.cudaGraphInstantiateWithFlags(c.byref(made), none, 0) for _ in range(2)))
    """
    assert talk(program) == "0 0"
    assert read_notes(tmp_path / "cards") == ["cuda: what a graph keeps on the card for itself"]


def test_streams_capture_from_the_beginning_to_the_end_and_who_waits_for_them_too(
    talk: Talk,
) -> None:
    program = """
        one, two, event, graph = (c.c_void_p() for _ in range(4))
        for made in (one, two):
            cuda.cudaStreamCreate(c.byref(made))
        cuda.cudaEventCreate(c.byref(event))

        def capturing():
            found, asked = c.c_int(), cuda.cudaStreamIsCapturing
            return [asked(each, c.byref(found)) or found.value for each in (one, two)]

        print(cuda.cudaStreamEndCapture(one, c.byref(graph)), cuda.cudaStreamBeginCapture(None, 0))
        print(cuda.cudaStreamBeginCapture(one, 0), cuda.cudaStreamBeginCapture(one, 0), capturing())
        cuda.cudaEventRecord(event, one), cuda.cudaStreamWaitEvent(two, event, 0)
        print(capturing(), cuda.cudaStreamSynchronize(two), cuda.cudaStreamSynchronize(None))
        print(cuda.cudaStreamEndCapture(one, c.byref(graph)), bool(graph), capturing())
    """
    assert talk(program).splitlines() == [
        "1 900", "0 900 [1, 0]", "[1, 1] 900 0", "0 True [0, 0]"
    ]  # fmt: skip


def test_state_has_the_size_that_the_libraries_expect(talk: Talk, tmp_path: Path) -> None:
    """A file that is shorter than the structure in C would be no card."""
    program = "n = c.c_int(); cuda.cudaGetDeviceCount(c.byref(n)); print(n.value)"
    assert talk(program, *[card()] * 16) == "16"
    assert (tmp_path / "cards").stat().st_size == STATE_BYTES
