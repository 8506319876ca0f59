"""Telling a URL that a run has ended: which URLs, signed how, sent by whom, tried how often."""
