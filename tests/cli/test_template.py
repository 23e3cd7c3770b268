"""Templates of `--format`: Go's text/template as far as Docker's users write it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.cli.template import Row, Template, TemplateError

DATA = {
    "Name": "web",
    "Networks": {"back": {"IP": "10.0.1.2"}, "front": {"IP": "10.0.0.2"}},
    "Cmd": ["sh", "-c", "true"],
    "Labels": {"com.example.role": "db"},
    "State": {"Running": True, "ExitCode": 0},
    "Links": None,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Name}}", "web"),
        ("{{ .State.Running }}/{{.State.ExitCode}}", "true/0"),
        ("{{.Cmd}} {{.Labels}} {{.Links}}", "[sh -c true] map[com.example.role:db] <nil>"),
        ("{{json .Cmd}} {{json .State}}", '["sh","-c","true"] {"Running":true,"ExitCode":0}'),
        ("{{range .Cmd}}<{{.}}>{{end}}", "<sh><-c><true>"),
        ("{{range $i, $word := .Cmd}}{{$i}}={{$word}};{{end}}", "0=sh;1=-c;2=true;"),
        ("{{range $name, $net := .Networks}}{{$name}} {{$net.IP}} {{end}}", "back 10.0.1.2 front 10.0.0.2 "),
        ("{{range .Links}}x{{else}}none{{end}}", "none"),
        ("{{range .Cmd}}{{if eq . \"-c\"}}{{continue}}{{end}}{{.}}{{break}}{{end}}", "sh"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if not .Name}}a{{else if .Links}}b{{else}}c{{end}}", "c"),
        ("{{with .State}}{{.ExitCode}}{{end}}", "0"),
        ("{{with $s := .State}}{{$s.Running}} {{$.Name}}{{end}}", "true web"),
        ('{{index .Labels "com.example.role"}}|{{index .Labels "none"}}|{{index .Cmd 1}}', "db||-c"),
        ('{{(index .Networks "back").IP}}', "10.0.1.2"),
        ("{{len .Cmd}} {{len .Name}} {{.Name | len}}", "3 3 3"),
        ('{{join .Cmd ","}} {{upper .Name}} {{lower "ABC"}} {{title "two words"}}', "sh,-c,true WEB abc Two Words"),
        ('{{split "a:b" ":"}} {{truncate "abcdef" 3}} {{pad "x" 1 2}}|', "[a b] abc  x  |"),
        ('{{printf "%s-%d|%5s|%-5s|%q" .Name 7 "a" "b" "c"}}', 'web-7|    a|b    |"c"'),
        ('{{println .Name 1}}{{print "a" 1 2 "b"}}', "web 1\na1 2b"),
        ('{{eq .Name "a" "web"}} {{ne 1 2}} {{lt 1 2}} {{ge 1 2}}', "true true true false"),
        ('{{and 1 0}} {{or 0 "x"}}', "0 x"),
        ("a {{- /* gone */ -}} b", "ab"),
        ("a {{- .Name -}} \n b", "awebb"),
        ("{{$x := 1}}{{range .Cmd}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("{{`raw \\n`}}{{\"cooked\\t\"}}{{'a'}}{{true}}{{0x10}}", "raw \\ncooked\t97true16"),
    ],
)  # fmt: skip
def test_templates_render(template: str, text: str) -> None:
    assert Template(template).render(DATA) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.Name", "template: :1: unclosed action"),
        ("{{.", 'template: :1: illegal number syntax: "."'),
        ("{{range .Cmd}}", "template: :1: unexpected EOF"),
        ("{{if}}x{{end}}", "template: :1: missing value for if"),
        ("x\n{{end}}", "template: :2: unexpected {{end}}"),
        ("{{nosuch .Name}}", 'template: :1: function "nosuch" not defined'),
        ("{{$x}}", 'template: :1: undefined variable "$x"'),
        ('{{"open}}', "template: :1: unterminated quoted string"),
        ("{{(.Name}}", "template: :1: unclosed left paren"),
        ("{{.Foo}}", 'template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo"'),
        ("ab {{.State.Foo}}", 'template: :1:11: executing "" at <.State.Foo>: map has no entry for key "Foo"'),
        ("a\n{{.Foo}}", 'template: :2:2: executing "" at <.Foo>: map has no entry for key "Foo"'),
        ("{{.Links.X}}", 'template: :1:8: executing "" at <.Links.X>: nil data; no entry for key "X"'),
    ],
)
def test_errors_are_in_the_words_of_go(template: str, message: str) -> None:
    with pytest.raises(TemplateError) as error:
        Template(template).render(DATA)
    assert str(error.value) == message


def test_a_row_names_its_type_and_hides_its_functions_from_json() -> None:
    row = Row("*network.networkContext", Name="a<b", ID="1", Label=lambda name: f"<{name}>")
    assert Template('{{.Label "x"}}').render(row) == "<x>"
    assert Template("{{json .}}").render(row) == '{"ID":"1","Name":"a\\u003cb"}'
    with pytest.raises(TemplateError, match=r"can't evaluate field Foo in type \*network.networkContext"):
        Template("{{.Foo}}").render(row)


def test_a_header_shows_titles_untouched_by_functions() -> None:
    titles = Row("h", Name="NAME", Label=lambda name: name.upper())
    assert Template('{{lower .Name}} {{json .Name}} {{.Label "a"}}').render_header(titles) == "NAME NAME A"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON)
def test_json_gives_back_any_value(value: Any) -> None:
    assert json.loads(Template("{{json .}}").render(value)) == value


@given(st.text(alphabet=st.characters(exclude_characters="{")))
def test_text_without_actions_is_itself(text: str) -> None:
    assert Template(text).render(None) == text


@given(st.text(alphabet="{}. $|()\"`'-:=,/*aif range end else with x1\n", max_size=30))
def test_any_text_renders_or_fails_with_a_template_error(text: str) -> None:
    try:
        Template(text).render(DATA)
    except TemplateError as error:
        assert str(error).startswith("template: :")


@given(st.lists(st.text(alphabet="abc", min_size=1)))
def test_range_visits_everything_in_order(words: list[str]) -> None:
    assert Template("{{range .}}{{.}},{{end}}").render(words) == "".join(f"{word}," for word in words)
