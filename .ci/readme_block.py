"""Print the commands of one block of the README: those after ``<!-- ci: NAME -->``, without ``$ ``."""

import re
import sys
from pathlib import Path

text = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
block = re.search(rf"<!-- ci: {re.escape(sys.argv[1])} -->\s*```console\n(.*?)```", text, re.DOTALL)
if block is None:
    sys.exit(f"README.md has no block marked <!-- ci: {sys.argv[1]} -->")
print("\n".join(line[2:] for line in block[1].splitlines() if line.startswith("$ ")))
