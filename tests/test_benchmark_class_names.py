"""The benchmark of class names: which captions have a name, across inflection and scripts."""

import pytest
from datasets import Dataset, DatasetDict

from rsmclip.benchmarks.class_names import captions_by_class, count_name, print_tables
from rsmclip.core.errors import UserError
from rsmclip.data.schema import features


@pytest.mark.parametrize(
    ("language", "name", "with_name", "without"),
    [
        ("en", "a storage tank", "Many storage tanks stand there.", "Many tanks stand there."),
        ("de", "kahle Fläche", "Ein Haus auf einer kahlen Fläche.", "Ein kahles Feld."),
        ("pt", "área úmida", "Duas áreas úmidas.", "Uma área verde."),
        ("it", "parco", "Molti parchi", "Un parcheggio."),
        ("ru", "плотно застроенный жилой район", "В плотно застроенном жилом районе", "В жилом районе"),
        ("ru", "парк", "Пруд в парке.", "Много машин на парковке."),
        ("zh", "操场", "一个操场靠近道路。", "一个广场靠近道路。"),
        ("ko", "밀집 주거 지역", "밀집된 주거 지역에 건물이 많다.", "주거 지역에 건물이 많다."),
    ],
)
def test_a_name_is_found_in_other_forms_but_not_in_other_words(language, name, with_name, without):
    count = count_name("label", name, [with_name, without], language)
    assert (count.captions, count.whole) == (2, 1)


def corpus(label: str) -> DatasetDict:
    image = {"bytes": b"", "path": None}
    captions = {"en": ["A port.", "A port.", "Boats."], "pt": ["Um porto.", None, "Barcos."]}
    row = {"image": image, "image_id": "a", "source": "s", "label": label, "captions": captions}
    other = row | {"image_id": "b", "label": None}
    return DatasetDict(train=Dataset.from_list([row, other], features=features(["en", "pt"])))


def test_equal_captions_of_a_class_count_once():
    found = captions_by_class(corpus("port")["train"])
    assert found["en"]["port"] == {"A port.", "Boats."} and found["pt"]["port"] == {"Um porto.", "Barcos."}


def test_the_tables_have_the_languages_and_classes_with_captions(tmp_path, capsys):
    corpus("port").save_to_disk(tmp_path)
    print_tables(str(tmp_path), "rsicd")
    printed = capsys.readouterr().out
    assert "## en" in printed and "## pt" in printed and "## fr" not in printed
    assert "| port | porto | 2 | 1 | porto 1 |" in printed and printed.count("| port |") == 2


def test_labels_of_another_dataset_are_refused(tmp_path):
    corpus("harbour").save_to_disk(tmp_path)
    with pytest.raises(UserError, match="'harbour'.*'rsicd'"):
        print_tables(str(tmp_path), "rsicd")
