"""Predictions to evidence: scores with intervals beside trivial baselines, tables, plots, a page. Imports no torch."""
