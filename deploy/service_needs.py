"""Print what the service needs of pyproject.toml: its dependencies without those that only computing needs."""

import re
import tomllib
from pathlib import Path

ONLY_COMPUTING = {"tensorflow", "keras", "h5py", "dask", "distributed", "tdigest"}


def needs() -> list[str]:
    """Return requirements, as pip takes them."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["service"]]
    return [each for each in wanted if re.split(r"[\[<>=!~; ]", each)[0] not in ONLY_COMPUTING]


if __name__ == "__main__":
    print("\n".join(needs()))
