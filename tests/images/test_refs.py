"""Image names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.core.errors import InvalidParameter
from netd.images import refs


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        ("busybox", "busybox:latest"),
        ("docker.io/library/busybox:1", "busybox:1"),
        ("index.docker.io/me/app", "me/app:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("example.org:5000/a/b-c__d:v1.2", "example.org:5000/a/b-c__d:v1.2"),
    ],
)
def test_names_take_their_short_form(ref: str, name: str) -> None:
    assert refs.normalise(ref) == name
    assert refs.normalise(name) == name


@pytest.mark.parametrize(
    "ref", ["", ":", "a:", "-a", "a//b", "a/", "/a", "a b", "UPPER", "a" * 300, "0" * 64, "a:b:c", "é"]
)
def test_malformed_names_are_refused(ref: str) -> None:
    with pytest.raises(InvalidParameter):
        refs.normalise(ref)


@given(st.text())
def test_a_name_is_refused_or_stays_as_it_was_normalised(ref: str) -> None:
    try:
        name = refs.normalise(ref)
    except InvalidParameter:
        return
    assert refs.normalise(name) == name
