"""``vramplan profile``: the real components on a real GPU, measured phase by phase."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

from vramplan.ask.profile import Profiled, Wishes, profile
from vramplan.ask.targets import open_catalog
from vramplan.commands import arguments
from vramplan.commands.interrupts import ending_tidily
from vramplan.commands.output import choose_format, remark, show, write_file
from vramplan.commands.progress import showing_progress
from vramplan.report import comparison, measured_run
from vramplan.report.look import Look

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
    path = _run_file(args)
    wishes = Wishes(
        weights=args.weights,
        mmproj=args.mmproj,
        as_card=args.as_card,
        gpu=args.gpu,
        is_dry=args.dry_run,
        wants_events=args.events,
        run_file=path,
        command=" ".join(["vramplan", *args.words]),
    )
    catalog = open_catalog(args.catalog)
    with ending_tidily():
        with showing_progress() as progress:
            found = profile(
                args.target,
                catalog,
                arguments.given_settings(args),
                wishes,
                keep=_keeping(path),
                progress=progress,
                remark=remark,
            )
        if found.comparison is not None:
            show(args, partial(comparison.render, found.comparison))
        else:
            remark(f"no estimate beside it: {found.problem}")
            show(args, partial(measured_run.render, found.run, problem=found.problem))
    return int(found.is_broken)


def _run_file(args: Namespace) -> Path | None:
    """Return the file that the run itself will be in, if there is one."""
    is_kept = args.output and args.output != "-" and choose_format(args) == "json"
    return Path(args.output) if is_kept else None


def _keeping(path: Path | None) -> Callable[[Profiled], None]:
    """Return what writes a run down the moment it is there: nothing later can lose it."""

    def keep(found: Profiled) -> None:
        if path is not None:
            look = Look(format="json", command="profile")
            write_file(path, measured_run.render(found.run, look))

    return keep
