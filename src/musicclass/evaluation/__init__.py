"""Evaluation: metrics with confidence intervals, significance tests, reports."""
