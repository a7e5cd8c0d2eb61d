"""Error texts of jsonargparse as one-sentence messages."""

from __future__ import annotations

import importlib.util
import inspect
import pydoc
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date, datetime
from typing import Any

import yaml

from lit_core.errors import UserError, did_you_mean
from lit_core.files.yaml_files import parse_yaml
from lit_core.moved_names import MOVED_ARGUMENTS

# jsonargparse writes a tree of reasons, each indented below its key or class.
_LONGEST_LINE = 2000
_KEY = re.compile(r'Parser key "(?P<key>[^"]+)":')
_CLASS = re.compile(r"Problem with given class_path '(?P<path>[\w.]+)':")
_CALLABLE = re.compile(r"Type \S*Callable\[.*\] expects a function or a callable class: ")
_GOT = re.compile(r"\. Got value: (?P<value>.*)$")
_UNKNOWN = re.compile(
    r"""unrecognized\ arguments:\ (?:--)?(?P<a>[^\s=]+)
    |^Subcommand\ '[^']+'\ does\ not\ accept\ option\ '(?P<s>[^']+)'
    |^Group\ '(?P<group>[^']+)'\ does\ not\ accept\ option\ '(?P<b>[^']+)'
    |Option\ '(?P<c>[^']+)'\ is\ not\ accepted
    |(?:Key|Nested\ key|Group)\ '(?P<d>[^']+)'\ is\ not\ expected
    |[Dd]oes\ not\ accept\ (?:nested\ key|option)\ '(?P<e>[^']+)'
    |No\ action\ for\ key\ "(?P<f>[^"]+)\"""",
    re.VERBOSE,
)
_NO_CLASS = re.compile(
    r"module '(?P<module>[\w.]+)' has no attribute '(?P<a>\w+)'|No module named '(?P<b>[\w.]+)'"
    r"|Import of dot import path (?P<c>\S+) failed|type object '\w+' has no attribute '(?P<d>\w+)'"
    r"|Unexpected import path format: (?P<e>.*)"
)
_NO_SUBCLASS = re.compile(r"Import path (?P<path>\S+) does not correspond to a subclass of (?P<base>\w+)")
_NO_COMPONENT = re.compile(r"Not a valid subclass of (\w+)(?:\. Got value: (.*))?")
_WITHOUT_CLASS_PATH = re.compile(r"Dict must include a class_path and optionally init_args, but got \{'([^']*)'")
_ABSTRACT = re.compile(r"Expected an instantiatable class, but (?P<base>[\w.]+) is abstract")
_REQUIRED = re.compile(r"the following arguments are required: (?P<names>.+)")
_EXPECTED = re.compile(r"Expected an? (?P<type>typing\.Literal\[.*?\]|<class '[\w.]+'>|dot import path string: .*)")
_TYPE = re.compile(r"typing\.Literal\[(?P<literal>[^]]*)\]|<class '(?P<name>[\w.]+)'>|(?P<container>list|dict|tuple)\[")
#: A flag with a part of an argument that has none.
_NESTED = re.compile(r"NestedArg\(key='([\w.]+)'")
#: How a value with several entries is written.
_FORMS = {"list": "[a, b]", "tuple": "[a, b]", "dict": "{name: value}"}
#: Top-level arguments of Lightning's commands.
_SECTIONS = ("trainer", "model", "data", "seed_everything", "ckpt_path", "config", "run", "branch_from", "verbose")
_NO_MAPPING = re.compile(r"argument after \*\* must be a mapping, not (\w+)")
_NO_CLASS_PATH = re.compile(r"argument of type '(\w+)' is not iterable|unhashable type: '(\w+)'")
_NO_INIT_ARGS = re.compile(r"'(\w+)' object has no attribute 'keys'")
_NOISE = re.compile(
    r"Does not validate|Errors:|Given value|Expected a path but|Expected a <class 'NoneType'>|Not a valid subclass"
    r"|Subclass types expect|a class path \(str\)|a dict with(out)? "
)


@dataclass
class _Reason:
    """One of the reasons in jsonargparse's text.

    Args:
        keys: Path of the wrong key, as far as it is known.
        text: The reason.
        owner: Class whose arguments are wrong; empty if unknown.
    """

    keys: list[str]
    text: str
    owner: str


@dataclass
class _Reasons:
    """The reasons in jsonargparse's text, in order, and the values and types that it names, by key."""

    reasons: list[_Reason] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)


def _with_short_lines(text: str) -> str:
    """Return a text whose lines, which may repeat a value of any length, are cut: the patterns here take longer."""
    return "\n".join(line[:_LONGEST_LINE] for line in text.splitlines())


def _read(text: str, root: str) -> _Reasons:
    parsed, stack = _Reasons(), list[tuple[int, str, str]]()
    for line in _CALLABLE.sub("", text).splitlines():
        body, indent = line.lstrip(" -"), len(line) - len(line.lstrip(" "))
        while stack and body and stack[-1][0] >= indent:
            stack.pop()
        keys = [key for _, key, _ in stack if key]
        if match := _KEY.match(body):
            key = root if root and not keys else match["key"]
            stack.append((indent, key, ""))
            body = body[match.end() :].strip()
            keys.append(key)
        elif match := _CLASS.match(body):
            stack.append((indent, "", match["path"]))
            body = body[match.end() :].strip()
        path = ".".join(keys)
        if body.startswith("Given value: "):
            parsed.values.setdefault(path, _GOT.sub("", body.removeprefix("Given value: ")))
        elif body.startswith("Subtypes: "):
            parsed.types[path] = body
        elif body and not _NOISE.match(body):
            named = re.search(r"Got value: Namespace\(class_path='([\w.]+)'", body)
            owner = named[1] if named else stack[-1][2] if stack else ""
            parsed.reasons.append(_Reason(keys, body, owner))
    return parsed


def parser_sentence(text: str, verb: Callable[..., Any] | None, root: str = "") -> str:
    """Summarise an error text of jsonargparse, about a command line or one value, in one sentence.

    Args:
        text: The error text.
        verb: The function whose arguments were given; None for Lightning's commands.
        root: Path of the one value that was parsed, which replaces the first key; empty for a command line.
    """
    text = _with_short_lines(text)
    parsed = _read(text, root)
    if not parsed.reasons:
        where = ".".join([*([root] if root else []), *_KEY.findall(text)[1 if root else 0 :]])
        if match := _NO_COMPONENT.search(text):
            options = next((one for one in _classes() if one.__name__ == match[1] and is_dataclass(one)), None)
            value = (match[2] or parsed.values.get(where, "something else")).replace("None", "null")
            if options is not None:
                keys = ", ".join(one.name for one in fields(options))
                return f"{where or 'A value'} has {value}, but must have the keys of a {match[1]}: {keys}; write them."
            return f"{where or 'A value'} is {value}, but must be a {match[1]}; give its class_path."
        return _ended(" ".join(text.split()))

    def weight(reason: _Reason) -> tuple[int, bool]:
        return len(reason.keys), not (reason.text.startswith("Expected a") or _NO_SUBCLASS.match(reason.text))

    reason = max(parsed.reasons, key=weight)  # the most specific; of several equals, the first
    where = ".".join(reason.keys)
    if match := _REQUIRED.search(reason.text):
        missing = ", ".join(name.split(".", 1)[-1] for name in match["names"].split(", "))
        named = re.match(r"Namespace\(class_path='([\w.]+)'", parsed.values.get(where, ""))
        owner = reason.owner or (named[1] if named else "")
        lacking = f"{where or owner}: {owner.rpartition('.')[2]} lacks" if owner else "The command lacks"
        return f"{lacking} {missing}; give it by flag or in a config."
    if match := _NO_SUBCLASS.match(reason.text):
        return f"{where + ': ' if where else ''}{match['path']} is not a {match['base']}; name a class that is one."
    if match := _ABSTRACT.match(reason.text):
        base = match["base"].rpartition(".")[2]
        begin = f"{where + ': ' if where else ''}No class of {base} is named"
        return f"{begin}; give its import path as class_path, its arguments as init_args, and no other key."
    if match := _NO_CLASS.search(reason.text):
        name = next(value for key, value in match.groupdict().items() if value is not None and key != "module")
        full = f"{match['module']}.{name}" if match["a"] else reason.owner or name
        return _unknown_class(where, full)
    if match := _UNKNOWN.search(reason.text):
        name = next(value for key, value in match.groupdict().items() if value and key != "group")
        group = [match["group"]] if match["group"] else []
        if name == "class_path":
            return f"{where or 'A component'} has a key besides class_path and init_args; correct or remove it."
        own = tuple(_arguments(reason.owner))
        if not group and own and name.partition(".")[0] not in own:
            name = name.partition(".")[0]  # what is below a mistyped key may be right
        path = [part for key in (*reason.keys, *group, name) for part in ([key] if key == root else key.split("."))]
        top = (root,) if root else _SECTIONS if verb is None else tuple(inspect.signature(verb).parameters)
        if path[0] not in top:  # what is below a mistyped section may be right
            path = path[:1]
        full, last = ".".join(path), path[-1]
        if verb is not None and (moved := MOVED_ARGUMENTS.get((f"{verb.__module__}.{verb.__name__}", path[0]))):
            return moved
        hint = did_you_mean(last, top) if len(path) == 1 else did_you_mean(last, _arguments(reason.owner))
        if root and not hint:
            return f"{full} is not an argument; remove it. The arguments are {', '.join(_arguments(reason.owner))}."
        if own and len(path) > 1 and path[-2] not in own and not hint:  # not below one of its arguments
            return f"{full} is not an argument. Those of {reason.owner.rpartition('.')[2]} are {', '.join(own)}."
        if verb is None or len(path) > 1:  # there are very many of all classes
            hint = hint or did_you_mean(last, _all_arguments(), nearness=0.75)
        return f"{full} is not an argument.{hint or ' See --help for what is.'}"
    if match := _WITHOUT_CLASS_PATH.search(reason.text):
        begin = f"{where or 'A component'} has the key {match[1]}, but no class_path; name the class there."
        return begin + did_you_mean(match[1], ["class_path"])
    if match := _NO_CLASS_PATH.search(reason.text):
        kind = (match[1] or match[2]).replace("NoneType", "null")
        return f"{where or 'A component'} has a class_path that is {kind}; write an import path there."
    if match := _NO_INIT_ARGS.search(reason.text):
        kind = match[1].replace("NoneType", "null")
        return f"{where or 'A component'} has init_args that are {kind}; write name: value there, or remove the key."
    if match := _NO_MAPPING.search(reason.text):
        return f"An argument is a value of type {match[1]}, but takes arguments of its own; give those by name."
    if _EXPECTED.match(reason.text):
        return _wrong_type(where, reason, parsed)
    return _ended(f"{where + ': ' if where else ''}{_GOT.sub('', reason.text)}")


def _ended(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}; correct it."


def _wrong_type(where: str, reason: _Reason, parsed: _Reasons) -> str:
    classes = [other for other in parsed.reasons if "dot import path" in other.text and other.keys == reason.keys]
    match = re.search(
        r"(?:Got value|dot import path string): (.*?)(?:\. Got value: |$)", classes[0].text if classes else reason.text
    )
    value = match[1] if match else parsed.values.get(where, "something else")
    if nested := _NESTED.match(value):
        return f"{where}.{nested[1]} is not an argument, as {where} has no parts; give its value by --{where} itself."
    literals: list[str] = []
    types: list[str] = []
    for kind in _TYPE.finditer(parsed.types.get(where) or reason.text):
        if kind["literal"]:
            literals += [word.strip(" '") for word in kind["literal"].split(",")]
        elif kind["name"] != "NoneType":
            types.append(kind["container"] or kind["name"].rpartition(".")[2])
    if classes and not literals and not {"int", "float", "str", "bool"} & set(types):
        return _unknown_class(where, value)
    rules = [f"one of {', '.join(dict.fromkeys(literals))}"] if literals else []
    rules += [f"of type {' or '.join(types)}"] if types else []
    value = "null" if value == "None" else value
    texts = [other for other in parsed.reasons if other.keys == reason.keys and "<class 'str'>" in other.text]
    if texts and not literals and not {"int", "float", "bool"} & set(types) and (quoting := _quoting(value)):
        return f"{where or 'The argument'} is {value}, but must be of type str; {quoting}."
    hint = did_you_mean(value, literals)
    forms = [f"; write it as {_FORMS[kind]}." for kind in types if kind in _FORMS]
    remedy = f".{hint}" if hint else forms[0] if forms else "; correct it."
    return f"{where or 'The argument'} is {value}, but must be {' or '.join(rules)}{remedy}"


def _quoting(value: str) -> str:
    """Tell how to write a name that YAML takes for something else; empty if the value is not of that kind."""
    try:
        read = parse_yaml(value, "The value")
    except UserError:
        return ""
    return "" if read is None else _quoted(read, value)


def _quoted(read: Any, value: str) -> str:
    if isinstance(read, bool):
        word = "yes" if read else "no"
        return f'a name that YAML takes for {str(read).lower()}, such as {word}, is written in quotes: "{word}"'
    kinds = {int: "a number", float: "a number", list: "a list", dict: "a mapping", date: "a date", datetime: "a time"}
    kind = "null" if read is None else kinds.get(type(read))
    return f'a name that YAML takes for {kind} is written in quotes: "{value}"' if kind else ""


def check_keys(node: Any, where: str = "", ours: bool = True) -> None:
    """Refuse keys of a config that YAML does not take for names.

    Args:
        node: Plain values.
        where: Path of the node, for the message.
        ours: Whether the keys are those of a class or command of ours, whose keys are names; others may take numbers.

    Raises:
        UserError: If there is one; the message names its path.
    """
    if isinstance(node, dict):
        inner = str(node["class_path"]).startswith("lit_") if "class_path" in node else ours
        for key, value in node.items():
            if isinstance(key, bool) or (ours and not isinstance(key, str)):
                shown = yaml.safe_dump(key).split("\n")[0]
                raise UserError(
                    f"{where or 'The config'} has the key {shown}, which must be a name; {_quoted(key, shown)}."
                )
            check_keys(value, f"{where}.{key}" if where else str(key), inner)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            check_keys(value, f"{where}.{index}", ours)


def _unknown_class(where: str, name: str) -> str:
    module, _, last = name.rpartition(".")
    begin, top = f"{where + ': ' if where else ''}{name}", name.partition(".")[0]
    try:
        pydoc.locate(name)
    except pydoc.ErrorDuringImport as error:
        reason = " ".join(str(error.value).split())
        return f"{begin} cannot be imported ({type(error.value).__name__}: {reason}); correct its module."
    if top == "__main__":
        return f"{begin} cannot be imported, since it was defined in a script or notebook; move it into a module."
    if module and top.isidentifier() and top not in sys.modules and importlib.util.find_spec(top) is None:
        return f"{begin} cannot be imported, since there is no module {top}; add its folder to PYTHONPATH."
    hint = did_you_mean(last, _names_in(module))
    hint = hint or did_you_mean(last, [klass.__name__ for klass in _classes()])
    return f"{begin} is not the name of a known class.{hint or ' Give its import path.'}"


def _names_in(path: str) -> Iterable[str]:
    """Return the public names of a loaded module, or all names of a class."""
    module, _, name = path.rpartition(".")
    owner = sys.modules.get(path) or getattr(sys.modules.get(module), name, None)
    return getattr(owner, "__all__", ()) or (dir(owner) if inspect.isclass(owner) else ())


def _arguments(class_path: str) -> Iterable[str]:
    """Return the names of a class's arguments."""
    try:
        return inspect.signature(pydoc.locate(class_path)).parameters  # type: ignore[arg-type]
    except (pydoc.ErrorDuringImport, TypeError, ValueError):
        return ()


def _all_arguments() -> set[str]:
    """Return the names of all arguments of the trainer and of the classes that a config of ours can name."""
    from lightning.pytorch import Trainer

    names: set[str] = set()
    for klass in (Trainer, *_classes()):
        try:
            names |= set(inspect.signature(klass).parameters)
        except (TypeError, ValueError):
            continue
    return names


def _classes() -> set[type]:
    """Return the classes that a config of ours can name."""
    from lightning.pytorch import Callback, LightningDataModule, LightningModule

    modules = [module for name, module in list(sys.modules.items()) if name.startswith("lit_")]
    classes: set[type] = {value for module in modules for value in vars(module).values() if inspect.isclass(value)}
    classes |= _subclasses(LightningModule) | _subclasses(LightningDataModule) | _subclasses(Callback)
    return {klass for klass in classes if not klass.__module__.startswith(("lightning.", "torch"))}


def _subclasses(klass: type) -> set[type]:
    direct: set[type] = set(klass.__subclasses__())
    return direct.union(*(_subclasses(child) for child in direct))
