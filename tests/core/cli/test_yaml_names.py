"""Names that YAML takes for something else, such as ``no`` and ``3``: the sentence says to quote them."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from small_cli import main
from verbs import own_verbs

from lit_core.errors import UserError
from lit_core.parser_messages import check_keys, parser_sentence

QUOTE = {
    "no": 'False, but must be of type str; a name that YAML takes for false, such as no, is written in quotes: "no".',
    "yes": 'True, but must be of type str; a name that YAML takes for true, such as yes, is written in quotes: "yes".',
    "3": '3, but must be of type str; a name that YAML takes for a number is written in quotes: "3".',
    "[3, 8]": '[3, 8], but must be of type str; a name that YAML takes for a list is written in quotes: "[3, 8]".',
}


@pytest.mark.parametrize("name", QUOTE)
@pytest.mark.parametrize("command", [["count"], ["fit", "--model", "SmallModel", "--data", "SmallData"]])
def test_a_name_in_a_config_is_to_be_quoted(name, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    key = "name" if command == ["count"] else "run"
    Path("c.yaml").write_text(f"{key}: {name}\n")
    assert main([*command, "--config", "c.yaml"]) == 2
    assert capsys.readouterr().err == f"lit-small: {key} is {QUOTE[name]}\n"
    if command == ["count"]:
        Path("c.yaml").write_text(f'{key}: "{name}"\n')
        assert main([*command, "--config", "c.yaml"]) == 0
        assert capsys.readouterr().out == f"counted 1 {name}\n"


def test_a_part_of_an_argument_that_has_none_is_named_as_it_was_typed(capsys):
    assert main(["count", "--name.root", "here"]) == 2
    sentence = "name.root is not an argument, as name has no parts; give its value by --name itself."
    assert capsys.readouterr().err == f"lit-small: {sentence}\n"


def verbs_with_names():
    """Yield each verb of ours and its arguments that are a list of names."""
    for package, found in own_verbs().items():
        main_of = import_module(f"{package}.cli").main
        for name, verb in found.items():
            for argument, parameter in inspect.signature(verb).parameters.items():
                if "list[str]" in str(parameter.annotation) and " str" not in str(parameter.annotation):
                    yield pytest.param(main_of, name, argument, id=f"{package}-{name}-{argument}")


@pytest.mark.parametrize(("run", "verb", "argument"), list(verbs_with_names()))
def test_a_list_of_names_of_each_verb_says_so(run, verb, argument, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(f"{argument}: [3, no]\n")
    assert run([verb, "--config", "c.yaml"]) == 2
    assert f"{argument} is {QUOTE['3']}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_what_may_be_a_number_too_is_not_to_be_quoted():
    text = "Parser key \"devices\":\n  Subtypes: [<class 'int'>, <class 'str'>]\n  - Expected a <class 'str'>\n"
    assert "quotes" not in parser_sentence(f"{text}  Given value: [3]", None)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("data: {class_path: lit_moe.X, init_args: {sources: {no: 1}}}", "data.init_args.sources has the key false"),
        ("data: {class_path: lit_moe.X, init_args: {sources: {3: 1}}}", "data.init_args.sources has the key 3"),
        ("answers: {2024-01-01: x}", "answers has the key 2024-01-01"),
        ("answers: {2024-01-01 12:00:00: x}", "answers has the key 2024-01-01 12:00:00"),
        ("answers: {~: x}", "answers has the key null"),
        ("answers: {.inf: x}", r"answers has the key \.inf"),
        (
            "a: [{class_path: lightning.X, init_args: {scheduling: {on: 1}}}]",
            "a.0.init_args.scheduling has the key true",
        ),
    ],
)
def test_a_key_that_is_no_name_is_named(text, sentence):
    with pytest.raises(
        UserError, match=f"^{sentence}, which must be a name; a name that YAML takes for .* is written in quotes"
    ):
        check_keys(yaml.safe_load(text))


def test_classes_of_others_may_have_numbers_as_keys():
    check_keys(yaml.safe_load("a: [{class_path: lightning.X, init_args: {scheduling: {0: 1, 4: 2}}}]"))
