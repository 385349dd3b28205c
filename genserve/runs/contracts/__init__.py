"""Contracts of the families beside pictures along noise levels, one file each."""
