"""The commented job file that ``actisketch init`` writes. A test holds it against the settings."""

from __future__ import annotations

__all__ = ["JOB_TEMPLATE"]

JOB_TEMPLATE = """\
# A job of actisketch. Run it with: actisketch run job.toml
# First see what it would need: actisketch plan job.toml
# Relative paths start at the folder of this file. A line with a single # shows the default of a setting.

output = "actisketch-run"       # folder of the run: cache, statistics, factors, network, certificate, report

[model]
path = "network.keras"          # a .keras or .h5 file
#custom_objects = "layers.py"   # a Python file with the model's own layers; it is run, so trust it
#safe_mode = true               # false: load models that carry code (Lambda layers)
#allow_random = false           # true: record one draw of a network that is random at inference; the run says so

[data]
path = "samples.npz"            # .npz, .npy, a zarr array or group, an image folder, TFRecord files ("part-*.tfrecord")
#format = "npz"                 # npz, npy, zarr, images or tfrecord; default: by what lies there
#inputs = "x"                   # array in the file; a list for a network with several inputs
#labels = "y"                   # array with the classes, for accuracy
#labels_path = "y.npy"          # file of the classes when they lie apart
#num_samples = 1000             # use the first so many; default: all
#divide_by = 255.0              # each value becomes value / divide_by + offset ...
#scale = 1.0                    # ... or value * scale + offset
#offset = 0.0
#preprocessing = "vgg16"        # keras.applications.vgg16.preprocess_input
#image_size = [224, 224]        # height, width; image folders only; default: the network's input
#color_mode = "rgb"             # rgb, grayscale or rgba; image folders only
#interpolation = "bilinear"     # for resizing images
#fingerprint = "full"           # "sampled" hashes at most 32 MiB of a block's samples
#[data.features]                # TFRecord files only: what to read
#image = { dtype = "uint8", shape = [28, 28, 1] }
#label = { dtype = "int64", shape = [] }

[record]
#points = "neurons"             # layers with parameters, and merges; "parameters": no merges; "all"; ["conv*", "fc1"]
#batch_size = 32                # samples that go through the network together
#block_samples = 1024           # samples per block, at least a batch: the unit of resume; default: 1/16 of all
#activations = true             # false: keep sketches only (no exact percentiles, almost no disk)
#memory_limit = "4 GiB"         # beyond what Python and TensorFlow themselves take
#disk_limit = "100 GB"          # default: what is free
#workers = 0                    # processes of a local Dask cluster; 0: in this process
#scheduler = "tcp://head:8786"  # a Dask cluster that already runs
#accept_versions = false        # resume with another TensorFlow or Keras than the run was begun with

[cache]
#url = "s3://bucket/prefix"     # default: the folder "cache" of the run
#dtype = "float32"              # "float16" halves the disk and rounds
#codec = "none"                 # see storage/README.md
#storage_options = { region = "eu-central-1" }   # secrets: in the environment (AWS_SECRET_ACCESS_KEY)

[sketch]
#bits = 20                      # resolution: 2^-11 relative
#per_channel = false            # also a sketch for each channel
#channel_bits = 16              # resolution of those: 2^-7 relative
#nonfinite = "error"            # "exclude": count NaN and infinities and leave them out

[factors]
#percentile = 99.9              # 100 is the maximum
#nonzero = true                 # percentiles over activations that are not zero
#schedule = 0.0                 # percent points taken off per layer
#exact = false                  # refine to the exact percentiles from the cache
#accept_rounding = false        # true: from a float16 cache too, where they are of the rounded activations
#per_channel = false            # a factor for each channel; needs sketch.per_channel
#groups = "largest"             # points that meet in an Add: "largest" factor, or percentile of all, "merged"
#floor = 1e-6                   # below this a layer or channel counts as dead
#[factors.overrides]            # by name or pattern
#"fc*" = { percentile = 99.0 }
#conv1 = { factor = 2.0 }

[normalize]
#enabled = true                 # false: stop at the factors
#input_factor = 1.0             # of the samples; "measured": their percentile; or { image = [0.5, 0.4, 0.6] }
#pin = []                       # layers whose scale stays 1
#treat_as_identity = []         # layers without a rule, through which scales may pass
#tolerance = 1e-5               # largest residual of the certificate, relative to the factor
#samples = 1000                 # for the certificate; default: all

[report]
#enabled = true                 # false: draw nothing; `actisketch report` does it later
"""
