"""Values that change with the step. A step is the number of steps before it."""

import math

from rsmclip.training.config import OptimizationSettings, TrainingConfig


def learning_rate_factor(config: OptimizationSettings, step: int) -> float:
    """Return the factor on all learning rates: a linear warm-up from above 0 to the peak, then a cosine to 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.max_train_steps - config.warmup_steps)
    return (1 + math.cos(math.pi * progress)) / 2


def length(config: TrainingConfig, num_rows: int) -> str:
    """Return the length of a run on `num_rows` training rows, like `320 steps, 8.0 epochs of 40 steps`."""
    per_epoch = num_rows // config.batch_size
    epochs = config.max_train_steps / per_epoch
    return f"{config.max_train_steps:,} steps, {epochs:.1f} epochs of {per_epoch:,} steps"


def is_validated(config: TrainingConfig, done: int) -> bool:
    """
    Return whether a validation follows the first `done` steps: every `evaluation_steps` steps, and after the last.

    A run of fewer than `evaluation_steps` steps has no validation, except if a figure chooses the model.
    """
    if done == config.max_train_steps:
        return config.best_figure is not None or config.evaluation_steps <= done
    return done % config.evaluation_steps == 0


def teacher_temperature(config: TrainingConfig, step: int) -> float:
    """Return the teacher's temperature in a step: a linear warm-up (Caron et al. 2021, section 3.2)."""
    progress = min(1.0, step / max(1.0, config.teacher_temperature_warmup * config.max_train_steps))
    first, last = config.warmup_teacher_temperature, config.teacher_temperature
    return first + progress * (last - first)


def teacher_momentum(config: TrainingConfig, step: int) -> float:
    """Return the teacher's momentum in a step: constant (Naeem et al. 2023) or a cosine (Caron et al. 2021)."""
    if config.final_teacher_momentum is None:
        return config.teacher_momentum
    share = (1 + math.cos(math.pi * step / config.max_train_steps)) / 2
    return config.final_teacher_momentum + share * (config.teacher_momentum - config.final_teacher_momentum)


def distillation_weight(config: TrainingConfig, step: int) -> float:
    """Return the weight of the self-distillation loss in a step: a linear warm-up."""
    return config.self_distillation_weight * min(1.0, (step + 1) / max(1, config.self_distillation_warmup_steps))
