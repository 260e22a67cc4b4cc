"""Diagnose a run without labels: measure on a probe set, and derive verdicts from the measurements."""
