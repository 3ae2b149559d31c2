"""What NVML says becomes GPUs or one clear line, scenario by scenario, each seen somewhere."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from vramplan.errors import MissingError
from vramplan.probe.nvml import read_inventory

pynvml = pytest.importorskip("pynvml")

_PATH = Path(__file__).parents[1] / "fake_nvml.py"
_SPEC = importlib.util.spec_from_file_location("fake_nvml", _PATH)
fake_nvml = sys.modules.setdefault("fake_nvml", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(fake_nvml)

FakeGpu, Scenario, MIB = fake_nvml.FakeGpu, fake_nvml.Scenario, fake_nvml.MIB


@pytest.fixture
def driver(monkeypatch):
    """Install a driver that answers as a scenario says."""

    def install(scenario):
        monkeypatch.setitem(sys.modules, "pynvml", fake_nvml.make_pynvml(scenario))
        return scenario

    return install


def test_a_gpu_is_read_whole(driver) -> None:
    scenario = driver(Scenario(gpus=[FakeGpu(uuid="GPU-abc")]))
    inventory = read_inventory()
    assert inventory.driver_version == "570.124.04"
    assert inventory.problems == ()
    (gpu,) = inventory.gpus
    assert (gpu.index, gpu.name, gpu.uuid) == (0, "NVIDIA GeForce RTX 3060", "GPU-abc")
    assert gpu.total_bytes == 12288 * MIB
    assert gpu.reserved_bytes == 368 * MIB
    assert gpu.used_bytes == 900 * MIB
    assert gpu.free_bytes == (12288 - 368 - 900) * MIB
    assert gpu.compute_capability == "8.6"
    # 2 x 7501 MHz x 192 bits: the data sheet's 360 GB/s
    assert gpu.bandwidth_bytes_per_s == 360_048_000_000
    assert not scenario.is_open, "NVML was not closed again"


def test_two_gpus_are_two(driver) -> None:
    second = FakeGpu(name="NVIDIA A100-SXM4-40GB", uuid="GPU-1", capability=(8, 0))
    driver(Scenario(gpus=[FakeGpu(), second]))
    gpus = read_inventory().gpus
    assert [gpu.index for gpu in gpus] == [0, 1]
    assert [gpu.uuid for gpu in gpus] == ["GPU-0", "GPU-1"]
    assert [gpu.compute_capability for gpu in gpus] == ["8.6", "8.0"]


@pytest.mark.parametrize(
    "code",
    [
        # drivers before 510, and 510.39.01: https://github.com/NVIDIA/nvidia-settings/issues/78
        "NVML_ERROR_FUNCTION_NOT_FOUND",
        # WSL, driver 516.59: https://github.com/XuehaiPan/nvitop/pull/30
        "NVML_ERROR_UNKNOWN",
    ],
)
def test_a_driver_without_version_2_does_not_tell_what_is_reserved(driver, code) -> None:
    driver(Scenario(gpus=[FakeGpu()], driver="470.256.02", v2_error=getattr(pynvml, code)))
    (gpu,) = read_inventory().gpus
    assert gpu.reserved_bytes is None
    assert gpu.total_bytes == 12288 * MIB
    # version 1 counts the reserve as used, so what is free is the same
    assert gpu.used_bytes == (900 + 368) * MIB
    assert gpu.free_bytes == (12288 - 368 - 900) * MIB


def test_a_lost_gpu_is_left_out_and_named(driver) -> None:
    # one of several GPUs off the bus: https://github.com/XuehaiPan/nvitop/issues/139
    lost = FakeGpu(error=pynvml.NVML_ERROR_GPU_IS_LOST)
    scenario = driver(Scenario(gpus=[lost, FakeGpu(uuid="GPU-1")]))
    inventory = read_inventory()
    assert [gpu.uuid for gpu in inventory.gpus] == ["GPU-1"]
    assert [gpu.index for gpu in inventory.gpus] == [1]
    assert len(inventory.problems) == 1
    assert inventory.problems[0].startswith("GPU 0: the GPU is lost")
    assert not scenario.is_open


def test_a_gpu_that_is_lost_while_it_is_read_is_left_out(driver) -> None:
    # https://github.com/rossumai/nvgpu/issues/6
    driver(Scenario(gpus=[FakeGpu(memory_error=pynvml.NVML_ERROR_GPU_IS_LOST)]))
    with pytest.raises(MissingError, match="GPU 0: the GPU is lost") as raised:
        read_inventory()
    assert raised.value.exit_code == 3


def test_a_gpu_with_unified_memory_is_left_out(driver) -> None:
    # GB10, driver 580.173.02, both versions: https://github.com/XuehaiPan/nvitop/pull/208
    gpu = FakeGpu(name="NVIDIA GB10", memory_error=pynvml.NVML_ERROR_NOT_SUPPORTED)
    driver(Scenario(gpus=[gpu]))
    with pytest.raises(MissingError, match="does not tell how much memory"):
        read_inventory()


def test_with_mig_the_instances_are_the_gpus(driver) -> None:
    # the whole may not even be asked: https://github.com/NVIDIA/nvidia-container-toolkit/issues/842
    instances = [
        FakeGpu(name="NVIDIA A100-SXM4-40GB MIG 1g.5gb", uuid="MIG-a", total=4864 * MIB),
        None,
        FakeGpu(name="NVIDIA A100-SXM4-40GB MIG 2g.10gb", uuid="MIG-b", total=9856 * MIB),
    ]
    whole = FakeGpu(
        capability=(8, 0), instances=instances, memory_error=pynvml.NVML_ERROR_NO_PERMISSION
    )
    driver(Scenario(gpus=[whole]))
    gpus = read_inventory().gpus
    assert [gpu.uuid for gpu in gpus] == ["MIG-a", "MIG-b"]
    assert [gpu.total_bytes for gpu in gpus] == [4864 * MIB, 9856 * MIB]
    assert {gpu.compute_capability for gpu in gpus} == {"8.0"}


def test_a_driver_that_does_not_tell_the_bus_width_tells_no_bandwidth(driver) -> None:
    driver(Scenario(gpus=[FakeGpu(bus_width=None)]))
    assert read_inventory().gpus[0].bandwidth_bytes_per_s == 0


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        # no driver at all: what this library raises on a machine without libnvidia-ml.so.1
        ("NVML_ERROR_LIBRARY_NOT_FOUND", "no NVIDIA driver", "install the driver"),
        ("NVML_ERROR_DRIVER_NOT_LOADED", "not loaded", "nvidia-smi"),
        # https://github.com/NVIDIA/nvidia-docker/issues/1523
        ("NVML_ERROR_NO_PERMISSION", "no permission", "/dev/nvidiactl"),
        # after an update: https://github.com/rapidsai/dask-cuda/issues/949
        ("NVML_ERROR_LIB_RM_VERSION_MISMATCH", "different versions", "restart"),
        # https://github.com/NVIDIA/nvidia-container-toolkit/issues/115
        ("NVML_ERROR_UNKNOWN", "Unknown Error", "nvidia-smi"),
    ],
)
def test_a_driver_that_does_not_open_is_one_clear_line(driver, code, message, hint) -> None:
    driver(Scenario(init_error=getattr(pynvml, code)))
    with pytest.raises(MissingError) as raised:
        read_inventory()
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert hint in (raised.value.hint or "")
    assert raised.value.exit_code == 3


def test_a_driver_without_gpus_is_one_clear_line(driver) -> None:
    scenario = driver(Scenario())
    with pytest.raises(MissingError, match="reports no GPU"):
        read_inventory()
    assert not scenario.is_open


def test_without_the_library_its_package_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MissingError, match="nvidia-ml-py") as raised:
        read_inventory()
    assert raised.value.hint == "pip install nvidia-ml-py"


def test_importing_the_probe_does_not_import_pynvml() -> None:
    code = "import sys, vramplan.probe.nvml; sys.exit('pynvml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.gpu
def test_a_real_gpu_adds_up() -> None:
    for gpu in read_inventory().gpus:
        assert gpu.name
        assert gpu.uuid
        parts = gpu.used_bytes + gpu.free_bytes + (gpu.reserved_bytes or 0)
        assert parts == gpu.total_bytes
