"""Read a [`TrainingConfig`] from a YAML file and the command line."""

import argparse
import json
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType
from typing import Literal, get_args, get_origin, get_type_hints

import yaml

from rsmclip.core.command_line import OneLineParser
from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import expand_home
from rsmclip.training.config import GROUPS, LENGTH, TrainingConfig, unknown_field

RECIPES = Path(__file__).parent.parent / "configs"
DEFAULT_RECIPE = "demo"
FORMER_FIELDS = ("run_card_examples",)  # in files of earlier runs, which can still be resumed


class ConfigParser(OneLineParser):
    """Parser with an option for every field, in groups."""

    def __init__(self, prog: str):
        super().__init__(
            prog=prog,
            usage="%(prog)s [--config FILE] [--field value …]",
            description="Train RS-M-CLIP. Every field of the configuration is an option.",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument(
            "--config",
            default=DEFAULT_RECIPE,
            metavar="FILE",
            help=f"YAML file with fields of the configuration, or a recipe of this package: {', '.join(recipes())}.",
        )
        hints = get_type_hints(TrainingConfig)
        for settings in GROUPS:
            group = self.add_argument_group(settings.title)
            for spec in fields(settings):
                default = spec.default if spec.default is not MISSING else spec.default_factory()
                kind = argument_type(hints[spec.name])
                group.add_argument(f"--{spec.name}", default=default, help=spec.metadata["help"], **kind)


class NullableList(argparse.Action):
    """Store the values of a list, or `None` for the only value `null`."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, None if values == [None] else values)


def argument_type(hint: type) -> dict:
    # Arguments of `add_argument` for the type of a field.
    if NoneType in get_args(hint):  # `null` as in YAML
        (hint,) = (choice for choice in get_args(hint) if choice is not NoneType)
        convert = argument_type(hint)["type"]
        null = {"action": NullableList} if get_origin(hint) is list else {}
        return argument_type(hint) | {"type": lambda text: None if text == "null" else convert(text)} | null
    if get_origin(hint) is Literal:  # `TrainingConfig` checks the value, also of a file
        return {"type": str, "metavar": "{" + ",".join(get_args(hint)) + "}"}
    if get_origin(hint) is list:
        kind = get_args(hint)[0]
        return {"type": kind, "nargs": "*", "metavar": kind.__name__.upper()}
    if hint is bool:
        return {"type": boolean, "nargs": "?", "const": True, "metavar": "BOOL"}
    return {"type": dictionary if hint is dict else hint, "metavar": "JSON" if hint is dict else hint.__name__.upper()}


def boolean(argument: str) -> bool:
    if argument.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, got {argument}")
    return argument.lower() == "true"


def dictionary(argument: str) -> dict:
    try:
        value = json.loads(argument)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"expected a JSON object, got {argument}")
    return value


def parse_config(arguments: list[str] | None = None, prog: str = "train.py") -> TrainingConfig:
    """
    Read the configuration from `--config FILE` (default: the demo's), then override it with `--field value` options.

    Args:
        arguments (`list[str]`, *optional*): Command line. By default that of the process.
        prog (`str`, *optional*, defaults to `"train.py"`): Name of the program in messages.

    Raises:
        [`UserError`]: A field of the file does not exist, or a value is not possible.
        `SystemExit`: The command line has a usage error, or `--help`.
    """
    parser = ConfigParser(prog)
    path = recipe_file(parser.parse_known_args(arguments)[0].config)
    parser.set_defaults(**dict.fromkeys(LENGTH, MISSING))  # to see which of them the command line has
    options = vars(parser.parse_known_args(arguments)[0])
    length = one_length({name: options[name] for name in LENGTH if options[name] is not MISSING}, "the command line")
    parser.set_defaults(**read_yaml(path) | length)
    namespace = vars(parser.parse_args(arguments))
    del namespace["config"]
    return TrainingConfig(**{name: value for name, value in namespace.items() if value is not MISSING})


def read_config(recipe: str | Path, **given: object) -> TrainingConfig:
    """
    Read the configuration from a recipe, and override it with other fields.

    Args:
        recipe (`str` or `Path`): Name of a recipe in `configs/`, or a YAML file.
        given: Fields of the configuration.

    Raises:
        [`UserError`]: A field does not exist, or a value is not possible.
    """
    check_names(given, "train_model")
    given = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    return TrainingConfig(**read_yaml(recipe_file(recipe)) | one_length(given, "train_model"))


def recipe_file(name: str | Path) -> Path:
    """Return the YAML file of a recipe in `configs/`, or `name` itself if it is the name of a file."""
    path = Path(expand_home(str(name)))
    return path if path.suffix or path.is_file() else RECIPES / f"{name}.yaml"


def recipes() -> list[str]:
    """Return the names of the recipes in `configs/`."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def one_length(values: dict, place: object) -> dict:
    # A length of the run clears the other one of the levels below: the file, and its base.
    given = [name for name in LENGTH if values.get(name) is not None]
    if len(given) > 1:
        raise UserError(f"{place} has {' and '.join(given)}: give one of them")
    return dict.fromkeys(LENGTH) | values if given else values


def read_yaml(path: Path, derived: tuple[Path, ...] = ()) -> dict:
    """
    Read the fields of a YAML file. The fields of the file that `base` names are the defaults.

    Args:
        path (`Path`): The file.
        derived (`tuple[Path, ...]`, *optional*): Files whose `base` led to this file, to detect a circle.

    Raises:
        [`UserError`]: The file does not exist, is not valid, or has a field that the configuration does not have.
    """
    with user_errors(OSError, prefix=f"{path} cannot be read"):
        is_file = path.is_file()
    if not is_file:
        raise UserError(f"no configuration file at {path}; recipes of this package: {', '.join(recipes())}")
    # PyYAML raises the last three kinds for a scalar that its tag does not fit: a date of month 13, `!!bool 3`.
    kinds = (OSError, yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError)
    with user_errors(*kinds, prefix=f"{path} is not valid YAML"):
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(values, dict):
        raise UserError(f"{path} must have fields and values, not a {type(values).__name__}")
    base = values.pop("base", None)
    if not isinstance(base, str | None):
        raise UserError(f"{path}: base is {base!r}, but must be the name of a file beside it")
    values = {name: value for name, value in values.items() if name not in FORMER_FIELDS}
    if "benchmark" in values:  # in files of earlier runs
        values["benchmarks"] = [name for name in [values.pop("benchmark")] if name]
    if values.get("mixed_precision") is False:
        values["mixed_precision"] = "no"  # YAML reads `no` as false
    if type(values.get("source_sampling")) in (int, float):
        values["source_sampling"] = str(values["source_sampling"])  # a temperature needs no quotes
    check_names(values, path)
    hints = get_type_hints(TrainingConfig)
    for name, value in values.items():
        if isinstance(value, str) and float in (hints[name], *get_args(hints[name])):
            with suppress(ValueError):  # `TrainingConfig` refuses other texts
                values[name] = float(value)  # YAML reads 3e-4 as text
    values = one_length(values, path)
    if base is None:
        return values
    if path in derived:
        raise UserError(f"{path} is its own base")
    return read_yaml(path.parent / expand_home(base), (*derived, path)) | values


def check_names(values: dict, place: object) -> None:
    # Raise for a field that the configuration does not have.
    known = [spec.name for spec in fields(TrainingConfig)]
    for name in values:
        if name not in known:
            raise UserError(f"{place}: {unknown_field(name, known)}")
