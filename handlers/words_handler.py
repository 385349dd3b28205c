"""TorchServe handler of an archive of word vectors: texts in, nearest words and cosines out."""

from genserve.serving.hosts.torchserve import Handler
from genserve.serving.requests.words import WordsRequest


class WordsHandler(Handler):
    """Answers questions about words and sentences by their vectors."""

    Request = WordsRequest
