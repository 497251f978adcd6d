"""Findings: class tables, and what a report says of them."""
