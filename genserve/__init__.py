"""genserve: small generative models, trained here and served from TorchServe.

A model (a denoiser), a schedule (falling noise levels) and a sampler (a generator that yields where it wants
to look): start with `genserve.diffusion`, which is all the mathematics in one file.
"""

__version__ = "0.1.0"
