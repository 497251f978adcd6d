"""Detection and report metrics, summary tables and figures."""
