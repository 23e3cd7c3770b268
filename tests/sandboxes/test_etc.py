"""A container's files in /etc: rewritten in place, and left alone once somebody edited them."""

from __future__ import annotations

from pathlib import Path

import pytest

from netd.core import textfiles
from netd.sandboxes.etc import EtcFiles


def files(directory: Path) -> EtcFiles:
    etc = EtcFiles(directory)
    etc.write("web", "127.0.0.1\tlocalhost\n", "nameserver 192.0.2.1\n")
    return etc


def test_an_untouched_resolv_conf_is_replaced_and_replaced_again(tmp_path: Path) -> None:
    etc = files(tmp_path)
    for text in ("nameserver 127.0.0.11\n", "nameserver 192.0.2.2\n"):
        etc.rewrite_resolv_conf(text)
        assert etc.resolv_conf.read_text() == text


@pytest.mark.parametrize("edited", [b"nameserver 192.0.2.9\n", b"\xff\xfe", bytes(textfiles.LIMIT + 1)])
def test_an_edited_one_stays_whatever_is_in_it_1_71(tmp_path: Path, edited: bytes) -> None:
    etc = files(tmp_path)
    etc.resolv_conf.write_bytes(edited)
    etc.rewrite_resolv_conf("nameserver 127.0.0.11\n")
    assert etc.resolv_conf.read_bytes() == edited
