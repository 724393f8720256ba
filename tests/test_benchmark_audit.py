"""The benchmark of the audit runs on a small corpus."""

from argparse import Namespace

from rsmclip.benchmarks import audit


def test_speed_is_measured_on_more_images_than_the_corpus_has(corpus_folder):
    """The corpus has 114 rows, so 120 images are parts of its pictures."""
    runs = audit.speed(Namespace(corpus=corpus_folder, images=[120]))["runs"]
    assert len(runs) == 1 and runs[0]["images"] == 120 and runs[0]["parts"]
    assert runs[0]["seconds"] > 0 and runs[0]["peak_bytes"] > 0
