"""Write pipeline/cli/README.md, the ``--help`` of every verb. A test compares the file with what `page` returns."""

from pathlib import Path

from click.testing import CliRunner

from actisketch.pipeline.cli import commands

PAGE = Path(__file__).parents[1] / "pipeline" / "cli" / "README.md"
HEAD = """# The command line

The `--help` of every verb. When a text has changed, `.venv/bin/python .ci/help_page.py` writes this page again.
"""


def page() -> str:
    """Return the page."""
    parts = [HEAD, _help()]
    for verb in commands.list_commands(None):
        parts += [f"## {verb}\n", _help(verb)]
    return "\n".join(parts)


def _help(*verb: str) -> str:
    done = CliRunner().invoke(commands, [*verb, "--help"], prog_name="actisketch", terminal_width=100)
    return f"```\n{done.output}```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
