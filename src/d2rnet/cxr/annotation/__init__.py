"""Joins pseudo boxes and reports into ``annotation.json``."""
