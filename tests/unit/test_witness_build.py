"""Building the stand-ins: what torch wants, what compiles it, and that it is whole or not there."""

from __future__ import annotations

import os
import random
import re
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vramplan.engines.torch.witness import built_libraries, compiler, torch_files
from vramplan.engines.torch.witness.elf_symbols import undefined_functions
from vramplan.engines.torch.witness.library_table import (
    SOURCES,
    STAND_INS,
    defined_functions,
    is_of_ours,
    owner,
    share_out,
    stub_text,
    version_script,
)
from vramplan.engines.torch.witness.torch_files import TorchFiles
from vramplan.errors import MissingError, SourceError

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64", reason="Linux on x86-64 only"
)

#: writes what it was asked to make, and how often it was called
FAKE_COMPILER = """#!/bin/sh
echo x >> "$CALLS"
while [ $# -gt 0 ]; do [ "$1" = -o ] && echo library > "$2"; shift; done
"""


def named(soname: str):
    return next(one for one in STAND_INS if one.soname == soname)


@pytest.fixture
def small_library(tmp_path: Path) -> Path:
    """A library that wants two functions of others, one of them with a version."""
    source, made = tmp_path / "wants.c", tmp_path / "libwants.so"
    source.write_text(
        "extern int cudaMalloc(void **, unsigned long); extern int cudnnCreate(void *);\n"
        "extern double sin(double);\nextern int missing_data;\n"
        "int begin(void *at) { return cudaMalloc(at, 1) + cudnnCreate(at) + (int)sin(1) + "
        "missing_data; }\n"
    )
    try:
        compiler.compile_library(compiler.find_compiler(), [source], made, "-lm", "-fno-builtin")
    except MissingError as problem:
        pytest.skip(str(problem))
    return made


def test_undefined_functions_are_read_with_their_versions(small_library: Path) -> None:
    found = undefined_functions(small_library)
    assert found["cudaMalloc"] == ""
    assert found["cudnnCreate"] == ""
    assert found["sin"].startswith("GLIBC_")
    assert "begin" not in found


def test_damaged_libraries_are_said_to_be_damaged(small_library: Path, tmp_path: Path) -> None:
    whole = small_library.read_bytes()
    chance = random.Random(1)  # noqa: S311  # the same damage every time
    bad = tmp_path / "bad.so"
    for number in range(400):
        data = bytearray(whole[: chance.randrange(len(whole))] if number % 2 else whole)
        for _ in range(chance.randrange(1, 40)):
            if data:
                data[chance.randrange(min(len(data), 4096) if number % 3 else len(data))] = (
                    chance.randrange(256)
                )
        bad.write_bytes(data)
        try:
            assert isinstance(undefined_functions(bad), dict)
        except SourceError as problem:
            assert str(bad) in str(problem)  # noqa: PT017  # damaged or not, both are fine


@pytest.mark.parametrize("content", [b"", b"MZ" + bytes(100), b"\x7fELF\x01\x01" + bytes(100)])
def test_what_is_no_library_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="not a shared library"):
        undefined_functions(path)


@pytest.mark.parametrize(
    ("symbol", "soname"),
    [
        ("cudaMalloc", "libcudart.so.13"),
        ("__cudaRegisterVar", "libcudart.so.13"),
        ("cuMemCreate", "libcuda.so.1"),
        ("cuFileRead", "libcufile.so.0"),
        ("cublasSgemm_v2", "libcublas.so.13"),
        ("cublasLtMatmul", "libcublasLt.so.13"),
        ("cusparseLtInit", "libcusparseLt.so.0"),
        ("cusparseCreate", "libcusparse.so.12"),
        ("pncclSend", "libnccl.so.2"),
        ("_ZN2at4cuda3fooEv", None),
        ("custom_function", None),
        ("malloc", None),
    ],
)
def test_whose_a_function_is(symbol: str, soname: str | None) -> None:
    found = owner(symbol)
    assert (found.soname if found else None) == soname


def test_functions_that_a_part_of_cudnn_wants_of_another_are_not_ours() -> None:
    shares = share_out({"cudnnCreate": "libcudnn.so.9", "cudnnTest": "libcudnn_graph.so.9"})
    assert shares["libcudnn.so.9"] == {"cudnnCreate": "libcudnn.so.9"}


def test_build_of_another_cuda_that_a_package_brings_wants_nothing_of_ours() -> None:
    assert is_of_ours("cudaMemPrefetchAsync", "libcudart.so.13")
    assert is_of_ours("cudaMalloc", "")
    assert not is_of_ours("cudaMemPrefetchAsync", "libcudart.so.11.0")
    assert not is_of_ours("malloc", "GLIBC_2.2.5")


def test_every_source_defines_what_it_is_for() -> None:
    for one in STAND_INS:
        if one.source is not None:
            found = defined_functions(SOURCES / one.source)
            assert found, one.soname
            assert {owner(name) for name in found if not one.wants(name)} <= {None}, one.soname
    assert {
        "cudaMalloc",
        "__cudaPopCallConfiguration",
        "cudaGetErrorName",
        "cudaMemcpy2DAsync",
    } <= (defined_functions(SOURCES / "runtime.c"))


def test_who_asks_how_much_memory_is_refused_and_not_answered_with_what_stood_there() -> None:
    solver, cudnn = named("libcusolver.so.12"), named("libcudnn.so.9")
    assert solver.code("cusolverDnSgeqrf_bufferSize") == 9
    assert solver.code("cusolverDnSgeqrf") == 0
    assert cudnn.code("cudnnGetRNNTempSpaceSizes") == 3000
    text = stub_text(solver, ["cusolverDnSgeqrf_bufferSize", "cusolverDnSgeqrf"])
    assert 'card_note("cusolverDnSgeqrf_bufferSize"); return 9;' in text
    assert "int cusolverDnSgeqrf(void) { return 0; }" in text


def test_a_variable_that_is_wanted_is_one_and_zero() -> None:
    """torch 2.15.0 wants one of NVSHMEM's, and cannot be imported without."""
    shared = named("libnvshmem_host.so.3")
    text = stub_text(shared, ["nvshmem_ptr", "nvshmem_transport"], {"nvshmem_transport"})
    assert "long nvshmem_transport[32];" in text
    assert "int nvshmem_ptr(void)" in text
    assert "nvshmem_transport(void)" not in text


def test_version_scripts_give_each_function_the_version_that_is_wanted() -> None:
    script = version_script({"a": "lib.so.1", "b": "lib.so.1", "c": ""}, ["d"])
    assert "lib.so.1 { global: a; b; };" in script
    assert "VRAMPLAN { global: c; d; local: *; };" in script
    assert version_script({"a": ""}, ["b"]) == ""
    assert "global:  local" not in version_script({"a": "one"}, [])


# --------------------------------------------------------------------------------------- torch
def torch_folder(tmp_path: Path, text: str) -> Path:
    folder = tmp_path / "torch"
    (folder / "lib").mkdir(parents=True)
    (folder / "version.py").write_text(text)
    return folder


def test_cuda_build_is_read_from_its_files(tmp_path: Path) -> None:
    folder = torch_folder(
        tmp_path, "__version__ = '2.14.1+cu130'\ncuda: Optional[str] = '13.0'\nhip = None\n"
    )
    (folder / "lib" / "libtorch_cuda.so").touch()
    (tmp_path / "nvidia/cudnn/lib").mkdir(parents=True)
    (tmp_path / "nvidia/cudnn/lib/libcudnn.so.9").touch()
    found = torch_files.read_torch(folder)
    assert (found.version, found.cuda) == ("2.14.1+cu130", "13.0")
    assert [path.name for path in found.libraries] == ["libtorch_cuda.so"]
    assert found.planner == ()  # cuDNN alone plans nothing
    products = tmp_path / "nvidia/cu13/lib/libcublasLt.so.13"
    products.parent.mkdir(parents=True)
    products.touch()
    found = torch_files.read_torch(folder)
    assert found.planner == (products, tmp_path / "nvidia/cudnn/lib/libcudnn.so.9")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n", "a build without CUDA"),
        ("__version__ = '2.6.0'\ncuda = '12.4'\n", "built for CUDA 12.4; the stand-ins know 13.x"),
        ("__version__ = '2.6.0'\nhip: Optional[str] = '6.2'\ncuda = None\n", "without CUDA"),
        ("", "torch of unknown version is a build without CUDA"),
    ],
)
def test_other_builds_of_torch_get_a_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=re.escape(said)) as caught:
        torch_files.read_torch(torch_folder(tmp_path, text))
    assert caught.value.hint


def test_other_machines_get_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_files.platform, "machine", lambda: "arm64")
    with pytest.raises(MissingError, match="needs Linux on x86-64, this is Linux on arm64"):
        torch_files.check_machine()


def test_folder_without_a_version_gets_a_line(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="cannot be read"):
        torch_files.read_torch(tmp_path)


# --------------------------------------------------------------------------------- the compiler
def test_no_compiler_is_a_line_that_says_which_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingError, match="no C compiler") as caught:
        compiler.find_compiler()
    assert "ziglang" in str(caught.value.hint)
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda _name: object())
    assert compiler.find_compiler()[1:4] == ["-m", "ziglang", "cc"]


def test_compiler_that_cc_names_is_taken_or_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", f"{sys.executable} -m something")
    assert compiler.find_compiler() == [sys.executable, "-m", "something"]
    monkeypatch.setenv("CC", "not-there-cc")
    with pytest.raises(MissingError, match="not-there-cc"):
        compiler.find_compiler()


def test_what_a_compiler_complains_of_is_said(tmp_path: Path) -> None:
    source = tmp_path / "bad.c"
    source.write_text("int begin(void) { return nothing; }")
    try:
        command = compiler.find_compiler()
    except MissingError as problem:
        pytest.skip(str(problem))
    with pytest.raises(MissingError, match=r"does not build libx\.so: .*error.*nothing"):
        compiler.compile_library(command, [source], tmp_path / "libx.so")


# -------------------------------------------------------------------------------------- the cache
@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that writes down its calls, and a cache of its own; returns the calls' file."""
    script, calls = tmp_path / "cc", tmp_path / "calls"
    script.write_text(FAKE_COMPILER)
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CC", str(script))
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.setenv("VRAMPLAN_CACHE", str(tmp_path / "cache"))
    return calls


TORCH = TorchFiles(version="2.14.1", cuda="13.0", libraries=())


def test_libraries_are_built_once_and_kept(fake: Path) -> None:
    folder = built_libraries.built_for(TORCH)
    assert folder.name.startswith("torch-2.14.1-")
    assert {one.soname for one in STAND_INS} <= {path.name for path in folder.iterdir()}
    calls = fake.read_text().count("x")
    assert calls == len(STAND_INS) + 1
    assert built_libraries.built_for(TORCH) == folder
    assert fake.read_text().count("x") == calls


@pytest.mark.usefixtures("fake")
def test_a_cache_that_is_off_is_no_folder_of_that_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is switched off are results; libraries are kept where the system keeps what is built."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VRAMPLAN_CACHE", "off")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "system"))
    assert built_libraries.built_for(TORCH).is_relative_to(tmp_path / "system" / "vramplan")
    assert not (tmp_path / "off").exists()


def test_another_torch_gets_libraries_of_its_own(tmp_path: Path) -> None:
    library = tmp_path / "libtorch.so"
    library.write_bytes(b"")
    first = built_libraries.checksum(TORCH)
    other = TorchFiles(version="2.14.1", cuda="13.0", libraries=(library,))
    assert built_libraries.checksum(other) != first


def test_several_that_come_at_once_build_once(fake: Path) -> None:
    with ThreadPoolExecutor(4) as several:
        folders = set(several.map(lambda _: built_libraries.built_for(TORCH), range(4)))
    assert len(folders) == 1
    assert fake.read_text().count("x") == len(STAND_INS) + 1


@pytest.mark.usefixtures("fake")
def test_build_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", "false")
    with pytest.raises(MissingError, match="false does not build"):
        built_libraries.built_for(TORCH)
    assert [path.name for path in (tmp_path / "cache/pretended-card").iterdir()] == ["lock"]


@pytest.mark.usefixtures("fake")
def test_what_an_interrupted_build_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / "cache/pretended-card/.part-killed"
    left.mkdir(parents=True)
    folder = built_libraries.built_for(TORCH)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["lock", folder.name]


@pytest.mark.usefixtures("fake")
def test_cache_that_cannot_be_written_gets_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VRAMPLAN_CACHE", str(tmp_path / "file"))
    with pytest.raises(MissingError, match="cannot be kept") as caught:
        built_libraries.built_for(TORCH)
    assert "VRAMPLAN_CACHE" in str(caught.value.hint)
