"""The servers that genserve runs in; the only place that knows their interfaces."""
