"""/etc/hosts of a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from netd.core import textfiles
from netd.sandboxes import etc


def test_default_names_come_first_then_added_hosts_then_the_own_line() -> None:
    text = etc.render([("db", "192.0.2.9")], [etc.own_line("172.20.0.2", "web")])
    lines = text.splitlines()
    assert lines[0] == "127.0.0.1\tlocalhost"
    assert lines[-2:] == ["192.0.2.9\tdb", "172.20.0.2\tweb"]


def test_a_dotted_host_name_is_followed_by_its_short_form_3_58() -> None:
    assert etc.own_line("172.20.0.2", "a.b.c") == "172.20.0.2\ta.b.c a"
    assert etc.own_line("172.20.0.2", "a", "ex.org") == "172.20.0.2\ta.ex.org a"


def test_rewriting_keeps_the_inode_1_74(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    etc.write(path, "a long first content\n")
    inode = path.stat().st_ino
    etc.write(path, "short\n")
    assert (path.read_text(), path.stat().st_ino) == ("short\n", inode)


def test_disconnecting_drops_only_that_networks_lines_3_56(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    etc.write(path, "127.0.0.1\tlocalhost\n172.20.0.2\tweb\n192.0.2.1\tmine\n")
    etc.append(path, ["172.21.0.2\tweb"])
    etc.drop_addresses(path, ["172.20.0.2"])
    assert path.read_text() == "127.0.0.1\tlocalhost\n192.0.2.1\tmine\n172.21.0.2\tweb\n"


def test_what_a_container_wrote_in_another_encoding_stays(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(b"192.0.2.1\tcaf\xe9\x0c\n172.20.0.2\tweb\n")
    etc.drop_addresses(path, ["172.20.0.2"])
    assert path.read_bytes() == b"192.0.2.1\tcaf\xe9\x0c\n"


def test_a_file_that_a_container_filled_up_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    content = b"172.20.0.2\tweb\n" + b"x" * textfiles.LIMIT
    path.write_bytes(content)
    etc.drop_addresses(path, ["172.20.0.2"])
    etc.drop_name(path, "web")
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("content", "expected"), [(b"127.0.0.1 a\n\xff\n", "127.0.0.1 a\n�\n"), (bytes(textfiles.LIMIT + 1), "")]
)
def test_the_host_s_own_file_may_be_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: str
) -> None:
    monkeypatch.setattr(etc, "_HOST_FILE", tmp_path / "hosts")
    assert etc.of_host() == ""
    (tmp_path / "hosts").write_bytes(content)
    assert etc.of_host() == expected
