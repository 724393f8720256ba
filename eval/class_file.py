"""Class names of a user's own folders: `rsmclip eval MODEL --zero_shot NAME=FOLDER --classes FILE`.

A YAML file has the names of each class folder by language. It may also have templates:

    aGrass: {pt: relva, ko: 초원}                  classes:
    dRiverLake: {pt: rio ou lago, ko: 강}            aGrass: {sw: nyasi}
                                                     dRiverLake: {sw: mto au ziwa}
                                                   templates:
                                                     sw: ['Picha ya setilaiti: {}.']

A CSV file has the header `folder,pt,ko` and a line for each class folder. `rsmclip eval classes FOLDER` prints a YAML
file to fill in.
"""

import argparse
import csv
import io
import re
import sys
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import yaml

from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import has_type
from rsmclip.core.languages import LANGUAGES
from rsmclip.eval.image_folder import bare, english_names, is_unicode, nearest, read_image_folder
from rsmclip.eval.protocol import DEFAULT_PROMPTS, Benchmark, load_prompts

LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")  # a tag of BCP 47: pt, pt-BR, zh-Hant
LARGEST_FILE = 4 * 2**20  # bytes; PyYAML reads about 1 MB in ten seconds
NULLS = ("", "~", "null", "Null", "NULL")  # in YAML, without quotes

HEAD = """\
# Names of the classes by language. English names are made from folder names: correct or delete them.
# A language is evaluated if it has a name for each class. Other languages than these need templates.
"""

Names = dict[str, dict[str, str]]  # class folder to language code to name, "" if there is none
Templates = dict[str, list[str]]  # language code to templates


def read_class_file(
    path: Path, labels: Iterable[str], languages: Sequence[str] | None = None, prompts: str = DEFAULT_PROMPTS
) -> tuple[Benchmark, list[str]]:
    """
    Read the classes of a folder of images from a YAML or CSV file. Classes without a folder remain candidates.

    Args:
        path (`Path`): The file.
        labels (`Iterable[str]`): Names of the class folders.
        languages (`Sequence[str]`, *optional*): Language codes; by default all of the file.
        prompts (`str`, *optional*, defaults to `"small"`): Set of `eval/prompts.yaml`, for languages without templates
            in the file.

    Returns:
        `tuple[Benchmark, list[str]]`: The classes in every language that has templates and a name for each class, and
            notes about the other languages.

    Raises:
        [`UserError`]: The file cannot be read or lacks a folder, two classes have the same name, or no language has
            templates and a name for each class.
    """
    names, own = read_csv(path) if path.suffix.lower() == ".csv" else read_yaml(path)
    check_names(names, own, path)
    names = spelled_like(sorted(set(labels)), names, path)
    templates = load_prompts(prompts) | own

    # Leave out languages without names or templates. Languages with the same reason share a note.
    used: list[str] = []
    left_out: dict[str, list[str]] = {}
    for code in languages or languages_of(names):
        if unnamed := [folder for folder in names if not names[folder].get(code)]:
            others = f" and {len(unnamed) - 1} more" if len(unnamed) > 1 else ""
            left_out.setdefault(f"{path.name} has no name for {unnamed[0]!r}{others}", []).append(code)
        elif code not in templates:
            left_out.setdefault(f"neither {path.name} nor prompt set {prompts!r} has templates", []).append(code)
        else:
            used.append(code)
    notes = [f"No zero-shot figures in {', '.join(codes)}: {reason}." for reason, codes in left_out.items()]
    if not used:
        raise UserError(" ".join(notes))

    class_names = {code: {folder: names[folder][code] for folder in names} for code in used}
    sources = ", ".join(dict.fromkeys("own" if code in own else prompts for code in used))
    return Benchmark(path.name, list(names), class_names, {code: templates[code] for code in used}, sources), notes


def spelled_like(labels: list[str], names: Names, path: Path) -> Names:
    # macOS decomposes the letters of folder names: é has two characters. `read_text` composes those of the file.
    on_disk = {unicodedata.normalize("NFC", label): label for label in labels}
    names = {on_disk.get(folder, folder): translations for folder, translations in names.items()}
    if missing := [label for label in labels if label not in names]:
        closest = nearest(missing[0], {bare(folder): folder for folder in names})
        raise UserError(f"class folder {missing[0]!r} is not in {path}; the nearest class there is {closest!r}")
    return names


def check_names(names: Names, templates: Templates, path: Path) -> None:
    if not names:
        raise UserError(f"{path} has no classes")
    for code in languages_of(names):
        folder_of: dict[str, str] = {}
        for folder in names:
            name = names[folder].get(code)
            if name and (first := folder_of.setdefault(name, folder)) != folder:
                raise UserError(f"{path}: classes {first!r} and {folder!r} have the same name in {code}: {name!r}")
    if unused := [code for code in templates if code not in languages_of(names)]:
        raise UserError(f"{path} has templates in {unused[0]!r}, but no class names in {unused[0]!r}")


def languages_of(names: Names) -> list[str]:
    return list(dict.fromkeys(code for translations in names.values() for code in translations))


def read_text(path: Path) -> str:
    with user_errors(OSError, UnicodeDecodeError, prefix=f"{path} cannot be read as text in UTF-8"):
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path} has more than {LARGEST_FILE // 2**20} MB: is it a file of classes?")
        return unicodedata.normalize("NFC", path.read_bytes().decode("utf-8-sig"))


def read_csv(path: Path) -> tuple[Names, Templates]:
    text = read_text(path)
    delimiter = next((mark for mark in ",;\t" if mark in text.partition("\n")[0]), ",")  # spreadsheets differ in it
    with user_errors(csv.Error, prefix=f"{path} cannot be read as CSV"):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        lines = [(f"{path}, line {reader.line_num}", [cell.strip() for cell in cells]) for cells in reader]
    (first, header), *lines = [(place, cells) for place, cells in lines if any(cells)] or [(str(path), [""])]
    if header[0] != "folder" or len(set(header)) < len(header):
        raise UserError(f"{first} must be 'folder' and language codes, each once, such as folder,pt,ko")
    check_languages(header[1:], first)

    names: Names = {}
    for place, (folder, *cells) in lines:
        if len(cells) + 1 != len(header):
            counts = f"{len(cells) + 1} fields instead of {len(header)}"
            raise UserError(f"{place} has {counts}; write a name with {delimiter!r} in double quotes")
        if not folder or folder in names:
            raise UserError(f"{place}: folder {folder!r} {'occurs twice' if folder else 'has no name'}")
        names[folder] = clean_names(dict(zip(header[1:], cells, strict=True)))
    return names, {}


class TextLoader(yaml.BaseLoader):
    """Read scalars as text: `no` is a language, `007` a folder. Null becomes "". A key may not occur twice."""

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        if not is_unicode(node.value):
            raise yaml.constructor.ConstructorError(None, None, f"{node.value!r} is not Unicode", node.start_mark)
        return super().construct_scalar(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        mapping, seen = super().construct_mapping(node, deep), set()
        for key, value in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} occurs twice", key.start_mark)
            seen.add(key.value)
            if isinstance(value, yaml.ScalarNode) and value.style is None and value.value in NULLS:
                if node.flow_style and not value.value:  # {pt: rio, lago} has two keys
                    hint = f"{key.value!r} has no value; put a name with a comma in quotes"
                    raise yaml.constructor.ConstructorError(None, None, hint, key.start_mark)
                mapping[key.value] = ""
        return mapping


def read_yaml(path: Path) -> tuple[Names, Templates]:
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise UserError(f"{path} must be a file that ends in .yaml, .yml or .csv")
    text = read_text(path)
    with user_errors(yaml.YAMLError, RecursionError, prefix=f"{path} is not valid YAML"):
        try:
            content = TextLoader(text).get_single_data()
        except yaml.MarkedYAMLError as error:  # its own message has several lines
            raise UserError(f"{path}, line {error.problem_mark.line + 1}: {error.problem}") from error
    if not content or not isinstance(content, dict):
        raise UserError(f"{path} has no class folders, such as aGrass: {{pt: relva, ko: 초원}}")

    # A folder may have the name `classes`. As the key above all folders, `classes` has a mapping of mappings.
    classes, templates = content.get("classes"), {}
    if isinstance(classes, dict) and any(isinstance(names, dict) for names in classes.values()):
        if unknown := sorted(content.keys() - {"classes", "templates"}):
            raise UserError(f"{path} has {unknown[0]!r} beside 'classes'; only 'templates' may be there")
        content, templates = classes, clean_templates(content.get("templates", {}), path)
    for folder, found in content.items():
        if not has_type(found, dict[str, str]):
            raise UserError(f"{path}: class {folder!r} needs names by language, such as {{pt: relva, ko: 초원}}")
        check_languages(found, f"{path}: class {folder!r}")
    return {folder: clean_names(found) for folder, found in content.items()}, templates


def check_languages(codes: Collection[str], place: str) -> None:
    if not codes:
        raise UserError(f"{place} has no language")
    if unknown := [code for code in codes if not LANGUAGE.fullmatch(code)]:
        raise UserError(f"{place}: {unknown[0]!r} is not a language code, such as pt or pt-BR")


def clean_names(names: dict[str, str]) -> dict[str, str]:
    return {code: " ".join(name.split()) for code, name in names.items()}


def clean_templates(templates: object, path: Path) -> Templates:
    if not has_type(templates, dict[str, list[str]]) or not all(templates.values()):
        raise UserError(f"{path}: templates must be lists of texts by language, such as {{pt: ['Imagem: {{}}.']}}")
    for code, texts in templates.items():
        if bad := [text for text in texts if text.count("{}") != 1]:
            raise UserError(f"{path}: a template needs exactly one {{}} for the class name; in {code!r}: {bad[0]!r}")
    return templates


class BlankDumper(yaml.SafeDumper):
    """Write `None` as nothing."""


BlankDumper.add_representer(type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", ""))


def skeleton(labels: Iterable[str]) -> str:
    """Return a YAML file of classes with English names made from the folder names, and places for other languages."""
    blank = dict.fromkeys(LANGUAGES)
    names = {label: blank | {"en": name} for label, name in english_names(labels).items()}
    return HEAD + yaml.dump(names, Dumper=BlankDumper, allow_unicode=True, sort_keys=False)


def run(arguments: argparse.Namespace) -> None:
    """Print the classes of a folder of images as a YAML file to fill in."""
    sys.stdout.reconfigure(encoding="utf-8")  # the encoding of class files, whatever the terminal has
    print(skeleton(read_image_folder(arguments.folder)["label"]), end="")
