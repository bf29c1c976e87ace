"""Training: configuration, losses, schedule, the resumable loop, evaluation and the checkpoint folder."""
