"""Starts the real servers that the black-box suites talk to, and the programs under test."""
