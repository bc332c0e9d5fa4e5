"""Files are whole or not there, whatever comes between."""

import errno
import os
from pathlib import Path

import pytest

from sztrain.errors import InputError
from sztrain.files import whole_file, write_whole


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file.csv"
    write_whole(path, "old\n")

    def full(self, content):
        path_of_draft = os.open(self, os.O_CREAT | os.O_WRONLY)
        os.write(path_of_draft, content[:2])
        os.close(path_of_draft)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        InputError, match=r"file\.csv cannot be written \(No space left on device\)"
    ):
        write_whole(path, "new\n")
    monkeypatch.undo()
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["größer\n", b"\x00\xff"])
def test_text_and_bytes_arrive_as_they_are_in_a_folder_that_is_made(tmp_path, content):
    path = tmp_path / "a" / "b" / "file"
    write_whole(str(path), content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_is_interrupted_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "file"
    write_whole(path, "old")

    def interrupted():
        with whole_file(path) as draft:
            draft.write_text("ne")
            assert path.read_text() == "old"
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False])
def test_what_is_there_stays_where_it_shall_not_be_replaced(tmp_path, monkeypatch, links):
    def unlinked(*paths):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not links:  # as on some file systems
        monkeypatch.setattr(os, "link", unlinked)
    path = tmp_path / "file"
    write_whole(path, "first", replace=False)
    assert path.read_text() == "first"
    write_whole(path, "second", replace=False)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
