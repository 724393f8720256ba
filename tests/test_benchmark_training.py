"""The training benchmark: its arithmetic, what it counts, and what it measures on a real small run."""

import json
import re
import sys
import time
from pathlib import Path

import pytest
import torch

from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.benchmarks.stages import Clock
from rsmclip.benchmarks.training import check_same_size, published_command
from rsmclip.benchmarks.training_tables import as_markdown
from rsmclip.benchmarks.training_worker import count_flops
from rsmclip.benchmarks.turns import Side, alternate, ratio, summarise

ROOT = Path(__file__).parent.parent
ECHO = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"seconds": float(request["steps"]), "waited": 0.5, "by": sys.argv[1]}), flush=True)
"""


def product(m: int, n: int, k: int) -> int:
    """Operations of a matrix product: a multiplication and an addition for each of m·n·k."""
    return 2 * m * n * k


def layer_flops(rows: int, length: int, width: int, inner: int) -> int:
    """Forward operations of a transformer layer: four projections, two products of attention, two of the MLP."""
    tokens = rows * length
    attention = rows * 2 * product(length, length, width)  # over all heads, whose widths add up
    return 4 * product(tokens, width, width) + attention + 2 * product(tokens, width, inner)


def test_counted_operations_are_those_of_a_count_by_hand():
    config = RSMCLIPConfig(
        projection_dim=16,
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8,
        },
        text_config={
            "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3,
            "vocab_size": 50, "max_position_embeddings": 20,
        },
        self_distillation=None,
    )  # fmt: skip
    model, batch, length = RSMCLIPModel(config), 5, 7
    ids = torch.randint(4, 50, (batch, length))
    pixels = torch.rand(batch, 3, 32, 32)
    counted = count_flops(lambda: model(ids, pixels, torch.ones_like(ids), return_loss=True).loss.backward())

    patches, text_hidden = 16, (24 + 16) // 2
    image = 3 * layer_flops(batch, patches + 1, 32, 64) + product(batch, 16, 32)
    text = 2 * layer_flops(batch, length, 24, 40) + product(batch, text_hidden, 24) + product(batch, 16, text_hidden)
    logits = product(batch, batch, 16)
    embedding = product(batch * patches, 32, 3 * 8 * 8)
    # Backward takes twice the forward: a gradient for each factor. Pixels need none.
    assert counted == 3 * (image + text + logits) + 2 * embedding


def test_rates_and_ratios_are_medians_of_the_rounds():
    ours = summarise([{"seconds": s, "waited": w} for s, w in ((2.0, 0.5), (4.0, 0.0), (1.0, 0.2))], pairs=8)
    theirs = summarise([{"seconds": s, "waited": 0.0} for s in (4.0, 4.0, 4.0)], pairs=8)
    assert ours == {"pairs_per_second": 4.0, "turns": [4.0, 2.0, 8.0], "waited_percent": 10.0}
    assert ratio(ours, theirs) == {"median": 2.0, "smallest": 1.0, "largest": 4.0}


def test_sides_take_turns_and_an_ended_side_is_named(tmp_path: Path):
    with (
        Side("a", [sys.executable, "-c", ECHO, "a"], tmp_path) as a,
        Side("b", [sys.executable, "-c", ECHO, "b"], tmp_path) as b,
    ):
        found = alternate([a, b], rounds=2, settle=1, steps=4, pairs=3)
    assert found["a"]["turns"] == found["b"]["turns"] == [3.0, 3.0]
    assert a.process.returncode == b.process.returncode == 0
    message = "process of c ended with status 1: ValueError: no such model"
    failing = [sys.executable, "-c", "raise ValueError('no such model')"]
    with Side("c", failing, tmp_path) as c, pytest.raises(OSError, match=message):
        c.ask("steps")


def test_a_stage_inside_another_is_charged_once():
    clock = Clock(synchronise=lambda: None)
    inner = clock.around("inner", time.sleep)
    began = time.perf_counter()
    with clock.stage("outer"):
        inner(0.05)
        time.sleep(0.02)
    passed = time.perf_counter() - began
    assert clock.seconds["inner"] >= 0.05
    assert clock.seconds["outer"] >= 0.02
    assert sum(clock.seconds.values()) <= passed


def test_different_architectures_are_not_compared():
    check_same_size({"ours": 10, "openclip": 10})
    with pytest.raises(ValueError, match="different models"):
        check_same_size({"ours": 10, "openclip": 11})


def test_the_command_names_no_folder_of_this_machine():
    given = ["compare", "--corpus", "/data/x", "--tokenizer=/data/y", "--output", "z.json", "--threads", "2"]
    shown = "python -m rsmclip.benchmarks.training compare --corpus DIR --tokenizer=DIR --output FILE --threads 2"
    assert published_command(given) == shown


def test_the_tables_of_the_documentation_are_those_of_the_results():
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    shown = re.findall(r"<!-- table: (\S+) -->\n(.*?)\n<!-- /table -->", text, re.DOTALL)
    assert shown
    for file, table in shown:
        assert table == as_markdown(json.loads((ROOT / file).read_text(encoding="utf-8"))), file


def test_a_file_of_other_results_has_no_table():
    with pytest.raises(ValueError, match="it has no part 'pairs'"):
        as_markdown({"pairs": {}})
