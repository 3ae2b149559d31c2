"""The engine in a process of its own, asked many questions; one that it dies of is answered so."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from vramplan.engines.ggml.witness.dry_run import request_of
from vramplan.engines.ggml.witness.hollow_file import write
from vramplan.sources.gguf_header import GgufFile

_SECONDS = 60
#: questions that a pipe holds
_AT_ONCE = 24


class EngineError(Exception):
    """The engine refuses a model, or died of it."""


class RefusedError(EngineError):
    """The engine refuses a model, and lives."""


class Asking:
    """A process with the engine in it, started when it is needed and again when it died."""

    def __init__(self, *, has_card: bool = False) -> None:
        self._words = [sys.executable, "-m", "tools.graphs.engine_program"]
        self._words += ["card"] if has_card else []
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = b""
        memory = Path("/dev/shm")  # noqa: S108  # files of a header alone, hundreds of them
        self._folder = tempfile.TemporaryDirectory(
            prefix="vramplan-graphs-", dir=memory if memory.is_dir() else None
        )
        self._said = (Path(self._folder.name) / "said").open("w+b")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._said.close()
        self._folder.cleanup()

    def tensors(self, header: GgufFile) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Return the tensors that the engine makes of a header's keys. Raises EngineError."""
        told = self._ask({"what": "tensors", "path": self._file(header)})
        return tuple((name, tuple(shape)) for name, shape in told)

    def graphs(
        self, header: GgufFile, settings: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return the graph at each of the settings, as JSON's values. Raises EngineError."""
        return self._of("graphs", header, settings)

    def buffers(
        self, header: GgufFile, settings: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, int]]:
        """Return the compute buffers of each backend at each of the settings."""
        return self._of("buffers", header, settings)

    def loads(self, headers: Sequence[GgufFile]) -> list[str]:
        """Return for each header why the engine does not load it, empty where it does."""
        found = self._many([{"what": "loads", "path": path} for path in self._files(headers)])
        return [one if isinstance(one, str) else "" for one in found]

    def digests(
        self, headers: Sequence[GgufFile], requests: Sequence[Mapping[str, Any]]
    ) -> list[list[str] | str]:
        """Return for each header what tells its graphs from others, or why there are none."""
        return self._many(
            [
                {"what": "digests", "path": path, "settings": self._requests(path, requests)}
                for path in self._files(headers)
            ]
        )

    def _of(self, what: str, header: GgufFile, settings: Sequence[Mapping[str, Any]]) -> Any:
        path = self._file(header)
        return self._ask({"what": what, "path": path, "settings": self._requests(path, settings)})

    def _requests(
        self, path: str, settings: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, object]]:
        asked = []
        for one in settings:
            request = json.loads(request_of(Path(path), one, None, "xllamacpp"))
            asked.append(request | {key: one[key] for key in ("tokens", "outputs") if key in one})
        return asked

    def _file(self, header: GgufFile) -> str:
        return self._files([header])[0]

    def _files(self, headers: Sequence[GgufFile]) -> list[str]:
        paths = []
        for number, header in enumerate(headers):
            path = Path(header.path)
            if not path.is_file():
                path = Path(self._folder.name) / f"{number}.gguf"
                write(path, header)
            paths.append(str(path))
        return paths

    def _many(self, questions: Sequence[Mapping[str, object]]) -> list[Any]:
        """Return the answers to questions with short answers, of the engine's process all at once.

        A text in place of an answer is why there is none; a process that died is started again.
        """
        found: list[Any] = []
        count = _AT_ONCE
        while len(found) < len(questions):
            part = questions[len(found) : len(found) + count]
            answers: list[Any] = []
            try:
                self._tell(part)
                for _ in part:
                    try:
                        answers.append(self._hear())
                    except RefusedError as problem:
                        answers.append(str(problem))
            except EngineError as problem:
                if count > 1:  # it died of one of them: each for itself
                    count = 1
                    continue
                answers.append(str(problem))
            found += answers
            count = min(2 * count, _AT_ONCE)
        return found

    def _ask(self, question: Mapping[str, object]) -> Any:
        self._tell([question])
        return self._hear()

    def _tell(self, questions: Sequence[Mapping[str, object]]) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                self._words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                     "GGML_NO_BACKTRACE": "1"},
            )  # fmt: skip
        assert self._process.stdin is not None
        try:
            for one in questions[:-1]:
                self._process.stdin.write(json.dumps({**one, "more": True}).encode() + b"\n")
            self._process.stdin.write(json.dumps(questions[-1]).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._end()
            raise EngineError("the engine died") from None

    def _hear(self) -> Any:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        line = b""
        with suppress(TimeoutError):
            line = self._line()
        if not line.endswith(b"\n"):
            self._end()
            self._said.seek(0, os.SEEK_END)
            self._said.seek(max(self._said.tell() - 2000, 0))
            last = self._said.read().decode(errors="replace").strip().splitlines()[-1:]
            raise EngineError(f"the engine died: {last[0][:200] if last else ''}")
        told = json.loads(line)
        if isinstance(told, dict):
            raise RefusedError(str(told["problem"]))
        return told

    def _line(self) -> bytes:
        """Return a line that the process says, what there is of one that it died in.

        Raises TimeoutError.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._heard:
            if not select.select([pipe], [], [], _SECONDS)[0]:
                raise TimeoutError
            more = os.read(pipe, 1 << 20)
            if not more:
                return b""
            self._heard += more
        line, _, rest = self._heard.partition(b"\n")
        self._heard = rest
        return line + b"\n"

    def _end(self) -> None:
        self._heard = b""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None
