"""The metrics as `evaluate.Metric`s. From the repository root: `evaluate.load("eval/metrics/cross_modal_recall")`."""

from rsmclip.eval.metrics.cross_modal_recall.cross_modal_recall import CrossModalRecall
from rsmclip.eval.metrics.multilingual_recall.multilingual_recall import MultilingualRecall
from rsmclip.eval.metrics.zero_shot_classification.zero_shot_classification import ZeroShotClassification

__all__ = ["CrossModalRecall", "MultilingualRecall", "ZeroShotClassification"]
