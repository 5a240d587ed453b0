"""The checkpoints floor (transformers): ladders, measures, GRPO, records, reports."""
