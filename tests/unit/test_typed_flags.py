"""The flags and variables that a plan tells people to give, read by llama.cpp's own parser.

``common_params_parse`` is what llama-server calls first, and what it makes of its arguments is read
from the same object through the binding's own names. Source: ggml-org/llama.cpp, common/arg.cpp.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vramplan.engines.ggml.typed import _LINES, LLAMA_CPP, OLLAMA

#: what to say, and with which value -> what the server then has; {} for what it has anyway
MEANT = {
    ("all layers", ""): {"n_gpu_layers": 999},
    ("layers as they fit", ""): {},
    ("context", 4096): {"n_ctx": 4096},
    ("ubatch", 128): {"n_ubatch": 128},
    ("cache type", "q8_0"): {"cache_type_k": 8, "cache_type_v": 8},  # GGML_TYPE_Q8_0
    ("cache type", "q4_0"): {"cache_type_k": 2, "cache_type_v": 2},
    ("flash attention", ""): {"flash_attn_type": -1},  # LLAMA_FLASH_ATTN_TYPE_AUTO
    ("one request", ""): {"n_parallel": 1},
    ("cache on the host", ""): {"no_kv_offload": True},
    ("projector on the CPU", ""): {"mmproj_use_gpu": False},
    ("nothing guessed ahead", ""): {},
    ("windows alone", ""): {},
    ("experts", 3): {"overridden": 3},
}
#: what stands in words: the flag that is to be left out
LEFT_OUT = ("no ", "lms ")

CHILD = """
import ctypes, json, sys
import xllamacpp
library = ctypes.CDLL(sys.argv[1])
parse = library._Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E
parse.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p), ctypes.c_void_p, ctypes.c_int,
                  ctypes.c_void_p]
parse.restype = ctypes.c_bool
SERVER = 12  # llama_example::LLAMA_EXAMPLE_SERVER of this build
found = []
for words in json.loads(sys.argv[2]):
    params = xllamacpp.CommonParams()
    words = ["llama-server", "-m", "model.gguf", *words]
    given = (ctypes.c_char_p * len(words))(*[word.encode() for word in words])
    # the object holds the struct itself, behind what every object of Python has
    place = ctypes.c_void_p(id(params) + object.__basicsize__)
    taken = bool(parse(len(words), given, place, SERVER, None))
    names = ("n_gpu_layers", "n_ctx", "n_ubatch", "cache_type_k", "cache_type_v",
             "flash_attn_type", "n_parallel", "no_kv_offload", "mmproj_use_gpu", "swa_full")
    values = {name: getattr(params, name) for name in names}
    overridden = str(params.tensor_buft_overrides).count("exps=CPU")
    values |= {"taken": taken, "path": params.model.path, "overridden": overridden}
    found.append({k: v if isinstance(v, (bool, str)) else int(v) for k, v in values.items()})
sys.stderr.flush()
print(json.dumps(found))
"""


def parsed(cases: list[list[str]], **variables: str) -> list[dict[str, object]]:
    """Return what llama-server has after it has read each case's arguments."""
    pytest.importorskip("xllamacpp")
    import xllamacpp

    (library,) = Path(xllamacpp.__file__).parent.glob("*.so")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(library), json.dumps(cases)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )
    if "undefined symbol" in done.stderr:
        pytest.skip("this build keeps its parser to itself")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_line_has_what_it_means() -> None:
    assert {what for what, _ in MEANT} == _LINES.keys()


@pytest.mark.usefixtures("engine")
def test_the_engines_own_parser_takes_each_flag_as_it_is_meant() -> None:
    lines = [_LINES[what][LLAMA_CPP].format(value) for what, value in MEANT]
    words = [[] if line.startswith(LEFT_OUT) else line.split() for line in lines]
    assert sum(map(bool, words)) >= 10
    plain, wrong, *found = parsed([[], ["--no-such-flag"], *words])
    assert (plain["taken"], wrong["taken"]) == (True, False)
    assert plain["path"] == "model.gguf"  # the struct is where it is thought to be
    assert plain["mmproj_use_gpu"] is True
    for line, meant, one in zip(lines, MEANT.values(), found, strict=True):
        assert one["taken"] is True, line
        assert one == {**plain, **meant}, line


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("what", "value"),
    [("cache on the host", ""), ("experts", 3), ("projector on the CPU", "")],
)
def test_what_ollama_hands_on_is_read_by_the_server(what, value) -> None:
    """Its environment is llama-server's too, which reads variables of its own."""
    name, _, text = _LINES[what][OLLAMA].format(value).partition("=")
    assert name.startswith("LLAMA_ARG_")
    plain, found = parsed([[]])[0], parsed([[]], **{name: text})[0]
    assert found == {**plain, **MEANT[what, value]}
