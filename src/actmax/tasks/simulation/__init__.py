"""t-test against logistic regression on simulated data, where the truth is known; no model."""
