"""Clients for locust that send the same fields again and again, with another seed if there is one."""

import json
import os
import random

from locust import FastHttpUser, constant, task

PATH = os.environ["BENCH_PATH"]
FIELDS = json.loads(os.environ["BENCH_FIELDS"])


class Client(FastHttpUser):
    """One of the crowd."""

    wait_time = constant(0)

    @task
    def ask(self) -> None:
        """Send the fields; an answer counts as one."""
        fields = FIELDS | ({"seed": random.randrange(2**31)} if "seed" in FIELDS else {})
        with self.client.post(PATH, json=fields, name="1", catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
