"""What came of a run in a process of its own, put together from what that process says."""

from __future__ import annotations

from dataclasses import dataclass, field

from vramplan.measurement.reading import DeviceMemory
from vramplan.measurement.run import (
    ContextStep,
    Failure,
    Held,
    MeasuredComponent,
    MeasuredWorkspace,
    PhaseEnd,
    Stretch,
)
from vramplan.measurement.run_json import decode_part
from vramplan.runner.channel import Message

Windows = list[tuple[float, float]]


@dataclass(slots=True)
class Outcome:
    """What came of a run: the pieces that `measurement.run.Run` is made of."""

    before: DeviceMemory | None = None
    ballast_free_bytes: int | None = None
    context: list[ContextStep] = field(default_factory=list)
    components: list[MeasuredComponent] = field(default_factory=list)
    workspaces: list[MeasuredWorkspace] = field(default_factory=list)
    stretches: dict[tuple[str, str, str], tuple[Stretch, Windows]] = field(default_factory=dict)
    phase_ends: list[PhaseEnd] = field(default_factory=list)
    held: Held | None = None
    failure: Failure | None = None
    facts: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    has_history: bool = False
    period_s: float | None = None
    after: DeviceMemory | None = None
    pid: int | None = None

    def ordered(self) -> tuple[Stretch, ...]:
        """Return the stretches in the order in which they began."""
        found = [stretch for stretch, _ in self.stretches.values()]
        return tuple(sorted(found, key=lambda one: one.began_s))


def take(outcome: Outcome, said: Message) -> None:
    """Take what a measured process says into what came of it."""
    match said["say"]:
        case "stretch":
            one = decode_part(Stretch, said["stretch"])
            outcome.stretches[one.turn, one.phase, one.component] = (one, said["windows"])
        case "component":
            outcome.components.append(decode_part(MeasuredComponent, said["component"]))
        case "context":
            outcome.context.append(decode_part(ContextStep, said["step"]))
        case "workspace":
            outcome.workspaces.append(decode_part(MeasuredWorkspace, said["workspace"]))
        case "failure":
            outcome.failure = decode_part(Failure, said["failure"])
        case "facts":
            outcome.facts |= {str(k): str(v) for k, v in said["facts"].items()}
            outcome.versions |= {str(k): str(v) for k, v in said["versions"].items()}
        case "history":
            outcome.has_history = True
        case "note":
            outcome.notes.append(str(said["text"]))
