# What `genserve/__init__.py` offers, for type checkers; a test compares the two.
from genserve.drawing.local import draw as draw
from genserve.drawing.local import served_model as served_model
from genserve.images import grid as grid
from genserve.images import png as png
from genserve.images import to_pixels as to_pixels
from genserve.places import located as located
from genserve.runs.directory import load_denoiser as load_denoiser
from genserve.runs.directory import load_model as load_model
from genserve.runs.directory import model_config as model_config
from genserve.sampling.defaults import Defaults as Defaults
from genserve.sampling.noise import Streams as Streams
from genserve.sampling.samplers import Query as Query
from genserve.sampling.samplers import Sampler as Sampler
from genserve.sampling.samplers import ddim as ddim
from genserve.sampling.samplers import dpmpp_2m as dpmpp_2m
from genserve.sampling.samplers import heun as heun
from genserve.sampling.samplers import sample as sample
from genserve.sampling.schedules import karras as karras
from genserve.sampling.settings import Setting as Setting

__version__: str
