"""Measure vramplan's own accuracy on one GPU: one command, under ten minutes, resumable.

    python -m tools.campaign                       profiles/measured/<gpu>/*.json
    python -m tools.campaign --out DIR --budget 540
    python -m tools.campaign --list                the cases, most valuable first
    python -m tools.campaign --dry                 every case on the CPU with tiny shapes

Each case runs in processes of its own and is written the moment it ends; cases that are there
already are skipped, so that a campaign cut short goes on where it stopped; those that failed by
anything but their memory come again, last. Weights are random, and
nothing is fetched. While one case runs, the processes of the next are started: they touch no GPU
until it is their turn.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tools.model_files import sparse_module
from vramplan import __version__
from vramplan.ask.gpus import find_gpu
from vramplan.ask.profile import played_card
from vramplan.ask.targets import make_jobs
from vramplan.catalog import Catalog, load_catalog
from vramplan.catalog.cards import assumed_card
from vramplan.cli import INTERRUPTED
from vramplan.commands.result_file import write_file
from vramplan.engines.door import ballast_command, engine_of
from vramplan.engines.torch.libraries import QUIET
from vramplan.engines.torch.measure import Order, Prepared, prepare_order
from vramplan.errors import MeasurementError, VramplanError
from vramplan.interrupts import ending_tidily
from vramplan.measurement.files import read_run
from vramplan.measurement.run import FailureKind, Run
from vramplan.measurement.run_json import encode_run
from vramplan.model import Card, Job, LineKind, Pipeline
from vramplan.runner.tools import Tools
from vramplan.settings import parse_setting
from vramplan.units import MIB

if TYPE_CHECKING:
    from vramplan.probe.nvml import Gpu

ROOT = Path(__file__).resolve().parents[1]

#: processes that import while a case runs
_AHEAD = 3
#: no case gets more of the clock than this
_LONGEST_S = 120.0
#: a case with less left than this is not started
_SHORTEST_S = 12.0

EXPERIMENTS = {"@context": "The CUDA context, step by step", "@convolutions": "Convolutions alone"}


@dataclass(frozen=True, slots=True)
class Case:
    """A TARGET at settings, maybe on a smaller card, maybe with the allocator's events.

    An engine's is a model file of the TARGET's shapes without data, loaded by llama.cpp's server.
    """

    name: str
    target: str
    settings: Mapping[str, str] = field(default_factory=dict)
    card: str | None = None
    has_history: bool = False
    is_engine: bool = False


def cases() -> list[Case]:
    """Return every case, the most valuable first."""
    found = [Case("context", "@context")]
    found += [
        _sd15("sd15-512", has_history=True),
        Case("vae-both-512", "sd15-vae", _plain(mode="both"), has_history=True),
        Case("llava-64", "llava-1.5-7b-hf", _llava(64, 32), has_history=True),
        _sd15("sd15-512-as-8gb", card="8gb"),
        _sd15("sd15-512-as-12gb", card="12gb"),
        Case("llava-7b-as-8gb", "llava:7b", card="8gb", is_engine=True),
        Case("llava-7b-as-12gb", "llava:7b", card="12gb", is_engine=True),
        _sd15("sd15-1024-as-8gb", card="8gb", image="1024x1024"),
        _sd15("sd15-1024"),
        _sd15("sd15-512-batch-4", batch="4"),
        Case("sdxl-1024-bf16", "sdxl", _plain(dtype="bf16", steps="10"), has_history=True),
        Case("convolutions", "@convolutions"),
    ]
    found += list(_vae_sizes())
    found += [
        _sd15("sd15-768"),
        _sd15("sd15-512-fp32", dtype="fp32"),
        _sd15("sd15-512-math", attention="math"),
        _sd15("sd15-512-model-offload", offload="model"),
        _sd15("sd15-512-bf16", dtype="bf16"),
        Case("llava-512", "llava-1.5-7b-hf", _llava(512, 32)),
        Case("llava-2048", "llava-1.5-7b-hf", _llava(2048, 32)),
        Case("llava-64-new-256", "llava-1.5-7b-hf", _llava(64, 256)),
        Case("sdxl-1024-fp16", "sdxl", _plain(dtype="fp16", steps="10")),
    ]
    found += list(_smaller_cards())
    found += [
        Case("denoising-ae-train", "denoising-ae", _plain(mode="train"), has_history=True),
        Case("log-anomaly-ae-train", "log-anomaly-ae", _plain(mode="train")),
        Case("vit-mae-train", "vit-mae-base", _plain(mode="train")),
        Case("denoising-ae-infer", "denoising-ae", _plain(mode="infer")),
        _sd15("sd15-512-sequential-offload", offload="sequential"),
        _sd15("sd15-1024-batch-4", image="1024x1024", batch="4"),
        _sd15("sd15-1024-tiling", image="1024x1024", vae_tiling="on"),
        _sd15("sd15-512-batch-4-slicing", batch="4", vae_slicing="on"),
        _sd15("sd15-512-sliced-attention", attention="sliced"),
        _sd15("sd15-768-math", image="768x768", attention="math"),
        _sd15("sd15-1024-fp32", image="1024x1024", dtype="fp32"),
        _sd15("sd15-512-expandable", expandable_segments="on", has_history=False),
        _sd15("sd15-img2img-512", mode="img2img"),
        Case("llava-64-batch-4", "llava-1.5-7b-hf", _llava(64, 32, batch="4")),
        Case("llava-64-math", "llava-1.5-7b-hf", _llava(64, 32, attention="math")),
    ]
    return found


def _sd15(
    name: str, *, card: str | None = None, has_history: bool = False, **settings: str
) -> Case:
    """Ten steps stand for fifty: every step allocates the same."""
    settings = {"image": "512x512", "steps": "10", **settings}
    return Case(name, "sd15", settings, card, has_history)


def _plain(**settings: str) -> dict[str, str]:
    return settings


def _llava(prompt: int, new: int, **settings: str) -> dict[str, str]:
    return {"prompt_tokens": str(prompt), "new_tokens": str(new), **settings}


def _vae_sizes() -> Iterator[Case]:
    """The VAE alone, encode and decode, from 256 to 2048."""
    for side in (1024, 2048, 256, 768, 1536):
        for mode in ("decode", "encode"):
            settings = _plain(mode=mode, image=f"{side}x{side}")
            yield Case(f"vae-{mode}-{side}", "sd15-vae", settings)
    yield Case(
        "vae-decode-1024-fp32", "sd15-vae", _plain(mode="decode", image="1024", dtype="fp32")
    )
    tiled = _plain(mode="decode", image="2048", vae_tiling="on")
    yield Case("vae-decode-2048-tiling", "sd15-vae", tiled)


def _smaller_cards() -> Iterator[Case]:
    """Runs on the edge of what smaller cards have, on both sides of it."""
    yield _sd15("sd15-1024-batch-2-as-8gb", card="8gb", image="1024x1024", batch="2")
    yield _sd15("sd15-1024-batch-4-as-8gb", card="8gb", image="1024x1024", batch="4")
    yield _sd15("sd15-1536-as-8gb", card="8gb", image="1536x1536")
    yield _sd15("sd15-1536-as-12gb", card="12gb", image="1536x1536")
    yield _sd15("sd15-1024-batch-4-as-12gb", card="12gb", image="1024x1024", batch="4")
    for card in ("10gb", "12gb", "16gb"):
        yield Case(f"sdxl-1024-bf16-as-{card}", "sdxl", _plain(dtype="bf16", steps="10"), card)
    yield Case("sdxl-1024-fp16-as-12gb", "sdxl", _plain(dtype="fp16", steps="10"), "12gb")
    for card in ("12gb", "16gb", "24gb"):
        yield Case(f"llava-64-as-{card}", "llava-1.5-7b-hf", _llava(64, 32), card)
    yield Case("llava-2048-as-16gb", "llava-1.5-7b-hf", _llava(2048, 32), "16gb")
    yield Case("vae-decode-2048-as-12gb", "sd15-vae", _plain(mode="decode", image="2048"), "12gb")
    yield Case("vae-decode-2048-as-24gb", "sd15-vae", _plain(mode="decode", image="2048"), "24gb")


#: what a case has in a dry run: sizes a CPU gets through at once
_DRY = {"image": "64x64", "batch": "1", "steps": "2", "prompt_tokens": "4", "new_tokens": "2"}


def _is_result(path: Path) -> bool:
    try:
        failure = read_run(path).failure
    except MeasurementError:  # damaged, or of a version that is no longer read
        return False
    return failure is None or failure.kind is FailureKind.OOM


class Campaign:
    """The cases of one run of this script."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.began_s = time.monotonic()
        self.gpu: Gpu | None = None
        self.driver = ""
        if not options.dry:
            self.gpu, self.driver = find_gpu(options.gpu)
        self.folder = options.out or ROOT / "profiles" / "measured" / self._slug()
        self.catalog: Catalog = load_catalog([])
        if options.dry:
            from tools.tiny import write_tiny

            self.catalog = load_catalog([write_tiny(Path(options.scratch))])

    def _slug(self) -> str:
        if self.gpu is None:
            return "dry"
        return "-".join(self.gpu.name.lower().split())

    def left_s(self) -> float:
        """Return what is left of the clock."""
        return self.options.budget - (time.monotonic() - self.began_s)

    def path(self, case: Case) -> Path:
        """Return a case's file."""
        return self.folder / f"{case.name}.json"

    def todo(self, wanted: Sequence[Case]) -> list[Case]:
        """Return the cases without a result: those that were never made, then those that failed.

        Out of memory is a result. What failed for another reason may have been mended since, or cut
        short, and is made again when everything else is there.
        """
        new, failed = [], []
        for case in wanted:
            path = self.path(case)
            if not path.exists():
                new.append(case)
            elif not _is_result(path):
                failed.append(case)
        return new + failed

    def order(self, case: Case) -> Order:
        """Return what a case asks to be measured."""
        history = f"{case.name}.history.json.gz" if case.has_history else None
        return Order(
            job=self._job(case),
            gpu=self.gpu,
            driver=self.driver,
            card=self._card(case),
            history=None if history is None else str(self.folder / history),
            command=f"python -m tools.campaign --only {case.name}",
        )

    def _card(self, case: Case) -> Card | None:
        if case.card is None:
            return None
        card = played_card(case.card, self.catalog)  # an unknown card is found by the dry run too
        return None if self.options.dry else card

    def _job(self, case: Case) -> Job:
        if case.target in EXPERIMENTS:
            title = EXPERIMENTS[case.target]
            pipeline = Pipeline(
                name=case.target,
                title=title,
                summary=title,
                runtime="torch",
                defaults={},
                constraints={},
                source="",
                path="",
            )
            return Job(pipeline=pipeline, settings={})
        known = self.catalog.pipeline(case.target).defaults
        words = dict(case.settings)
        if self.options.dry:
            words |= {key: value for key, value in _DRY.items() if key in known}
        settings = {key: parse_setting(key, text) for key, text in words.items()}
        (job,) = make_jobs([case.target], self.catalog, settings)
        return job

    def write(self, case: Case, run: Run) -> None:
        """Write a case's run, whole or not at all."""
        whole = {
            "schema_version": 1,
            "vramplan": __version__,
            "command": "campaign",
            "result": {"case": case.name, "run": encode_run(run)},
        }
        text = json.dumps(whole, indent=1) + "\n"
        write_file(self.path(case), text, replaces=True)  # one that was cut short
        self._write_readme(run)

    def _write_readme(self, run: Run) -> None:
        path = self.folder / "README.md"
        if path.exists() or run.gpu is None:
            return
        versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
        write_file(
            path,
            f"# {run.gpu.name}\n\n"
            f"Written by `python -m tools.campaign`, begun {run.created}, and by nothing "
            "else.\n\n"
            f"Driver {run.gpu.driver}; {versions}; vramplan {__version__}. Weights are random: "
            "memory depends on shapes.\n",
        )


def main() -> int:
    """Run the campaign; return 1 where a case failed by anything but its memory."""
    os.environ.update(QUIET)
    options = read_options()
    if options.list:
        for case in cases():
            card = f" as {case.card}" if case.card else ""
            words = " ".join(f"{key}={value}" for key, value in case.settings.items())
            print(f"{case.name:30} {case.target}{card} {words}")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        options.scratch = scratch
        if options.dry and options.out is None:
            options.out = Path(scratch) / "measured"
        try:
            campaign = Campaign(options)
        except VramplanError as problem:
            print(f"error: {problem}\nhint: {problem.hint or ''}", file=sys.stderr)
            return problem.exit_code
        wanted = [case for case in cases() if not options.only or case.name in options.only]
        unknown = set(options.only) - {case.name for case in wanted}
        if unknown:
            print(f"error: no case {', '.join(sorted(unknown))}; see --list", file=sys.stderr)
            return 2
        todo = campaign.todo(wanted)
        print(f"{len(todo)} of {len(wanted)} cases to do, into {campaign.folder}", flush=True)
        campaign.folder.mkdir(parents=True, exist_ok=True)  # the first case may leave events there
        is_here = options.dry and not options.processes
        try:
            with ending_tidily():
                return run_in_place(campaign, todo) if is_here else run_ahead(campaign, todo)
        except KeyboardInterrupt:
            print("interrupted; run the command again to go on", file=sys.stderr)
            return INTERRUPTED


def read_options() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="default: profiles/measured/<gpu>")
    parser.add_argument("--only", nargs="*", default=[], metavar="CASE")
    parser.add_argument("--gpu", help="index or UUID")
    parser.add_argument("--budget", type=float, default=560.0, help="seconds in all")
    parser.add_argument("--dry", action="store_true", help="on the CPU, tiny shapes, no figures")
    parser.add_argument(
        "--processes", action="store_true", help="with --dry: a process for each case, as on a GPU"
    )
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


def run_ahead(campaign: Campaign, todo: Sequence[Case]) -> int:
    """Run cases one by one, the next processes always on their way."""
    failed = 0
    waiting = deque(todo)
    with ExitStack() as everything:
        ready: deque[tuple[Case, ExitStack, Prepared | EngineCase | Exception]] = deque()

        def start_some() -> None:
            while waiting and len(ready) < _AHEAD:
                case = waiting.popleft()
                stack = everything.enter_context(ExitStack())
                ready.append((case, stack, _prepared(campaign, case, stack)))

        start_some()
        while ready:
            case, stack, prepared = ready.popleft()
            if campaign.left_s() < _SHORTEST_S:
                print(f"out of time before {case.name}; run the command again to go on")
                return 1
            began = time.monotonic()
            start_some()
            try:
                run = _measured(campaign, prepared)
                campaign.write(case, run)
            except Exception as problem:  # noqa: BLE001  # a case that fails costs no other its time
                kind = "" if isinstance(problem, VramplanError) else f"{type(problem).__name__}: "
                print(f"{case.name:30} not measured: {kind}{problem}", flush=True)
                failed += 1
                continue
            finally:
                stack.close()
            failed += tell(case, run, time.monotonic() - began)
    return int(failed > 0)


@dataclass(frozen=True)
class EngineCase:
    """A case that llama.cpp's own server runs; nothing of it can begin before its turn."""

    campaign: Campaign
    case: Case

    def make_run(self) -> Run:
        """Measure the engine, on a file that is a hole behind its header; the file goes again."""
        campaign, case = self.campaign, self.case
        with tempfile.TemporaryDirectory() as folder:
            model, projector = write_llava(Path(folder))
            (job,) = make_jobs([str(model)], campaign.catalog, {}, str(projector))
            tools = Tools(
                find_gpu=lambda: find_gpu(campaign.options.gpu),
                card=None if case.card is None else played_card(case.card, campaign.catalog),
                ballast=ballast_command,
                command=f"python -m tools.campaign --only {case.name}",
            )
            return engine_of(job.pipeline).measure(job, tools)


def write_llava(folder: Path) -> tuple[Path, Path]:
    """Write what `llava:7b` is made of: Mistral 7B in q4_0, and the projector of LLaVA 1.6."""
    sparse, projectors = sparse_module("sparse_gguf"), sparse_module("sparse_projectors")
    language = sparse.dense_layers(sparse.language_model(layers=32, words=32000))
    model = sparse.write(folder / "llava-7b.gguf", language)
    return model, sparse.write(folder / "mmproj-llava-7b.gguf", projectors.llava(count=23))


def _prepared(
    campaign: Campaign, case: Case, stack: ExitStack
) -> Prepared | EngineCase | Exception:
    """Return a case whose process is on its way, or what kept it from starting."""
    if case.is_engine:
        return EngineCase(campaign, case)
    try:
        return prepare_order(campaign.order(case), _quiet, stack)
    except Exception as problem:  # noqa: BLE001  # told when it is this case's turn
        return problem


def _measured(campaign: Campaign, prepared: Prepared | EngineCase | Exception) -> Run:
    if isinstance(prepared, Exception):
        raise prepared
    if isinstance(prepared, EngineCase):
        return prepared.make_run()
    limit = max(_SHORTEST_S, min(_LONGEST_S, campaign.left_s() - 5))
    return prepared.make_run(prepared.measure(limit_seconds=limit))


def run_in_place(campaign: Campaign, todo: Sequence[Case]) -> int:
    """Execute every case's code in this process, on the CPU: one import serves all.

    With tiny shapes many cases are the same task, which is executed once.
    """
    from vramplan.engines.torch.measure import make_task
    from vramplan.engines.torch.run.child import carry_out
    from vramplan.runner.outcome import Outcome, take

    class Here:
        """A channel without a pipe."""

        def __init__(self) -> None:
            self.outcome = Outcome()

        def say(self, kind: str, **said: object) -> None:
            take(self.outcome, json.loads(json.dumps({"say": kind, **said})))

        def hear(self) -> str:
            return "go"

        def tell_end(self, turn: str, phase: str, component: str) -> None:
            """Tell nobody: there is no card to look at."""

    failed = 0
    outcomes: dict[str, Outcome] = {}
    for case in todo:
        began = time.monotonic()
        if case.is_engine:
            failed += plan_engine(case)
            continue
        order = campaign.order(case)
        task = make_task(order)
        if repr(task) not in outcomes:
            here = Here()
            carry_out(task, here)
            outcomes[repr(task)] = here.outcome
        outcome = copy.deepcopy(outcomes[repr(task)])
        run = Prepared(order=order, measurement=None, probe=None).make_run(outcome)
        campaign.write(case, run)
        failed += tell(case, run, time.monotonic() - began)
        gc.freeze()  # each case looks for garbage, among all that torch and diffusers made
    return int(failed > 0)


def plan_engine(case: Case) -> int:
    """Write an engine's case's file and say what it holds; a dry run starts no server.

    Returns 1 where the file does not read as what the catalogue calls by the same name.
    """
    with tempfile.TemporaryDirectory() as folder:
        model, projector = write_llava(Path(folder))
        (job,) = make_jobs([str(model)], load_catalog([]), {}, str(projector))
        (known,) = make_jobs([case.target], load_catalog([]), {})
        ours, theirs = (
            engine_of(one.pipeline).estimate(one, assumed_card()).bytes_of(LineKind.WEIGHTS)
            for one in (job, known)
        )
    is_same = abs(ours - theirs) < 2 * MIB  # small vectors apart
    print(f"{case.name:30} planned: {ours / MIB:.0f} MiB of weights", flush=True)
    return int(not is_same)


def tell(case: Case, run: Run, seconds: float) -> int:
    """Print a case's line; return 1 where it failed by anything but its memory."""
    failure = run.failure
    peaks = [one.torch for one in run.stretches if one.torch is not None]
    words = "ok"
    if peaks:
        allocated = max(one.allocated_peak_bytes for one in peaks)
        reserved = max(one.reserved_peak_bytes for one in peaks)
        words = f"allocated {allocated / MIB:9.1f} MiB  reserved {reserved / MIB:9.1f} MiB"
    if failure is not None:
        words += f"  {failure.kind} in {failure.phase} {failure.component}: {failure.message[:160]}"
    print(f"{case.name:30} {seconds:6.1f} s  {words}", flush=True)
    return int(failure is not None and failure.kind is not FailureKind.OOM)


def _quiet(_text: str) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
