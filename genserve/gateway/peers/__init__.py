"""The routes of other servers of generative models, so that their clients can be pointed here.

Each is a few lines onto a model of the server, or onto the jobs. A name that another server gives its model
stands for the first one in `asking.FAMILIES` that is registered. What a model here does not have is refused,
never passed over.
"""
