"""The helper of every stage: it reloads what is current, and a crash never leaves results of other things."""

from dataclasses import dataclass, field

import pytest

from actisketch.pipeline.folder.folder import RunFolder
from actisketch.pipeline.stages.stage import FileStage


@dataclass(frozen=True, kw_only=True)
class Doubling(FileStage):
    """Writes twice a number into a file; fails after the file if it is told to."""

    name = "factors"
    number: int
    fails: bool = False
    done: list = field(default_factory=list)

    @property
    def key(self):
        return f"twice {self.number}"

    @property
    def files(self):
        return (self.folder.factors_path,)

    def reload(self):
        self.done.append("reload")
        return int(self.files[0].read_text())

    def compute(self):
        self.done.append("compute")
        return 2 * self.number

    def write(self, result):
        self.files[0].write_text(str(result))
        if self.fails:
            raise OSError("the disk is full")
        return self.files

    def announce(self, result, written):
        self.done.append(f"announced {self.folder.made_from(self.name)}")


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def test_results_are_computed_once_and_reloaded_while_they_follow_from_the_same_things(folder):
    stages = [Doubling(folder=folder, number=n) for n in (3, 3, 5, 3)]

    assert [stage.reload_or_compute() for stage in stages] == [6, 6, 10, 6]
    assert [stage.done for stage in stages] == [
        ["compute", "announced twice 3"],
        ["reload"],
        ["compute", "announced twice 5"],
        ["compute", "announced twice 3"],
    ]


def test_results_that_were_changed_or_deleted_are_computed_again(folder):
    Doubling(folder=folder, number=3).reload_or_compute()
    for change in (lambda path: path.write_text("7"), lambda path: path.unlink()):
        change(folder.factors_path)
        again = Doubling(folder=folder, number=3)

        assert again.reload_or_compute() == 6
        assert again.done == ["compute", "announced twice 3"]


def test_a_crash_while_results_are_replaced_leaves_none_that_count_as_made(folder):
    Doubling(folder=folder, number=3).reload_or_compute()
    with pytest.raises(OSError, match="disk"):
        Doubling(folder=folder, number=5, fails=True).reload_or_compute()

    assert folder.made_from("factors") is None
    assert not Doubling(folder=folder, number=3).is_current()
    assert not Doubling(folder=folder, number=5).is_current()


def test_results_in_another_folder_are_neither_reloaded_nor_remembered(folder):
    stages = [Doubling(folder=folder, number=3, is_own=False) for _ in range(2)]

    assert [stage.reload_or_compute() for stage in stages] == [6, 6]
    assert [stage.done for stage in stages] == [["compute", "announced None"]] * 2
    assert folder.manifest() == {}
