"""What the tabs of the page share."""

import gradio as gr

from genserve.gateway.access import administers
from genserve.gateway.page.asking import Visitor
from genserve.gateway.page.catalogue import Catalogue
from genserve.gateway.quotas import client_of
from genserve.gateway.state import Gateway

OURS = "page"  # who looks at what the server has


class Context:
    """What the tabs share.

    Args:
        gateway: that has the page.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.jobs = gateway.jobs
        self.token = gateway.options.tokens.set  # its clients need one
        self._upstream, self._quotas = gateway.upstream, gateway.quotas
        self.catalogue = Catalogue(Visitor(self._upstream, self._quotas, OURS))

    def visitor(self, request: gr.Request) -> Visitor:
        """Return who has pressed a button."""
        name = client_of(request.request.scope) if request.request else OURS
        return Visitor(self._upstream, self._quotas, name)

    def administers(self, request: gr.Request) -> bool:
        """Return whether who has pressed a button may administrate: routes of jobs refuse all others, too."""
        return request.request is not None and administers(request.request.scope)

    def address(self, request: gr.Request, name: str) -> str:
        """Return the address of a model, as the browser's machine reaches it."""
        headers = request.headers
        return f"{headers.get('x-forwarded-proto', 'http')}://{headers['host']}/predictions/{name}"
