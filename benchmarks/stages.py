"""Where the time of a training step goes: the functions that a step calls, each with a clock around it.

Every clock waits for the device before and after, so a stage is charged its own work, and what stages would do at the
same time they now do one after the other. The sum is therefore longer than a step without clocks, which is measured
beside it. A function inside another counts for its own stage only.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from rsmclip import train

STAGES = (
    "data wait", "host to device", "views", "image tower", "text tower", "teacher", "head and losses", "backward",
    "gradient clipping", "optimiser", "teacher update", "rest",
)  # fmt: skip


class Clock:
    """
    Exclusive seconds by stage.

    Args:
        synchronise (`Callable`): Waits for the device.
    """

    def __init__(self, synchronise: Callable[[], None]):
        self.synchronise = synchronise
        self.seconds: dict[str, float] = defaultdict(float)
        self.open: list[str] = []  # from the outermost stage to the innermost
        self.since = 0.0

    def switch(self) -> None:
        """Charges the time since the last switch to the innermost stage."""
        self.synchronise()
        now = time.perf_counter()
        if self.open:
            self.seconds[self.open[-1]] += now - self.since
        self.since = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What runs in here is a stage, but for the stages inside it."""
        self.switch()
        self.open.append(name)
        try:
            yield
        finally:
            self.switch()
            self.open.pop()

    def around(self, name: str, function: Callable) -> Callable:
        """The function with a stage around it."""

        def timed(*arguments, **options):
            with self.stage(name):
                return function(*arguments, **options)

        return timed


def places(run: "train.Run") -> list[tuple[str, object, str]]:
    """The functions of a step that are stages, as stage, owner and attribute."""
    model, student = run.model, run.accelerator.unwrap_model(run.student)
    found = [
        ("host to device", train, "send_to_device"),
        ("views", train, "render_views"),
        ("views", train, "normalise"),
        ("image tower", model.vision_model, "forward"),
        ("text tower", student, "embed_captions"),
        ("head and losses", student, "embed_views"),  # the image tower inside it is a stage of its own
        ("head and losses", train, "clip_loss"),
        ("backward", run.accelerator, "backward"),
        ("gradient clipping", run.accelerator, "clip_grad_norm_"),
        ("optimiser", run.optimizer, "step"),
        ("optimiser", run.optimizer, "zero_grad"),
    ]
    if run.teacher is not None:
        found += [("teacher", run.teacher, "forward"), ("teacher", run.centering, "forward")]
        found += [("teacher update", run.teacher, "update")]
    return found


def measure_stages(
    run: "train.Run", next_batch: Callable[[], dict], step: Callable[[dict], None], steps: int, synchronise: Callable
) -> dict[str, float]:
    """
    Mean seconds of a step by stage.

    Args:
        run (`Run`): What trains.
        next_batch (`Callable`): Gives the next batch, on the device.
        step (`Callable`): Trains on it.
        steps (`int`): Steps to measure; another before them is not.
        synchronise (`Callable`): Waits for the device.

    Returns:
        `dict[str, float]`: Seconds of each of [`STAGES`] that the run has.
    """
    clock = Clock(synchronise)
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
