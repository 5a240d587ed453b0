"""The discrete floor (NumPy): token trees, on which every expectation over answers and groups is a finite sum."""
