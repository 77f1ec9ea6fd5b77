import os

from thresher.cache.fingerprint import fingerprint


def write(folder, name, text):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    return name, path


def test_the_place_of_the_files_does_not_matter(tmp_path):
    here, there = write(tmp_path / "a", "w", "1"), write(tmp_path / "b", "w", "1")
    assert fingerprint([here], recipe="r") == fingerprint([there], recipe="r")


def test_content_name_recipe_and_number_of_files_matter(tmp_path):
    one, other = write(tmp_path, "w", "1"), write(tmp_path, "v", "2")
    renamed = ("x", one[1])
    prints = [
        fingerprint([one], recipe="r"),
        fingerprint([one], recipe="s"),
        fingerprint([other], recipe="r"),
        fingerprint([renamed], recipe="r"),
        fingerprint([one, other], recipe="r"),
    ]
    assert len(set(prints)) == 5
    assert fingerprint([other, one], recipe="r") == prints[4]


def test_a_file_that_changed_has_another_fingerprint(tmp_path):
    file = write(tmp_path, "w", "1")
    before = fingerprint([file], recipe="r")
    file[1].write_text("2")
    os.utime(file[1], ns=(1, 1))
    assert fingerprint([file], recipe="r") != before


def test_a_file_in_the_place_of_another_of_the_same_size_and_time_has_another_fingerprint(tmp_path):
    """A copy that keeps times (cp -p, rsync, tar) was taken for the file that was read before."""
    file = write(tmp_path, "w", "1")
    status = file[1].stat()
    before = fingerprint([file], recipe="r")
    file[1].write_text("2")
    os.utime(file[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint([file], recipe="r") != before
