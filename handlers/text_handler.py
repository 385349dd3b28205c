"""TorchServe handler of a language model's archive: a prompt in, text out, token by token."""

from genserve.serving.hosts.torchserve import Handler
from genserve.serving.requests.text import TextRequest


class TextHandler(Handler):
    """Writes texts, and says how likely a text is."""

    Request = TextRequest
