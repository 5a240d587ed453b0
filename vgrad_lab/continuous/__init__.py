"""The continuous floor (NumPy): shift policies, rollouts, costates, estimators, oracles."""
