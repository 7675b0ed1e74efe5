"""A run that goes on: its events as they happen, and how it is stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from palinode._errors import InterruptedRun, failure
from palinode._program import environment, program
from palinode._progress import Callback, Event
from palinode._results import Run

#: So much of what the program says is kept for an error's text.
_KEPT_LINES = 2000


class Running:
    """A run that :meth:`Pipeline.start` has started.

    Iterating over it gives its events, until it ends. It is a context manager: leaving the block stops a run that still goes on.

    >>> with pipeline.start() as running:
    ...     for event in running:
    ...         ...
    ...     run = running.wait()
    """

    def __init__(self, args: list[str], store: Path, ended: Callable[[], None]) -> None:
        self._store = store
        self._ended = weakref.finalize(self, ended)
        self._said: list[str] = []
        self._aloud = False
        self._stopped = False
        self._id: str | None = None
        # A session of its own: Ctrl-C at a terminal goes to this process alone, which hands it on once.
        self._process = subprocess.Popen(
            [program(), *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=environment(),
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def id(self) -> str | None:
        """The run's id; None before it has begun."""
        return self._id

    def stop(self) -> None:
        """Asks the run to stop: once, after the unit of work that it is at; twice, at once. What is finished is kept. Does not wait."""
        self._stopped = True
        self._aloud = True
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def __iter__(self) -> Iterator[Event]:
        out = self._process.stdout
        assert out is not None
        for line in out:
            try:
                event = Event(json.loads(line))
            except (ValueError, TypeError):
                self._say(line)
                continue
            if event.get("event") == "run_started":
                self._id = event["run"]
            yield event

    def wait(self, progress: Callback | None = None) -> Run:
        """Waits for the end, and gives the run.

        An interrupt (Ctrl-C) stops the run as it does at a terminal: it ends after the unit that it is at, a second interrupt ends it at
        once. ``KeyboardInterrupt`` is raised when it has stopped.

        Args:
            progress: hears of each event that is left.

        Raises:
            PalinodeError: the run failed. The error's ``run`` has what it finished.
            KeyboardInterrupt: it was stopped from here.
        """
        error: BaseException | None = None
        heard = progress
        while True:
            try:
                for event in self:
                    if heard is not None:
                        heard(event)
                self._process.wait()
                self._listener.join()
                break
            except BaseException as raised:
                if not isinstance(raised, KeyboardInterrupt):
                    heard = None
                    if error is not None:
                        # It is stopping already, and a callback that fails is no second interrupt.
                        continue
                error = error or raised
                self.stop()
        self._close()
        code = self._process.returncode
        if error is not None:
            raise error
        if self._stopped and code in (InterruptedRun.code, -signal.SIGINT):
            raise KeyboardInterrupt("the run was stopped; what it finished is kept")
        run = Run.read(self._store, self._id) if self._id is not None else None
        if code != 0 or run is None:
            raise failure(code, "".join(self._said), run=run)
        return run

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        while self._process.poll() is None:
            try:
                self.stop()
                for _ in self:
                    pass
                self._process.wait()
            except KeyboardInterrupt:
                continue
        self._listener.join()
        self._close()

    def _close(self) -> None:
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._ended()

    def _listen(self) -> None:
        err = self._process.stderr
        assert err is not None
        for line in err:
            self._say(line)

    def _say(self, line: str) -> None:
        if len(self._said) < _KEPT_LINES:
            self._said.append(line)
        # Behind the first blank line is how to go on at a terminal.
        self._aloud = self._aloud and bool(line.strip())
        if self._aloud:
            print(line, end="", file=sys.stderr, flush=True)
