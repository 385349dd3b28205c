"""Images that are set aside from those that are learnt from."""

import pytest
import torch

from genserve.data.pictures import DataConfig, load_images, set_aside


def test_images_set_aside_are_a_function_of_number_and_seed() -> None:
    images = load_images(DataConfig(name="digits"), "train")
    rest, kept = set_aside(images, 200, 3)
    assert (len(rest), len(kept)) == (1300, 200)
    rows = torch.cat([rest.x, kept.x]).flatten(1)
    assert rows.sum(0).equal(images.x.flatten(1).sum(0))
    again = set_aside(images, 200, 3)[1]
    assert again.x.equal(kept.x)
    assert again.y.equal(kept.y)
    assert not set_aside(images, 200, 4)[1].x.equal(kept.x)
    at = [k for k in range(1500) if (images.x[k] == kept.x[0]).all()]
    assert images.y[at[0]] == kept.y[0]
    with pytest.raises(ValueError, match="hold_out must be below the 1500 images, got 1500"):
        set_aside(images, 1500, 0)
