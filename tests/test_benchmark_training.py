"""The training benchmark: its arithmetic, the operations that it counts, its clocks and its tables."""

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
from rsmclip.benchmarks.turns import Side, alternate, ratio, summarize
from rsmclip.core.errors import UserError

ROOT = Path(__file__).parent.parent
ECHO = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"seconds": float(request["steps"]), "waited": 0.5}), flush=True)
"""


def product(m: int, n: int, k: int) -> int:
    return 2 * m * n * k  # a multiplication and an addition


def layer_flops(rows: int, length: int, width: int, inner: int) -> int:
    """Count the forward operations of a layer: four projections, two products of attention, two of the MLP."""
    tokens = rows * length
    attention = rows * 2 * product(length, length, width)  # `width` is the sum over all heads
    return 4 * product(tokens, width, width) + attention + 2 * product(tokens, width, inner)


def test_counted_operations_equal_a_count_by_hand():
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    text = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
    config = RSMCLIPConfig(
        projection_dim=16,
        vision_config=vision | {"image_size": 32, "patch_size": 8},
        text_config=text | {"vocab_size": 50, "max_position_embeddings": 20},
        self_distillation=None,
    )
    model, batch, length = RSMCLIPModel(config), 5, 7
    ids = torch.randint(4, 50, (batch, length))
    pixels = torch.rand(batch, 3, 32, 32)
    counted = count_flops(lambda: model(ids, pixels, torch.ones_like(ids), return_loss=True).loss.backward())

    patches, text_hidden = 16, (24 + 16) // 2
    image = 3 * layer_flops(batch, patches + 1, 32, 64) + product(batch, 16, 32)
    text = 2 * layer_flops(batch, length, 24, 40) + product(batch, text_hidden, 24) + product(batch, 16, text_hidden)
    logits = product(batch, batch, 16)
    embedding = product(batch * patches, 32, 3 * 8 * 8)
    # Backward takes twice the operations of forward: a gradient for each factor. Pixels get no gradient.
    assert counted == 3 * (image + text + logits) + 2 * embedding


def test_rates_and_ratios_are_medians_of_the_rounds():
    ours = summarize([{"seconds": s, "waited": w} for s, w in ((2.0, 0.5), (4.0, 0.0), (1.0, 0.2))], pairs=8)
    theirs = summarize([{"seconds": s, "waited": 0.0} for s in (4.0, 4.0, 4.0)], pairs=8)
    assert ours == {"pairs_per_second": 4.0, "turns": [4.0, 2.0, 8.0], "waited_percent": 10.0}
    assert ratio(ours, theirs) == {"median": 2.0, "smallest": 1.0, "largest": 4.0}


def test_sides_take_turns_and_an_ended_side_is_named(tmp_path: Path):
    echo = [sys.executable, "-c", ECHO]
    with Side("a", echo, tmp_path) as a, Side("b", echo, tmp_path) as b:
        found = alternate([a, b], rounds=2, settle=1, steps=4, pairs=3)
    assert found["a"]["turns"] == found["b"]["turns"] == [3.0, 3.0]
    assert a.process.returncode == b.process.returncode == 0
    failing = [sys.executable, "-c", "raise ValueError('no such model')"]
    with Side("c", failing, tmp_path) as c, pytest.raises(UserError, match="c .*1: ValueError: no such model"):
        c.ask("steps")


def test_a_stage_inside_another_is_charged_once():
    clock = Clock(synchronize=lambda: None)
    inner = clock.around("inner", time.sleep)
    began = time.perf_counter()
    with clock.stage("outer"):
        inner(0.05)
        time.sleep(0.02)
    passed = time.perf_counter() - began
    assert clock.seconds["inner"] >= 0.05
    assert clock.seconds["outer"] >= 0.02
    assert sum(clock.seconds.values()) <= passed


def test_different_architectures_and_other_results_are_refused():
    check_same_size({"ours": 10, "openclip": 10})
    with pytest.raises(UserError, match="'openclip': 11"):
        check_same_size({"ours": 10, "openclip": 11})
    with pytest.raises(UserError, match="pairs"):
        as_markdown({"pairs": {}})


def test_the_published_command_names_no_local_folder():
    given = ["compare", "--corpus", "/data/x", "--tokenizer=/data/y", "--output", "z.json", "--threads", "2"]
    shown = "python -m rsmclip.benchmarks.training compare --corpus DIR --tokenizer=DIR --output FILE --threads 2"
    assert published_command(given) == shown


def test_the_tables_in_the_docs_equal_the_recorded_results():
    text = (ROOT / "docs" / "performance_figures.md").read_text(encoding="utf-8")
    shown = re.findall(r"<!-- table: (\S+) -->\n(.*?)\n<!-- /table -->", text, re.DOTALL)
    assert shown
    for file, table in shown:
        assert table == as_markdown(json.loads((ROOT / file).read_text(encoding="utf-8"))), file
