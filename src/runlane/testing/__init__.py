"""Helpers for tests of applications, and the contract suites of every backend."""
