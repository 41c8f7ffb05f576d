"""The examples of the normaliser's README run, one after the other, in a process of its own."""

from __future__ import annotations

import re
from pathlib import Path

from ..warm import WarmPython

README = Path(__file__).parents[2] / "pipeline" / "normalizer" / "README.md"


def test_the_examples_run_and_print_what_their_comments_say(tmp_path: Path, warm_python: WarmPython) -> None:
    examples = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    done = warm_python.start("-c", "\n".join(examples), cwd=tmp_path)
    out, err = done.communicate()

    assert done.returncode == 0, err[-2000:]
    assert "{'stem': 1.4, 'branch': 1.4, 'classes': 1.0}\n(('stem', 'branch'),)\nTrue passed" in out
    written = {path.name for path in (tmp_path / "toolbox-log" / "normalization").iterdir()}
    assert written == {"99.9.json", "certificate.json", "activations"}
