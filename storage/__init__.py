"""Keep activations and sketches in a Zarr cache; knows nothing of models.

The contract of the files is in ``storage/README.md``.
"""

if __name__ == "storage":
    raise ImportError(
        "import actisketch.storage, not storage: `pip install -e .`, then use the installed name"
    )

from .cache import Cache
from .commit_record import CommitRecord
from .lasting import LastingThreads
from .layout import Projection, encoding_nbytes, projection, record_nbytes
from .spec import Block, CacheSpec, PointSpec, SampleRange, sample_nbytes
from .stores import is_url
from .verify import Problem, VerifyReport
from .writer import BlockWriter
from .writing import WritingThreads

__all__ = [
    "Block",
    "BlockWriter",
    "Cache",
    "CacheSpec",
    "CommitRecord",
    "LastingThreads",
    "PointSpec",
    "Problem",
    "Projection",
    "SampleRange",
    "VerifyReport",
    "WritingThreads",
    "encoding_nbytes",
    "is_url",
    "projection",
    "record_nbytes",
    "sample_nbytes",
]
