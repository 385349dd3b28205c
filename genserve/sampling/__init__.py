"""The mathematics: noise, schedules, samplers, and the engine that evaluates many of them together."""
