"""Converters from raw data sets, and a synthetic data set."""
