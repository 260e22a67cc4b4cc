"""REPORT: what a run did, as pictures."""
