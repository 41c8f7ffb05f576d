"""The examples of the normaliser's README run, one after the other, in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "pipeline" / "normalizer" / "README.md"


def test_the_examples_run_and_print_what_their_comments_say(tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(examples)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "{'stem': 1.4, 'branch': 1.4, 'classes': 1.0}\n(('stem', 'branch'),)\nTrue passed" in done.stdout
    written = {path.name for path in (tmp_path / "toolbox-log" / "normalization").iterdir()}
    assert written == {"99.9.json", "certificate.json", "activations"}
