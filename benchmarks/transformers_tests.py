"""Run the tests that transformers runs on its own models (`ModelTesterMixin`) on RS-M-CLIP.

    pip install parameterized
    pip download transformers==$(python -c "import transformers; print(transformers.__version__)") \
        --no-deps --no-binary transformers --no-build-isolation --dest sdist
    tar -xf sdist/transformers-*.tar.gz -C sdist
    python -m rsmclip.benchmarks.transformers_tests sdist/transformers-*/tests --output FILE.json

The source distribution lacks two modules that `test_modeling_common.py` imports: tests of the export to other formats
and of text generation. Empty classes stand in for them.
"""

import argparse
import importlib
import json
import os
import sys
import unittest
from pathlib import Path
from types import ModuleType

import torch

from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.benchmarks.machine import describe_run

PACKAGE = "transformers_tests"  # the folder's own name, `tests`, is that of our tests
LACKING = {"exporters.test_export": "ExportTesterMixin", "generation.test_utils": "GenerationTesterMixin"}
TOWER = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = TOWER | {"image_size": 30, "patch_size": 10}
TEXT = TOWER | {"vocab_size": 99, "max_position_embeddings": 64, "pad_token_id": 1}
HEAD = {"hidden_size": 32, "bottleneck_size": 16, "num_prototypes": 24}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

# Tests that transformers leaves out for CLIP and AltCLIP too, because they need one sequence of hidden states.
NOT_OF_TWO_TOWERS = {
    "test_attention_outputs": "attentions are in the outputs of the towers",
    "test_hidden_states_output": "hidden states are in the outputs of the towers",
    "test_retain_grad_hidden_states_attentions": "hidden states are in the outputs of the towers",
    "test_inputs_embeds": "the two towers have different inputs",
    "test_inputs_embeds_matches_input_ids": "the two towers have different inputs",
    "test_model_get_set_embeddings": "the two towers have embeddings of their own",
}


class ModelTester:
    """Configuration and inputs of a tiny model, as `ModelTesterMixin` asks for them."""

    is_training, batch_size, seq_length, num_hidden_layers = True, 4, 7, 2

    def __init__(self, head: dict | None):
        self.head = head

    def get_config(self) -> RSMCLIPConfig:
        towers = {"vision_config": VISION, "text_config": TEXT | NO_DROPOUT}
        return RSMCLIPConfig(**towers, projection_dim=16, self_distillation=self.head)

    def prepare_config_and_inputs_for_common(self) -> tuple[RSMCLIPConfig, dict]:
        ids = torch.randint(4, TEXT["vocab_size"], (self.batch_size, self.seq_length))
        pixels = torch.rand(self.batch_size, 3, VISION["image_size"], VISION["image_size"])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
        return self.get_config(), inputs | {"return_loss": True}


def load_common_tests(folder: Path) -> ModuleType:
    for name, parts in [(PACKAGE, [str(folder)]), *((f"{PACKAGE}.{name.split('.')[0]}", []) for name in LACKING)]:
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = parts
    for name, mixin in LACKING.items():
        module = sys.modules[f"{PACKAGE}.{name}"] = ModuleType(f"{PACKAGE}.{name}")
        setattr(module, mixin, type(mixin, (), {}))
    return importlib.import_module(f"{PACKAGE}.test_modeling_common")


def make_test_case(common: ModuleType) -> type[unittest.TestCase]:
    class RSMCLIPModelTest(common.ModelTesterMixin, unittest.TestCase):
        all_model_classes = (RSMCLIPModel,)
        additional_model_inputs = ("pixel_values",)
        _is_composite = True
        test_resize_embeddings = False
        test_can_init_all_missing_weights_before_2023 = True  # otherwise left out

        def setUp(self):
            # The contrastive loss has no gradient for the head.
            self.model_tester = ModelTester(None if "training" in self._testMethodName else HEAD)
            if reason := NOT_OF_TWO_TOWERS.get(self._testMethodName):
                self.skipTest(reason)

    return RSMCLIPModelTest


class Outcomes(unittest.TextTestResult):
    """Names of the tests that passed; reasons of those that were skipped, and last lines of those that failed."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.passed: list[str] = []

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self.passed.append(method_name(test))

    def described(self) -> dict:
        failed = {method_name(test): text.strip().splitlines()[-1] for test, text in self.failures + self.errors}
        skipped = {method_name(test): reason for test, reason in self.skipped if method_name(test) not in failed}
        counts = {"passed": len(self.passed), "failed": len(failed), "skipped": len(skipped)}
        return counts | {"failures": failed, "reasons": skipped, "tests": sorted(self.passed)}


def method_name(test: unittest.TestCase) -> str:
    return getattr(test, "test_case", test)._testMethodName  # of the test that a part (`subTest`) belongs to


def main() -> None:
    """Run the tests, and print and write their outcomes."""
    parser = argparse.ArgumentParser(prog="python -m rsmclip.benchmarks.transformers_tests", description=__doc__)
    parser.add_argument("tests", type=Path, help="folder tests of the source distribution of transformers")
    parser.add_argument("--only", default="test_", help="beginning of the names of the tests to run")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    case = make_test_case(load_common_tests(arguments.tests))
    names = [name for name in unittest.TestLoader().getTestCaseNames(case) if name.startswith(arguments.only)]
    suite = unittest.TestSuite(map(case, names))
    results = unittest.TextTestRunner(resultclass=Outcomes, verbosity=2).run(suite).described()
    command = "python -m rsmclip.benchmarks.transformers_tests sdist/transformers-*/tests"
    described = describe_run(command, "torch", "transformers") | results
    print(json.dumps(described, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(described, indent=2) + "\n")


if __name__ == "__main__":
    main()
