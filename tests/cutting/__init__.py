"""Runs that are cut at any turn of the loop, in every way, and what must then hold."""
