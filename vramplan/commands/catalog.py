"""``vramplan catalog``: what is in the catalogue, whether a file is right, and adding one."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from vramplan.ask.listing import find_pipelines
from vramplan.ask.targets import find_target, open_catalog
from vramplan.catalog import load_catalog, user_folders, validate
from vramplan.commands import arguments
from vramplan.commands.output import choose_format, note, remark, show
from vramplan.commands.result_file import write_file
from vramplan.commands.streams import write_stdout
from vramplan.errors import CatalogError, UsageError
from vramplan.report import catalog

FORMATS = ("table", "json", "markdown")


def configure(parser: ArgumentParser) -> None:
    """Say what ``catalog`` and the commands below it take."""
    arguments.describe(parser, "catalog")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions")

    listing = actions.add_parser("list", help="the pipelines, yours and those that ship")
    listing.description = (
        "List the pipelines of the catalogue, yours and those that ship; with words those that "
        "have each of them in their name, title, summary, family, task, licence, runtime or their "
        "names on the hub. Up to two dozen are shown with a summary each."
    )
    listing.add_argument(
        "sought", nargs="*", metavar="WORD", help="such as flux, image-to-video, apache or VAE"
    )

    show = actions.add_parser("show", help="one pipeline with its settings and parts")
    show.description = (
        "Show one pipeline: its settings with their defaults, which values they accept, its "
        "components and where it comes from."
    )
    show.add_argument("target", metavar="NAME", help=arguments.TARGET_HELP)

    check = actions.add_parser("validate", help="what is wrong with a file, with line and column")
    check.description = (
        "Check catalogue files: every mistake with its file, line, column and key on stderr, and "
        "exit code 2; silent where nothing is wrong."
    )
    check.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="a YAML file of a pipeline, of cards or of a project (vramplan.yaml), or a folder. "
        "Without one: the whole catalogue, yours and what ships",
    )

    add = actions.add_parser("add", help="copy a file that is right into a catalogue of yours")
    add.description = (
        "Check FILE and copy it into the catalogue folder that --catalog names, else into the "
        "first one in VRAMPLAN_CATALOG. What is there already is not replaced."
    )
    add.add_argument("file", metavar="FILE", help="a YAML file of a pipeline or of cards")

    for action in (listing, show, check):
        arguments.add_output(action, FORMATS)
    for action in (listing, show, check, add):
        arguments.add_common(action)


def run(args: Namespace) -> int:
    """Do what the command below asks; return 2 where ``validate`` finds a mistake."""
    actions = {"list": _list, "show": _show, "validate": _validate, "add": _add}
    if args.action is None:
        hint = "actions: " + ", ".join(actions)
        raise UsageError("vramplan catalog: what is to be done with it?", hint=hint)
    return actions[args.action](args)


def _list(args: Namespace) -> int:
    pipelines = find_pipelines(args.sought, open_catalog(args.catalog))
    show(args, lambda look: catalog.render_list(pipelines, look))
    return 0


def _show(args: Namespace) -> int:
    pipeline = find_target(args.target, open_catalog(args.catalog), remark=remark)
    show(args, lambda look: catalog.render_entry(pipeline, look))
    return 0


def _validate(args: Namespace) -> int:
    named = [Path(file) for file in args.files]
    paths = named or _all_folders(args)
    errors = [error for path in paths for error in validate(path, is_named=bool(named))]
    if choose_format(args) == "table" and not args.output:
        for error in errors:
            _complain(error)
    else:
        show(args, lambda look: catalog.render_errors(errors, look))
    return CatalogError.exit_code if errors else 0


def _all_folders(args: Namespace) -> list[Path]:
    from vramplan.catalog import profiles_dir

    return [*user_folders(args.catalog), profiles_dir()]


def _complain(error: CatalogError) -> None:
    note(f"error: {error}")
    if error.hint:
        note(f"hint: {error.hint}")


def _add(args: Namespace) -> int:
    source = Path(args.file)
    if source.is_dir():
        hint = "name its files one by one, or the folder itself with --catalog"
        raise UsageError(f"{source}: a folder; add takes one file", hint=hint)
    errors = validate(source)
    if errors:
        for error in errors[:-1]:
            _complain(error)
        raise errors[-1]
    kind = _kind_of(source)
    folder = _own_folder(args)
    target = _place(folder, kind, source)
    write_file(target, source.read_text(encoding="utf-8-sig"))
    try:
        load_catalog([folder])
    except CatalogError:  # a name that another file of the folder has
        target.unlink()
        raise
    write_stdout(f"{target}\n")
    return 0


def _kind_of(source: Path) -> str:
    """Return whether a valid file holds ``pipelines`` or ``cards``: its kind's folder."""
    from vramplan.catalog.search import PROJECT_FILE
    from vramplan.catalog.yaml_reader import read_yaml

    if source.name == PROJECT_FILE:
        raise UsageError(f"{source}: only a file of a pipeline or of cards can be added")
    data = read_yaml(source).data
    return "cards" if isinstance(data, dict) and "cards" in data else "pipelines"


def _own_folder(args: Namespace) -> Path:
    """Return the folder to add to; the one that --catalog names is made where it is missing."""
    for folder in args.catalog[:1]:
        Path(folder).mkdir(parents=True, exist_ok=True)
    folders = user_folders(args.catalog)
    if not folders:
        hint = "name one with --catalog DIR, or in the environment variable VRAMPLAN_CATALOG"
        raise UsageError("no catalogue folder of yours to add to", hint=hint)
    return folders[0]


def _place(folder: Path, kind: str, source: Path) -> Path:
    """Return where in `folder` a file of `kind` belongs; raises UsageError where one is."""
    is_sorted = (folder / "pipelines").is_dir() or (folder / "cards").is_dir()
    is_flat = not is_sorted and any(folder.glob("*.y*ml"))
    if is_flat and kind == "cards":
        # a folder `cards` would hide the pipelines that lie beside it
        hint = f"move them into {folder / 'pipelines'}, then cards can go into {folder / 'cards'}"
        raise UsageError(f"{folder}: a folder of pipeline files takes no cards", hint=hint)
    place = folder if is_flat else folder / kind
    target = place / source.with_suffix(".yaml").name
    if target.exists():
        raise UsageError(f"{target}: is there already", hint="remove it first to replace it")
    place.mkdir(exist_ok=True)
    return target
