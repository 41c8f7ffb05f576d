"""Write pipeline/cli/README.md, the ``--help`` of every verb. A test compares the file with what `page` returns."""

from pathlib import Path

from click.testing import CliRunner

from actisketch.pipeline.cli import commands

PAGE = Path(__file__).parents[1] / "pipeline" / "cli" / "README.md"
HEAD = """# The command line

The `--help` of every verb. When a text has changed, `.venv/bin/python .ci/help_page.py` writes this page again.
"""


AFTER = {
    "compare": """`--json` has these keys; what is NaN or infinite is `null`.

- `first`, `second`: `run` (its folder), `n_blocks`, `n_blocks_done`, `n_samples`, `n_samples_done`, `is_complete`, and
  `damage`, a sentence for each block that is left out.
- `ordered_by`: `measure` (`ks` or `wasserstein`) and `nonzero`.
- `remarks`: sentences on runs that are not complete or damaged, on values that are left out, and on channels that are
  not compared.
- `only_in_first`, `only_in_second`: names of points.
- `points`, those that differ most first. Of each:
  - `point`, `other`: its name in the first and in the second run. `matched_by`: `name` or `place`.
  - `distance`: what points are ordered by, and `--fail-above` judges by its `lo`: `value`, `lo`, `hi`, `is_infinite`.
    Infinite: only one run has such values, as where a layer has died, or the relative distance is from a first run
    that is all zeros. `null` and not infinite: neither run has such values.
  - `every`, `nonzero`: the distances of all values and of those that are not zero: `kolmogorov_smirnov` (0 to 1) and
    `wasserstein` (in units of the activations), each with `value`, `lo` and `hi`, which contain the exact distance.
  - `mean_size`: mean of the absolute values of the first run: of all, of those that are not zero.
  - `n_values`, `n_zeros`, `zeros` (share): of the first and the second run.
  - `percentiles`: `q` in percent; `first` and `second` with `value`, `lo`, `hi`.
  - `first`, `second`: the factor with its origin, as in `factors.json`. `ratio`: the second factor divided by the
    first; `null` for factors of channels.
  - `channels`: with `--per-channel`, lists by channel in `every` and `nonzero`: `kolmogorov_smirnov_lo`, `_hi`,
    `wasserstein_lo`, `_hi`; otherwise `null`.
"""
}
"""What follows the help of a verb."""


def page() -> str:
    """Return the page."""
    parts = [HEAD, _help()]
    for verb in commands.list_commands(None):
        parts += [f"## {verb}\n", _help(verb)]
        if verb in AFTER:
            parts.append(AFTER[verb])
    return "\n".join(parts)


def _help(*verb: str) -> str:
    done = CliRunner().invoke(commands, [*verb, "--help"], prog_name="actisketch", terminal_width=100)
    return f"```\n{done.output}```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
