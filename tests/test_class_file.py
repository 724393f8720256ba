"""Class files: YAML and CSV give the same classes, texts stay texts, a mistake is one line that names its place."""

import time
import unicodedata

import pytest

from rsmclip.core.errors import UserError
from rsmclip.core.languages import LANGUAGES
from rsmclip.eval.class_file import read_class_file, skeleton
from rsmclip.eval.protocol import load_prompts

NAMES = {"pt": {"a": "rio, lago", "b": "floresta"}, "ko": {"a": "강", "b": "숲"}}
SAME = {
    "bare.yaml": "a: {pt: 'rio, lago', ko: 강}\nb: {pt: floresta, ko: 숲}\n",
    "block.yml": "a:\n  pt: rio, lago\n  ko: 강\nb:\n  ko: 숲\n  pt: floresta\n",
    "long.YAML": "classes:\n  a: {pt: 'rio, lago', ko: 강}\n  b: {pt: floresta, ko: 숲}\n",
    "comma.csv": 'folder,pt,ko\na,"rio, lago",강\n\nb,floresta,숲\n,,\n',
    "bom.csv": '\ufefffolder,pt,ko\r\na,"rio, lago",강\r\nb,floresta,숲\r\n',
    "semicolon.CSV": "folder; pt; ko\na; rio,  lago; 강\nb; floresta; 숲",
    "tab.csv": "folder\tpt\tko\na\trio, lago\t강\nb\tfloresta\t숲\n",
}


@pytest.fixture
def read(tmp_path):
    """Read a class file with a text for the class folders `a` and `b`."""

    def read_text(text: str | bytes, labels=("a", "b"), name: str = "classes.yaml", **options):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_class_file(path, labels, **options)

    return read_text


@pytest.mark.parametrize("name", SAME)
def test_yaml_and_csv_give_the_same_classes_with_the_templates_of_the_prompt_set(name, read):
    benchmark, notes = read(SAME[name], name=name)
    assert (benchmark.name, benchmark.labels, benchmark.class_names) == (name, ["a", "b"], NAMES)
    assert benchmark.templates == {code: load_prompts("small")[code] for code in ("pt", "ko")}
    assert benchmark.prompts == "small" and notes == []


def test_numbers_booleans_and_dates_of_yaml_are_texts(read):
    text = "007: {pt: 1e3}\nyes: {pt: 2020-01-01}\nnull: {pt: 'null'}\n<<: {pt: no}\n1:30: {pt: '{}'}"
    benchmark, _ = read(text, labels=["007", "yes", "null", "<<", "1:30"])
    assert benchmark.class_names == {
        "pt": {"007": "1e3", "yes": "2020-01-01", "null": "null", "<<": "no", "1:30": "{}"}
    }


@pytest.mark.parametrize(
    "name, text",
    [
        ("c.yaml", "a: {pt: rio, ko: 강, it: '', es: ~, fr: '  '}\nb: {pt: mata, it: bosco, es: null, fr: bois}"),
        ("c.csv", "folder;pt;ko;it;es;fr\na;rio;강;;;\nb;mata;;bosco;;bois"),
    ],
)
def test_a_language_without_a_name_for_each_class_is_left_out_with_a_note(name, text, read):
    benchmark, notes = read(text, name=name)
    assert list(benchmark.class_names) == list(benchmark.templates) == ["pt"]
    assert notes == [
        f"No zero-shot figures in ko: {name} has no name for 'b'.",
        f"No zero-shot figures in it, fr: {name} has no name for 'a'.",
        f"No zero-shot figures in es: {name} has no name for 'a' and 1 more.",
    ]


def test_languages_are_chosen_and_all_others_are_not_mentioned(read):
    text = "a: {pt: rio, ko: 강, it: ''}\nb: {pt: mata, ko: 숲, it: ''}"
    benchmark, notes = read(text, languages=["ko"])
    assert list(benchmark.class_names) == ["ko"] and notes == []
    benchmark, (note,) = read(text, languages=["en", "pt"])
    assert list(benchmark.class_names) == ["pt"] and "en" in note
    with pytest.raises(UserError, match="in en, de: classes.yaml has no name for 'a' and 1 more"):
        read(text, languages=["en", "de"])


def test_templates_of_the_file_come_before_the_prompt_set(read):
    text = "classes:\n  a: {sw: mto, pt: rio, en: river}\n  b: {sw: msitu, pt: mata, en: forest}\n"
    text += "templates: {sw: ['Picha: {}.'], pt: ['{} de cima']}"
    benchmark, notes = read(text)
    assert benchmark.templates == {"sw": ["Picha: {}."], "pt": ["{} de cima"], "en": load_prompts("small")["en"]}
    assert benchmark.prompts == "own, small" and notes == []
    assert read(text, languages=["sw"], prompts="en3")[0].prompts == "own"
    benchmark, (note,) = read("a: {sw: mto, pt: rio}\nb: {sw: msitu, pt: mata}")
    assert list(benchmark.templates) == ["pt"] and "sw" in note and "'small'" in note
    with pytest.raises(UserError, match="pt.*'en3'"):
        read("a: {pt: rio}\nb: {pt: mata}", prompts="en3")


def test_a_class_without_a_folder_remains_and_a_folder_without_a_class_is_named(read):
    assert read("a: {pt: rio}\nc: {pt: mar}\nb: {pt: mata}")[0].labels == ["a", "c", "b"]
    with pytest.raises(UserError, match="'Dense Forest'.*classes.yaml.*'dense_forest'"):
        read("a: {pt: rio}\ndense_forest: {pt: mata}", labels=["a", "Dense Forest"])
    with pytest.raises(UserError, match="'a-'.*'a[+]?'"):  # two classes where case and punctuation do not count
        read("a+: {pt: rio}\na: {pt: mata}", labels=["a+", "a-"])


def test_folders_of_macos_agree_with_composed_letters(read):
    on_disk = unicodedata.normalize("NFD", "água")
    benchmark, _ = read("água: {pt: água}\nb: {pt: mata}", labels=[on_disk, "b"])
    assert on_disk != "água" and benchmark.labels == [on_disk, "b"]
    assert benchmark.class_names["pt"] == {on_disk: "água", "b": "mata"}


def test_folders_may_have_the_names_of_keys(read):
    text = "classes: {pt: turmas}\ntemplates: {pt: modelos}"
    assert read(text, labels=["classes", "templates"])[0].class_names["pt"]["classes"] == "turmas"


@pytest.mark.parametrize(
    "text, named",
    [
        ("", "no class folders"),
        ("- a\n- b", "no class folders"),
        ("a: rio\nb: mata", "'a'"),
        ("a: {pt: rio}\nb:", "'b'"),
        ("a: {}\nb: {pt: mata}", "'a'"),
        ("a: {pt: [rio]}\nb: {pt: mata}", "'a'"),
        ("a: {pt: rio}\na: {pt: mata}", "line 2.*'a'"),
        ("a: {pt: rio, pt: lago}", "line 1.*'pt'"),
        ("a: {pt: rio, lago}", "line 1.*'lago'"),
        ("a:\n\tpt: rio", "line 2"),
        ("a: {pt: rio}\n---\nb: {pt: mata}", "line 2"),
        ("a: &a {pt: *a}", "line 1"),
        ("? [a]\n: {pt: rio}", "line 1"),
        ('a: {pt: "\\ud800"}', "line 1"),
        ("a: {pt: rio\0}", "not valid YAML"),
        ("{" * 5000, "not valid YAML"),
        ("a: {pt: " + 5_000_000 * "x" + "}", "4 MB"),
        ("a: !!python/object/apply:os.getcwd []", "'a'"),
        ("a: {Portuguese: rio}", "'a'.*'Portuguese'"),
        ("a: {mean: rio}", "'mean'"),  # the name of the figures over all languages
        ("a: {pt/..: rio}", "'pt/..'"),
        ("a: {pt: rio}\nb: {pt: ' rio '}", "'a' and 'b'.*pt.*'rio'"),
        ("classes: {a: {pt: rio}, b: {pt: mata}}\ntemplate: {}", "'template'"),
        ("classes: {a: {pt: rio}, b: {pt: mata}}\ntemplates: {pt: '{}.'}", "templates"),
        ("classes: {a: {pt: rio}, b: {pt: mata}}\ntemplates: {pt: []}", "templates"),
        ("classes: {a: {pt: rio}, b: {pt: mata}}\ntemplates: {pt: ['{}.', 'Imagem.']}", "'pt'.*'Imagem.'"),
        ("classes: {a: {pt: rio}, b: {pt: mata}}\ntemplates: {pr: ['{}.']}", "'pr'"),
        ("a: {pt: água}".encode("latin-1"), "UTF-8"),
    ],
)
def test_a_mistake_in_yaml_is_named(text, named, read):
    with pytest.raises(UserError, match=f"classes.yaml.*{named}") as raised:
        read(text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text, named",
    [
        ("", "folder,pt,ko"),
        ("a,rio\nb,mata", "line 1.*folder,pt,ko"),
        ("folder,pt,pt\na,rio,lago", "line 1"),
        ("folder\na\nb", "line 1"),
        ("folder,pt\n", "no classes"),
        ("folder,Português\na,rio", "line 1.*'Português'"),
        ("folder,pt\na,rio, lago\nb,mata", "line 2.*3 fields.*','"),
        ("folder;pt;ko\na;rio\nb;mata;숲", "line 2.*2 fields.*';'"),
        ("folder,pt\na,rio\n\na,mata", "line 4.*'a'"),
        ("folder,pt\n,rio\nb,mata", "line 2.*no name"),
        ('folder,pt\na,"rio\nb,mata', "CSV"),
        ("folder,ko\na,강\nb,숲".encode("cp949"), "UTF-8"),
        ("folder,ko\na,강\nb,숲".encode("utf-16"), "UTF-8"),
    ],
)
def test_a_mistake_in_csv_is_named(text, named, read):
    with pytest.raises(UserError, match=f"classes.csv.*{named}") as raised:
        read(text, name="classes.csv")
    assert "\n" not in str(raised.value)


def test_files_of_other_kinds_and_missing_files_are_named(read, tmp_path):
    with pytest.raises(UserError, match="classes.txt.*.yaml, .yml or .csv"):
        read("a: {pt: rio}", name="classes.txt")
    for name in ("no.csv", "no.yaml"):
        with pytest.raises(UserError, match=name):
            read_class_file(tmp_path / name, ["a"])


def test_aliases_that_multiply_are_refused_at_once(read):
    lines = [f"x{n}: &x{n} {{<<: [{', '.join([f'*x{n - 1}'] * 9)}]}}" for n in range(1, 30)]
    start = time.perf_counter()
    with pytest.raises(UserError, match="'x1'"):
        read("x0: &x0 {pt: rio}\n" + "\n".join(lines))
    assert time.perf_counter() - start < 5


def test_the_skeleton_of_any_folder_is_a_class_file(read):
    odd = r"""007 no null ~ << = ? ! _ 1:30 it's:a#1 "q" - {} [x &a *a !t %d @ ` \ $x$ 숲 🌲 classes templates"""
    labels = [*odd.split(), "a\nb", " x: ", "# y", "x" * 200, "aGrass", "DenseResidential"]
    benchmark, (note,) = read(skeleton(labels), labels=labels)
    assert set(benchmark.labels) == set(labels) and ", ".join(LANGUAGES[1:]) in note
    names = benchmark.class_names["en"]
    assert (names["aGrass"], names["DenseResidential"], names["007"]) == ("grass", "dense residential", "007")


def test_the_skeleton_has_a_place_for_each_language(read):
    filled = skeleton(["a", "b"]).replace("  ko:\n", "  ko: 강\n", 1).replace("  ko:\n", "  ko: 숲\n")
    benchmark, _ = read(filled)
    assert benchmark.class_names == {"en": {"a": "a", "b": "b"}, "ko": {"a": "강", "b": "숲"}}
