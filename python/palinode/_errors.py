"""What goes wrong, by the exit codes of the program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palinode._results import Run


class PalinodeError(Exception):
    """Something went wrong; the text is the program's own, with places and hints.

    Attributes:
        code: the exit code of the program that has this meaning.
        run: the run that failed, where one had begun: what it finished is kept, and can be read.
    """

    code: int = 70

    def __init__(self, message: str, *, run: Run | None = None) -> None:
        super().__init__(message)
        self.run = run


class UsageError(PalinodeError):
    """Exit code 2: something was asked in a way that is not understood."""

    code = 2


class PipelineError(PalinodeError):
    """Exit code 3: the pipeline has mistakes.

    Attributes:
        mistakes: all of them with their places, where :meth:`Pipeline.validate` found them.
    """

    code = 3

    def __init__(self, message: str, *, run: Run | None = None, mistakes: list[Mistake] | None = None) -> None:
        super().__init__(message, run=run)
        self.mistakes: list[Mistake] = mistakes or []


class InputError(PalinodeError):
    """Exit code 4: a model or data file is missing, damaged or does not fit."""

    code = 4


class NumericalError(PalinodeError):
    """Exit code 5: arithmetic failed, such as a matrix that is not positive definite."""

    code = 5


class StoreError(PalinodeError):
    """Exit code 6: the store cannot be used, or another process writes to it."""

    code = 6


class LimitError(PalinodeError):
    """Exit code 7: out of time or memory."""

    code = 7


class ChangedError(PalinodeError):
    """Exit code 8: a file changed while it was used."""

    code = 8


class UnworkableError(PalinodeError):
    """Exit code 9: requests that cannot work."""

    code = 9


class DoubtfulError(PalinodeError):
    """Exit code 10: a doubtful edit, where the pipeline says ``checks: strict``."""

    code = 10


class InternalError(PalinodeError):
    """Exit code 70: a bug in Palinode."""

    code = 70


class InterruptedRun(PalinodeError):
    """Exit code 130: the run was stopped from elsewhere, such as with ``palinode cancel``. What it finished is kept.

    An interrupt of this process is a ``KeyboardInterrupt``, as everywhere in Python.
    """

    code = 130


_KINDS: dict[int, type[PalinodeError]] = {
    kind.code: kind
    for kind in (
        UsageError,
        PipelineError,
        InputError,
        NumericalError,
        StoreError,
        LimitError,
        ChangedError,
        UnworkableError,
        DoubtfulError,
        InternalError,
        InterruptedRun,
    )
}


def failure(code: int, said: str, *, run: Run | None = None) -> PalinodeError:
    """The exception for a program that ended with this exit code and said this on stderr."""
    kind = _KINDS.get(code)
    if kind is None:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return PalinodeError(f"the program {how}\n{said}".strip(), run=run)
    return kind(said.strip() or f"the program ended with exit code {code}", run=run)


@dataclass(frozen=True)
class Mistake:
    """A mistake in a pipeline, or a file that is not here.

    Attributes:
        file: the file that has it.
        line, column: its place, counted from 1.
        message: what is wrong.
        expected: what could stand there.
        hint: what to do about it.
    """

    file: str
    line: int
    column: int
    message: str
    expected: str | None = None
    hint: str | None = None

    @classmethod
    def of(cls, told: dict[str, Any]) -> Mistake:
        """As ``palinode validate --json`` writes it."""
        return cls(told["file"], told["line"], told["column"], told["message"], told.get("expected"), told.get("hint"))

    def __str__(self) -> str:
        rest = [f"expected {self.expected}" if self.expected else "", self.hint or ""]
        return "; ".join([f"{self.file}:{self.line}:{self.column}: {self.message}", *filter(None, rest)])
