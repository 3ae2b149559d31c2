"""The same work on a Ray cluster: actors that take tasks and give their results back in order.

A cluster that is there is used (RAY_ADDRESS, or the one that runs on this machine); otherwise Ray
starts one of this machine's cores. Every node needs the same vramplan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from vramplan import __version__
from vramplan.errors import MissingError, VramplanError
from vramplan.extras import install_command

Task = TypeVar("Task")
Result = TypeVar("Result")

#: tasks that are out for each actor
_AHEAD = 8


class Actor:
    """What runs on a node: the function of a sweep, made once."""

    def __init__(self, start: Callable[[], Callable[[Any], Any]], version: str) -> None:
        """Make the function; raises VramplanError where the node has another vramplan."""
        if version != __version__:
            raise VramplanError(f"a node has vramplan {__version__}, this machine {version}")
        self._work = start()

    def compute(self, task: Any) -> Any:
        """Return the result of a task."""
        return self._work(task)


def require_ray() -> Any:
    """Return Ray; raises MissingError where it is not installed."""
    try:
        import ray
    except ImportError:
        raise MissingError("--on ray needs Ray", hint=install_command("cluster")) from None
    return ray


def map_on_ray(
    start: Callable[[], Callable[[Task], Result]], tasks: Iterable[Task], jobs: int
) -> Iterator[Result]:
    """Yield the result of each task, in their order, computed by `jobs` actors on a Ray cluster.

    0 takes one for each core of the cluster. What `start` or the function raises is raised here.
    Raises MissingError without Ray, VramplanError where the cluster fails.
    """
    ray = require_ray()
    from ray.exceptions import RayError, RayTaskError
    from ray.util import ActorPool

    is_ours = not ray.is_initialized()
    try:
        if is_ours:
            ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        count = jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))
        actors = [ray.remote(Actor).remote(start, __version__) for _ in range(count)]
        pool, out = ActorPool(actors), 0
        for task in tasks:
            pool.submit(lambda actor, given: actor.compute.remote(given), task)
            out += 1
            if out >= _AHEAD * count:
                yield pool.get_next()
                out -= 1
        while pool.has_next():
            yield pool.get_next()
    except RayTaskError as problem:
        cause = problem.cause
        if isinstance(cause, VramplanError):
            raise cause from None
        raise VramplanError(f"Ray: {str(cause).splitlines()[-1]}") from problem
    except (RayError, ConnectionError) as problem:
        lines = str(problem).strip().splitlines() or [type(problem).__name__]
        raise VramplanError(f"Ray: {lines[0]}", hint="ray status says what it has") from problem
    finally:
        if is_ours and ray.is_initialized():
            ray.shutdown()
