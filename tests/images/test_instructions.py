"""Dockerfile instructions."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.core.errors import InvalidParameter
from netd.images import instructions
from netd.model.images import ImageConfig


def applied(*changes: str) -> ImageConfig:
    return instructions.apply(ImageConfig(), changes)


def test_instructions_in_both_forms() -> None:
    assert applied("CMD echo $x").cmd == ["/bin/sh", "-c", "echo $x"]
    assert applied('CMD ["echo", "a b"]').cmd == ["echo", "a b"]
    assert applied('ENTRYPOINT ["/init"]').entrypoint == ["/init"]
    assert applied("ENV A=1 B='x y'", "ENV A=2", "ENV C some words").env == ["A=2", "B=x y", "C=some words"]
    assert applied('LABEL a="b c" d=e').labels == {"a": "b c", "d": "e"}
    assert applied("WORKDIR /a", "WORKDIR b/../c").working_dir == "/a/c"
    assert applied("USER bob").user == "bob"
    assert applied("STOPSIGNAL SIGINT").stop_signal == "SIGINT"
    assert applied("VOLUME /a /b", 'VOLUME ["/c d"]').volumes == {"/a": {}, "/b": {}, "/c d": {}}
    assert applied("EXPOSE 80 7-8/UDP").exposed_ports == {"80/tcp": {}, "7/udp": {}, "8/udp": {}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("FROM x", "FROM is not a valid change command"),
        ("CMD", "CMD requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=1 B", "can't find = in 'B'"),
        ("EXPOSE 99999", "invalid containerPort: 99999"),
        ("LABEL a='b", "No closing quotation"),
    ],
)
def test_bad_instructions_are_named(change: str, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        applied(change)


@given(st.text())
def test_any_instruction_is_taken_or_refused(change: str) -> None:
    with contextlib.suppress(InvalidParameter):
        applied(change)
