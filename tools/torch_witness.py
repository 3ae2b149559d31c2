"""Ask the real torch what it allocates on cards that are not there, and keep it beside ours.

    python -m tools.torch_witness                 docs/torch_witness.json, all cases
    python -m tools.torch_witness --pipeline sd15 --card rtx-4090 --out FILE
    python -m tools.torch_witness --draw 100      so many cases drawn at random, too
    python -m tools.torch_witness --ours          work ours out again, and ask torch nothing

It needs the CUDA build of torch (python -m tools.witness_environment -- python -m
tools.torch_witness), no GPU. A case takes some ten seconds, most of them imports; one that is in
FILE already for the same versions is kept. tools/docs/accuracy.py makes the table of
docs/accuracy.md of it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vramplan.ask.compare import compare_measured
from vramplan.ask.targets import make_jobs
from vramplan.catalog import Catalog, load_catalog
from vramplan.commands.result_file import write_file
from vramplan.engines.door import engine_of
from vramplan.engines.torch.measure import measure_order, place_order
from vramplan.errors import MissingError, VramplanError
from vramplan.model import Card, Job
from vramplan.runner.tools import Tools
from vramplan.settings import format_setting, parse_setting

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "torch_witness.json"

#: pipelines at their defaults, but for what would only take longer
CASES: tuple[tuple[str, dict[str, str]], ...] = (
    ("log-anomaly-ae", {"mode": "infer"}),
    ("log-anomaly-ae", {"mode": "train", "steps": "3"}),
    ("denoising-ae", {"mode": "infer"}),
    ("denoising-ae", {"mode": "train", "steps": "3"}),
    ("vit-mae-base", {"mode": "infer"}),
    ("vit-mae-base", {"mode": "train", "steps": "3"}),
    ("sd15-vae", {"mode": "decode"}),
    ("sd15-vae", {"mode": "encode"}),
    ("sd15", {"steps": "4"}),
    ("sd15", {"steps": "4", "dtype": "bf16"}),
    ("sdxl", {"steps": "2"}),
    ("llava-1.5-7b-hf", {"new_tokens": "4"}),
)
#: entries that no recipe knows, at their defaults, each on one card: they do the same on all of
#: them but for kernels and plans; of language models those that are quick
ENTRIES = (
    "taesd", "taef1", "sdxl-vae", "flux1-vae", "flux2-vae", "sd3-vae", "kandinsky-movq",
    "qwen-image-vae", "wan-vae", "wan2.2-vae", "cogvideox-vae", "ltx-video-vae",
    "dc-ae-f32c32-sana", "dinov2-small", "dinov2-large", "siglip-base", "siglip-so400m",
    "clip-vit-l-14", "all-minilm-l6-v2", "bge-m3", "bge-reranker-v2-m3", "nomic-embed-text-v1.5",
    "whisper-tiny", "whisper-large-v3-turbo", "florence-2-base", "blip2-opt-2.7b", "smolvlm",
    "sd15-inpaint", "sd15-controlnet", "sd2.1", "sdxl-lightning", "sana-sprint-1.6b",
    "hunyuan-dit", "pixart-sigma", "lumina2", "animatediff", "svd-xt", "sd3-medium",
    "sd3.5-large", "flux1-dev", "flux2-klein-4b", "z-image-turbo", "qwen-image",
    "wan2.1-t2v-1.3b", "wan2.2-ti2v-5b", "hunyuanvideo",
)  # fmt: skip
ENTRIES_CARD = "b200"
#: one of each architecture, with room for all of them
SEED = 2026
CARDS = ("t4", "a100-80gb", "a10", "rtx-4090", "h100-80gb", "b200", "rtx-5090")


def ask(job: Job, card: Card) -> dict[str, Any]:
    """Return one case: settings, torch's peaks and ours, in bytes; or why it failed."""
    tools = Tools(find_gpu=_no_gpu, pretended=card)
    order = replace(place_order(job, tools), turns=1)
    run = measure_order(order, lambda _step: None)
    found: dict[str, Any] = {
        "pipeline": job.pipeline.name,
        "settings": _shown(job),
        "card": card.name,
        "compute_capability": card.compute_capability,
        "versions": dict(run.versions),
    }
    comparison = compare_measured(run, job, card)
    for name in ("allocated", "reserved"):
        pair = getattr(comparison, f"peak_{name}")
        found[name] = {"ours": pair.estimate_bytes, "torch": pair.measured_bytes}
    found["failure"] = None if run.failure is None else run.failure.message.partition("\n")[0][:200]
    return found


def work_out(case: dict[str, Any], catalog: Catalog) -> dict[str, Any]:
    """Return a case with ours as the estimate has it now."""
    job = _job_of(case, catalog)
    (card,) = catalog.card(case["card"]).candidates
    peak = engine_of(job.pipeline).estimate(job, card).peak
    ours = {"allocated": peak.allocated_bytes, "reserved": peak.reserved_bytes}
    return case | {
        name: {"ours": size, "torch": case[name]["torch"]} for name, size in ours.items()
    }


def _job_of(case: dict[str, Any], catalog: Catalog) -> Job:
    given = {key: parse_setting(key, text) for key, text in case["settings"].items()}
    (job,) = make_jobs([case["pipeline"]], catalog, given)
    return job


def _shown(job: Job) -> dict[str, str]:
    return {key: format_setting(key, value) for key, value in job.settings.items()}


def _all_settings(case: dict[str, Any], catalog: Catalog) -> dict[str, str]:
    """Return a case's settings with those that its pipeline has been given since."""
    return _shown(_job_of(case, catalog))


def _no_gpu() -> Any:
    raise MissingError("a pretended card needs no GPU")


def jobs(catalog: Catalog, only: Sequence[str]) -> Iterator[Job]:
    """Yield the cases of the pipelines that are asked for."""
    for name, settings in CASES:
        if not only or name in only:
            given = {key: parse_setting(key, text) for key, text in settings.items()}
            yield from make_jobs([name], catalog, given)


def entries(catalog: Catalog, only: Sequence[str]) -> Iterator[Job]:
    """Yield the entries that are asked for, as they are by default."""
    for name in ENTRIES:
        if not only or name in only:
            yield from make_jobs([name], catalog, {})


def drawn_jobs(catalog: Catalog, count: int) -> Iterator[tuple[Job, str]]:
    """Yield cases drawn at random, each a job and a card; the first so many are always the same.

    No rule was made from their settings.
    """
    chance = random.Random(SEED)  # noqa: S311  # the same cases every time
    for _ in range(count):
        name, settings = chance.choice(CASES)
        settings = {**settings, **_drawn_settings(chance, name)}
        given = {key: parse_setting(key, text) for key, text in settings.items()}
        card = chance.choice(CARDS)
        for job in make_jobs([name], catalog, given):
            yield job, card


def _drawn_settings(chance: random.Random, name: str) -> dict[str, str]:
    drawn = {"expandable_segments": chance.choice(("off", "off", "on"))}
    if name == "llava-1.5-7b-hf":
        return drawn | {"prompt_tokens": str(chance.randint(1, 300))}
    drawn["dtype"] = chance.choice(("fp16", "bf16", "fp32"))
    if name in ("log-anomaly-ae", "vit-mae-base"):
        return drawn | {"batch": str(chance.randint(1, 40))}
    least, most = (8, 16) if name == "sdxl" else (4, 15)
    sides = (64 * chance.randint(least, most) for _ in range(2))
    drawn["image"] = "{}x{}".format(*sides)
    return drawn | {"batch": str(chance.randint(1, 2 if name == "sdxl" else 3))}


def _key(case: dict[str, Any]) -> tuple[str, ...]:
    settings = json.dumps(case["settings"], sort_keys=True)
    return case["pipeline"], settings, case["card"]


def main(arguments: Sequence[str]) -> int:
    """Ask for every case that is not there yet, and write each down at once."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pipeline", action="append", default=[])
    parser.add_argument("--card", action="append", default=[])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--draw", type=int, default=0, metavar="N")
    parser.add_argument("--ours", action="store_true")
    args = parser.parse_args(arguments)
    catalog = load_catalog(())
    known = json.loads(args.out.read_text())["cases"] if args.out.exists() else []
    if args.ours:
        write_file(args.out, _text([work_out(one, catalog) for one in known]), replaces=True)
        return 0
    cases = {_key(one | {"settings": _all_settings(one, catalog)}): one for one in known}
    asked = [(job, card) for card in args.card or CARDS for job in jobs(catalog, args.pipeline)]
    if ENTRIES_CARD in (args.card or CARDS):
        asked += [(job, ENTRIES_CARD) for job in entries(catalog, args.pipeline)]
    for job, card in (*asked, *drawn_jobs(catalog, args.draw)):
        (chosen,) = catalog.card(card).candidates
        settings = _shown(job)
        key = _key({"pipeline": job.pipeline.name, "settings": settings, "card": chosen.name})
        if key in cases:
            continue
        try:
            case = ask(job, chosen)
        except VramplanError as problem:
            print(f"{job.pipeline.name} on {chosen.name}: {problem}", file=sys.stderr)
            continue
        print(json.dumps(case), flush=True)
        if case["failure"] is None:  # what does not run to its end has no peak to compare
            cases[key] = case
            write_file(args.out, _text(list(cases.values())), replaces=True)
    return 0


def _text(cases: Sequence[dict[str, Any]]) -> str:
    lines = ",\n".join(f"    {json.dumps(one)}" for one in cases)
    command = "python -m tools.torch_witness"
    return f'{{\n  "command": "{command}",\n  "cases": [\n{lines}\n  ]\n}}\n'


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
