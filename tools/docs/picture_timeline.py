"""The memory of one run from its first allocation to its last, as a stacked timeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from xml.etree import ElementTree as ET

from tools.docs.replayed_runs import Step
from vramplan.report.svg import add, write
from vramplan.units import GIB

#: how the command line's words for phases are written where there is room
_SPOKEN = {
    "encode_prompt": "encode prompt",
    "decode_image": "decode image",
    "text_encoder": "text encoder",
    "safety_checker": "safety checker",
    "vae.decoder": "VAE decoder",
    "vae": "VAE",
    "unet": "UNet",
}
_STRIP = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where a plot stands in its picture, and how many bytes its height is."""

    left: float
    top: float
    width: float
    height: float
    largest_bytes: int

    @property
    def bottom(self) -> float:
        """The line of 0 bytes."""
        return self.top + self.height

    @property
    def right(self) -> float:
        """Where the run ends."""
        return self.left + self.width

    def y(self, size_bytes: float) -> float:
        """Return the height at which a size is drawn."""
        return self.bottom - size_bytes / self.largest_bytes * self.height


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Steps of one phase and component that follow one another, and where they are drawn."""

    phase: str
    component: str
    steps: tuple[Step, ...]
    left: float
    width: float


def lay_out(
    steps: Sequence[Step], frame: Frame, room: Mapping[tuple[str, str], int]
) -> list[Stretch]:
    """Return the run from left to right.

    The axis is the order of allocations, not time: `room` says how wide each phase and component
    is drawn, in shares of the whole. The pipeline's own few tensors between them are not drawn.
    """
    owned = [step for step in steps if (step.phase, step.component) in room]
    groups = [
        (key, tuple(group))
        for key, group in groupby(owned, key=lambda step: (step.phase, step.component))
    ]
    unit = frame.width / sum(room[key] for key, _ in groups)
    stretches, left = [], frame.left
    for (phase, component), group in groups:
        width = unit * room[phase, component]
        stretches.append(
            Stretch(phase=phase, component=component, steps=group, left=left, width=width)
        )
        left += width
    return stretches


def area(
    stretches: Sequence[Stretch], frame: Frame, size: Callable[[Step], int], base_bytes: int = 0
) -> str:
    """Return the outline of what `size` says of each step, standing on the axis."""
    return f"{line(stretches, frame, size, base_bytes)}V{frame.bottom:.1f}H{frame.left:.1f}Z"


def line(
    stretches: Sequence[Stretch], frame: Frame, size: Callable[[Step], int], base_bytes: int = 0
) -> str:
    """Return the outline of what `size` says of each step, plus `base_bytes`, as a step line."""
    path: list[str] = []
    last = None
    for stretch in stretches:
        levels = _levels([size(step) + base_bytes for step in stretch.steps], stretch.width)
        for index, level in enumerate(levels, start=1):
            y = f"{frame.y(level):.1f}"
            x = stretch.left + stretch.width * index / len(levels)
            if not path:
                path.append(f"M{stretch.left:.1f} {y}")
            elif y != last:
                path.append(f"V{y}")
            path.append(f"H{x:.1f}")
            last = y
    return "".join(path)


def _levels(sizes: Sequence[int], width: float) -> list[int]:
    """Return about two sizes for each unit of width, the extremes in the order they came."""
    room = max(2, int(width))
    if len(sizes) <= room:
        return list(sizes)
    share = -(-len(sizes) // room)
    levels: list[int] = []
    for first in range(0, len(sizes), share):
        bucket = sizes[first : first + share]
        least, most = min(bucket), max(bucket)
        levels += [least, most] if bucket.index(least) < bucket.index(most) else [most, least]
    return levels


def place(stretches: Sequence[Stretch], wanted: Step) -> float:
    """Return where a step is drawn."""
    for stretch in stretches:
        for index, step in enumerate(stretch.steps):
            if step is wanted:
                return stretch.left + stretch.width * (index + 0.5) / len(stretch.steps)
    raise ValueError("the step is not drawn")


def draw_axis(svg: ET.Element, frame: Frame, step_bytes: int) -> None:
    """Draw a line and a label for every `step_bytes`."""
    for size in range(0, frame.largest_bytes, step_bytes):
        y = frame.y(size)
        css = "axis" if size == 0 else "grid"
        add(svg, "path", {"d": f"M{frame.left:.1f} {y:.1f}H{frame.right:.1f}", "css": css})
        write(svg, frame.left - 8, y + 4, f"{size / GIB:g} GiB", css="s soft", anchor="end")


def draw_strips(
    svg: ET.Element, stretches: Sequence[Stretch], frame: Frame, said: Mapping[str, str]
) -> None:
    """Draw below the axis which phase runs and, below that, which component.

    `said` adds to the name of a phase: how often it repeats.
    """
    phases = [list(group) for _, group in groupby(stretches, key=lambda one: one.phase)]
    parts = [list(group) for _, group in groupby(stretches, key=lambda one: one.component)]
    for row, groups in enumerate((phases, parts)):
        for group in groups:
            left, width = group[0].left, sum(one.width for one in group)
            name = group[0].component if row else group[0].phase
            text = _SPOKEN.get(name, name) + said.get(name, "")
            y = frame.bottom + 6 + row * _STRIP
            shape: dict[str, float | str] = {"x": left + 1, "y": y, "width": width - 2, "rx": 3}
            add(svg, "rect", {**shape, "height": _STRIP - 3, "css": "box"})
            words = _fit(text, width - 7, 6.2 if row else 7)
            css = "s soft" if row else "s b"
            write(svg, left + width / 2, y + 15, words, css=css, anchor="middle")


def write_apart(
    svg: ET.Element, frame: Frame, notes: Sequence[tuple[float, str, str, str]]
) -> None:
    """Write notes (size, words, words below, class) beside their heights, none over another."""
    lowest = frame.top - 38.0
    for size, name, below, css in notes:
        edge = frame.y(size)
        y = max(edge + 4, lowest + 38)
        path = f"M{frame.right + 2:.1f} {edge:.1f}h5L{frame.right + 14:.1f} {y - 4:.1f}h3"
        add(svg, "path", {"d": path, "css": "axis"})
        write(svg, frame.right + 21, y, name, css=css)
        write(svg, frame.right + 21, y + 15, below, css="s soft")
        lowest = y


def _fit(text: str, room: float, letter: float) -> str:
    """Return the text, or its first word, where there is room for it."""
    first = text.partition(" ")[0]
    return next((words for words in (text, first) if len(words) * letter <= room), "")
