"""What every verb shares: two consoles, the log file, exit codes for errors, interrupts."""

from __future__ import annotations

import errno
import json
import logging
import logging.handlers
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ...storage.errors import ActisketchError, StorageError
from ...storage.files import open_own
from ..display.job_progress import JobProgress
from ..events import Event, StageStarted
from ..settings.visible import visible

__all__ = ["EXIT_INTERRUPTED", "Session", "run_command"]

EXIT_INTERRUPTED = 130
# The reader of a pipe has ended, as in `| head`.
EXIT_BROKEN_PIPE = 141

# A message may have several lines, one for each error.
_LINES = "\n"

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass
class Session:
    """One call of the command line."""

    quiet: bool = False
    out: Console = field(default_factory=lambda: _console(stderr=False))
    err: Console = field(default_factory=lambda: _console(stderr=True))

    def print(self, text: str) -> None:
        """Print a line of results; control characters are escaped."""
        self.out.print(visible(text, kept="\n"), markup=False, highlight=False, soft_wrap=True)

    def print_json(self, tree: Any) -> None:
        """Print valid JSON: NaN and infinities become null."""
        click.echo(json.dumps(_finite(tree), indent=1))

    def say_loading(self) -> None:
        """Say what the next seconds are spent on, before TensorFlow is imported."""
        if not self.quiet and "tensorflow" not in sys.modules:
            self.err.print("loading TensorFlow and the network ...", markup=False, highlight=False)

    @contextmanager
    def warnings(self) -> Iterator[None]:
        """Show what is logged as a warning, unless quiet."""
        handler = logging.NullHandler() if self.quiet else _Warnings(self.err)
        log = logging.getLogger("actisketch")
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)

    @contextmanager
    def job(self, folder: Path, *, resume: str) -> Iterator[Callable[[Event], None]]:
        """Show progress and keep ``run.log`` while a job works; on an interrupt say how to resume.

        Parameters
        ----------
        folder : path
            The folder of the run. The log begins with the first stage, so that a refused job leaves nothing behind.
        resume : str
            The command that resumes the job.
        """
        memory = logging.handlers.MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1)
        log = logging.getLogger("actisketch")
        previous = log.level
        log.addHandler(memory)
        log.setLevel(logging.INFO)
        with self.warnings(), JobProgress(self.err, quiet=self.quiet) as progress:

            def on_event(event: Event) -> None:
                if isinstance(event, StageStarted):
                    if memory.target is None and folder.is_dir():
                        memory.setTarget(_log_file(folder / "run.log"))
                    memory.flush()
                progress(event)

            try:
                yield on_event
            except KeyboardInterrupt:
                log.info("interrupted")
                self.err.print(
                    f"interrupted; finished blocks are kept. Resume with: {resume}",
                    markup=False,
                    highlight=False,
                    # A shell would run a wrapped command as two.
                    soft_wrap=True,
                )
                raise
            except Exception as error:
                known = isinstance(error, ActisketchError)
                log.log(logging.ERROR, "%s: %s", type(error).__name__, error, exc_info=not known)
                raise
            finally:
                log.removeHandler(memory)
                log.setLevel(previous)
                if memory.target is not None:
                    memory.flush()
                    memory.target.close()


class _Warnings(logging.Handler):
    """Prints warnings; errors are printed where the command ends."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:
            self._console.print(
                f"warning: {record.getMessage()}", markup=False, highlight=False, soft_wrap=True
            )


def _console(*, stderr: bool) -> Console:
    stream, columns = sys.stderr if stderr else sys.stdout, os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() else None
    # Results for a file or a pipe are not wrapped at 80 columns: a program may read them. In 0 columns, as terminals
    # of unknown size have, rich would print nothing.
    if width == 0 or (width is None and not stream.isatty()):
        width = 120
    return Console(stderr=stderr, width=width)


class _OwnFile(logging.FileHandler):
    """Appends to a file, but not through a link, which a folder from others may contain."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding="utf-8", opener=open_own)


def _log_file(path: Path) -> logging.Handler:
    try:
        handler = _OwnFile(path, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"the log {str(path)!r} cannot be written: {error.strerror}", path=str(path)
        ) from None
    handler.setFormatter(_VisibleFormatter(LOG_FORMAT))
    return handler


class _VisibleFormatter(logging.Formatter):
    """Writes one line for a record and escapes control characters, which names from others may contain."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = visible(record.message)
        return super().formatMessage(record)


def _finite(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    if isinstance(tree, float) and not (float("-inf") < tree < float("inf")):
        return None
    return tree


def _drop_output() -> None:
    """Discard what is not written yet: Python would fail once more when it flushes at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_command(group: click.Group, arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code. Only bugs show a traceback.

    Exit codes: 0 done; 2 input; 3 mismatch; 4 damaged files; 5 over a limit; 6 busy; 7 storage;
    8 certificate; 9 incomplete; 130 interrupted.
    """

    def stop(signum: int, frame: object) -> None:
        # Batch systems send SIGTERM some seconds before they kill; it means the same as Ctrl-C.
        raise KeyboardInterrupt

    # Of Keras about NumPy, and the like: nothing that the user could change.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(keras|tensorflow|tf2onnx|onnx)\b")
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        # Without standalone mode click returns the code of `Context.exit`, and None if a verb just ended.
        code = int(group.main(args=arguments, prog_name="actisketch", standalone_mode=False) or 0)
        # Flush here, where a full disk can still be reported properly.
        sys.stdout.flush()
    except click.Abort as abort:
        if isinstance(abort.__cause__, EOFError):
            # click takes it for Ctrl-D, but no verb reads the terminal: a file ended too early.
            raise abort.__cause__ from None
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ActisketchError as error:
        click.echo(f"actisketch: {visible(str(error), kept=_LINES)}", err=True)
        return error.exit_code
    except BrokenPipeError:
        _drop_output()
        return EXIT_BROKEN_PIPE
    except OSError as error:
        # Our own files raise our own errors: this is standard output, or a disk that failed under a library.
        place = f" for {error.filename!r}" if error.filename else ""
        advice = "; free space, or write elsewhere" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        click.echo(f"actisketch: the system refused{place}: {error.strerror or error}{advice}", err=True)
        _drop_output()
        return StorageError.exit_code
    else:
        return code
    finally:
        signal.signal(signal.SIGTERM, previous)
