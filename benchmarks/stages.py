"""The time of a training step by stage: each function that a step calls has a clock around it.

Every clock waits for the device before and after its stage, so that a stage is charged only for its own work. Stages
can no longer overlap, and their sum is longer than a step without clocks. The benchmark measures that step too. The
time of a stage inside another stage counts for the inner stage only.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from rsmclip import train
from rsmclip.training import loading

STAGES = ("data wait", "host to device", "views", "image tower", "text tower", "teacher", "head and losses")
STAGES += ("backward", "gradient clipping", "optimizer", "teacher update", "rest")


class Clock:
    """
    The seconds of each stage, without the stages inside it.

    Args:
        synchronize (`Callable`): Wait for the device.
    """

    def __init__(self, synchronize: Callable[[], None]):
        self.synchronize = synchronize
        self.seconds: dict[str, float] = defaultdict(float)
        self.open: list[str] = []  # from the outermost stage to the innermost
        self.since = 0.0

    def switch(self) -> None:
        """Charge the time since the last switch to the innermost stage."""
        self.synchronize()
        now = time.perf_counter()
        if self.open:
            self.seconds[self.open[-1]] += now - self.since
        self.since = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a block as a stage."""
        self.switch()
        self.open.append(name)
        try:
            yield
        finally:
            self.switch()
            self.open.pop()

    def around(self, name: str, function: Callable) -> Callable:
        """Return the function with a stage around it."""

        def timed(*arguments, **options):
            with self.stage(name):
                return function(*arguments, **options)

        return timed


def places(run: "train.Run") -> list[tuple[str, object, str]]:
    """Return the functions of a step that are stages, as stage, owner and attribute."""
    model, student = run.model, run.accelerator.unwrap_model(run.student)
    found = [
        ("host to device", loading, "send_to_device"),
        ("views", train, "render_views"),
        ("image tower", model.vision_model, "forward"),
        ("text tower", student, "embed_captions"),
        ("head and losses", student, "embed_views"),  # the image tower inside is its own stage
        ("head and losses", train, "clip_loss"),
        ("backward", run.accelerator, "backward"),
        ("gradient clipping", run.accelerator, "clip_grad_norm_"),
        ("optimizer", run.optimizer, "step"),
        ("optimizer", run.optimizer, "zero_grad"),
    ]
    if run.teacher is not None:
        found += [("teacher", run.teacher, "forward"), ("teacher", run.centering, "forward")]
        found += [("teacher update", run.teacher, "update")]
    return found


def measure_stages(
    run: "train.Run", next_batch: Callable[[], dict], step: Callable[[dict], None], steps: int, synchronize: Callable
) -> dict[str, float]:
    """
    Measure the mean seconds of a step by stage.

    Args:
        run (`Run`): The training run.
        next_batch (`Callable`): Return the next batch, on the device.
        step (`Callable`): Train on a batch.
        steps (`int`): Number of measured steps. One unmeasured step comes before them.
        synchronize (`Callable`): Wait for the device.

    Returns:
        `dict[str, float]`: Seconds of each stage in [`STAGES`] that the run has.
    """
    clock = Clock(synchronize)
    with ExitStack() as stack:
        for stage, owner, attribute in places(run):
            stack.enter_context(patch.object(owner, attribute, clock.around(stage, getattr(owner, attribute))))
        for number in range(steps + 1):
            if number == 1:
                clock.seconds.clear()
            with clock.stage("data wait"):
                batch = next_batch()
            with clock.stage("rest"):
                step(batch)
    return {stage: clock.seconds[stage] / steps for stage in STAGES if stage in clock.seconds}
