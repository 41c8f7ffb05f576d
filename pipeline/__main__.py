"""``python -m actisketch.pipeline``: the same as the command ``actisketch``."""

from .cli import main

main()
