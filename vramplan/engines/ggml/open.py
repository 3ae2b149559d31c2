"""A pipeline that a ggml engine runs: a model file's header, or what an entry says of a file.

A TARGET may be a .gguf, a folder with one, one in Ollama's store or on the hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from vramplan.catalog.pipelines import Entry
from vramplan.engines.ggml import lm_studio
from vramplan.engines.ggml.pipeline import Described, GgmlPipeline, ModelFile
from vramplan.errors import SourceError
from vramplan.model import Constraint, SettingValue
from vramplan.quick_dataclass import replace
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.setting_values import AUTO, NONE, SAME

if TYPE_CHECKING:
    from vramplan.engines.ggml.weights import GgmlModel
    from vramplan.sources.gguf_header import GgufFile
    from vramplan.sources.ollama_store import OllamaModel


OLLAMA, HUB, LM_STUDIO = "ollama:", "hf:", "lmstudio:"

#: is told in a line how a TARGET was understood
Remark = Callable[[str], None]

#: the builds whose rules are followed: Ollama's of August 2026, and llama.cpp's of the witness
#: (LM Studio names its runtimes by numbers of its own)
_BUILDS = {"ollama": "b10488", "llama.cpp": "b11549", "lmstudio": "b11549"}

#: What LM Studio takes too: "reduced default context size from 8K to 4K tokens" (0.3.2's release
#: notes). Its other defaults are those below: all layers, fitted by llama.cpp, 512 tokens a batch,
#: f16 keys and values (lmstudio-ai/lmstudio-js, packages/lms-kv-config/src/schema.ts). Without -c
#: llama-server takes what the model was trained on and shrinks it where it does not fit, which is
#: context=auto: a need that grows with the card compares with nothing, so that must be asked for.
_CONTEXT = 4096
_MOST_TOLD = 16  # files of a folder whose headers are read
_LARGEST_IMAGE = 1 << 16  # a side in pixels, which no camera reaches
_OTHER_WIDTH = "{} is of another width than the model: llama.cpp refuses such a pair"
#: what Ollama's templates may set, and our name for it
_PARAMETERS = {"num_ctx": "context", "num_batch": "ubatch", "num_gpu": "gpu_layers"}


def open_entry(entry: Entry) -> GgmlPipeline:
    """Return the pipeline of a catalogue's entry."""
    return GgmlPipeline(
        name=entry.name,
        title=entry.title,
        summary=entry.summary,
        runtime=entry.runtime,
        defaults={**_plain_defaults(entry.runtime), **entry.defaults},
        constraints=entry.constraints,
        source=entry.source,
        path=entry.path,
        aliases=entry.aliases,
        model=Described(section=entry.section("ggml") or {}),
    )


def find_local(text: str, remark: Remark) -> str | None:
    """Return what `open_model` takes for a TARGET; None for a name that is no model here.

    ``PUBLISHER/REPOSITORY``, or a file in it, may be in LM Studio's folder of models.
    """
    path = Path(text)
    if text.startswith((OLLAMA, HUB)) or path.exists():
        return text
    from vramplan.sources.model_folder import find_in_lm_studio

    found = find_in_lm_studio(text.removeprefix(LM_STUDIO))
    if found is not None:
        remark(f"LM Studio's model: {found}")
        return f"{LM_STUDIO}{found}"
    if text.startswith(LM_STUDIO):
        return text
    return text if path.suffix.lower() in (".gguf", ".safetensors") else None


def open_model(text: str, mmproj: str | None, remark: Remark = lambda _: None) -> GgmlPipeline:
    """Return the pipeline that a TARGET of this kind stands for.

    Raises SourceError where it is not there or not usable.
    """
    if text.startswith(OLLAMA):
        return _from_ollama(text.removeprefix(OLLAMA), mmproj, remark)
    if text.startswith(LM_STUDIO):
        return _from_lm_studio(text.removeprefix(LM_STUDIO), mmproj, remark)
    if text.startswith(HUB):
        return _from_hub(text.removeprefix(HUB), mmproj, remark)
    return _from_path(Path(text), mmproj, remark)


def _from_hub(name: str, mmproj: str | None, remark: Remark) -> GgmlPipeline:
    """Return the pipeline of a file on the hub, with the projector that llama.cpp fetches too."""
    from vramplan.sources.hub import find_on_hub

    found = find_on_hub(name, wants_projector=not mmproj)
    projector = _read_projector(Path(mmproj)) if mmproj else found.projector
    said = f"{HUB}{name}: {found.file}" if not name.endswith(found.file) else ""
    if projector is not None and projector is found.projector:
        if projector.architecture == "clip" and _does_fit(projector, found.header):
            beside = f"with the projector beside it: {found.projector_file}"
        else:
            beside = (
                f"left out: {found.projector_file} beside it, which is no projector of a model of "
                "this width"
            )
            projector = None
        said = f"{said}, {beside}" if said else beside
    elif projector is not None and not _does_fit(projector, found.header):
        said = _OTHER_WIDTH.format(Path(projector.path).name)
    title = found.file.rpartition("/")[2].removesuffix(".gguf")
    file = ModelFile(header=found.header, projector=projector)
    pipeline = _pipeline(title, file, "llama.cpp", {})
    if said:
        remark(said)
    return pipeline


def open_header(header: GgufFile) -> GgmlPipeline:
    """Return the pipeline of a header that has been read. Raises SourceError as `open_model`."""
    return _pipeline(Path(header.path).stem, ModelFile(header=header), "llama.cpp", {})


def open_draft(path: str, beside: GgmlPipeline) -> GgmlPipeline:
    """Return the pipeline of a model that guesses ahead for another.

    Raises SourceError where it is not there or not usable.
    """
    from vramplan.sources.gguf import read_gguf

    place = Path(path)
    if not place.is_file():
        raise SourceError(f"{path}: no such file", hint="draft names a .gguf of a small model")
    found = _pipeline(place.stem, ModelFile(header=read_gguf(place)), beside.runtime, {})
    return replace(found, name=f"{beside.name} + {place.stem}")


def _from_lm_studio(name: str, mmproj: str | None, remark: Remark) -> GgmlPipeline:
    from vramplan.sources.lm_studio_settings import read_settings
    from vramplan.sources.model_folder import lm_studio_home

    home = lm_studio_home()
    if not Path(name).exists():
        hint = f"its models are in {home / 'models'}; lms ls lists them"
        raise SourceError(f"{LM_STUDIO}{name}: LM Studio has no such model", hint=hint)
    told = read_settings(home)
    if told.used:
        remark(f"unless asked otherwise, from LM Studio's settings: {', '.join(told.used)}")
    return _from_path(Path(name), mmproj, remark, "lmstudio", told.settings)


def _from_path(
    path: Path,
    mmproj: str | None,
    remark: Remark,
    runtime: str = "llama.cpp",
    given: Mapping[str, SettingValue] = {},  # read only
) -> GgmlPipeline:
    from vramplan.sources.gguf import read_gguf
    from vramplan.sources.model_folder import find_projector_file

    if path.is_dir():
        path = _find_in_folder(path, remark)
    header = read_gguf(path)
    beside = Path(mmproj) if mmproj else find_projector_file(path)
    projector = None
    said = ""
    if beside is not None:
        projector = _read_projector(beside)
        does_fit = _does_fit(projector, header)
        if mmproj and not does_fit:
            said = _OTHER_WIDTH.format(beside.name)
        elif not does_fit:
            said = (
                f"left out: {beside.name} beside it is another model's projector, whose embeddings "
                "are of another width"
            )
            projector = None
        elif not mmproj:
            said = f"with the projector beside it: {beside.name}"
    file = ModelFile(header=header, projector=projector)
    found = _pipeline(path.stem, file, runtime, given)
    if said:  # of what is no model the projector beside it is nobody's business
        remark(said)
    return found


def _find_in_folder(folder: Path, remark: Remark) -> Path:
    """Return the one model in a folder; what is no model, by its header, may stand beside it."""
    from vramplan.sources.model_folder import model_files

    files = model_files(folder)
    if len(files) == 1:
        return files[0]
    told = {path: _told(path) for path in files[:_MOST_TOLD]}
    models = [path for path in files if path not in told or told[path][0]]
    if len(models) == 1:
        beside = "; ".join(f"{path.name}: {told[path][1]}" for path in told if path != models[0])
        remark(f"the model is {models[0].name}; left out: {beside}")
        return models[0]
    names = ", ".join(
        f"{path.name} ({told[path][1]})" if path in told else path.name for path in files[:10]
    )
    raise SourceError(f"{folder}: {len(models)} models in it", hint=f"name one: {names}")


def _told(path: Path) -> tuple[bool, str]:
    """Return whether a file is a model, and what it is by its header."""
    from vramplan.engines.ggml.file_kind import is_language_model, kind_in_words
    from vramplan.sources.gguf import read_gguf

    try:
        header = read_gguf(path)
    except SourceError as problem:
        return True, str(problem).removeprefix(f"{path}: ")[:80]
    return is_language_model(header), kind_in_words(header)


def _from_ollama(name: str, mmproj: str | None, remark: Remark) -> GgmlPipeline:
    """Return the pipeline of a model that Ollama has installed, else of its library's."""
    from vramplan.sources.ollama_environment import read_environment
    from vramplan.sources.ollama_store import find_installed

    found = find_installed(name)
    if found is None:
        header, projector, parameters = _from_library(name, remark)
    else:
        from vramplan.sources.gguf import read_gguf

        header, parameters = read_gguf(found.model), found.parameters
        projector = None if found.projector is None else _read_projector(found.projector)
    if mmproj:
        projector = _read_projector(Path(mmproj))
    environment = read_environment()
    given: dict[str, SettingValue] = {"context": AUTO, "ubatch": AUTO, **environment.settings}
    for theirs, ours in _PARAMETERS.items():
        value = parameters.get(theirs)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 24:
            given[ours] = value  # the template wins over the environment
    main_gpu = parameters.get("main_gpu")  # with it Ollama keeps to one card
    if isinstance(main_gpu, int) and not isinstance(main_gpu, bool) and 0 <= main_gpu < 64:
        given |= {"split_mode": "none", "main_gpu": main_gpu}
    if found is not None:
        given.update(_files_beside(found))
    if environment.used:
        remark(f"unless asked otherwise, from the environment: {', '.join(environment.used)}")
    pipeline = _of_ollama(name, header, projector, given)
    return replace(pipeline, overhead_bytes=environment.overhead_bytes)


def _of_ollama(
    name: str, header: GgufFile, projector: GgufFile | None, given: Mapping[str, SettingValue]
) -> GgmlPipeline:
    """Return the pipeline of a file as Ollama shows it to llama.cpp."""
    from vramplan.engines.ggml.ollama_files import translated
    from vramplan.engines.ggml.ollama_versions import RUN_BY_OLLAMA_ALONE
    from vramplan.engines.ggml.tensor_names import refuse_unknown

    shown = translated(header)
    if header.architecture not in RUN_BY_OLLAMA_ALONE:
        refuse_unknown(header if shown is None else shown.model)
    file = ModelFile(header=header, projector=projector)
    if shown is not None:
        file = replace(file, header=shown.model, written_as=shown.written_as)
        if projector is None:  # a named one goes before that in the file
            file = replace(file, projector=shown.projector, encoder_bytes=shown.encoder_bytes)
    return _pipeline(name, file, "ollama", given)


def _from_library(
    name: str, remark: Remark
) -> tuple[GgufFile, GgufFile | None, Mapping[str, object]]:
    """Return the headers of a model and of its projector in Ollama's library, and its parameters.

    Raises SourceError where there is none, with what is installed of a like name.
    """
    from vramplan.sources.ollama_registry import is_on_hub, read_from_registry
    from vramplan.sources.ollama_store import nearest_installed

    try:
        found = read_from_registry(name)
    except SourceError as problem:
        near = nearest_installed(name)
        hint = "; ".join(one for one in (near, problem.hint) if one)
        raise SourceError(str(problem), hint=hint or None) from None
    where = "on the hub" if is_on_hub(name) else "in Ollama's library"
    remark(f"{OLLAMA}{name}: not installed, read {where}")
    if found.left_out:
        remark(f"left out, until it is installed: {' and '.join(found.left_out)}")
    if found.projector is not None and found.projector.architecture != "clip":
        raise SourceError(f"{OLLAMA}{name}: its projector is none")
    return found.model, found.projector, found.parameters


def _files_beside(found: OllamaModel) -> Iterator[tuple[str, SettingValue]]:
    """Yield the settings of what a manifest of Ollama's has beside a model.

    A model that guesses ahead guesses 4 tokens unless told to guess none (draft_num_predict);
    layers that guess ahead do so only where a number is told. Source: ollama/ollama,
    server/routes.go (modelOptions), llm/llama_server.go (appendDraftArgs).
    """
    if found.adapters:
        yield "lora", ";".join(map(str, found.adapters))
    guesses = found.parameters.get("draft_num_predict")
    if found.draft is not None and guesses != 0:
        yield "draft", str(found.draft)
    elif found.draft is None and isinstance(guesses, int) and guesses > 0:
        yield "load_mtp", "on"


def _does_fit(projector: GgufFile, header: GgufFile) -> bool:
    from vramplan.engines.ggml.projector_file import fits_model

    name = header.architecture
    width = header.number(f"{name}.embedding_length")
    return fits_model(projector, width, header.number(f"{name}.n_deepstack_layers"))


def _read_projector(path: Path) -> GgufFile:
    from vramplan.sources.gguf import read_gguf

    if not path.is_file():
        raise SourceError(f"{path}: no such projector file")
    header = read_gguf(path)
    if header.architecture != "clip":
        raise SourceError(f"{path}: not a projector, but {header.architecture or 'something else'}")
    return header


def _pipeline(
    name: str, file: ModelFile, runtime: str, given: Mapping[str, SettingValue]
) -> GgmlPipeline:
    from vramplan.engines.ggml.gguf_tensors import model_from_gguf

    header, projector = file.header, file.projector
    model = model_from_gguf(header)
    if runtime != "ollama":  # which shows some files to the engine as others
        from vramplan.engines.ggml.tensor_names import refuse_unknown

        refuse_unknown(header)
    image = None
    if projector is not None:
        from vramplan.engines.ggml.projector_file import image_setting

        image = image_setting(projector)
    title = header.text("general.name")[:120].strip()
    trained = model.trained_context
    defaults: dict[str, SettingValue] = {
        **_plain_defaults(runtime),
        "context": min(_CONTEXT, trained),
        "key_type": SAME,
        "value_type": SAME,
        "kv_offload": "on",
        **_sharing(runtime, model),
        "draft": NONE,
        "override_tensor": NONE,
        "lora": NONE,
    }
    if image is not None:  # images keep their size: the one that is reserved for
        defaults["image"] = image
    if projector is not None:
        defaults["mmproj_offload"] = "on"
    total = model.total_layers
    if runtime == lm_studio.RUNTIME:
        defaults |= lm_studio.own_defaults(given)
        context = given.get("context")
        given = {"context": min(context, trained)} if isinstance(context, int) else {}
    told = {key: value for key, value in given.items() if key not in ("gpu_layers", "load_mtp")}
    defaults |= told
    if model.has_experts:
        defaults["cpu_moe"] = 0
    if model.next_tensors:
        defaults["load_mtp"] = given.get("load_mtp", "off")
    layers = given.get("gpu_layers")
    if isinstance(layers, int):
        defaults["gpu_layers"] = min(layers, total)
    return GgmlPipeline(
        name=name,
        title=f"{title or model.architecture} ({model.quantisation})",
        summary=f"{header.path}: {model.layers} layers of {model.embedding}",
        runtime=runtime,
        defaults=defaults,
        constraints={
            "context": Constraint(minimum=1, maximum=_most(trained, defaults["context"])),
            "gpu_layers": Constraint(minimum=0, maximum=total),
            "parallel": Constraint(maximum=256),
            "image": Constraint(minimum=1, maximum=_LARGEST_IMAGE),
            "cpu_moe": Constraint(minimum=0, maximum=model.layers),
        },
        source=header.path,
        path=header.path,
        model=file,
    )


def _sharing(runtime: str, model: GgmlModel) -> dict[str, SettingValue]:
    """Return the defaults of requests and their caches, of which nobody can tell Ollama.

    LM Studio too serves 4 requests over one cache (numParallelSessions, useUnifiedKvCache in the
    schema.ts named above; docs/app/advanced/parallel-requests on lmstudio.ai).
    """
    if runtime == "ollama":
        return {"parallel": 1}
    chosen: dict[str, SettingValue] = {
        "parallel": AUTO,
        "kv_unified": AUTO,
        "batch_tokens": 2048,
        "embedding": "off",
        "pooling": AUTO,
        "control_vector": NONE,
    }
    if model.window:
        chosen["swa_full"] = "off"
    return chosen


def _plain_defaults(runtime: str) -> dict[str, SettingValue]:
    """Return what is asked of any model unless an entry or a file says otherwise."""
    return {
        "context": _CONTEXT,
        "ubatch": 512,
        "kv_type": "f16",
        "flash_attention": "auto",
        "gpu_layers": "auto",
        "parallel": 1,
        **_several_cards(runtime),
        "engine": _BUILDS[runtime],
        "platform": "linux",
    }


def _several_cards(runtime: str) -> dict[str, SettingValue]:
    """Return the defaults of what matters on several cards only: Ollama may choose one of them."""
    mode = AUTO if runtime == "ollama" else "layer"
    return {"split_mode": mode, "tensor_split": AUTO, "main_gpu": 0}


def _most(trained: int, context: SettingValue) -> int:
    """Return the largest context: what the model was trained on, or what its template says."""
    return max(trained, context) if isinstance(context, int) else trained
