"""The synthetic demo cohort."""
