"""What `train.py` calls: losses, views, student and teacher, batches, checkpoints, configuration."""
