"""Compile a network for CPUs: what an archive carries beside its TorchScript."""
