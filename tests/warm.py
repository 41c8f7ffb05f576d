"""A Python that has loaded TensorFlow already and forks for each command: the seconds of loading are taken once.

The fixture `warm_python` starts it. Each line of standard input is a request as JSON, each line of standard output the
answer: ``start`` (what stands behind "python" on a command line, with cwd, env, and files for what is printed) answers
the process id, ``poll`` and ``wait`` the exit code of one, ``null`` while it runs.
"""

import contextlib
import json
import os
import runpy
import subprocess
import sys
import traceback
import types
from pathlib import Path
from typing import Any


class ForkedProcess:
    """A process that the warm Python forked, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, asked: Any, folder: Path, request: dict[str, Any]) -> None:
        self._asked, self._printed = asked, [folder / "stdout", folder / "stderr"]
        out, err = map(str, self._printed)
        self.pid: int = asked({"start": {**request, "stdout": out, "stderr": err}})
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._asked({"poll": self.pid})
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = self._asked({"wait": self.pid})
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        # It is not reaped before it is asked for: the number is its own until then.
        if self.poll() is None:
            os.kill(self.pid, 9)

    def communicate(self) -> tuple[str, str]:
        self.wait()
        out, err = (path.read_text() for path in self._printed)
        return out, err


class WarmPython:
    """The side of the tests."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._n_started = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def _ask(self, request: dict[str, Any]) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        print(json.dumps(request), file=stdin, flush=True)
        return json.loads(stdout.readline())

    def start(self, *command: object, cwd: Path, env: dict[str, str] | None = None) -> ForkedProcess:
        """Start what stands behind "python" on a command line."""
        self._n_started += 1
        folder = self._folder / str(self._n_started)
        folder.mkdir()
        request = {
            "command": [*map(str, command)],
            "cwd": str(cwd),
            "env": dict(os.environ if env is None else env),
        }
        return ForkedProcess(self._ask, folder, request)

    def told(self, *command: object) -> str:
        """Return the last line that a command prints."""
        process = self.start(*command, cwd=self._folder)
        out, err = process.communicate()
        assert process.returncode == 0, err[-2000:]
        return out.strip().splitlines()[-1]

    def close(self) -> None:
        assert self._process.stdin is not None
        with self._process, self._process.stdin:
            pass


def run(command: list[str]) -> None:
    """Run what stands behind "python" on a command line."""
    first, *rest = command
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(rest[0], main.__dict__)
    else:
        sys.argv = command
        sys.path.insert(0, str(Path(first).parent))
        runpy.run_path(first, run_name="__main__")


def work(request: dict[str, Any]) -> int:
    """Be the process that was asked for; return its exit code."""
    for number, name in enumerate(("stdout", "stderr"), 1):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    try:
        run(request["command"])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def serve() -> None:
    import keras
    import tensorflow

    import actisketch.pipeline.cli
    import actisketch.pipeline.job

    assert all((keras, tensorflow, actisketch))
    for line in sys.stdin:
        ((what, request),) = json.loads(line).items()
        if what == "start":
            answer: int | None = os.fork()
            if not answer:
                code = 1
                with contextlib.suppress(BaseException):
                    code = work(request)
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        else:
            pid, status = os.waitpid(request, os.WNOHANG if what == "poll" else 0)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
