"""Conversion of CT volumes to arrays of one size: grid, window, crop or pad round the body, store."""
