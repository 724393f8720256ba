"""The dataset card: sources, counts, translations and faults of the build."""

import json

import pytest
from huggingface_hub import DatasetCard
from PIL import Image

from rsmclip.data.audit.remove import remove_rows
from rsmclip.data.build import build_corpus
from rsmclip.data.card import BuildReport, corpus_card, with_sections
from rsmclip.data.faults import Fault
from rsmclip.data.schema import features, load_corpus
from rsmclip.data.sources import open_source
from rsmclip.data.translation.translations import Translations
from rsmclip.data.write import write_corpus

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def report() -> BuildReport:
    """Three rows of two sources."""
    report = BuildReport()
    report.add("rsicd", "train", {"en": ["a road.", "one two three four five."], "pt": ["Uma estrada.", None]})
    report.add("rsicd", "test", {"en": ["a road.", "a field."], "pt": ["Uma estrada.", "Um campo."]})
    report.add("sydney", "train", {"en": ["a road."], "pt": [None]})
    return report


TRANSLATIONS = Translations(
    {"a road.": {"pt": "Uma estrada."}}, {"pt": {"accepted": 1, "empty": 3}}, "Unbabel/TowerInstruct-7B-v0.2", "abc123"
)


def make_card(report: BuildReport, tmp_path, translations: Translations = TRANSLATIONS) -> DatasetCard:
    return corpus_card([open_source("rsicd", tmp_path), open_source("sydney", tmp_path)], report, translations)


def test_the_card_has_sources_counts_translations_and_faults(report, tmp_path):
    report.faults.append(Fault("image missing", "rsicd/a", "RSICD_images/a.jpg"))
    text = make_card(report, tmp_path).text
    for line in (
        "| rsicd | none stated |",
        "| sydney | none stated |",
        "doi:10.1109/TGRS.2017.2776321",
        "doi:10.1109/CITS.2016.7546397",
        "| split | images | en | pt |",
        "| train | 2 | 3 | 1 |",
        "| test | 1 | 2 | 2 |",
        "rsicd 2, sydney 1.",
        "2 to 5 words, 2.6 on average",
        "`Unbabel/TowerInstruct-7B-v0.2`, revision `abc123`",
        "| pt | 4 | 1 | 25.0 | 3 |",
        "1 unusable rows (image missing: 1)",
    ):
        assert line in text
    assert "| val |" not in text


def test_the_card_distinguishes_translations_of_unknown_origin_from_none(report, tmp_path):
    unknown, none = Translations({}, TRANSLATIONS.counts), Translations()
    assert "unknown" in make_card(report, tmp_path, unknown).text
    assert "captions are in English" in make_card(report, tmp_path, none).text


def test_the_metadata_is_what_the_hub_reads(report, tmp_path):
    make_card(report, tmp_path).save(tmp_path / "README.md")
    data = DatasetCard.load(tmp_path / "README.md").data
    assert data.language == ["en", "pt"] and data.license == "other" and "remote-sensing" in data.tags


def test_a_section_is_replaced_or_added_and_the_others_stay():
    text = "# Title\n\n## A\n\none\n\n## B\n\ntwo\n\n### b\n\n## C\n\nthree\n"
    changed = with_sections(text, {"B": "new \\1", "C": "last"})
    assert changed == "# Title\n\n## A\n\none\n\n## B\n\nnew \\1\n\n## C\n\nlast\n"
    assert with_sections("# Title\n\ntext", {"B": "new"}) == "# Title\n\ntext\n\n## B\n\nnew\n"


def test_rows_are_removed_from_train_only_and_the_card_is_counted_again(tmp_path):
    root = tmp_path / "made"
    root.mkdir()
    lines = []
    for number, split in enumerate(("train", "train", "train", "test")):
        Image.new("RGB", (5, 5), (number, 0, 0)).save(root / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": "a road .", "split": split}))
    (root / "metadata.jsonl").write_text("\n".join(lines))
    folder = tmp_path / "out"
    build_corpus([open_source("imagefolder", str(root))], folder, Translations({"a road.": {"pt": "Uma estrada."}}))
    before = load_corpus(folder)
    remove_rows(folder, before, ["made/1", "made/3"], "1 row dropped.")

    after = load_corpus(folder)
    assert after["train"]["image_id"][:] == ["made/0", "made/2"] and after["test"]["image_id"][:] == ["made/3"]
    assert after["train"][1] == before["train"][2] and after["train"].features == before["train"].features
    card = DatasetCard.load(folder / "README.md")
    assert "| train | 2 | 2 | 2 |" in card.text and card.text.rstrip().endswith("## Leakage audit\n\n1 row dropped.")
    sizes = {split["name"]: split["num_examples"] for split in card.data.dataset_info["splits"]}
    assert sizes == {"train": 2, "test": 1}


def test_rows_of_a_corpus_made_elsewhere_can_be_removed(tmp_path):
    """Other names of splits, and captions that are null."""
    columns = features(["en", "pt"])
    rows = [
        {"image": None, "image_id": f"x/{n}", "source": "x", "label": None, "captions": captions}
        for n, captions in enumerate([None, {"en": None, "pt": None}, {"en": ["A."], "pt": [None]}])
    ]
    examples = [("train", row) for row in rows] + [("validation", rows[2] | {"image_id": "x/9"})]
    write_corpus(examples, columns, tmp_path / "out", False, lambda: DatasetCard("---\nlanguage: en\n---\n\n# X\n"))
    remove_rows(tmp_path / "out", load_corpus(tmp_path / "out"), ["x/2"], "Done.")
    after = load_corpus(tmp_path / "out")
    assert after["train"]["image_id"][:] == ["x/0", "x/1"] and after["validation"].num_rows == 1
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| validation | 1 | 1 | 0 |" in text and text.endswith("## Leakage audit\n\nDone.\n")
