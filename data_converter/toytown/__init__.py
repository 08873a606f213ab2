"""Toytown: a small synthetic city, ray-cast and written in the original format of real data sets."""
