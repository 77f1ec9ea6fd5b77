"""How much memory is free."""

from thresher.numeric import memory


def test_the_smaller_of_machine_and_control_group_counts(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    2000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.available_bytes() == 2_048_000
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("500\n")
    assert memory.available_bytes() == 2_048_000
    (tmp_path / "memory.max").write_text("1500\n")
    assert memory.available_bytes() == 1000
    # cached files (90 + 110) count as available
    (tmp_path / "memory.stat").write_text("anon 200\nactive_file 90\ninactive_file 110\n")
    assert memory.available_bytes() == 1200
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    (tmp_path / "memory.max").unlink()
    assert memory.available_bytes() is None
