"""What a file is that was taken for a model's and is none that is read: by its first bytes or name.

Nothing of it is opened further: a checkpoint of PyTorch is a pickle, which runs code when it is.
Sources: pytorch/pytorch, torch/serialization.py (a zip with data.pkl in it, a bare pickle before);
huggingface/safetensors, README (eight bytes of length, then JSON); ggerganov/ggml as of 2023
(ggml, ggmf, ggjt, ggla); hdfgroup/hdf5, format specification; tensorflow/tensorflow, schema.fbs
(TFL3 behind four bytes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath

PICKLE_HINT = (
    "such files are pickles, which run code when they are opened: load the model once and save it "
    "with save_pretrained, which writes safetensors"
)
_CONVERT = "convert_hf_to_gguf.py of llama.cpp makes a GGUF of the model it was made from"
_UNPACK = "unpack it, and name what is in it"
_READ = "read are GGUF, and what diffusers and transformers save: safetensors and config.json"

#: how files begin, what they are, and what to do
_STARTS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "the text that Git LFS puts in its place: git lfs pull", _READ),
    (b"<", "a web page: the download went wrong", "download it again, and look at its size"),
    *((magic, "a ggml file of 2023", _CONVERT) for magic in (b"lmgg", b"fmgg", b"tjgg", b"algg")),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras saves", _READ),
    *(
        (magic, "a compressed archive", _UNPACK)
        for magic in (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd", b"Rar!")
    ),
)
_ZIP, _DATA = b"PK\x03\x04", b"data.pkl"
#: a pickle of protocol 2 to 5, which is how everything before the zip began
_PICKLES = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
_CHECKPOINT = "a checkpoint of PyTorch"
_BY_NAME: dict[str, tuple[str, str]] = {
    **dict.fromkeys((".ckpt", ".pt", ".pth", ".bin", ".pkl"), (_CHECKPOINT, PICKLE_HINT)),
}
_ELSEWHERE = "another engine runs it; vramplan plans PyTorch and llama.cpp"
_OF_TORCH = (
    "load it once with transformers (from_flax=True or from_tf=True up to its version 4) and save "
    "it with save_pretrained, which writes safetensors"
)
#: whose weights a folder has by the names in it, and what to do; the first that fits. Sources:
#: transformers 4, utils/__init__.py (names of Flax's and TensorFlow's weights); OpenVINO's IR (an
#: .xml beside a .bin); CTranslate2, docs/conversion.md (model.bin beside a vocabulary); Apple's
#: coremltools, NVIDIA's NeMo and TensorRT-LLM (rank0.engine), by their endings
_IN_FOLDERS: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), what, hint)
    for pattern, what, hint in (
        (r".*\.onnx(?:_data)?", "an ONNX model", _ELSEWHERE),
        (r"openvino_.*\.xml", "an OpenVINO model", _ELSEWHERE),
        (r".*\.(?:engine|plan|trt)", "a TensorRT engine", _ELSEWHERE),
        (r".*\.(?:mlpackage|mlmodelc?)", "a Core ML model", _ELSEWHERE),
        (r".*\.tflite", "a TensorFlow Lite model", _ELSEWHERE),
        (r".*\.nemo", "a NeMo archive", "its exported safetensors or GGUF can be read"),
        (r"(?:flax|diffusion_flax)_model.*\.msgpack", "weights of Flax", _OF_TORCH),
        (r"tf_model.*\.h5", "weights of TensorFlow", _OF_TORCH),
        (r"(?:shared_)?vocabulary\.(?:txt|json)", "a CTranslate2 model", _ELSEWHERE),
    )
)
#: what runs models, and is none itself
_PROGRAM = "vramplan run --card 8gb -- python"
_MODELFILE = (
    "an Ollama Modelfile",
    "name the model behind its FROM, with its PARAMETERs: 'qwen3:8b[context=8k]'",
)
_PROGRAMS: dict[str, tuple[str, str]] = {
    ".py": ("a Python program", f"{_PROGRAM} FILE.py runs it on a card that is not there"),
    ".ipynb": (
        "a notebook",
        f"jupyter nbconvert --to script makes a program of it: {_PROGRAM} FILE.py",
    ),
    ".sh": ("a shell script", "name the model that it runs: vramplan check MODEL"),
    ".modelfile": _MODELFILE,
    "modelfile": _MODELFILE,
}
#: what lies in a model's own folder
_OF_FOLDERS = frozenset(
    ("config.json", "model_index.json", "generation_config.json", "adapter_config.json")
)
#: JSON in front of the tensors is no longer, and nothing else begins so
_LONGEST_JSON = 100 << 20


def tell_folder(names: Iterable[str]) -> tuple[str, str] | None:
    """Return whose model a folder is by the names of what lies in it, and what to do; or None.

    Asked where nothing that is read lies beside them.
    """
    names = list(names)
    for pattern, what, hint in _IN_FOLDERS:
        if any(map(pattern.fullmatch, names)):
            return what, hint
    return None


def tell(head: bytes, name: str) -> tuple[str, str | None]:
    """Return what a file of this name is that begins with `head`, and what to do; or nothing."""
    if not head:
        return "an empty file", "the download went wrong"
    last = PurePath(name).name.lower()
    if (program := _tell_program(last)) is not None:
        return program
    for start, what, hint in _STARTS:
        if head.startswith(start):
            return what, hint
    if head.startswith(_ZIP):
        return (_CHECKPOINT, PICKLE_HINT) if _DATA in head[:4096] else ("a zip archive", _UNPACK)
    if head.startswith(_PICKLES):
        return _CHECKPOINT, PICKLE_HINT
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model", _READ
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_JSON:
        return "a safetensors file", "name it so that it ends in .safetensors"
    if last.endswith(".json") or head.lstrip()[:1] == b"{":
        is_of_folder = last in _OF_FOLDERS or last.endswith(".index.json")
        return "a JSON file", "name the folder that it lies in" if is_of_folder else _READ
    known = tell_folder([last]) or _BY_NAME.get(PurePath(last).suffix)
    if known is not None:
        return f"{known[0]}, by its name", known[1]
    if _is_text(head[:512]):
        return "a text file", _READ
    return "", _READ


def _tell_program(name: str) -> tuple[str, str] | None:
    stem, _, ending = name.partition(".")
    if stem == "modelfile" and ending not in ("gguf", "safetensors"):  # Modelfile.llama
        return _MODELFILE
    return _PROGRAMS.get(PurePath(name).suffix or name)


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("ascii")
    except UnicodeDecodeError:
        return False
    return all(one.isprintable() or one.isspace() for one in text)
