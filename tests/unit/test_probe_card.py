"""One card looked at again and again, which one that is, and who is who on it."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import pytest

from vramplan.errors import MeasurementError, MissingError, UsageError
from vramplan.measurement.reading import DeviceMemory, ProcessMemory
from vramplan.probe.choice import choose_gpu, environment_for, is_order_certain
from vramplan.probe.nvml import NvmlProbe, read_inventory
from vramplan.probe.processes import neighbours_moved, own_process
from vramplan.probe.sampler import Sampler

pynvml = pytest.importorskip("pynvml")

_PATH = Path(__file__).parents[1] / "fake_nvml.py"
_SPEC = importlib.util.spec_from_file_location("fake_nvml", _PATH)
fake_nvml = sys.modules.setdefault("fake_nvml", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(fake_nvml)

FakeGpu, Scenario, MIB = fake_nvml.FakeGpu, fake_nvml.Scenario, fake_nvml.MIB


@pytest.fixture
def driver(monkeypatch):
    def install(scenario):
        monkeypatch.setitem(sys.modules, "pynvml", fake_nvml.make_pynvml(scenario))
        return scenario

    return install


# -- a card -------------------------------------------------------------------------------------


def test_a_card_tells_both_versions_of_used_and_its_processes(driver) -> None:
    gpu = FakeGpu(uuid="GPU-a", computing=[(10, 600 * MIB)], drawing=[(11, 200 * MIB)])
    scenario = driver(Scenario(gpus=[gpu], names={10: "python", 11: "Xorg"}))
    with NvmlProbe("GPU-a") as probe:
        memory = probe.read().device
        assert memory.used_bytes == 900 * MIB
        assert memory.reserved_bytes == 368 * MIB
        assert memory.used_with_reserve_bytes == (900 + 368) * MIB
        assert memory.total_bytes == memory.used_bytes + memory.free_bytes + 368 * MIB
        python, xorg = memory.processes
        assert (python.name, python.used_bytes, python.kind) == ("python", 600 * MIB, "C")
        assert (xorg.name, xorg.kind) == ("Xorg", "G")
        gpu.used = 1000 * MIB
        assert probe.read_memory().used_bytes == 1000 * MIB
        assert probe.read_memory().processes is None
    assert not scenario.is_open


def test_a_process_that_computes_and_draws_is_listed_once(driver) -> None:
    gpu = FakeGpu(uuid="GPU-a", computing=[(10, 600 * MIB)], drawing=[(10, 600 * MIB)])
    driver(Scenario(gpus=[gpu], names={10: "blender"}))
    with NvmlProbe("GPU-a") as probe:
        (one,) = probe.read().device.processes
    assert (one.kind, one.used_bytes) == ("C+G", 600 * MIB)


def test_windows_and_wsl_do_not_tell_what_a_process_holds(driver) -> None:
    # WDDM: NVML_VALUE_NOT_AVAILABLE, which pynvml gives as None
    driver(Scenario(gpus=[FakeGpu(uuid="GPU-a", computing=[(10, None)])]))
    with NvmlProbe("GPU-a") as probe:
        (one,) = probe.read().device.processes
    assert one.used_bytes is None
    assert one.name == "process 10" or one.name  # the kernel may know another process 10


def test_a_driver_that_lists_nobody_is_not_one_without_processes(driver) -> None:
    code = pynvml.NVML_ERROR_NOT_SUPPORTED
    driver(Scenario(gpus=[FakeGpu(uuid="GPU-a", computing=code, drawing=code)]))
    with NvmlProbe("GPU-a") as probe:
        assert probe.read().device.processes is None


def test_drawing_alone_may_be_unknown_such_as_on_a_datacenter_card(driver) -> None:
    code = pynvml.NVML_ERROR_NOT_SUPPORTED
    driver(Scenario(gpus=[FakeGpu(uuid="GPU-a", computing=[(10, 5)], drawing=code)]))
    with NvmlProbe("GPU-a") as probe:
        assert len(probe.read().device.processes) == 1


def test_a_card_that_is_lost_meanwhile_is_one_clear_line(driver) -> None:
    gpu = FakeGpu(uuid="GPU-a")
    driver(Scenario(gpus=[gpu]))
    with NvmlProbe("GPU-a") as probe:
        probe.read()
        gpu.memory_error = pynvml.NVML_ERROR_GPU_IS_LOST
        with pytest.raises(MeasurementError, match="GPU GPU-a: the GPU is lost"):
            probe.read()


def test_a_card_that_is_not_there_is_missing(driver) -> None:
    scenario = driver(Scenario(gpus=[FakeGpu()]))
    with pytest.raises(MissingError, match="GPU-b"), NvmlProbe("GPU-b"):
        pass
    assert not scenario.is_open


# -- which --------------------------------------------------------------------------------------


@pytest.fixture
def two(driver):
    gpus = [FakeGpu(uuid="GPU-aaaa-1", name="A"), FakeGpu(uuid="GPU-bbbb-2", name="B")]
    driver(Scenario(gpus=gpus))
    return read_inventory()


@pytest.mark.parametrize(
    ("selector", "visible", "expected"),
    [
        (None, None, "A"),
        ("1", None, "B"),
        ("GPU-bbbb", None, "B"),
        (None, "1,0", "B"),
        (None, "GPU-bbbb-2", "B"),
        ("0", "1", "A"),  # asked for by name: the environment is the child's, not ours
    ],
)
def test_a_gpu_is_chosen(two, selector, visible, expected) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert choose_gpu(two, selector, environment).name == expected


@pytest.mark.parametrize("visible", ["", "-1", "7", "NoDevFiles"])
def test_an_environment_that_hides_all_is_said(two, visible) -> None:
    with pytest.raises(MissingError, match="hides every GPU"):
        choose_gpu(two, None, {"CUDA_VISIBLE_DEVICES": visible})


@pytest.mark.parametrize("selector", ["2", "GPU-", "GPU-cccc", "x"])
def test_an_unknown_gpu_is_refused_and_the_known_listed(two, selector) -> None:
    with pytest.raises(UsageError, match="no GPU") as raised:
        choose_gpu(two, selector, {})
    assert "0 (A), 1 (B)" in raised.value.hint


def test_a_mig_instance_is_a_gpu(driver) -> None:
    instance = FakeGpu(name="MIG 1g.5gb", uuid="MIG-x")
    driver(Scenario(gpus=[FakeGpu(instances=[instance])]))
    assert choose_gpu(read_inventory(), "MIG-x", {}).uuid == "MIG-x"
    with NvmlProbe("MIG-x") as probe:
        assert probe.read_memory().total_bytes == instance.total


def test_an_index_is_certain_only_in_pci_order_where_cards_differ(two) -> None:
    assert is_order_certain(two, {})
    assert not is_order_certain(two, {"CUDA_VISIBLE_DEVICES": "1"})
    by_bus = {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert is_order_certain(two, by_bus)
    assert is_order_certain(two, {"CUDA_VISIBLE_DEVICES": "GPU-aaaa-1"})


def test_a_child_sees_one_gpu(two) -> None:
    found = environment_for(two.gpus[1])
    assert found == {"CUDA_VISIBLE_DEVICES": "GPU-bbbb-2", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


# -- who ----------------------------------------------------------------------------------------


def card(**held: int | None) -> DeviceMemory:
    processes = tuple(
        ProcessMemory(pid=int(pid[1:]), name="x", used_bytes=used) for pid, used in held.items()
    )
    used = sum(one.used_bytes or 0 for one in processes)
    return DeviceMemory(
        total_bytes=1000,
        used_bytes=used,
        free_bytes=1000 - used,
        reserved_bytes=None,
        processes=processes,
    )


def test_our_process_is_known_by_its_number(tmp_path) -> None:
    assert own_process(card(p5=1, p7=2), 7, proc=tmp_path).used_bytes == 2
    assert own_process(card(p5=1), 7, proc=tmp_path) is None


def test_in_a_container_the_kernel_tells_the_hosts_number(tmp_path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text("Name:\tx\nNSpid:\t9001\t7\n")
    assert own_process(card(p5=1, p9001=2), 7, proc=tmp_path).pid == 9001


def test_else_the_one_that_was_not_there_before_is_ours(tmp_path) -> None:
    before = card(p5=1)
    assert own_process(card(p5=1, p9001=2), 7, before=before, proc=tmp_path).pid == 9001
    two_new = card(p5=1, p9001=2, p9002=3)
    assert own_process(two_new, 7, before=before, proc=tmp_path) is None


def test_neighbours_that_move_against_each_other_moved() -> None:
    assert neighbours_moved(card(p1=10, p2=20), card(p1=10, p2=20)) == 0
    assert neighbours_moved(card(p1=10, p2=20), card(p1=20, p2=10)) == 10
    assert neighbours_moved(card(p1=10), card(p1=10, p2=30)) == 30
    assert neighbours_moved(card(p1=10, p2=30), card(p1=10)) == 30


# -- sampling -----------------------------------------------------------------------------------


def test_peaks_are_of_the_time_they_are_asked_for() -> None:
    sizes = iter(range(10_000))
    with Sampler(lambda: (next(sizes), None), 0.002) as sampler:
        time.sleep(0.05)
        middle = time.monotonic()
        time.sleep(0.05)
        end = time.monotonic()
    early, late = sampler.device_peak(0, middle), sampler.device_peak(middle, end)
    assert 0 < early < late
    assert sampler.device_peak(end + 1, end + 2) is None
    assert sampler.process_peak(0, end) is None
    assert 0.0015 < sampler.period_s < 0.05
    assert sampler.problem is None


def test_what_ends_the_sampling_is_kept() -> None:
    def look() -> tuple[int, int | None]:
        raise MeasurementError("the GPU is lost")

    with Sampler(look, 0.001) as sampler:
        time.sleep(0.02)
    assert str(sampler.problem) == "the GPU is lost"
    assert sampler.period_s is None
