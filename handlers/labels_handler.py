"""TorchServe handler of a classifier's archive: pictures in, labels, features and explanations out."""

from genserve.serving.hosts.torchserve import Handler
from genserve.serving.requests.labels import LabelsRequest


class LabelsHandler(Handler):
    """Says what pictures show, how sure that is, and which pixels speak for it."""

    Request = LabelsRequest
