"""Peer (c): a plain TorchServe handler, ordinary dynamic batching: requests of equal steps share a loop."""

import json
from itertools import groupby

import torch
from loop import DTYPES, images, sheet
from ts.torch_handler.base_handler import BaseHandler


class PlainHandler(BaseHandler):
    """Runs the loop of each group of its batch, one after another."""

    def initialize(self, context):
        """Load model.pt as BaseHandler does."""
        settings = context.model_yaml_config["handler"]
        torch.set_num_threads(settings["threads"])
        super().initialize(context)
        self.model = torch.jit.freeze(self.model.to(DTYPES[settings["precision"]]))

    def handle(self, data, context):
        """Answer a batch."""
        bodies = [json.loads(row["body"]) for row in data]  # config.properties leaves that to the handler
        requests = [(body["steps"], body["num_samples"], body["seed"]) for body in bodies]
        order = sorted(range(len(requests)), key=lambda i: requests[i])
        replies = [b""] * len(requests)
        for steps, members in groupby(order, key=lambda i: requests[i][0]):
            group = list(members)
            counts = [requests[i][1] for i in group]
            drawn = images(self.model, sum(counts), steps, requests[group[0]][2])
            for i, part in zip(group, drawn.split(counts), strict=True):
                replies[i] = sheet(part)
                context.set_response_content_type(i, "image/png")
        return replies
