"""Adapters to libraries of others: TRL's trainer and what its log says."""
