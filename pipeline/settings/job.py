"""The settings of a job: one frozen tree.

Knows names, types and limits. Does not know where the settings come from, or what they are used for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from ...storage.options import StorageOptions, has_credentials
from .sizes import parse_bytes

__all__ = [
    "CacheSettings",
    "DataSettings",
    "FactorSettings",
    "InputFactor",
    "JobSettings",
    "ModelSettings",
    "NormalizeSettings",
    "OverrideSettings",
    "RecordSettings",
    "ReportSettings",
    "SketchSettings",
]

LOWEST_USUAL_PERCENTILE = 50.0

Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]


def _percent(value: float) -> float:
    if not 0 < value <= 100:
        raise ValueError("a percentile is above 0 and at most 100, which is the maximum")
    return value


def _is_positive(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 < value < float("inf")


Percent = Annotated[float, AfterValidator(_percent)]


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


class _Settings(BaseModel):
    # strict: "32" is not a batch size and 1 is not true; a job file has types of its own.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)


class ModelSettings(_Settings):
    """Which network, and how far its file is trusted."""

    path: str | None = None
    """A ``.keras`` or ``.h5`` file. Left out when the model is handed over in memory."""
    custom_objects: str | None = None
    """A Python file to run first, which registers the model's own layers. Runs code: an opt-in."""
    safe_mode: bool = True
    """Refuse models that carry code (Lambda layers). Keras' own safe mode."""
    allow_random: bool = False
    """Record a network that is random at inference: one draw, and the run says so. It cannot be certified."""

    def without_code(self) -> ModelSettings:
        """Return the table without its opt-ins."""
        return self.model_copy(update={"custom_objects": None, "safe_mode": True})


class DataSettings(_Settings):
    """Which samples, in which order, and what is done to them before the network."""

    path: Place | None = None
    """``.npz``, ``.npy``, a zarr array or group, an image folder, TFRecord files (a glob is fine)."""
    format: Literal["npz", "npy", "zarr", "images", "tfrecord"] | None = None
    """What lies at ``path``; default: by its ending and what is there."""
    inputs: str | list[str] | None = None
    """Names of the arrays in the file, one for each input of the network; default: ``x`` or the only one."""
    labels: str | None = None
    """Name of the array with the classes (whole numbers), for accuracy; default: ``y`` when there is one."""
    labels_path: Place | None = None
    """File of the classes when they lie apart (``y_test.npy``)."""
    num_samples: Annotated[int, Field(gt=0)] | None = None
    """Use the first so many samples; default: all."""
    scale: float = 1.0
    """Each value becomes ``value * scale + offset``."""
    divide_by: Annotated[float, Field(gt=0)] | None = None
    """``divide_by = 255`` is exact division, where ``scale`` would round; not together with ``scale``."""
    offset: float = 0.0
    preprocessing: str | None = None
    """A Keras preprocessing function by name, as ``"vgg16"`` for ``keras.applications.vgg16.preprocess_input``."""
    image_size: tuple[int, int] | None = None
    """(height, width) to which the images of a folder are resized; default: the network's input."""
    color_mode: Literal["rgb", "grayscale", "rgba"] | None = None
    interpolation: Literal[
        "nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "keras_bilinear"
    ] = "bilinear"
    """For resizing images, as ``keras.utils.load_img``; ``keras_bilinear``: as ``image_dataset_from_directory``."""
    features: dict[str, dict[str, Any]] | None = None
    """TFRecord only: ``{image = {dtype = "uint8", shape = [28, 28, 1]}}``, a table for each feature that is read."""
    fingerprint: Literal["sampled", "full"] = "full"
    """``full`` hashes every byte of a block's samples; ``sampled`` at most 32 MiB of them, evenly spaced."""

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
                raise ValueError(f"{name} is for images in files, {kind} holds arrays: leave it out")
        return self


class RecordSettings(_Settings):
    """Where in the network, and how many samples at a time."""

    points: Literal["neurons", "parameters", "all"] | list[str] = "neurons"
    """``neurons``: every layer with parameters and every merge that neurons or a quantiser stand behind, after its
    activation; ``parameters``: the former only; ``all``; or patterns like ``["conv*"]``."""
    batch_size: Annotated[int, Field(gt=0, le=1_000_000)] = 32
    block_samples: Annotated[int, Field(gt=0)] | None = None
    """At most so many samples per block, the unit of resume, and at least a batch; default: a sixteenth of the run, and
    about a minute of work, at most."""
    activations: bool = True
    """Keep the activations themselves; without them percentiles have intervals but no exact values."""
    memory_limit: Bytes = 4 * 2**30
    """Upper bound of what a run may use beyond Python and TensorFlow themselves; on a cluster, each worker."""
    disk_limit: Bytes | None = None
    """Refuse a run whose cache would be larger than this; default: the free space of the disk."""
    workers: Annotated[int, Field(ge=0, le=4096)] = 0
    """0: in this process. N: a local Dask cluster of N processes."""
    accept_versions: bool = False
    """Go on with another TensorFlow or Keras than the one that the run was begun with; the manifest notes it."""
    scheduler: str | None = None
    """Address (or scheduler file) of a Dask cluster that already runs."""

    @model_validator(mode="after")
    def _is_something(self) -> RecordSettings:
        if not self.points:
            raise ValueError("points names no layer: leave it out for all layers with parameters")
        if self.block_samples is not None and self.block_samples < self.batch_size:
            raise ValueError(
                f"block_samples = {self.block_samples} is below batch_size = {self.batch_size}: a block holds at "
                "least one batch"
            )
        return self


class CacheSettings(_Settings):
    """How the activations are stored."""

    url: Place | None = None
    """A folder or ``s3://bucket/prefix``; default: the folder ``cache`` of the run."""
    dtype: Literal["float32", "float16"] = "float32"
    """``float16`` halves the cache and rounds what it holds: see ``factors.accept_rounding``."""
    codec: Literal["none", "lz4", "zstd"] | None = None
    """Compression; default: the one that measured best, see storage/README.md."""
    storage_options: Options = Field(default_factory=StorageOptions)
    """Endpoint, region and the like for object stores. Secrets are better in the environment; given here, they are
    used and kept nowhere, so that whoever opens the run must have them."""


class SketchSettings(_Settings):
    """How finely the streaming statistics see."""

    bits: Annotated[int, Field(ge=12, le=22)] = 20
    """Leading bits of the float pattern that are told apart: 20 is a relative width of 2^-11."""
    per_channel: bool = False
    """Also one sketch for each channel, for channel-wise factors."""
    channel_bits: Annotated[int, Field(ge=12, le=22)] = 16
    """As ``bits``, for the channels. A layer has at most 2^32 buckets: 15 for more than 65,536 channels."""
    nonfinite: Literal["error", "exclude"] = "error"
    """NaN and infinities end the run with the place named, or are counted and left out."""


class OverrideSettings(_Settings):
    """What one point gets instead: a percentile of its own or a fixed factor."""

    percentile: Percent | None = None
    factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> OverrideSettings:
        if (self.percentile is None) == (self.factor is None):
            raise ValueError("give either percentile or factor")
        return self


class FactorSettings(_Settings):
    """From statistics to scale factors."""

    percentile: Percent = 99.9
    """100 is the maximum."""
    nonzero: bool = True
    """Percentiles over the activations that are not zero, as SNN toolbox; ``false``: over all."""
    schedule: Annotated[float, Field(ge=0, lt=100)] = 0.0
    """Percent points taken off per point, linearly with depth: point i gets ``percentile - i * schedule``."""
    exact: bool = False
    """Refine every percentile to the exact one from the cache."""
    accept_rounding: bool = False
    """With ``exact`` and a cache of ``float16``: the exact percentiles are of the rounded activations."""
    per_channel: bool = False
    """A factor for each channel instead of one for the point; needs ``sketch.per_channel``."""
    groups: Literal["largest", "merged"] = "largest"
    """Points that meet in an Add share a factor: the largest of theirs, or the percentile of all their values."""
    floor: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-6
    """A point or channel whose percentile is below this counts as dead and gets a safe factor."""
    overrides: dict[str, OverrideSettings] = Field(default_factory=dict)
    """By point name or pattern; the first pattern that matches wins."""

    def warnings(self) -> Iterator[str]:
        """Yield a sentence for each percentile so low that a fraction was probably meant."""
        named = {"factors.percentile": self.percentile}
        for name, each in self.overrides.items():
            named[f"factors.overrides.{name}.percentile"] = each.percentile or 100.0
        for name, value in named.items():
            if value < LOWEST_USUAL_PERCENTILE:
                yield (
                    f"{name} = {value:g} is in percent: most activations would be larger than their factor; the usual "
                    "value is 99.9"
                )


InputFactor = float | dict[str, float | list[float]]
"""What the inputs are divided by: a number, or by input a number or one for each channel."""


class NormalizeSettings(_Settings):
    """How the network is rewritten."""

    enabled: bool = True
    """``false``: stop at the factors."""
    input_factor: InputFactor | Literal["measured"] = 1.0
    """What the input of the normalised network is divided by. ``"measured"``: by the run's percentile of the size of
    its samples. Or a table: by name of an input, a number or a list of one number for each channel."""
    pin: list[str] = Field(default_factory=list)
    """Layers whose scale stays 1."""
    treat_as_identity: list[str] = Field(default_factory=list)
    """Layers without a rule that you know to be positively homogeneous: scales pass through."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """Largest residual of the certificate, relative to the point's factor."""
    samples: Annotated[int, Field(gt=0)] | None = None
    """How many samples the certificate runs on; default: all of them."""

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


class ReportSettings(_Settings):
    """The plots and the page."""

    enabled: bool = True
    """``false``: draw nothing; ``actisketch report`` does it later."""


class JobSettings(_Settings):
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
            raise ValueError("factors.groups = 'merged' goes with one factor per point, from sketches")
        if self.factors.exact and not self.record.activations:
            raise ValueError("factors.exact = true needs record.activations = true")
        if self.factors.exact and self.cache.dtype != "float32" and not self.factors.accept_rounding:
            raise ValueError(
                f"factors.exact = true from cache.dtype = {self.cache.dtype!r} would be of rounded activations: accept "
                "that with factors.accept_rounding = true (--accept-rounding when a finished run is asked), or "
                "record with cache.dtype = 'float32'"
            )
        return self
