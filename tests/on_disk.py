"""What tests compare of folders, and do to files."""

from pathlib import Path

# The lock, whose holder differs, and what killed processes were writing: it has no name yet and stays for a day.
IN_WORK = ("lock", "tmp")


def contents(folder: Path, *, without: tuple[str, ...] = ("lock", "timings.json")) -> dict[str, bytes]:
    """Every file below a folder by its path, but those that have, or lie in, one of these names."""
    files = {p.relative_to(folder): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {key.as_posix(): p.read_bytes() for key, p in files.items() if not set(key.parts) & set(without)}


def flip(path: Path, place: int = -9) -> None:
    """Change one bit of one byte."""
    stored = bytearray(path.read_bytes())
    stored[place] ^= 1
    path.write_bytes(stored)
