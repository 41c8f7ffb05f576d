"""The settings of a job: one frozen tree.

Knows names, types, limits and texts: the first line below a setting is also its comment in the job file that
``actisketch init`` writes, and the help of its flag. Does not know where the settings come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from ...storage.options import StorageOptions, has_credentials
from .factor_settings import PERCENTILE, FactorSettings, OverrideSettings, RangeMethod
from .setting_table import SettingTable
from .sizes import parse_bytes

__all__ = [
    "BATCH_SIZE",
    "PERCENTILE",
    "CacheSettings",
    "DataSettings",
    "FactorSettings",
    "InputFactor",
    "JobSettings",
    "ModelSettings",
    "NormalizeSettings",
    "OverrideSettings",
    "PointChoice",
    "RangeMethod",
    "RecordSettings",
    "ReportSettings",
    "SketchSettings",
]

BATCH_SIZE = 32

# No machine has more, and text on a number of hundreds of digits would fail.
Bytes = Annotated[
    int,
    BeforeValidator(parse_bytes),
    Field(gt=0, lt=10**18),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10**18},
                {"type": "string"},
            ]
        }
    ),
]


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value < float("inf")


def _without_credentials(url: str) -> str:
    if has_credentials(url):
        raise ValueError(
            "a user, a password or a signature in a URL would be kept with the run and shown in its report: set them "
            "in the environment (AWS_ACCESS_KEY_ID and the like) or, for the cache, in cache.storage_options"
        )
    return url


Place = Annotated[str, AfterValidator(_without_credentials)]
"""A path, or a URL without credentials."""

Options = Annotated[
    dict[str, Any],
    AfterValidator(StorageOptions),
    # As JSON, which is written and shown, without the secrets; as Python values whole.
    PlainSerializer(lambda options: StorageOptions(options).public(), when_used="json"),
]


class ModelSettings(SettingTable):
    """The network, and whether its file may run code."""

    path: str | None = Field(default=None, examples=["network.keras"])
    """The network: a .keras or .h5 file.

    Not needed for a model in memory.
    """
    custom_objects: str | None = Field(default=None, examples=["layers.py"])
    """A Python file that defines the model's own layers; it is executed, so trust it."""
    safe_mode: bool = True
    """Refuse a model file that contains code (Lambda layers)."""
    allow_random: bool = False
    """Record a network that is random at inference: one draw, which cannot be certified."""

    def without_code(self) -> ModelSettings:
        """Return the same settings, but such that loading the model runs no code of others."""
        return self.model_copy(update={"custom_objects": None, "safe_mode": True})


class DataSettings(SettingTable):
    """The samples, their order, and their preparation for the network."""

    path: Place | None = Field(default=None, examples=["samples.npz"])
    """The samples: .npz, .npy, zarr, an image folder, or TFRecord files (a glob)."""
    format: Literal["npz", "npy", "zarr", "images", "tfrecord"] | None = Field(default=None, examples=["npz"])
    """"npz", "npy", "zarr", "images" or "tfrecord"; default: found from name and content."""
    inputs: str | list[str] | None = Field(default=None, examples=["x"])
    """Name of the array, or a list of one for each input; default: x or the only one."""
    labels: str | None = Field(default=None, examples=["y"])
    """Name of the array with the classes, for accuracy; default: y if there is one."""
    labels_path: Place | None = Field(default=None, examples=["y.npy"])
    """File with the classes if they are not in the file with the samples."""
    num_samples: Annotated[int, Field(gt=0)] | None = Field(default=None, examples=[1000])
    """Use only the first N samples; default: all."""
    scale: float = 1.0
    """Each value becomes value * scale + offset."""
    divide_by: Annotated[float, Field(gt=0)] | None = Field(default=None, examples=[255.0])
    """Each value becomes value / divide_by + data.offset; not together with data.scale.

    The division is exact; a scale of 1 / 255 would round.
    """
    offset: float = 0.0
    """Added to each value after scale or divide_by."""
    preprocessing: str | None = Field(default=None, examples=["vgg16"])
    """Keras preprocessing by name: "vgg16" is keras.applications.vgg16.preprocess_input."""
    # Not strict in its type: a job file has lists and no tuples.
    image_size: Annotated[tuple[int, int], Field(strict=False)] | None = Field(
        default=None, examples=[(224, 224)]
    )
    """Height and width to which images are resized; default: those of the network's input."""
    color_mode: Literal["rgb", "grayscale", "rgba"] | None = Field(default=None, examples=["rgb"])
    """"rgb", "grayscale" or "rgba", for images; default: that of the network's input."""
    interpolation: Literal[
        "nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "keras_bilinear"
    ] = "bilinear"
    """For resizing, as keras.utils.load_img; "keras_bilinear": image_dataset_from_directory."""
    features: dict[str, dict[str, Any]] | None = Field(
        default=None,
        examples=[
            {"image": {"dtype": "uint8", "shape": [28, 28, 1]}, "label": {"dtype": "int64", "shape": []}}
        ],
    )
    """TFRecord files: the features to read."""
    fingerprint: Literal["sampled", "full"] = "full"
    """"full" hashes all bytes of a block's samples; "sampled" at most 32 MiB of them."""

    @model_validator(mode="after")
    def _one_scale(self) -> DataSettings:
        if self.divide_by is not None and self.scale != 1.0:
            raise ValueError("set scale or divide_by, not both")
        return self

    @model_validator(mode="after")
    def _images_only(self) -> DataSettings:
        kind = self.format or (self.path or "").lower().rpartition(".")[2]
        for name in ("image_size", "color_mode"):
            if kind in ("npz", "npy", "zarr") and getattr(self, name) is not None:
                raise ValueError(f"{name} is for images in files, but {kind} holds arrays: leave it out")
        return self


PointChoice = Literal["neurons", "leaves", "parameters", "all"]


class RecordSettings(SettingTable):
    """The points to record, and the limits of the run."""

    points: PointChoice | list[str] = "neurons"
    """The points: "neurons", "parameters", "leaves", "all", or patterns such as "conv*".

    "neurons" is every layer with parameters, and every merge in front of spiking neurons or a quantiser, after its
    activation function; "parameters" leaves out the merges. "leaves" is every layer with weights of its own, inside
    other layers too; a pattern may name such a layer: "encoder/block_1/mha/query".
    """
    batch_size: Annotated[int, Field(gt=0, le=1_000_000)] = BATCH_SIZE
    """Samples that pass through the network together."""
    block_samples: Annotated[int, Field(gt=0)] | None = Field(default=None, examples=[1024])
    """Samples in a block, the unit of resuming; default: at most 1/16 of the run.

    At least a batch. The default is at most about a minute of work, too.
    """
    activations: bool = True
    """Keep the activations; otherwise only sketches: little disk, no exact percentiles."""
    memory_limit: Bytes | None = Field(default=None, examples=["4 GiB"])
    """Memory of a run beyond Python and TensorFlow; default: 60 % of the machine's.

    On a cluster: of each worker. Workers on this machine share the 60 %, those of a scheduler have 4 GiB by default.
    """
    disk_limit: Bytes | None = Field(default=None, examples=["100 GB"])
    """Refuse a run whose cache could become larger; default: the free space of the disk."""
    workers: Annotated[int, Field(ge=0, le=4096)] = 0
    """Processes of a local Dask cluster; 0: everything runs in this process."""
    accept_versions: bool = False
    """Continue a run with other versions of TensorFlow or Keras; its manifest notes them."""
    scheduler: str | None = Field(default=None, examples=["tcp://head:8786"])
    """Address or scheduler file of a Dask cluster that is running."""

    @model_validator(mode="after")
    def _is_something(self) -> RecordSettings:
        if not self.points:
            raise ValueError("points is empty: leave it out for all layers with parameters")
        if self.block_samples is not None and self.block_samples < self.batch_size:
            raise ValueError(
                f"block_samples = {self.block_samples} is below batch_size = {self.batch_size}: a block holds at "
                "least one batch"
            )
        return self


class CacheSettings(SettingTable):
    """How the activations are stored."""

    url: Place | None = Field(default=None, examples=["s3://bucket/prefix"])
    """Folder of the cache, or s3://bucket/prefix; default: the folder "cache" of the run."""
    dtype: Literal["float32", "float16"] = "float32"
    """"float16" halves the cache and rounds the activations."""
    codec: Literal["none", "lz4", "zstd"] | None = Field(default=None, examples=["none"])
    """Compression: "none", "lz4" or "zstd"; default: see storage/README.md."""
    storage_options: Options = Field(default_factory=StorageOptions, examples=[{"region": "eu-central-1"}])
    """Of an object store; secrets are better set in the environment.

    Secrets that are given here are used and kept nowhere: whoever opens the run must have them.
    """


class SketchSettings(SettingTable):
    """The resolution of the statistics."""

    bits: Annotated[int, Field(ge=12, le=22)] = 20
    """Sketch resolution: values are told apart to 2^(9 - bits) of themselves, 2^-11 at 20."""
    per_channel: bool = False
    """Also one sketch for each channel, which factors.per_channel needs."""
    channel_bits: Annotated[int, Field(ge=12, le=22)] = 16
    """Sketch resolution of channels; at most 15 for more than 65,536 of them."""
    nonfinite: Literal["error", "exclude"] = "error"
    """"error" stops at the first NaN or infinity; "exclude" counts and omits them."""


InputFactor = float | dict[str, float | list[float]]
"""What the inputs are divided by: a number, or by input a number or one for each channel."""


class NormalizeSettings(SettingTable):
    """How the network is rewritten."""

    enabled: bool = True
    """Rewrite the network; otherwise stop at the factors."""
    input_factor: InputFactor | Literal["measured"] = 1.0
    """Divisor of the samples: a number, a table by input, or "measured", their percentile.

    A table has the name of an input and a number, or a list with one number for each channel.
    """
    pin: list[str] = Field(default_factory=list)
    """Layers whose scale stays 1."""
    treat_as_identity: list[str] = Field(default_factory=list)
    """Layers without a rule that scales may pass: f(a x) = a f(x) for every a > 0."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """Largest residual of the certificate, relative to the factor of the point."""
    samples: Annotated[int, Field(gt=0)] | None = Field(default=None, examples=[1000])
    """Certify on only the first N samples; default: all."""

    @field_validator("input_factor", mode="before")
    @classmethod
    def _positive_input_factor(cls, value: Any) -> Any:
        given = list(value.values()) if isinstance(value, Mapping) else [value]
        if isinstance(value, Mapping):
            given = [x for each in given for x in (each if isinstance(each, list) and each else [each])]
        if value != "measured" and not all(_is_positive(x) for x in given):
            raise ValueError(
                "allowed: a finite number greater than 0, 'measured', or a table with a number, or a list of one for "
                "each channel, for each input"
            )
        return value


class ReportSettings(SettingTable):
    """The plots and the page."""

    enabled: bool = True
    """Draw the plots and the page; `actisketch report` can do it later."""


class JobSettings(SettingTable):
    """A whole job."""

    output: Annotated[str, Field(min_length=1)] = "actisketch-run"
    """Folder of the run: cache, statistics, factors, network, certificate, report and log."""
    model: ModelSettings = Field(default_factory=ModelSettings)
    data: DataSettings = Field(default_factory=DataSettings)
    record: RecordSettings = Field(default_factory=RecordSettings)
    cache: CacheSettings = Field(default_factory=CacheSettings)
    sketch: SketchSettings = Field(default_factory=SketchSettings)
    factors: FactorSettings = Field(default_factory=FactorSettings)
    normalize: NormalizeSettings = Field(default_factory=NormalizeSettings)
    report: ReportSettings = Field(default_factory=ReportSettings)

    @model_validator(mode="after")
    def _channels_are_sketched(self) -> JobSettings:
        if self.factors.per_channel and not self.sketch.per_channel:
            raise ValueError("factors.per_channel = true needs sketch.per_channel = true")
        if self.factors.groups == "merged" and (self.factors.per_channel or self.factors.exact):
            raise ValueError(
                "factors.groups = 'merged' needs one factor per point, from sketches: leave out "
                "factors.per_channel and factors.exact"
            )
        if self.factors.exact and not self.record.activations:
            raise ValueError("factors.exact = true needs record.activations = true")
        if self.factors.exact and self.cache.dtype != "float32" and not self.factors.accept_rounding:
            raise ValueError(
                f"factors.exact = true from cache.dtype = {self.cache.dtype!r} would be of rounded activations: accept "
                "that with factors.accept_rounding = true (--accept-rounding when a finished run is asked), or "
                "record with cache.dtype = 'float32'"
            )
        return self
