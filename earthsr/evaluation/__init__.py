"""Scores in physical units: mergeable statistics, baselines, figures and reports."""
