"""Files that somebody wrote to do harm, with right checksums: one sentence, exit code 4, and soon."""

import copy
import csv
import io
import json
import struct
import time
import zipfile

import numpy as np
import pytest

from actisketch.pipeline import open_run
from actisketch.pipeline.folder.folder import RunFolder
from actisketch.pipeline.folder.json_file import content_key, read_document
from actisketch.pipeline.results.report import report_data
from actisketch.storage import Cache, CacheSpec, PointSpec
from actisketch.storage.codecs import crc32c
from actisketch.storage.commit_record import PREFIX_NBYTES, CommitPrefix
from actisketch.storage.errors import ActisketchError, FormatError
from actisketch.storage.spec import Block

SOON_S = 8  # of this process's time: the machine may be busy
N_MUTATIONS = 200
ODD = [
    None, True, False, 0, -1, 2**62, 2**70, 1.5, -0.0, 1e308, "", "x", "\x1b[2J", "\ud800", [], [[]], {}, {"a": None},
    "../../x", "=cmd|'x'!A0", [1] * 1000, "y" * 10_000,
]  # fmt: skip


def sealed(tree):
    return json.dumps({**tree, "content_hash": content_key(json.loads(json.dumps(tree)))})


def description(tree):
    """A cache.json with the right checksum."""
    body = {name: value for name, value in tree.items() if name != "crc32c"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps({**body, "crc32c": crc32c(text)})


def record(prefix, header, sketches):
    """A commit record with right checksums."""
    raw = json.dumps(header, separators=(",", ":")).encode() if not isinstance(header, bytes) else header
    made = CommitPrefix(
        prefix.block, len(raw), PREFIX_NBYTES + len(raw) + 4 + len(sketches), prefix.cache_hash
    )
    return made.encode() + raw + struct.pack("<I", crc32c(raw)) + sketches


def places(tree, path=()):
    """Every place in a tree."""
    yield path
    for key, part in (
        tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    ):
        if not isinstance(tree, list) or key < 3:
            yield from places(part, (*path, key))


def mutated(tree, rng):
    """The tree with one place replaced, removed or put elsewhere."""
    chosen = list(places(tree))
    path = chosen[rng.integers(1, len(chosen))]
    out = copy.deepcopy(tree)
    where = out
    for key in path[:-1]:
        where = where[key]
    if rng.random() < 0.2 and isinstance(where, dict):
        del where[path[-1]]
    else:
        where[path[-1]] = copy.deepcopy(ODD[rng.integers(len(ODD))])
    return out


def note_as_made(folder, path):
    """Let the manifest know the file, as the one who wrote it would do."""
    own = RunFolder(folder)
    for stage, made in own.manifest()["stages"].items():
        if path.name in made["results"]:
            own.mark_made(stage, made["key"], *[folder / name for name in made["results"]])


def answers(folder):
    """Ask a run everything that needs no network."""
    run = open_run(folder)
    run.status()
    run.factors(percentile=50.0).to_dict()
    run.percentiles([99.0])
    run.activations("first")[:3]
    run.cache.verify()
    run.certificate()
    run.written_factors()
    run.export("csv")
    report_data(run)


def told_soon(folder):
    """Ask; return the error that told what is wrong, if any."""
    started = time.process_time()
    try:
        answers(folder)
        found = None
    except ActisketchError as error:
        found = error
    assert time.process_time() - started < SOON_S
    return found


DOCUMENTS = ["run.json", "factors.json", "statistics.json", "certificate.json", "normalized-sketches.json"]


@pytest.mark.parametrize("name", [*DOCUMENTS, "cache.json", "record"])
def test_no_mutation_of_a_document_ends_in_a_traceback(finished, name):
    rng, folder = np.random.default_rng(29), finished["run"]
    own = folder / "cache/.actisketch"
    path = {"cache.json": own / "cache.json", "record": min((own / "commits").iterdir())}.get(
        name, folder / name
    )
    whole, n_told = path.read_bytes(), 0
    if name == "record":
        prefix = CommitPrefix.decode(whole)
        end = PREFIX_NBYTES + prefix.header_nbytes
        tree, sketches = json.loads(whole[PREFIX_NBYTES:end]), whole[end + 4 :]
    else:
        tree = read_document(path) if name in DOCUMENTS else json.loads(whole)
    for _ in range(N_MUTATIONS if name != "statistics.json" else 20):  # which nothing reads
        odd = mutated(tree, rng)
        if name == "record":
            path.write_bytes(record(prefix, odd, sketches))
        else:
            path.write_text(sealed(odd) if name in DOCUMENTS else description(odd))
        if name in DOCUMENTS[1:]:
            note_as_made(folder, path)
        found = told_soon(folder)
        n_told += found is not None
        # A record or a manifest of other things makes the results out of date, which is 2.
        assert found is None or found.exit_code in (2, 3, 4, 9), found
        assert found is None or found.exit_code != 2 or name in ("record", "run.json", "factors.json"), found
        assert found is None or len(str(found)) < 2000

    assert n_told > 0 or name == "statistics.json"


DEEP = b"[" * 200_000 + b"]" * 200_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", DEEP),
        ("run.json", b'{"a": ' * 200_000),
        ("run.json", b" " * (300 * 2**20)),
        ("run.json", b"null"),
        ("cache/.actisketch/cache.json", DEEP),
        ("cache/.actisketch/cache.json", b'["' + b"x" * (300 * 2**20) + b'"]'),
        ("factors.json", DEEP),
        ("certificate.json", DEEP),
    ],
    ids=[
        "deep",
        "deep tables",
        "300 MB",
        "null",
        "deep cache",
        "300 MB cache",
        "deep factors",
        "deep certificate",
    ],
)
def test_what_is_too_deep_or_too_large_is_told_soon(call, finished, name, content):
    path = finished["run"] / name
    path.write_bytes(content)
    if path.parent == finished["run"] and path.name != "run.json":
        note_as_made(finished["run"], path)
    started = time.process_time()
    answer = call("report" if path.name != "run.json" else "status", finished["run"])

    assert answer.code == 4, answer.err
    assert time.process_time() - started < SOON_S
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("settings", None), ("settings", {"record": None}), ("ties", [1, 2]), ("ties", {"fixed": [[1]]}),
        ("ties", {"layer": {"first": "x"}}), ("stages", 5), ("versions", {"keras": [3]}), ("model", "m"),
        ("measured_input", {"factor": -1}), ("withheld", "all"), ("n_samples", "many"), ("toolbox", []),
        ("actisketch_run", None), ("random_layers", {}),
    ],
)  # fmt: skip
def test_a_manifest_of_other_types_is_refused_in_a_sentence(call, finished, key, value):
    path = finished["run"] / "run.json"
    path.write_text(sealed({**read_document(path), key: value}))
    answer = call("factors", finished["run"])

    assert answer.code == 4, answer.err
    assert "run.json" in answer.err


@pytest.mark.parametrize(
    "changed",
    [
        {"n_samples": 2**62}, {"n_samples": 2**62, "block_samples": 2**62, "batch_size": 2**62}, {"batch_size": 2**40},
        {"points": [{"name": "p", "shape": [1] * 10**6, "channel_axis": -1, "meta": {}, "chunk_samples": None}]},
        {"points": [{"name": "p", "shape": ["3"], "channel_axis": -1, "meta": {}, "chunk_samples": 1}]},
        {"points": [{"name": "p", "shape": [3.7], "channel_axis": -1, "meta": {}, "chunk_samples": 1}]},
        {"points": [{"name": "\ud800", "shape": [3], "channel_axis": -1, "meta": {}, "chunk_samples": 1}]},
        {"points": {}}, {"identity": []}, {"identity": {"model": 5}}, {"record": "yes"}, {"codec": []}, {"dtype": {}},
    ],
)  # fmt: skip
def test_a_description_of_a_cache_that_cannot_be_is_refused(call, finished, changed):
    path = finished["run"] / "cache/.actisketch/cache.json"
    tree = json.loads(path.read_text())
    path.write_text(description({**tree, "spec": {**tree["spec"], **changed}}))
    started = time.process_time()
    answer = call("status", finished["run"])

    assert answer.code == 4, answer.err
    assert time.process_time() - started < SOON_S


def test_a_stage_names_no_file_outside_of_the_run(finished):
    folder = RunFolder(finished["run"])
    for name in ("/dev/zero", "../small.npz", "report/../../small.npz", str(finished["data"])):
        made = {"key": "k", "results": {name: {"nbytes": 0, "blake2b": ""}}}
        folder.update_manifest({"stages": {"factors": made}})

        assert not folder.is_made_from("factors", "k")


def test_a_huge_index_of_merged_sketches_is_left_aside(call, finished):
    call("percentiles", finished["run"])
    want = open_run(finished["run"]).percentiles([99.0])
    path = finished["run"] / "sketches.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (4 * 2**30,)}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("index.npy", "w") as member,
    ):
        member.write(header.getvalue())
        for _ in range(64):
            member.write(bytes(2**20))
    started = time.process_time()

    assert open_run(finished["run"]).percentiles([99.0]) == want
    assert time.process_time() - started < SOON_S


def test_a_record_that_claims_a_huge_header_is_refused():
    huge = CommitPrefix(Block(0, 0, 1), 2**32 - 1, 2**33, bytes(16)).encode()
    with pytest.raises(FormatError, match="4,294,967,295 bytes"):
        CommitPrefix.decode(huge)


HOSTILE_NAMES = [
    "\x1b]0;owned\x07\x1b[2J",
    "a\nb\r\x9b31m",
    "\u202egnp.exe",
    "=cmd|'/C calc'!A0",
    "+1+1",
    "-x",
    "@SUM(1)",
]


@pytest.fixture
def named(tmp_path, finished):
    """A run whose points have names that a terminal or a spreadsheet would obey."""
    renamed = dict(zip(("first", "second", "classes"), HOSTILE_NAMES, strict=False))
    run = open_run(finished["run"])
    old = run.cache
    points = tuple(PointSpec(name=name, shape=(3,), meta={"layer_type": name}) for name in HOSTILE_NAMES)
    source = old.blocks[0]
    sketch = old.read_commit(source).sketches["classes"]
    spec = CacheSpec(
        points=points, n_samples=4, batch_size=4, block_samples=4, identity={}, keeps_activations=False
    )
    (finished["run"] / "report").mkdir(exist_ok=True)
    import shutil

    shutil.rmtree(finished["run"] / "cache")
    with (
        Cache.create_or_resume(finished["run"] / "cache", spec) as cache,
        cache.write(cache.blocks[0]) as writer,
    ):
        writer.commit(dict.fromkeys(HOSTILE_NAMES, sketch))
    path = finished["run"] / "run.json"
    tree = read_document(path)
    tree["settings"]["record"]["activations"] = False
    tree["ties"] = {}
    path.write_text(sealed(tree))
    (finished["run"] / "cache" / "\x1b[31mfile").write_text("")
    assert renamed
    return finished["run"]


@pytest.mark.parametrize("verb", ["status", "percentiles", "factors", "verify"])
def test_no_name_reaches_the_terminal_as_a_command(call, named, verb):
    answer = call(verb, named)
    printed = answer.out + answer.err

    assert not [c for c in "\x1b\x07\x9b\r\u202e" if c in printed]
    assert "\\x1b" in printed or verb == "status"


def test_messages_and_log_lines_hold_none_either(call, named, tmp_path):
    import logging

    from actisketch.pipeline.cli.session import _log_file

    answer = call("percentiles", named, "--point", "\x1b[2J\nno such")
    handler = _log_file(tmp_path / "x.log")
    handler.emit(logging.makeLogRecord({"msg": "point %s\n2026 ERROR forged", "args": ("\x1b[2J",)}))
    handler.close()

    assert answer.code == 2
    assert "\x1b" not in answer.err
    assert (tmp_path / "x.log").read_bytes().count(b"\n") == 1
    assert b"\x1b" not in (tmp_path / "x.log").read_bytes()


def test_no_cell_of_the_table_is_a_formula(named):
    rows = list(csv.reader(io.StringIO(open_run(named).export("csv"))))

    assert len(rows) == 1 + len(HOSTILE_NAMES)
    assert [row[0] for row in rows[1:] if row[0][0] in "=+-@\t\r"] == []
    assert sorted(row[0].removeprefix("'") for row in rows[1:]) == sorted(HOSTILE_NAMES)


@pytest.mark.parametrize("name", ["\x1b[31mred", "a b", "né", "a:b", "@x"])
def test_a_layer_name_that_tensorflow_refuses_is_named(call, small_files, name):
    import keras

    keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="relu", name=name)]).save(
        small_files["model"]
    )
    answer = call("run", small_files["job"])

    assert answer.code == 2, answer.err
    assert "rename it" in answer.err
    assert repr(name) in answer.err
    assert "Traceback" not in answer.err
    # Keras does not close the scope that TensorFlow refused: the paths of all later layers would begin with it.
    later = keras.layers.Dense(2, name="later")
    later.build((None, 3))
    assert later.kernel.path == "later/kernel"
