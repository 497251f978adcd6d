"""Text of reports: protocols and vocabulary."""
