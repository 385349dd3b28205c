"""The clients, for locust: each asks again as soon as it has its answer."""

import os
import random

from locust import FastHttpUser, constant, task

PATH = os.environ["BENCH_PATH"]
STEPS = [int(value) for value in os.environ["BENCH_STEPS"].split("-")]  # fewest and most
SAMPLES = [int(value) for value in os.environ["BENCH_SAMPLES"].split("-")]


class Client(FastHttpUser):
    """One of the crowd."""

    wait_time = constant(0)

    @task
    def draw(self) -> None:
        """Ask for images; the statistics are kept by how many."""
        n, steps = random.randint(*SAMPLES), random.randint(*STEPS)
        fields = {"num_samples": n, "steps": steps, "seed": random.randrange(2**31)}
        with self.client.post(PATH, json=fields, name=str(n), catch_response=True) as answer:
            if answer.status_code != 200 or not answer.content.startswith(b"\x89PNG"):
                answer.failure(f"status {answer.status_code}")
