"""The verb that writes the files of other programs. It loads the library of a target only for that target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...storage.errors import InputError
from ..display.job_progress import JobProgress
from ..exporters import Exported, check_export_places, check_options, load_exporter
from ..results.run import open_run
from ..settings.loading import given_files
from ..settings.template import setting_text
from ..settings.visible import visible
from .completing import formats
from .flags import UNSAFE, check_folder_of, range_options, run_argument
from .session import Session
from .show import range_table

__all__ = ["export"]


@click.command(short_help="Export statistics, t-digests and factors to other programs.")
@run_argument
@click.option(
    "--format",
    "kind",
    default="json",
    show_default=True,
    metavar="NAME",
    shell_complete=formats,
    help="json or csv: statistics and factors; tdigest: the t-digest of each point, as the tdigest package reads it; "
    "toolbox: SNN toolbox's {percentile}.json; toolbox-parsed: the same for the network that its parser makes; "
    "onnxruntime: the calibration cache of quantize_static; litert: the calibration result of ai-edge-quantizer; "
    "hls4ml: fixed<W,I> for the result of each layer; nir: the normalised network for spiking simulators, "
    "as an HDF5 file that nir.read opens; tensorboard: "
    "histograms, into a folder; or "
    "the exporter of another package.",
)
@click.option("--percentile", type=float, metavar="X", help="In percent; default: the run's.")
@range_options
@click.option("--exact", is_flag=True, default=None, help="Refine to the exact percentiles from the cache.")
@click.option(
    "--onnx",
    type=click.Path(path_type=Path),
    help="The network as ONNX; default: as Keras exports it, written beside the output.",
)
@click.option(
    "--tflite",
    type=click.Path(path_type=Path),
    help="The network for LiteRT; default: as Keras exports it, written beside the output.",
)
@click.option("--width", type=int, metavar="W", help="Bits of hls4ml's fixed<W,I>, 2 to 64.  [default: 16]")
@click.option(
    "--pooling",
    metavar="KIND",
    help="For nir: sum, which most readers know, or avg, for snnTorch.  [default: sum]",
)
@click.option("--model", metavar="PATH", help="Where the network is now; default: where it was.")
@click.option("--data", metavar="PATH", help="Where the samples are now; default: where they were.")
@click.option(
    "--custom-objects",
    type=click.Path(path_type=Path),
    help=setting_text("model.custom_objects") + " For onnxruntime, litert, hls4ml and nir.",
)
@click.option("--unsafe-model", is_flag=True, help=f"{UNSAFE} For onnxruntime, litert and hls4ml.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="File or folder to write, a folder for toolbox and tensorboard; default: standard output.",
)
@click.pass_obj
def export(session: Session, /, run: Path, kind: str, output: Path | None, **flags: Any) -> None:
    """Export statistics and factors of RUN as JSON or CSV, its t-digests, or SNN toolbox's {percentile}.json.

    \b
    Example:
      actisketch export runs/vgg --format csv --output vgg.csv
      actisketch export runs/vgg --format tdigest --output vgg.json   (tdigest.TDigest().update_from_dict reads each)
      actisketch export runs/vgg --format toolbox --exact --output log/   (writes log/99.9.json)
      actisketch export runs/vgg --format onnxruntime --method mse --output vgg.json   (writes vgg.onnx, too)
    """
    exporter = load_exporter(kind)
    ranges = {key: flags.pop(key) for key in ("percentile", "method", "bits", "symmetric", "exact")}
    flags["unsafe_model"] = flags["unsafe_model"] or None
    check_options(exporter, kind, flags)
    chosen = open_run(run)
    if output is not None:  # before the samples pass through the network
        check_export_places(
            _path(output, exporter.file_name or "export", exporter.only_into_folder),
            beside=[ending for ending, option in exporter.beside.items() if flags.get(option) is None],
            given=[
                *(Path(each) for each in flags.values() if isinstance(each, str | Path)),
                *given_files(chosen.settings),
            ],
        )
    if exporter.opens_network:
        session.say_loading()
    changes = {key: value for key, value in ranges.items() if value is not None}
    with JobProgress(session.err, quiet=session.quiet) as progress:
        made = chosen.exported(kind, options=flags, on_event=progress, **changes)
    unwritten = ", ".join(made.beside) if output is None else ""
    missed = f"what belongs to this and is written beside the output ({unwritten}) is missing: give --output"
    for warning in (*made.warnings, *([missed] if unwritten else [])):
        session.err.print(visible(f"warning: {warning}", kept="\n"), markup=False, highlight=False)
    if output is None:
        _print(session, made, kind, exporter.note)
        return
    path = _path(output, made.file_name, exporter.only_into_folder)
    made.write(path)
    if made.rows:
        range_table(session.out, made.rows, exporter.note)
    for each in (*(path.with_suffix(ending) for ending in made.beside), path):
        session.print(f"wrote {each}")


def _print(session: Session, made: Exported, kind: str, note: str) -> None:
    """Print the content, and the table where it does not mix with it."""
    if not isinstance(made.content, str):
        raise InputError(f"an export as {kind!r} is no text: give --output")
    if made.rows and not session.quiet:
        range_table(session.err, made.rows, note)
    click.echo(made.content, nl=False)


def _path(output: Path, file_name: str, only_into_folder: str) -> Path:
    """Return the file to write; its folder may be new."""
    if output.exists() and not output.is_dir() and not output.is_file():
        raise InputError(
            f"{str(output)!r} is no file and no folder: name one, or leave --output out for standard output"
        )
    # `log/` and `log` are folders: a file of ours would have an ending.
    if output.is_dir() or not (output.suffix or output.is_file()):
        return output / file_name
    if only_into_folder:
        kind = "is a file" if output.exists() else "has the name of a file"
        raise InputError(
            f"{str(output)!r} {kind}: {only_into_folder}, so give a folder, whose name has no ending if it is new"
        )
    check_folder_of(output)
    return output
