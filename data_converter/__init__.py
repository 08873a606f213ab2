"""Converters from raw data sets, and the synthetic world that stands in for them."""
