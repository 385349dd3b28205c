"""Load the network of the literature's FID; read and write statistics in the files of pytorch-fid."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genserve.files import write_atomic
from genserve.measure.metrics import Moments
from genserve.progress import Chunks

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
RELEASES = "github.com/toshas/torch-fidelity/releases"
WIDTH = 2048  # of its features
CHUNK = 50  # images per forward pass


def load_inception(weights: Path) -> Any:
    """Return the network, through torch-fidelity, from a local file; nothing is downloaded.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not hold these weights.

    Source: Szegedy et al. 2015 (arXiv:1512.00567), with the weights of Heusel et al. 2017 (arXiv:1706.08500).
    """
    from torch_fidelity.feature_extractor_inceptionv3 import (  # type: ignore[import-untyped]
        FeatureExtractorInceptionV3,
    )

    if not weights.is_file():
        raise FileNotFoundError(f"there is no file {weights}; download {WEIGHTS} from {RELEASES}")
    try:
        torch.load(weights, map_location="cpu", weights_only=True)  # torch-fidelity runs a pickle's code
        return FeatureExtractorInceptionV3("inception-v3-compat", [str(WIDTH)], str(weights))
    except (RuntimeError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{weights} is not {WEIGHTS}: it holds something else") from error


@torch.no_grad()
def inception_features(network: Any, x: Tensor, chunks: Chunks = iter) -> Tensor:
    """Return the features of images x (N, C, H, W) uint8: (N, 2048), on the CPU; gray becomes colour."""
    device = network.fc.weight.device
    starts = chunks(range(0, len(x), CHUNK))
    parts = [network(x[k : k + CHUNK].expand(-1, 3, -1, -1).to(device))[0].cpu() for k in starts]
    return torch.cat(parts)


def write_statistics(path: Path, moments: Moments) -> None:
    """Write mean and covariance as the arrays mu and sigma, float64, of an .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, mu=moments.mean.numpy(), sigma=moments.covariance.numpy())
    write_atomic(path, buffer.getvalue())


def read_statistics(path: Path, width: int) -> Moments:
    """Return what `write_statistics` or pytorch-fid wrote; such a file has no number of images, so n is 0.

    Args:
        width: D, of the features to compare them with.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not hold a mean and a covariance, or of features of another width.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            mean, covariance = (torch.from_numpy(arrays[key]).double() for key in ("mu", "sigma"))
    except (ValueError, KeyError, TypeError, EOFError, OSError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no .npz file with the arrays mu and sigma") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        got = f"{tuple(mean.shape)} and {tuple(covariance.shape)}"
        raise ValueError(f"{path} must hold mu (D,) and sigma (D, D), it holds {got}")
    if len(mean) != width:
        raise ValueError(
            f"{path} holds statistics of {len(mean)} features, the network has {width} (Inception {WIDTH})"
        )
    if not (mean.isfinite().all() and covariance.isfinite().all()):
        raise ValueError(f"{path} holds NaN or infinity")
    return Moments(0, mean, covariance)
