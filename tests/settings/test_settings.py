"""A job file is validated once: what is refused is named with its key, its value and what is allowed."""

import ast
import re
import tomllib
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import get_args

import click
import pytest

from actisketch import storage
from actisketch.pipeline import DataSpec, normalize_model, plan, run
from actisketch.pipeline.cli import commands
from actisketch.pipeline.cli.flags import JOB_FLAGS, JOB_SWITCHES
from actisketch.pipeline.settings.job_settings import DataSettings, JobSettings
from actisketch.pipeline.settings.loading import load_job, validate_job
from actisketch.pipeline.settings.sizes import format_bytes, parse_bytes
from actisketch.pipeline.settings.template import job_template, setting_text
from actisketch.pipeline.sources.data_spec import COLOR_MODES, FORMATS, INTERPOLATIONS
from actisketch.storage.errors import InputError

TABLES = {name: field.annotation for name, field in JobSettings.model_fields.items() if name != "output"}
KEYS = ["output", *(f"{name}.{key}" for name, table in TABLES.items() for key in table.model_fields)]

REFUSED = [
    ({"colour": 1}, "'colour'", "allowed here: cache, data"),
    ({"record": {"batchsize": 3}}, "'record.batchsize'", "did you mean 'batch_size'"),
    ({"record": {"batch_size": "3"}}, "record.batch_size = '3'", "whole number"),
    ({"record": {"batch_size": 0}}, "record.batch_size = 0", "greater than 0"),
    ({"record": {"batch_size": 2.5}}, "record.batch_size = 2.5", "whole number"),
    ({"record": {"points": 7}}, "record.points = 7", "'parameters' or 'all'"),
    ({"record": {"memory_limit": "2 Gx"}}, "record.memory_limit = '2 Gx'", "'512 MiB'"),
    ({"record": {"memory_limit": 0}}, "record.memory_limit = 0", "greater than 0"),
    ({"record": {"memory_limit": "9" * 400}}, "record.memory_limit = '999", "less than 1000000000000000000"),
    ({"record": {"disk_limit": 10**400}}, "record.disk_limit = 1000", "less than 1000000000000000000"),
    ({"factors": {"percentile": 0}}, "factors.percentile = 0", "above 0 and at most 100"),
    ({"factors": {"percentile": 101}}, "factors.percentile = 101", "above 0 and at most 100"),
    ({"factors": {"percentile": float("nan")}}, "factors.percentile = nan", "100"),
    ({"factors": {"floor": float("inf")}}, "factors.floor = inf", "finite"),
    (
        {"factors": {"overrides": {"c*": {"percentil": 3}}}},
        "'factors.overrides.c*.percentil'",
        "'percentile'",
    ),
    ({"factors": {"overrides": {"c*": {}}}}, "factors.overrides.c*", "either percentile or factor"),
    ({"factors": {"overrides": {"c*": {"factor": -1.0}}}}, "factor = -1.0", "greater than 0"),
    ({"factors": {"per_channel": True}}, "factors.per_channel = true", "sketch.per_channel = true"),
    ({"factors": {"exact": True}, "record": {"activations": False}}, "factors.exact", "record.activations"),
    ({"data": {"color_mode": "cmyk"}}, "data.color_mode = 'cmyk'", "'grayscale'"),
    ({"data": {"divide_by": 255.0, "scale": 0.5}}, "data", "scale or divide_by, not both"),
    ({"data": 3}, "data = 3", "a table"),
    ({1: {}}, "1 = 1", "it should be called by a text"),
    ({"model": {"safe_mode": 1}}, "model.safe_mode = 1", "true or false"),
    (
        {"factors": {"exact": True}, "cache": {"dtype": "float16"}},
        "cache.dtype = 'float16'",
        "factors.accept_rounding",
    ),
    ({"sketch": {"channel_bits": 11}}, "sketch.channel_bits = 11", "greater than or equal to 12"),
    ({"normalize": {"input_factor": "abc"}}, "normalize.input_factor = 'abc'", "'measured'"),
    ({"normalize": {"input_factor": 0}}, "normalize.input_factor = 0", "greater than 0"),
    ({"normalize": {"input_factor": [1.0]}}, "normalize.input_factor = [1.0]", "table"),
    ({"normalize": {"input_factor": {"x": [1.0, -1.0]}}}, "normalize.input_factor", "each channel"),
    ({"normalize": {"input_factor": {"x": []}}}, "normalize.input_factor", "each channel"),
    ({"sketch": {"bits": 40}}, "sketch.bits = 40", "less than or equal to 22"),
    ({"data": {"image_size": [1, 2, 3]}}, "data.image_size = [1, 2, 3]", "at most 2 long, not 3"),
    ({"data": {"image_size": [224]}}, "data.image_size.1 = [224]", "a value is missing"),
]


@pytest.mark.parametrize(("tree", "found", "allowed"), REFUSED, ids=[str(case[0]) for case in REFUSED])
def test_what_is_refused_is_named_with_its_value_and_what_is_allowed(tree, found, allowed):
    with pytest.raises(InputError) as caught:
        validate_job(tree)

    assert found in str(caught.value)
    assert allowed in str(caught.value)
    assert "\n" not in str(caught.value)


WRONG = (None, True, -1, 0, 1.5, float("inf"), float("nan"), "", "x", [], [1], ["a"], [1, 2, 3], {}, {"a": 1})


def refusals(key):
    """Yield what is said against each wrong value of a setting."""
    *tables, last = key.split(".")
    for value in WRONG:
        try:
            validate_job({tables[0]: {last: value}} if tables else {last: value})
        except InputError as refused:
            yield str(refused).partition(" is refused: ")[2]


@pytest.mark.parametrize("key", KEYS)
def test_a_refusal_is_one_sentence_in_words_of_the_job_file(key):
    others = re.compile(r"\b(input should|valid\w*|tuple|dict\w*|instance|character)\b", re.IGNORECASE)
    said = list(refusals(key))

    assert said
    assert [each for each in said if not each or each.count("should") > 1 or others.search(each)] == []


def uncommented(text):
    """The template with every setting switched on."""
    lines = []
    for line in text.splitlines():
        bare = line.removeprefix("#")
        is_setting = line.startswith("#") and not line.startswith("# ")
        lines.append(bare if is_setting else line)
    return tomllib.loads("\n".join(lines))


def test_the_template_is_a_valid_job_as_it_is():
    job = validate_job(tomllib.loads(job_template()))

    assert job.model.path == "network.keras"


def test_the_template_names_every_setting_and_shows_its_default():
    tree = uncommented(job_template())
    examples = {
        "model.path", "model.custom_objects", "data.path", "data.inputs", "data.labels", "data.labels_path",
        "data.format", "data.num_samples",
        "data.divide_by", "data.preprocessing", "data.image_size", "data.color_mode", "data.features",
        "record.disk_limit", "record.memory_limit", "record.block_samples", "record.scheduler",
        "cache.url", "cache.codec", "cache.storage_options", "factors.overrides", "normalize.samples",
    }  # fmt: skip
    for name, table in TABLES.items():
        assert set(tree[name]) == set(table.model_fields), name
        for key in table.model_fields:
            if f"{name}.{key}" in examples:
                continue
            assert tree[name][key] == getattr(table(), key), f"{name}.{key}"


def test_every_setting_has_one_text_which_the_template_and_the_flags_show():
    texts = {key: setting_text(key) for key in KEYS}
    run = commands.get_command(click.Context(commands), "run")
    helps = {flag: option.help for option in run.params for flag in getattr(option, "opts", ())}

    assert all(text.endswith(".") and len(text) <= 90 for text in texts.values()), texts
    assert all(f"# {text}\n" in job_template() for text in texts.values())
    assert all(helps[flag] == texts[key] + more for flag, key, _, more in JOB_FLAGS)
    assert all(helps[flag.partition("/")[0]] == texts[keys[0]] for flag, keys in JOB_SWITCHES)


def test_the_examples_of_the_template_are_valid_settings():
    tree = uncommented(job_template())
    together = {"scale", "color_mode", "image_size"}  # not with divide_by, not with an .npz file
    tree["data"] = {key: value for key, value in tree["data"].items() if key not in together}

    assert validate_job(tree).factors.overrides["fc*"].percentile == 99.0


def test_paths_of_a_job_file_start_at_its_folder_and_those_of_flags_where_you_are(tmp_path):
    path = tmp_path / "deep" / "job.toml"
    path.parent.mkdir()
    path.write_text('[model]\npath = "net.keras"\n[data]\npath = "s3://bucket/x.zarr"\n')
    job = load_job(path, overrides={"model.custom_objects": "/elsewhere/layers.py"})

    assert job.model.path == str(tmp_path / "deep" / "net.keras")
    assert job.data.path == "s3://bucket/x.zarr"
    assert job.model.custom_objects == "/elsewhere/layers.py"
    assert job.output == str(tmp_path / "deep" / "actisketch-run")


@pytest.mark.parametrize(
    ("given", "found"), [("s/scheduler.json", "{}/s/scheduler.json"), ("head:8786", "head:8786")]
)
def test_a_scheduler_file_starts_at_the_folder_of_the_job_file(tmp_path, given, found):
    (tmp_path / "job.toml").write_text(f"[record]\nscheduler = '{given}'\n")

    assert load_job(tmp_path / "job.toml").record.scheduler == found.format(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[model\n", "not a TOML file"),
        (b"\xff\xfe\x00", "not a TOML file"),
        (f"x = {'9' * 5000}", "not a TOML file"),
    ],
)
def test_a_job_file_that_is_not_toml_is_refused(tmp_path, content, message):
    path = tmp_path / "job.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)

    with pytest.raises(InputError, match=message):
        load_job(path)


def test_a_missing_job_file_is_answered_with_the_command_that_makes_one(tmp_path):
    with pytest.raises(InputError, match="actisketch init"):
        load_job(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("1", 1), ("2 KiB", 2048), ("1.5 MiB", 1_572_864), ("3GB", 3_000_000_000), (" 1 tib ", 2**40), (7, 7)],
)
def test_bytes_are_read_with_their_units(text, nbytes):
    assert parse_bytes(text) == nbytes


def test_bytes_are_shown_with_one_unit():
    assert [format_bytes(n) for n in (0, 1023, 1024, 3 * 2**30)] == ["0 B", "1023 B", "1.0 KiB", "3.0 GiB"]


@pytest.mark.parametrize("text", ["4 GB of memory", "1.5.2 GB", "1,000 MB", "", "GB", "-1", "1e3", "2 Gx"])
def test_a_text_that_is_no_number_of_bytes_is_refused_and_not_read_in_part(text):
    with pytest.raises(ValueError, match="'512 MiB' or '4 GB'"):
        parse_bytes(text)


def test_the_parts_of_the_library_take_settings_by_the_names_of_the_job_file():
    assert set(DataSettings.model_fields) <= {field.name for field in fields(DataSpec)}
    assert {"input_factor", "pin", "treat_as_identity"} <= signature(normalize_model).parameters.keys()


@pytest.mark.parametrize("call", [run, plan])
def test_the_defaults_of_the_calls_are_those_of_the_settings(call):
    job = JobSettings()
    settings = {
        "points": job.record.points,
        "batch_size": job.record.batch_size,
        "num_samples": job.data.num_samples,
        "percentile": job.factors.percentile,
        "nonzero": job.factors.nonzero,
        "per_channel": job.factors.per_channel,
        "normalize": job.normalize.enabled,
        "memory_limit": job.record.memory_limit,
    }
    found = {name: each.default for name, each in signature(call).parameters.items() if name in settings}

    assert found == {name: settings[name] for name in found}


def test_storage_knows_no_setting_of_the_job_file():
    nodes = [
        node
        for path in Path(storage.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
    ]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]

    assert len(KEYS) > 50
    assert [text for text in texts if any(re.search(rf"(?<![\w.]){key}\b", text) for key in KEYS[1:])] == []


@pytest.mark.parametrize(
    ("name", "known"), [("format", FORMATS), ("color_mode", COLOR_MODES), ("interpolation", INTERPOLATIONS)]
)
def test_the_settings_allow_what_the_sources_know(name: str, known: tuple[str, ...]) -> None:
    annotation = DataSettings.model_fields[name].annotation
    allowed = {
        value
        for part in (annotation, *get_args(annotation))
        for value in get_args(part)
        if isinstance(value, str)
    }

    assert allowed == set(known)
