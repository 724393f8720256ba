"""Launches that are not supported are refused, and the command of a run can be repeated elsewhere."""

from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing as mp
from accelerate.utils import DistributedType
from torch.distributed.fsdp import StateDictType

from rsmclip.core.errors import UserError
from rsmclip.training.config import TrainingConfig
from rsmclip.training.processes import (
    check_environment,
    check_launch,
    choose_attention,
    make_accelerator,
    names_lost_peer,
    rerun_command,
)
from tests.process import loses_its_peer

FSDP = {"ACCELERATE_USE_FSDP": "true"}


def processes(
    device: str = "cuda",
    count: int = 2,
    precision: str = "bf16",
    kind: DistributedType = DistributedType.FSDP,
    version: int = 2,
    state: StateDictType = StateDictType.FULL_STATE_DICT,
) -> SimpleNamespace:
    """The facts about an accelerator that are checked."""
    plugin = SimpleNamespace(fsdp_version=version, state_dict_type=state)
    return SimpleNamespace(
        device=torch.device(device),
        num_processes=count,
        mixed_precision=precision,
        distributed_type=kind,
        state=SimpleNamespace(fsdp_plugin=plugin),
    )


@pytest.fixture
def launch(monkeypatch):
    """Set the environment variables of a launcher."""

    def set_variables(variables: dict[str, str]) -> None:
        monkeypatch.delenv(*FSDP, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


@pytest.mark.parametrize(
    ("variables", "accelerator", "adapter", "named"),
    [
        ({}, processes("cpu", precision="fp16"), False, "fp16.*bf16"),
        (FSDP, processes(precision="fp16"), False, "fp16.*FSDP"),
        (FSDP, processes("cpu", kind=DistributedType.MULTI_CPU), False, "FSDP.*cpu.yaml"),
        (FSDP, processes(version=1), False, "fsdp_version.*2"),
        (FSDP, processes(state=StateDictType.SHARDED_STATE_DICT), False, "fsdp_state_dict_type.*FULL_STATE_DICT"),
        (FSDP, processes(), True, "lora.*FSDP.*ddp.yaml"),
    ],
)
def test_launches_that_are_not_supported_are_refused(launch, variables, accelerator, adapter, named):
    launch(variables)
    with pytest.raises(UserError, match=named):
        check_launch(accelerator, adapter)


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("GRADIENT_ACCUMULATION_STEPS", "4", "STEPS is '4'.*--gradient_accumulation_chunks"),
        ("GRADIENT_ACCUMULATION_STEPS", "many", "STEPS is 'many'.*--gradient_accumulation_chunks"),
        ("USE_DEEPSPEED", "true", "DeepSpeed.*fsdp.yaml"),
        ("USE_MEGATRON_LM", "true", "Megatron_LM.*fsdp.yaml"),
        ("USE_PARALLELISM_CONFIG", "True", "Parallelism_config.*fsdp.yaml"),
        ("MIXED_PRECISION", "fp8", "'fp8'.*bf16"),
    ],
)
def test_variables_of_a_launcher_that_a_run_does_not_support_are_refused(monkeypatch, name, value, named):
    monkeypatch.setenv(f"ACCELERATE_{name}", value)
    with pytest.raises(UserError, match=named):
        make_accelerator(TrainingConfig())


def test_accumulation_over_one_step_is_accepted(monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    check_environment()


@pytest.mark.parametrize(
    ("variables", "accelerator", "adapter"),
    [
        ({}, processes("cpu", count=1, precision="no", kind=DistributedType.NO), True),
        ({}, processes(precision="fp16", kind=DistributedType.MULTI_GPU), True),
        (FSDP, processes(), False),
    ],
)
def test_supported_launches_are_accepted(launch, variables, accelerator, adapter):
    launch(variables)
    check_launch(accelerator, adapter)


def test_a_lost_peer_is_one_line(tmp_path):
    mp.spawn(loses_its_peer, (tmp_path,), nprocs=2)
    line = (tmp_path / "error.txt").read_text()
    assert "process 0" in line and "--resume_from_checkpoint latest" in line and "\n" not in line


def test_other_errors_are_not_those_of_a_peer():
    with pytest.raises(RuntimeError, match="a bug"), names_lost_peer():
        raise RuntimeError("a bug")


@pytest.mark.parametrize(
    "precision, device, expected", [("bf16", "cpu", "eager"), ("no", "cpu", "sdpa"), ("bf16", "cuda", "sdpa")]
)
def test_a_cpu_in_bfloat16_has_eager_attention(tiny_model, precision, device, expected):
    tiny_model.set_attn_implementation("sdpa")
    choose_attention(tiny_model, SimpleNamespace(device=torch.device(device), mixed_precision=precision))
    towers = tiny_model.vision_model, tiny_model.text_model
    assert {tower.config._attn_implementation for tower in towers} == {expected}


@pytest.mark.parametrize(
    ("accelerator", "launcher", "precision"),
    [
        (processes("cpu", count=1, precision="no"), "python", ""),
        (processes("cpu", count=3), "torchrun --nproc_per_node 3", " --mixed_precision bf16"),
        (processes(count=1), "accelerate launch --num_processes 1", " --mixed_precision bf16"),
        (processes(count=8), "accelerate launch --num_processes 8", " --mixed_precision bf16"),
    ],
)
def test_the_command_repeats_the_launch_from_the_folder_of_the_run(accelerator, launcher, precision):
    expected = f"{launcher} train.py --config training_config.yaml --output_dir NEW{precision}"
    assert rerun_command(TrainingConfig(), accelerator) == expected


def test_local_paths_in_the_command_are_placeholders(tmp_path):
    config = TrainingConfig(dataset=str(tmp_path), model="user/model")
    command = rerun_command(config, processes("cpu", count=1, precision="no"))
    assert command.endswith(" --output_dir NEW --dataset DATASET")
