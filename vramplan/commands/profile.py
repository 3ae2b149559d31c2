"""``vramplan profile``: the real components on a real GPU, measured phase by phase."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vramplan.ask.compare import compare_job, write_comparison
from vramplan.ask.events_file import events_file, written_beside
from vramplan.ask.gpus import find_gpu
from vramplan.ask.targets import make_jobs, open_catalog
from vramplan.catalog import Catalog
from vramplan.catalog.pipelines import GGML_RUNTIMES
from vramplan.commands import arguments
from vramplan.commands.arguments import given_settings
from vramplan.commands.interrupts import ending_tidily
from vramplan.commands.output import check_output, note, remark
from vramplan.engines.torch.libraries import QUIET, require_libraries
from vramplan.errors import UsageError
from vramplan.model import Card, Job

if TYPE_CHECKING:
    from vramplan.measurement.run import Run

FORMATS = ("table", "json", "markdown", "html")

_DESCRIPTION = (
    "Load TARGET's real components on an NVIDIA GPU one by one, run what a user runs, phase by "
    "phase, cold and warm, and show what torch allocated and reserved and what NVML saw, beside "
    "the estimate. Everything runs in a process of its own: an out-of-memory error or a crash is a "
    "result. The profiler adds nothing to the card but that process's CUDA context."
)

_EPILOG = f"""\
Weights are random unless you ask for others: the same classes and shapes, initialised on the GPU,
nothing to download. Memory depends on shapes, so the figures are the same.

`--as-card` plays a smaller card on a larger one: a second process holds the rest, until NVML's free
is what that card has, and torch is kept within it. Attention kernels that the smaller card would
not take are switched off; what cuDNN and cuBLAS choose beside that is the real card's.

`-o run.json` keeps the run; `vramplan compare run.json` shows it again on any machine.

A pipeline of Ollama runs in the server at OLLAMA_HOST, with a small picture where the model
sees; one of llama.cpp in a llama-server of our own, over the file that --weights names. What the
engine says of its buffers stands beside the estimate.

examples:
  measure Stable Diffusion 1.5:
    `vramplan profile sd15`
  would it run on an 8 GB card?
    `vramplan profile sd15 --image 1024x1024 --as-card 8gb`
  encoder and decoder of a VAE apart, with the weights of a folder or of the hub:
    `vramplan profile sd15-vae --mode both --weights hf:stabilityai/sd-vae-ft-mse`
  a model in the Ollama server that runs here:
    `vramplan profile llava:7b --context 4096`
  keep the run:
    `vramplan profile sd15 -o run.json`
  and the allocator's events, to be held against the tape:
    `vramplan profile sd15 --events -o run.json`
  execute every step on the CPU, without a GPU and without figures:
    `vramplan profile denoising-ae --dry-run`

exit codes: `0` measured, an out-of-memory error included; `1` the run failed for another reason;
`3` no GPU, or not enough of it free; {arguments.COMMON_EXITS}
"""


def configure(parser: ArgumentParser) -> None:
    """Say what ``profile`` takes."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.usage = "%(prog)s TARGET [--weights KIND] [--as-card CARD] [option ...]"
    parser.add_argument("target", metavar="TARGET", help=arguments.TARGET_HELP)
    parser.add_argument(
        "--weights",
        default="random",
        metavar="KIND",
        help="random (default), pretrained (the repository that the catalogue names, from the "
        "hub's cache or the hub), a FOLDER with a checkpoint, or hf:ORG/NAME; for llama.cpp a "
        ".gguf FILE",
    )
    parser.add_argument(
        "--as-card",
        metavar="CARD",
        help="play this card: a second process holds the rest of the GPU",
    )
    parser.add_argument(
        "--gpu",
        metavar="GPU",
        help="which GPU: its index as nvidia-smi counts, or its UUID (default: the first that "
        "CUDA_VISIBLE_DEVICES leaves)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="run everything on the CPU: shows that it works, has no figures",
    )
    parser.add_argument(
        "--events",
        action="store_true",
        help="run a third time with the allocator's recorder on, and keep its events beside -o "
        "FILE, for vramplan compare FILE --events",
    )
    arguments.add_projector(parser)
    arguments.add_settings(parser)
    arguments.add_output(parser, FORMATS)
    arguments.add_common(parser)


def run(args: Namespace) -> int:
    """Measure, write what came of it beside the estimate; return 1 where the run failed."""
    check_output(args)
    catalog = open_catalog(args.catalog)
    (job,) = make_jobs([args.target], catalog, given_settings(args), args.mmproj, remark)
    events = events_file(args, job.pipeline.runtime)
    with ending_tidily():
        if job.pipeline.runtime in GGML_RUNTIMES:
            from vramplan.engines.ggml.measure import measure_engine

            with showing_progress() as show:
                measured = measure_engine(args, job, show)
        else:
            measured = _measure_torch(args, job, catalog, events)
        comparison = compare_job(measured, catalog)
        with written_beside(events):
            write_comparison(args, "profile", comparison, tolerance_percent=None)
    from vramplan.measurement.run import FailureKind

    failure = measured.failure
    return int(failure is not None and failure.kind is not FailureKind.OOM)


def _measure_torch(args: Namespace, job: Job, catalog: Catalog, events: Path | None) -> Run:
    from vramplan.engines.torch.measure import Order, measure_order

    checkpoint = checkpoint_of(args.weights, job)
    require_libraries("profiling", load=False)
    gpu, driver = (None, "") if args.dry_run else find_gpu(args.gpu)
    if args.dry_run and args.as_card:
        raise UsageError("--dry-run plays no card: leave --as-card out")
    order = Order(
        target=args.target,
        job=job,
        catalog=args.catalog,
        checkpoint=checkpoint,
        gpu=gpu,
        driver=driver,
        card=None if args.as_card is None else played_card(args.as_card, catalog),
        command=" ".join(["vramplan", *args.words]),
        history=None if events is None else str(events),
    )
    with written_beside(events), showing_progress() as show, _quiet(is_offline=checkpoint is None):
        return measure_order(order, show)


#: a repository on the hub; the oldest have no organisation
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)


def checkpoint_of(weights: str, job: Job) -> str | None:
    """Return where weights come from: None for random ones, a folder, or a name on the hub.

    Raises UsageError for what is neither, and where the catalogue names no repository.
    """
    if weights == "random":
        return None
    if weights == "pretrained":
        hub = "https://huggingface.co/"
        source = job.pipeline.source.split()[0] if job.pipeline.source else ""
        if not source.startswith(hub):
            hint = "--weights FOLDER or --weights hf:ORG/NAME"
            raise UsageError(f"{job.pipeline.name}: the catalogue names no repository", hint=hint)
        return source.removeprefix(hub).strip("/")
    if weights.startswith("hf:"):
        name = weights.removeprefix("hf:")
        if not _HUB_NAME.fullmatch(name):
            raise UsageError(f"--weights {weights}: not a name on the hub", hint="hf:ORG/NAME")
        return name
    if Path(weights).is_dir():
        return weights
    hint = "random, pretrained, a folder, or hf:ORG/NAME"
    raise UsageError(f"--weights {weights}: not a folder", hint=hint)


#: of a class's compute capabilities the one whose kernels most cards of today take
_USUAL = ("8.6", "8.9", "12.0")


def played_card(text: str, catalog: Catalog) -> Card:
    """Return the card to be played; of a class, one with an architecture of today."""
    choice = catalog.card(text)
    by_capability = {card.compute_capability: card for card in choice.candidates}
    found = next((by_capability[one] for one in _USUAL if one in by_capability), None)
    card = found or choice.candidates[-1]
    from dataclasses import replace

    return replace(card, name=choice.label, title=choice.title)


@contextmanager
def showing_progress() -> Iterator[Callable[[str], None]]:
    """Show what is being done on stderr: a line that changes on a terminal, lines in a log."""
    stream, last = sys.stderr, [""]
    is_terminal = stream.isatty()

    def show(text: str) -> None:
        if text == last[0]:
            return
        last[0] = text
        if is_terminal:
            stream.write(f"\r\x1b[2K{text[:79]}")
            stream.flush()
        else:
            note(text)

    try:
        yield show
    finally:
        if is_terminal and last[0]:
            stream.write("\r\x1b[2K")
            stream.flush()


@contextmanager
def _quiet(*, is_offline: bool) -> Iterator[None]:
    """Keep the child's libraries quiet, and off the network where nothing is to be fetched."""
    import os

    wanted = {k: v for k, v in QUIET.items() if is_offline or k != "HF_HUB_OFFLINE"}
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
