"""Bytes to pixels, within limits of size, memory and time."""
