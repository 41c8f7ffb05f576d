"""``python -m actisketch``: the same as the command ``actisketch``."""

import importlib

importlib.import_module("actisketch.pipeline.cli").main()
